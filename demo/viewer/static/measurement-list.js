/** The list of measurements beside the image. */

import { button, element, icon } from "/shared/dom.js";
import { hubWords } from "/shared/hub-words.js";

export class MeasurementList {
  #list;
  #t;
  #measurements;
  #words;

  /**
   * @param {HTMLElement} list
   * @param {(key: string, values?: object) => string} t
   * @param {import("./measurements.js").Measurements} measurements
   * @param {{length: (item: object) => string, place: (item: object) => string, canShare: () => boolean,
   *   heading: HTMLElement}} words
   */
  constructor(list, t, measurements, words) {
    this.#list = list;
    this.#t = t;
    this.#measurements = measurements;
    this.#words = words;
    list.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Render all. The focus stays at its button. */
  render() {
    const focus = this.#list.contains(document.activeElement) ? document.activeElement.dataset.key : "";
    this.#list.replaceChildren(...this.#measurements.items.map((item) => this.#row(item)));
    if (!focus) return;
    const again = [...this.#list.querySelectorAll("[data-key]")].find((each) => each.dataset.key === focus);
    (again ?? this.#list.querySelector("button") ?? this.#words.heading).focus();
  }

  #row(item) {
    const { id, state, problem } = item;
    const selected = id === this.#measurements.selected;
    const length = this.#words.length(item);
    return element(
      "li",
      {
        class: `measurement${selected ? " current" : ""}`,
        "data-test": "measurement",
        "data-id": id,
        "data-state": state,
      },
      this.#choice(item, selected, length),
      state !== "signed" && this.#delete(item, length),
      (state !== "shared" || item.isLate) && this.#unshared(item, length),
      problem &&
        element("p", { class: "alert", role: "alert" }, this.#t("measurement.failed", { why: hubWords(problem) })),
    );
  }

  #choice(item, selected, length) {
    return element(
      "button",
      {
        type: "button",
        class: "measurement-choice",
        "aria-pressed": String(selected),
        "data-key": `select ${item.id}`,
        "data-test": "measurement-select",
        click: () => this.#measurements.select(selected ? "" : item.id),
      },
      element(
        "span",
        { class: "list-text" },
        element("span", { "data-test": "measurement-length" }, length),
        element("span", {}, this.#words.place(item)),
        item.by && element("span", {}, item.by),
      ),
    );
  }

  #unshared(item, length) {
    return element(
      "div",
      { class: "measurement-unshared" },
      element(
        "span",
        { class: `badge ${item.state === "signed" ? "badge-ok" : "badge-warn"}` },
        this.#t(`measurement.${this.#stateOf(item)}`),
      ),
      this.#share(item, length),
    );
  }

  /** A shared measurement that is only here is marked as unsaved, unless the record could not be read. */
  #stateOf({ state, isLate, wasShared }) {
    if (isLate) return "late";
    if (state !== "local" || !wasShared) return state;
    return this.#measurements.unreadable ? "unknown" : "left";
  }

  #share({ id, state }, length) {
    if (state !== "local" || !this.#words.canShare()) return null;
    const options = { label: this.#t("measurement.shareThis", { length }), kind: "quiet", test: "measurement-share" };
    return keyed(
      button(this.#t("measurement.share"), () => this.#measurements.share(id), options),
      `share ${id}`,
    );
  }

  #delete({ id }, length) {
    const label = this.#t("measurement.deleteThis", { length });
    const made = element(
      "button",
      {
        type: "button",
        class: "button button-quiet",
        "aria-label": label,
        title: label,
        "data-test": "measurement-delete",
        click: () => this.#measurements.remove(id),
      },
      icon("clear"),
    );
    return keyed(made, `delete ${id}`);
  }

  #key(event) {
    const id = event.target.closest("[data-id]")?.dataset.id;
    if (event.key === "Delete" && id) this.#measurements.remove(id);
  }
}

/** Identifies a button after the list was rendered again. */
function keyed(made, key) {
  made.dataset.key = key;
  return made;
}
