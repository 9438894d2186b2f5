/** The clinician's open contexts: own choices are published, those of other applications are followed. */

import { Refuse } from "/fhircast-client/index.js";
import { hubWords } from "/shared/hub-words.js";
import { Unsent } from "./unsent.js";

const NOT_SHARED = "not-shared";
const PARTS = ["Encounter", "ImagingStudy", "DiagnosticReport", "Observation"];
/** Why this window does not follow. Other applications show it, so it is in the language of the wire. */
const UNKNOWN = "the record does not know this patient";
const HELD = "another patient is shown, and the others were not told";
/** How the client's status says that other applications may not know yet, and the texts that hide this. */
const NOT_TOLD = /^The others were not told of |^This application |was shown here after the newer /;
/** Records of the server. No status of the session counts more. */
const SIGNED = "final";

/** @param {{resourceType: string, id: string}} resource @returns {string} "Patient/p1" */
export function referenceTo(resource) {
  return `${resource.resourceType}/${resource.id}`;
}

function isPatient(reference) {
  return reference.startsWith("Patient/");
}

function isAt(reference, resource) {
  return referenceTo(resource) === reference;
}

/** Each change is an event "change". */
export class Desk extends EventTarget {
  /** All patients of the record. */
  patients = [];
  /** The patient who is shown, or null. */
  patient = null;
  /** Encounters, studies and reports of the shown patient; null while they are read. */
  parts = null;
  /** A failure, as the key of a text and its values, or null. @type {{key: string, values: object} | null} */
  trouble = null;
  /** The own event that other applications were not told of. */
  unsent;
  #app;
  /** Counts the events that this window published. An answer to an older one is ignored. */
  #turn = 0;
  /** The status of reports in the session, by reference: the FHIR server learns of it when the report is signed. */
  #statuses = new Map();

  /** @param {import("/shared/app.js").App} app */
  constructor(app) {
    super();
    this.#app = app;
    this.unsent = new Unsent(app.user.fhirUser);
    app.client.onStatus((status) => this.#noteTold(status));
  }

  /** Read the patients, and show the patient again whom this window showed before a reload. Throws FhirError. */
  async load() {
    const found = await this.#app.fhir.search("Patient");
    const family = (patient) => patient.name?.[0]?.family ?? patient.name?.[0]?.text ?? "";
    this.patients = found.sort((a, b) => family(a).localeCompare(family(b), "nb"));
    if (this.unsent.isHeld) this.#show(this.patients.find(({ id }) => id === this.unsent.patient) ?? null);
  }

  /** @returns {boolean} whether the session has this resource open */
  isOpen(resource) {
    return this.#app.client.contexts.has(referenceTo(resource));
  }

  /** @returns {boolean} whether it is the current context, as far as this window knows */
  isCurrent(resource) {
    const { context, status } = this.#app.client;
    return status.connection === "connected" && context?.anchor === referenceTo(resource);
  }

  /** The clinician chooses a patient. */
  async openPatient(patient) {
    await Promise.all([this.#show(patient), this.#share("Patient-open", (client) => client.open(patient))]);
  }

  /** Close all open contexts, patients last: applications that join later are told of no patient. */
  async closePatient() {
    const open = [...this.#app.client.contexts].toReversed().sort(([one], [other]) => isPatient(one) - isPatient(other));
    await this.#show(null);
    await this.#share("Patient-close", (client) =>
      Promise.all(
        open.map(([anchor, { event }]) => {
          const resources = event.context.map((item) => item.resource).filter(Boolean);
          return client.close(...resources.sort((one, other) => isAt(anchor, other) - isAt(anchor, one)));
        }),
      ),
    );
  }

  /** Open an encounter, a study or a report of the shown patient. */
  openPart(part) {
    const around = this.#around(part, this.patient);
    return this.#share(`${part.resourceType}-open`, (client) => client.open(part, ...around));
  }

  async closePart(part) {
    const around = this.#around(part, this.patient);
    await this.#share(`${part.resourceType}-close`, (client) => client.close(part, ...around), { tellsAll: false });
    this.#readClosed(referenceTo(part));
  }

  /** Publish Home-open: no context is current. */
  async goHome() {
    await this.#show(null);
    await this.#share("Home-open", (client) => client.publish("Home-open", []));
  }

  /** Publish the current context again, as a new event, for applications that did not follow. */
  openAgain() {
    if (this.unsent.event) return this.tellOthers(); // the current context is not shown here
    const resources = this.#app.client.context?.event.context.map((item) => item.resource).filter(Boolean) ?? [];
    const name = `${resources[0]?.resourceType}-open`;
    return resources.length ? this.#share(name, (client) => client.open(...resources)) : undefined;
  }

  /** Publish again the event that the others were not told of. */
  tellOthers() {
    const { patient, unsent } = this;
    const isShown = unsent.patient === (patient?.id ?? "");
    if (isShown && unsent.tell) return this.#share(unsent.event, unsent.tell);
    // after a reload, or while a newer open is being posted, the shown patient counts
    return patient
      ? this.#share("Patient-open", (client) => client.open(patient))
      : this.#share("Home-open", (client) => client.publish("Home-open", []));
  }

  /**
   * Give up the event that the others were not told of: show the others' context here, and publish it. A newer own
   * event ends the client's retries of the older one. It also proves to the others that this window follows.
   */
  async followOthers() {
    const { unsent } = this;
    const [turn, { client }] = [this.#turn, this.#app];
    let current;
    try {
      current = await client.fetch();
    } catch (error) {
      current = client.context; // the last known one
      if (!current) return this.failed(NOT_SHARED, { why: hubWords(error.message) });
    }
    // the event was sent meanwhile, or the clinician chose another context
    if (!unsent.event || turn !== this.#turn) return;
    const { name, context } = current?.event ?? { name: "Home-open", context: [] };
    const patient = current && this.#known(current.event);
    if (current && !patient) return this.failed("patient.unknown");
    unsent.isHeld = false;
    await Promise.all([this.#show(patient), this.#share(name, (client) => client.publish(name, context))]);
  }

  /**
   * Another application opened a patient, or a context of a patient. Throws Refuse for a patient that the record does
   * not know.
   */
  async follow(event) {
    const patient = this.#known(event);
    if (!patient) throw new Refuse(UNKNOWN);
    this.#refuseWhileHeld(patient);
    this.#settled();
    if (patient.id !== this.patient?.id) await this.#show(patient);
  }

  /** Another application closed the patient, or the hub has at last received an own close. */
  async followClose(event) {
    if (event.own) this.#settled();
    if (event.anchor === (this.patient && referenceTo(this.patient))) await this.#show(null);
    else this.#readClosed(event.anchor);
  }

  /** The record may keep a closed report as signed without an event. Its answer is not awaited. */
  #readClosed(anchor) {
    if (anchor.startsWith("DiagnosticReport/")) this.#read(this.patient);
  }

  /** Another application signed or shared a report that is open here. */
  followUpdate(event) {
    const entries = event.resource("updates")?.entry ?? [];
    const report = entries.map(({ resource }) => resource).find((each) => each && isAt(event.anchor, each));
    if (!report?.status) return;
    this.#statuses.set(event.anchor, report.status);
    if (report.status === SIGNED) return this.#read(this.patient); // it was signed before
    if (this.parts) this.parts = this.#asInSession(this.parts);
    this.changed();
  }

  async followHome() {
    this.#refuseWhileHeld(null);
    this.#settled();
    await this.#show(null);
  }

  /**
   * Show a failure to the user.
   * @param {string|null} key of the text; null: no failure
   * @param {object} [values]
   */
  failed(key, values = {}) {
    this.trouble = key && { key, values };
    this.changed();
  }

  /** The open contexts have changed. */
  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** @returns {object | null} the record's patient of an open; null where the patient is not certain */
  #known(event) {
    const sent = event.resource("patient");
    const subject = event.context.map((item) => item.resource?.subject?.reference).find(Boolean) ?? "";
    const known = sent
      ? (this.patients.find((one) => share(one, sent, same)) ?? this.patients.find((one) => one.id === sent.id))
      : this.patients.find((one) => subject.endsWith(`/${one.id}`));
    // an id alone may be another server's: different numbers mean another patient
    return known && !(sent && share(known, sent, differs)) ? known : null;
  }

  async #show(patient) {
    this.patient = patient;
    this.parts = null;
    this.changed();
    await this.#read(patient);
  }

  async #read(patient) {
    if (!patient) return;
    let parts;
    try {
      const found = await Promise.all(PARTS.map((type) => this.#app.fhir.search(type, { patient: patient.id })));
      parts = Object.fromEntries(PARTS.map((type, index) => [type, found[index].sort(newestFirst)]));
    } catch (error) {
      this.failed("not-read", { why: error.message });
    }
    if (!parts || patient !== this.patient) return; // another patient was chosen meanwhile
    this.parts = this.#asInSession(parts);
    this.changed();
  }

  #asInSession(parts) {
    const inSession = (report) => report.status !== SIGNED && this.#statuses.get(referenceTo(report));
    const known = (report) => ({ ...report, status: inSession(report) || report.status });
    return { ...parts, DiagnosticReport: parts.DiagnosticReport.map(known) };
  }

  /**
   * @param {string} name of the event that `publish` posts
   * @param {(client: object) => Promise<unknown>} publish
   * @param {{tellsAll?: boolean}} [what] whether the others then know the whole state of this window: not after the
   *   close of a part
   */
  async #share(name, publish, { tellsAll = true } = {}) {
    const patient = this.patient?.id ?? "";
    if (tellsAll) {
      this.#turn += 1;
      this.failed(null);
    }
    const turn = this.#turn;
    try {
      await publish(this.#app.client);
      if (tellsAll && turn === this.#turn) this.#settled();
    } catch (error) {
      if (turn !== this.#turn) return; // a newer context was chosen, and is being published
      const why = hubWords(error.message);
      const failure = { event: name, why, tell: publish, isTried: error.isRefusal === false };
      if (tellsAll || !this.unsent.event) this.unsent.failed({ ...failure, patient });
      this.failed(NOT_SHARED, { why });
    }
  }

  /** The client retries by itself. No handler is called where this window shows that context already. */
  #noteTold({ connection, why }) {
    if (this.unsent.isTried && connection === "connected" && !NOT_TOLD.test(why)) this.#settled();
  }

  /** This window shows the context that the others were told of. */
  #settled() {
    this.unsent.settled();
    if (this.trouble?.key === NOT_SHARED) this.trouble = null;
    this.changed();
  }

  /** After a reload, this window shows the same patient, and the clinician decides. */
  #refuseWhileHeld(patient) {
    if (this.unsent.isHeld && patient?.id !== this.patient?.id) throw new Refuse(HELD);
  }

  /** The resources beside an anchor: the patient, and for a report its study. */
  #around(part, patient) {
    const studies = (part.imagingStudy ?? []).map(({ reference }) =>
      this.#ofType("ImagingStudy").find((study) => reference?.endsWith(referenceTo(study))),
    );
    return [...studies.filter(Boolean).slice(0, 1), patient];
  }

  #ofType(type) {
    return this.parts?.[type] ?? [];
  }
}

/** Whether any two of their identifiers match in this way. */
function share(one, other, compare) {
  return Boolean(one.identifier?.some((own) => other.identifier?.some((sent) => compare(own, sent))));
}

function same(one, other) {
  return Boolean(one.system && one.value) && one.system === other.system && one.value === other.value;
}

function differs(one, other) {
  return Boolean(one.system && one.value && other.value) && one.system === other.system && one.value !== other.value;
}

function newestFirst(a, b) {
  return when(b).localeCompare(when(a));
}

function when(part) {
  return part.started ?? part.period?.start ?? part.effectiveDateTime ?? part.issued ?? "";
}
