import { button, element } from "/shared/dom.js";
import { measurementsOf, nameOf, sentence, valueText, whenMeasured, whoMeasured } from "/shared/observations.js";
import { isResult } from "./report.js";
import { replaceItems } from "./replacing.js";

/** The measurements that were shared in the open report, newest last, with the selection. New ones are announced. */
export class Measurements {
  #t;
  #act;
  #known = new Set();
  /** The ids of the last announced ones. */
  #spokenOf = new Set();
  #anchor = "";
  #list = document.querySelector('[data-test="measurements"]');
  #hint = document.querySelector('[data-test="measurements-empty"]');
  #announced = document.querySelector('[data-test="announced"]');

  /**
   * @param {(key: string, values?: object) => string} t
   * @param {{select(references: string[]): void, insert(text: string): void}} act actions of the buttons
   */
  constructor(t, act) {
    this.#t = t;
    this.#act = act;
    document.addEventListener("language", () => this.#hush());
  }

  /**
   * @param {string} anchor of the open report; "" for none
   * @param {object[]} content shared with it
   * @param {Set<string>} selected references
   * @param {object|null} signed the report, once it is signed
   */
  render(anchor, content, selected, signed) {
    const shown = anchor ? measurementsOf(content) : [];
    this.#announce(anchor, shown);
    this.#hint.textContent = this.#t(anchor ? "noMeasurements" : "measurementsNeedReport");
    this.#hint.hidden = shown.length > 0;
    replaceItems(
      this.#list,
      shown.map((each) => this.#item(each, selected, signed)),
    );
  }

  #announce(anchor, shown) {
    const news = shown.filter(({ id }) => !this.#known.has(id));
    const before = this.#anchor === anchor;
    const isGone = [...this.#spokenOf].some((id) => !shown.some((each) => each.id === id));
    if (!before || isGone) this.#hush();
    this.#anchor = anchor;
    this.#known = new Set(shown.map(({ id }) => id));
    if (before && news.length) {
      this.#spokenOf = new Set(news.map(({ id }) => id));
      this.#announced.textContent = news
        .map((each) => this.#t("arrived", { measurement: sentence(each, this.#t) }))
        .join(" ");
    }
  }

  /** An announced measurement is no longer shown: remove its announcement, so that screen readers do not find it. */
  #hush() {
    this.#spokenOf.clear();
    this.#announced.textContent = "";
  }

  #item(observation, selected, signed) {
    const reference = `Observation/${observation.id}`;
    const pressed = selected.has(reference);
    const measurement = sentence(observation, this.#t);
    const isLate = signed && !isResult(signed, observation);
    const marked = { "class": "badge badge-warn", "data-test": "measurement-late" };
    const late = isLate && element("span", marked, this.#t("late"));
    const insert = button(this.#t("insert"), () => this.#act.insert(measurement), {
      test: "measurement-insert",
      label: this.#t("insertThis", { measurement }),
    });
    return element(
      "li",
      {
        class: "list-item measurement",
        "data-test": "measurement",
        "data-id": observation.id,
        "data-selected": pressed ? "yes" : "no",
      },
      this.#choice(observation, pressed, () => this.#act.select(pressed ? [] : [reference])),
      late,
      !signed && insert,
    );
  }

  #choice(observation, pressed, run) {
    const by = [whoMeasured(observation), whenMeasured(observation)].filter(Boolean).join(", ");
    return element(
      "button",
      {
        type: "button",
        class: "measurement-choice",
        "data-test": "measurement-select",
        "aria-pressed": String(pressed),
        click: run,
      },
      element(
        "span",
        { class: "measurement-value" },
        nameOf(observation, this.#t),
        " ",
        element("strong", {}, valueText(observation)),
      ),
      element("span", { class: "hint" }, by),
    );
  }
}
