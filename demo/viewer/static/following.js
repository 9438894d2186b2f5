/** Open contexts of the session, and which of them this viewer shows. */

import { Refuse } from "/fhircast-client/index.js";

/**
 * The shown patient, alone or with a study. `patientOpen`: whether the patient was not closed meanwhile.
 * @typedef {{patient: object|null, patientReference: string, patientOpen: boolean, study: null|{ reference: string,
 *   study: import("./dicom.js").Study, series: import("./dicom.js").Series[]}}} Shown
 */

export class Following {
  /** @type {Shown} */
  shown = nothing();
  /** The open reports, each with the references of its studies. @type {Map<string, string[]>} */
  #reports = new Map();
  #archive;
  #studies;
  #page;

  /**
   * @param {import("./archive.js").Archive} archive @param {import("./studies.js").Studies} studies
   * @param {{show: (shown: Shown) => void, loading: (event: object) => void,
   *   refuse: (event: object, reason: Error) => void}} page
   */
  constructor(archive, studies, page) {
    this.#archive = archive;
    this.#studies = studies;
    this.#page = page;
  }

  /** The report in which measurements of the shown study are shared. @returns {string|null} its reference */
  get report() {
    const study = this.shown.study?.reference;
    const about = [...this.#reports].filter(([, studies]) => !studies.length || studies.includes(study));
    return about.at(-1)?.[0] ?? null;
  }

  /** Whether any report is open. */
  get anyReport() {
    return this.#reports.size > 0;
  }

  /** Show none: the opened context cannot be shown here, and the earlier one is another's. */
  leave() {
    this.shown = nothing();
  }

  openPatient(event) {
    if (this.shown.study && this.shown.patientReference === event.anchor) {
      this.shown = { ...this.shown, patientOpen: true };
      return;
    }
    this.#show({ patient: event.resource("patient"), patientReference: event.anchor, patientOpen: true, study: null });
  }

  /** A study stays open until its own close. */
  closePatient(event) {
    if (this.shown.patientReference !== event.anchor) return;
    if (this.shown.study) this.shown = { ...this.shown, patientOpen: false };
    else this.#show(nothing());
  }

  async openStudy(event) {
    await this.#open(event, event.resource("study"), event.local);
  }

  closeStudy(event) {
    if (this.shown.study?.reference !== event.anchor) return;
    this.#show(this.shown.patientOpen ? { ...this.shown, study: null } : nothing());
  }

  /** Hubs that derive opens have sent the study's open before; others have not. */
  async openReport(event) {
    const study = event.resource("study");
    if (study && `ImagingStudy/${study.id}` !== this.shown.study?.reference) {
      await this.#open(event, study, await this.#studies.findStudy(event));
    }
    const items = event.context.filter((item) => item.resource?.resourceType === "ImagingStudy");
    this.#reports.delete(event.anchor);
    this.#reports.set(
      event.anchor,
      items.map((item) => `ImagingStudy/${item.resource.id}`),
    );
  }

  closeReport(event) {
    this.#reports.delete(event.anchor);
  }

  closeAll() {
    this.#reports.clear();
    this.#show(nothing());
  }

  async #open(event, study, local) {
    const reference = `ImagingStudy/${study.id}`;
    if (this.shown.study?.reference === reference && this.shown.study.study.uid === local.id) return;
    this.#page.loading(event);
    const found = await this.#fetched(event, local.id);
    this.#show({
      patient: found.study.patient,
      patientReference: patientOf(event, study),
      patientOpen: true,
      study: { reference, ...found },
    });
  }

  async #fetched(event, uid) {
    try {
      return await this.#archive.study(uid);
    } catch (error) {
      this.#page.refuse(event, error);
      throw new Refuse(error.message);
    }
  }

  #show(shown) {
    this.shown = shown;
    this.#page.show(shown);
  }
}

/** @returns {Shown} */
function nothing() {
  return { patient: null, patientReference: "", patientOpen: false, study: null };
}

function patientOf(event, study) {
  const patient = event.resource("patient");
  return patient ? `Patient/${patient.id}` : (study.subject?.reference ?? "");
}
