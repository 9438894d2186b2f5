/**
 * @typedef {object} OpenReport
 * @property {object} resource DiagnosticReport, as opened
 * @property {object[]} studies
 * @property {object | null} patient
 */

/** The content of the desk: the session's patient and study, and the open report. Events change it. */
export class Desk {
  /** @type {object | null} */ patient = null;
  /** @type {object | null} */ study = null;
  /** @type {OpenReport | null} */ report = null;
  /** References of the selected resources. @type {Set<string>} */ selected = new Set();
  #changed;

  /**
   * @param {(what: "moved" | "closed" | "", report: OpenReport | null) => void} changed called after every change.
   *   "moved": the session opened another patient, "closed": the report was closed; `report` is the one that was left
   */
  constructor(changed) {
    this.#changed = changed;
  }

  /** @returns {string} "DiagnosticReport/r1"; "" when no report is open */
  get anchor() {
    return this.report ? `DiagnosticReport/${this.report.resource.id}` : "";
  }

  openPatient(event) {
    this.#turnTo(event.resource("patient"));
  }

  closePatient(event) {
    if (event.anchor === `Patient/${this.patient?.id}`) this.clear();
  }

  /** Home-open, or a close of the patient. */
  clear() {
    this.#turnTo(null);
  }

  openStudy(event) {
    this.study = event.resource("study");
    this.#turnTo(event.resource("patient") ?? subjectOf(this.study));
  }

  closeStudy(event) {
    if (event.anchor !== `ImagingStudy/${this.study?.id}`) return;
    this.study = null;
    this.#changed("", null);
  }

  openReport(event) {
    const resource = event.resource("report");
    const studies = event.context.filter((item) => ["study", "imagingstudy"].includes(item.key) && item.resource).map((item) => item.resource);
    const patient = event.resource("patient") ?? subjectOf(resource);
    if (this.anchor !== event.anchor) this.selected.clear();
    this.report = { resource, studies, patient };
    this.study = studies[0] ?? this.study;
    this.#turnTo(patient);
  }

  closeReport(event) {
    if (event.anchor !== this.anchor) return;
    const { report } = this;
    this.#leaveReport();
    this.#changed(event.own ? "" : "closed", report);
  }

  select(event) {
    if (event.anchor !== this.anchor) return;
    const items = event.context.filter((item) => item.key === "select");
    this.selected = new Set(items.map((item) => item.reference?.reference).filter(Boolean));
    this.#changed("", null);
  }

  #turnTo(patient) {
    const left = this.report && this.report.patient?.id !== patient?.id ? this.report : null;
    if (left) this.#leaveReport();
    if (this.study && subjectOf(this.study)?.id !== patient?.id) this.study = null;
    this.patient = patient;
    this.#changed(left ? "moved" : "", left);
  }

  #leaveReport() {
    this.report = null;
    this.selected.clear();
  }
}

/** @param {object} resource @returns {object | null} the patient in the resource itself, where it has one */
function subjectOf(resource) {
  const [, id] = /(?:^|\/)Patient\/([^/]+)$/.exec(resource?.subject?.reference ?? "") ?? [];
  return id ? { resourceType: "Patient", id } : null;
}
