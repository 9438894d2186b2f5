import { button, element } from "/shared/dom.js";
import { dateText } from "/shared/fhir.js";
import { isSigned } from "./report.js";
import { replaceItems } from "./replacing.js";

/** The patient's studies, with their reports and the buttons that open them. */
export class Worklist {
  #t;
  #desk;
  #record;
  #open;
  #list = document.querySelector('[data-test="studies"]');
  #hint = document.querySelector('[data-test="work-empty"]');

  /**
   * @param {(key: string, values?: object) => string} t
   * @param {import("./desk.js").Desk} desk
   * @param {import("./record.js").Record} record
   * @param {{fresh(study: object): void, existing(report: object): void}} open actions of the buttons
   */
  constructor(t, desk, record, open) {
    this.#t = t;
    this.#desk = desk;
    this.#record = record;
    this.#open = open;
  }

  /** Shows the record as it is now. */
  render() {
    const studies = this.#studies();
    this.#hint.textContent = this.#emptiness(studies);
    this.#hint.hidden = !this.#hint.textContent;
    replaceItems(
      this.#list,
      studies.map((study) => this.#item(study)),
    );
  }

  /** The FHIR server may not have the current study. */
  #studies() {
    const { study } = this.#desk;
    const { studies, state } = this.#record;
    return study && state !== "reading" && !studies.some(({ id }) => id === study.id) ? [study, ...studies] : studies;
  }

  #emptiness(studies) {
    const { state, failure } = this.#record;
    if (state === "failed") return failure;
    if (state === "none") return this.#t("noPatient");
    if (state === "reading") return this.#t("reading");
    return studies.length ? "" : this.#t("noStudies");
  }

  #item(study) {
    const current = study.id === this.#desk.study?.id;
    const name = study.description ?? this.#t("study");
    const about = [study.modality?.map((each) => each.code).join(", "), dateText(study.started)]
      .filter(Boolean)
      .join(" · ");
    const fresh = this.#button("newReport", "new-report", name, () => this.#open.fresh(study));
    return element(
      "li",
      { class: "list-item study", "data-test": "study", "data-id": study.id, "aria-current": current && "true" },
      element(
        "div",
        { class: "study-about" },
        element(
          "p",
          { class: "study-name" },
          name,
          current && element("span", { class: "badge badge-ok" }, this.#t("inContext")),
        ),
        element("p", { class: "hint" }, about),
        fresh,
      ),
      ...this.#record.reportsOn(study).map((report) => this.#report(report, name)),
    );
  }

  #report(report, name) {
    const open = report.id === this.#desk.report?.resource.id;
    const status = element("span", { class: "badge" }, this.#t(`status.${report.status}`));
    const choice = open
      ? element("span", { class: "badge badge-ok" }, this.#t("reportIsOpen"))
      : !isSigned(report) && this.#button("openReport", "open-report", name, () => this.#open.existing(report));
    return element(
      "div",
      { class: "study-report", "data-test": "patient-report", "data-id": report.id },
      status,
      choice,
    );
  }

  #button(key, test, study, run) {
    return button(this.#t(key), run, { test, label: this.#t(`${key}On`, { study }) });
  }
}
