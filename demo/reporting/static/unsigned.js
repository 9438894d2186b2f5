import { button, element } from "/shared/dom.js";
import { replaceItems } from "./replacing.js";

/**
 * Text that was written here and is missing in the signed report: the user can copy it while the page is open. It is
 * shown only with its own patient.
 */
export class Unsigned {
  #t;
  #changed;
  /** By the report's id. @type {Map<string, {patient: string, about: string, text: string}>} */
  #texts = new Map();
  #place = document.querySelector('[data-test="unsigned"]');
  #list = document.querySelector('[data-test="unsigned-list"]');
  #shown = "";

  /**
   * @param {(key: string, values?: object) => string} t
   * @param {() => void} changed called after a text was discarded
   */
  constructor(t, changed) {
    this.#t = t;
    this.#changed = changed;
  }

  /** @returns {boolean} whether text would be lost with the page */
  get any() {
    return this.#texts.size > 0;
  }

  /**
   * @param {object} report the signed one
   * @param {string} about the report, for users
   * @param {string[]} texts
   */
  add(report, about, texts) {
    const before = this.#texts.get(report.id);
    const text = [before?.text, ...texts].filter(Boolean).join("\n\n");
    this.#texts.set(report.id, { patient: report.subject.reference, about, text });
  }

  /** @param {string} patient reference of the shown patient; "" for none */
  render(patient) {
    const texts = [...this.#texts].filter(([, each]) => each.patient === patient);
    const now = JSON.stringify([this.#t("unsigned"), texts]);
    if (now === this.#shown) return; // rendering again would clear the user's selection
    this.#shown = now;
    this.#place.hidden = !texts.length;
    replaceItems(
      this.#list,
      texts.map(([id, each]) => this.#item(id, each)),
    );
  }

  #item(id, { about, text }) {
    const label = this.#t("unsignedOf", { about });
    const throwAway = () => {
      this.#texts.delete(id);
      this.#changed();
    };
    const named = { "aria-label": label, "data-test": "unsigned-text" };
    const area = element("textarea", { readonly: true, rows: 4, ...named });
    area.value = text;
    return element(
      "li",
      { "class": "field", "data-id": id },
      element("p", { class: "hint" }, label),
      area,
      button(this.#t("throwAway"), throwAway, {
        kind: "quiet",
        test: "unsigned-throw-away",
        label: this.#t("throwAwayThis", { about }),
      }),
    );
  }
}
