import { place } from "/shared/dom.js";
import { dateText, humanName } from "/shared/fhir.js";
import { isSigned, sharedText } from "./report.js";

const FIELDS = ["findings", "conclusion"];

/** The text of the open report: as shared, with changes that were written here. */
export class Editor {
  #t;
  #drafts;
  #fields = Object.fromEntries(FIELDS.map((name) => [name, document.getElementById(name)]));
  #last = this.#fields.findings;
  #id = "";

  /** @param {(key: string, values?: object) => string} t @param {import("./drafts.js").Drafts} drafts */
  constructor(t, drafts) {
    this.#t = t;
    this.#drafts = drafts;
    for (const field of Object.values(this.#fields)) {
      field.addEventListener("focus", () => (this.#last = field));
      field.addEventListener("input", () => this.#drafts.write(this.#id, field.id, field.value));
    }
  }

  /** @returns {{findings: string, conclusion: string}} */
  get text() {
    return Object.fromEntries(FIELDS.map((name) => [name, this.#fields[name].value]));
  }

  /**
   * @param {import("./desk.js").OpenReport | null} open
   * @param {object} current the report as last shared
   * @param {object[]} content shared with it
   * @param {{isHeld: boolean, isUnsure: boolean}} how `isHeld`: the text is being sent, and cannot be changed.
   *   `isUnsure`: it is unknown whether the report is signed
   */
  render(open, current, content, { isHeld, isUnsure }) {
    place("report").hidden = !open;
    place("no-report").hidden = Boolean(open);
    this.#renderStatus(open && current.status);
    this.#id = open?.resource.id ?? "";
    if (!open) return;
    const signed = isSigned(current);
    place("sign").hidden = place("save-preliminary").hidden = signed;
    place("close-report").textContent = this.#t(signed || isUnsure ? "closeSigned" : "closeReport");
    place("report-about").textContent = this.about(open);
    const text = this.#drafts.text(this.#id, sharedText(current, content));
    for (const name of FIELDS) {
      // Setting the value moves the cursor: set it only for another text.
      if (this.#fields[name].value !== text[name]) this.#fields[name].value = text[name];
      this.#fields[name].readOnly = signed || isHeld;
    }
  }

  /** Moves the keyboard focus to the open report's text, else to the heading. */
  focus() {
    (this.#id ? this.#fields.findings : document.getElementById("report-title")).focus();
  }

  /** @param {string} text is inserted at the last cursor position, with blanks around it */
  insert(text) {
    const field = this.#last;
    if (field.readOnly) return;
    const { selectionStart: start, selectionEnd: end, value } = field;
    const before = /\S$/.test(value.slice(0, start)) ? " " : "";
    const after = /^\S/.test(value.slice(end)) ? " " : "";
    field.focus();
    field.setRangeText(`${before}${text}${after}`, start, end, "end");
    this.#drafts.write(this.#id, field.id, field.value);
  }

  /** @param {import("./desk.js").OpenReport} open @returns {string} the study, its time, and its patient */
  about({ resource, studies, patient }) {
    const study = studies.map((each) => [each.description, dateText(each.started)].filter(Boolean).join(", "));
    return [study.join("; ") || resource.code?.text, patient && humanName(patient)].filter(Boolean).join(" · ");
  }

  #renderStatus(status) {
    const badge = place("report-status");
    badge.hidden = !status;
    badge.dataset.status = status || "";
    badge.textContent = status ? this.#t(`status.${status}`) : "";
    badge.classList.toggle("badge-ok", isSigned({ status }));
    badge.classList.toggle("badge-warn", status === "partial" || status === "preliminary");
  }
}
