import { isResult, isSigned } from "./report.js";

/** The FHIR server's data about the session's patient: studies, and reports that may be edited. */
export class Record {
  /** @type {"none" | "reading" | "ready" | "failed"} */ state = "none";
  /** A sentence, where the state is "failed". */ failure = "";
  patientId = "";
  patient = null;
  /** @type {object[]} */ studies = [];
  #reports = [];
  #observations = [];
  #made = new Map();
  #fhir;
  #changed;

  /** @param {object} fhir of startApp @param {() => void} changed called after every change */
  constructor(fhir, changed) {
    this.#fhir = fhir;
    this.#changed = changed;
  }

  /** @param {string} patientId "" for none */
  async turnTo(patientId) {
    if (patientId === this.patientId && this.state !== "failed") return;
    Object.assign(this, { patientId, patient: null, studies: [], state: patientId ? "reading" : "none" });
    this.#reports = this.#observations = [];
    if (patientId) await this.readAgain().catch(() => {}); // the state shows it
  }

  /** Reads all again. Until then, the earlier data stays. Throws FhirError. */
  async readAgain() {
    const { patientId } = this;
    if (!patientId) return;
    try {
      const read = await this.#read(patientId);
      if (this.patientId !== patientId) return; // another patient was opened meanwhile
      [this.patient, this.studies, this.#reports, this.#observations] = read;
      this.state = "ready";
    } catch (error) {
      const isNeeded = this.patientId === patientId && this.state !== "ready";
      if (isNeeded) Object.assign(this, { state: "failed", failure: error.message });
      throw error;
    } finally {
      this.#changed();
    }
  }

  #read(patientId) {
    const patient = patientId;
    return Promise.all([
      this.#fhir.read(`Patient/${patientId}`),
      this.#fhir.search("ImagingStudy", { patient }),
      this.#fhir.search("DiagnosticReport", { patient }),
      this.#fhir.search("Observation", { patient }),
    ]);
  }

  /** @param {string} id @returns {Promise<object>} the ImagingStudy. Throws FhirError. */
  async study(id) {
    return this.studies.find((each) => each.id === id) ?? this.#fhir.read(`ImagingStudy/${id}`);
  }

  /** @param {string} id @returns {object|null|undefined} the server's report; undefined where unknown */
  kept(id) {
    return this.state === "ready" ? (this.#reports.find((report) => report.id === id) ?? null) : undefined;
  }

  /** @param {object} report of the server @returns {object[]} the report's Observations */
  resultsOf(report) {
    return this.#observations.filter((each) => isResult(report, each));
  }

  /** @param {object} report as opened, shared or signed here */
  remember(report) {
    this.#made.set(report.id, report);
  }

  /** @param {object} study @returns {object[]} its reports, with those made here */
  reportsOn(study) {
    const reports = new Map(this.#reports.map((each) => [each.id, each]));
    for (const [id, report] of this.#made) if (!isSigned(reports.get(id))) reports.set(id, report);
    return [...reports.values()].filter((report) => studyIds(report).includes(study.id));
  }
}

/** @param {object} report DiagnosticReport @returns {string[]} */
export function studyIds(report) {
  return (report.imagingStudy ?? []).map((each) => each.reference?.split("/").pop()).filter(Boolean);
}
