/** The measurements of this window: those of the open report, those only here, and those of signed reports. */

import { fromObservation, toObservation } from "./observation.js";

const PATIENCE = 1000; // ms
const PAUSE = 50;

/**
 * @typedef {import("./observation.js").Measurement & {
 *   state: "local"|"sharing"|"shared"|"signed", problem: string, study: string, isLate?: boolean, wasShared?: boolean}} Item
 *   `study` is a reference. `isLate`: the report is signed without it. `wasShared`: in a report, though it is only here now
 */

const SIGNED = ["final", "amended", "corrected", "appended"];

/**
 * Events: "change"; with a measurement as `detail`: "added" (here, by hand), "arrived" and "gone" (by other
 * applications), and "selected" (null for none).
 */
export class Measurements extends EventTarget {
  /** The id of the selected measurement. */
  selected = "";
  #client;
  #following;
  #about;
  /**
   * Those made here and in no record, by id. Shared ones too, until the record keeps them.
   * @type {Map<string, Item>}
   */
  #own = new Map();
  /** By id. @type {Map<string, Item>} */
  #shared = new Map();
  /** Those in the record, by id. @type {Map<string, Item>} */
  #signed = new Map();
  /** Why the record could not be read, as a sentence; "" where it was. */
  unreadable = "";
  /** The study, and the open report, for which the record was read. */
  #recalled = { study: null, report: null };
  #isRecalling = false;
  #fhir;
  #report = null;
  #read = null;

  /**
   * @param {import("/fhircast-client/index.js").FHIRcastClient} client
   * @param {import("./following.js").Following} following
   * @param {ReturnType<typeof import("/shared/fhir.js").fhirServer>} fhir the record's
   * @param {{user: {name: string, fhirUser: string}, device: string}} about author of the measurements
   */
  constructor(client, following, fhir, about) {
    super();
    this.#fhir = fhir;
    this.#client = client;
    this.#following = following;
    this.#about = about;
  }

  /** Those of the shown study and of its report. @returns {Item[]} */
  get items() {
    const study = this.#following.shown.study?.reference;
    const own = [...this.#own.values()].filter((each) => each.study === study && this.#isOnlyHere(each));
    const signed = [...this.#signed.values()].filter((each) => !this.#shared.has(each.id));
    return [...signed, ...this.#shared.values(), ...own];
  }

  /** The record may keep a shared measurement: until the record has answered, it is not marked. */
  #isOnlyHere({ id, wasShared }) {
    return !this.#shared.has(id) && !this.#signed.has(id) && !(wasShared && this.#isRecalling);
  }

  /** Whether the report is current in the session: the hub accepts selects only then. */
  get isCurrent() {
    return this.#report !== null && this.#client.context?.anchor === this.#report;
  }

  /** @param {string} id @returns {Item|null} */
  item(id) {
    return this.items.find((each) => each.id === id) ?? null;
  }

  /** @param {import("./observation.js").Measurement} measured is shared at once where a report is open */
  add(measured) {
    const study = this.#following.shown.study.reference;
    this.#own.set(measured.id, { ...measured, study, state: "local", problem: "" });
    this.selected = measured.id;
    this.#tell("added", measured);
    this.#changed();
    return this.#following.report && this.share(measured.id);
  }

  /** @param {string} id of a measurement that is only here */
  async share(id) {
    const item = this.#own.get(id);
    const report = this.#following.report;
    if (!report || item?.state !== "local") return;
    this.#mark(id, "sharing");
    const { patientReference: patient } = this.#following.shown;
    const observation = toObservation(item, {
      ...this.#about,
      study: item.study,
      patient,
      issued: new Date().toISOString(),
    });
    try {
      await this.#client.update(() => [observation], { anchor: report });
      this.#own.set(id, { ...item, state: "local", problem: "", wasShared: true });
      this.#keep(report, observation);
    } catch (error) {
      this.#mark(id, "local", error.message);
    }
  }

  /** @param {string} id */
  async remove(id) {
    const item = this.item(id);
    if (!item || item.state === "signed") return;
    if (item.state !== "shared") {
      this.#own.delete(id);
      return this.#changed();
    }
    const reference = `Observation/${id}`;
    try {
      await this.#client.update(() => [reference], { anchor: this.#report });
      this.#shared.delete(id);
      this.#own.delete(id);
    } catch (error) {
      if (this.#shared.has(id)) this.#shared.set(id, { ...item, problem: error.message });
    }
    this.#changed();
  }

  /**
   * Select a measurement, here and, where it is shared and its report current, in every window.
   * @param {string} id "" for none
   */
  async select(id) {
    const before = this.item(this.selected);
    this.#choose(id);
    if (!this.isCurrent || (this.item(id) ?? before)?.state !== "shared") return;
    const items = this.item(id)?.state === "shared" ? [`Observation/${id}`] : [];
    try {
      await this.#client.select(items, { anchor: this.#report });
    } catch (error) {
      const item = this.#shared.get(id);
      if (item) this.#shared.set(id, { ...item, problem: error.message });
      this.#changed();
    }
  }

  /** Another window has selected a measurement. @param {object} event a DiagnosticReport-select */
  chosen(event) {
    if (event.anchor !== this.#report) return;
    const references = event.context
      .filter((item) => item.key.toLowerCase() === "select")
      .map((item) => item.reference?.reference ?? `${item.resource?.resourceType}/${item.resource?.id}`);
    const id = references.map((each) => each.split("/").at(-1)).find((each) => this.#shared.has(each));
    this.#choose(id ?? "");
  }

  /** Another window has deleted measurements. @param {object} event a DiagnosticReport-update */
  updated(event) {
    for (const { request } of event.resource("updates")?.entry ?? []) {
      if (request?.method === "DELETE") this.#own.delete(request.url?.split("/").at(-1));
    }
  }

  /** Read the content of the relevant report again, without announcements for another report than before. */
  async refresh() {
    const report = this.#following.report;
    const isOther = report !== this.#report;
    if (isOther) {
      this.#report = report;
      this.#shared.clear();
      this.#read = null;
    }
    this.#recall();
    if (isOther) this.#changed();
    if (!report) return;
    const content = await this.#content(report);
    if (content && report === this.#report && content !== this.#read) this.#take(content);
  }

  /** The record's measurements of the study. Read when the study is shown, and when a report was opened or closed. */
  async #recall() {
    const { study: shown, patientReference: patient } = this.#following.shown;
    const asked = { study: shown?.reference ?? null, report: this.#report };
    const before = this.#recalled;
    if (asked.study === before.study && asked.report === before.report) return;
    if (asked.study !== before.study) this.#signed.clear();
    this.#recalled = asked;
    this.unreadable = "";
    this.#isRecalling = Boolean(asked.study);
    if (asked.study) await this.#recallSigned(asked, patient);
    if (asked !== this.#recalled) return; // another study is shown
    if (this.unreadable) this.#recalled = { study: asked.study, report: undefined }; // tried again at the next occasion
    this.#isRecalling = false;
    this.#changed();
  }

  async #recallSigned(asked, patient) {
    try {
      const found = await this.#fhir.search("Observation", { "derived-from": asked.study });
      if (asked !== this.#recalled) return;
      const ours = found.filter((each) => isMeasurement(each) && each.subject?.reference === patient);
      this.#signed = new Map(ours.map((each) => [each.id, { ...sharedItem(each), state: "signed" }]));
      for (const id of this.#signed.keys()) this.#own.delete(id);
    } catch (error) {
      if (asked === this.#recalled) this.unreadable = error.message;
    }
  }

  /** The client fetches content after an open. Ask again where it failed. */
  async #content(report) {
    for (let waited = 0; waited < PATIENCE && report === this.#report; waited += PAUSE) {
      const known = this.#client.contexts.get(report)?.content;
      if (known) return known;
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
    const current = await this.#client.fetch().catch(() => null);
    return current?.anchor === report ? current.content : null;
  }

  #take(content) {
    const first = !this.#read;
    const before = this.#shared;
    this.#read = content;
    const found = Object.values(content).filter(isMeasurement);
    const isLate = lateFor(content[this.#report]);
    this.#shared = new Map(found.map((each) => [each.id, { ...sharedItem(each), isLate: isLate(each) }]));
    for (const id of this.#shared.keys()) {
      if (!first && !before.has(id) && !this.#own.has(id)) this.#tell("arrived", this.#shared.get(id));
    }
    for (const [id, item] of before) if (!this.#shared.has(id)) this.#tell("gone", item);
    if (this.selected && !this.item(this.selected)) this.selected = "";
    this.#changed();
  }

  /** Accepted measurements are shown as shared before their echo comes. */
  #keep(report, observation) {
    const isLate = lateFor(this.#read?.[report])(observation);
    if (report === this.#report) this.#shared.set(observation.id, { ...sharedItem(observation), isLate });
    this.#changed();
  }

  #mark(id, state, problem = "") {
    this.#own.set(id, { ...this.#own.get(id), state, problem });
    this.#changed();
  }

  #choose(id) {
    this.selected = this.item(id) ? id : "";
    this.#tell("selected", this.item(this.selected));
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  #tell(name, item) {
    this.dispatchEvent(new CustomEvent(name, { detail: item }));
  }
}

/** Other applications also share findings as text. */
function isMeasurement(resource) {
  return resource.resourceType === "Observation" && Number.isFinite(resource.valueQuantity?.value);
}

/**
 * @param {object} [report] as shared
 * @returns {(observation: object) => boolean} whether it is signed without that report
 */
function lateFor(report) {
  const results = new Set((report?.result ?? []).map(({ reference }) => reference));
  return ({ id }) => SIGNED.includes(report?.status) && !results.has(`Observation/${id}`);
}

function sharedItem(observation) {
  const study = observation.partOf?.[0]?.reference ?? observation.derivedFrom?.[0]?.reference ?? "";
  return { ...fromObservation(observation), study, state: "shared", problem: "" };
}
