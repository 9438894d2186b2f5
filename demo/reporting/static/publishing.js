import { studyIds } from "./record.js";
import { isSigned, newReport, written } from "./report.js";
import { Signing } from "./signing.js";

/** Publishes for this page, and signs reports in the record. Every method throws HubError when the hub refuses. */
export class Publishing {
  #app;
  #desk;
  #record;
  /** Content at the opening, or as last shared here: used while the client does not know the content. */
  #read = { anchor: "", content: {} };
  #signing;

  /**
   * @param {object} app of startApp
   * @param {import("./desk.js").Desk} desk
   * @param {import("./record.js").Record} record
   */
  constructor(app, desk, record) {
    this.#app = app;
    this.#desk = desk;
    this.#record = record;
    this.#signing = new Signing(app.fhir, record);
  }

  /** @param {object} study ImagingStudy @param {object} patient */
  openNew(study, patient) {
    return this.#open(newReport(study, patient, crypto.randomUUID()), [study], patient);
  }

  /** @param {object} report DiagnosticReport @param {object} patient */
  async openExisting(report, patient) {
    const studies = await Promise.all(studyIds(report).map((id) => this.#record.study(id)));
    return this.#open(report, studies, patient);
  }

  async #open(report, studies, patient) {
    this.#desk.openReport(await this.#app.client.open(report, ...studies, patient));
    this.#record.remember(report);
  }

  /**
   * Publish status and text of an open report.
   * @param {import("./desk.js").OpenReport} open
   * @param {"preliminary" | "final"} status
   * @param {{findings: string, conclusion: string}} text
   */
  async share({ resource }, status, text) {
    const anchor = `DiagnosticReport/${resource.id}`;
    const said = { ...text, status, at: new Date(), user: this.#app.user };
    let report = resource;
    let content = {};
    const toChanges = (before) => {
      const after = written(before[anchor] ?? resource, said, Object.values(before));
      report = after.report;
      content = changed(before, after.changes);
      return after.changes;
    };
    await this.#app.client.update(toChanges, { anchor });
    this.#read = { anchor, content };
    this.#record.remember(report);
  }

  /**
   * Sign an open report: the record keeps it with all its measurements, before the session is told.
   * @param {import("./desk.js").OpenReport} open
   * @param {{findings: string, conclusion: string}} text
   * @returns {ReturnType<Signing["sign"]>} Throws the errors of `Signing.sign`.
   */
  async sign({ resource }, text) {
    const content = this.content(`DiagnosticReport/${resource.id}`);
    const found = await this.#signing.sign(resource.id, JSON.stringify([text, content]), () => {
      const said = { ...text, status: "final", at: new Date(), user: this.#app.user };
      const { report, changes } = written(this.current(resource), said, content);
      return { changes, kept: [report, ...resultsOf(report, [...content, ...changes])] };
    });
    this.#record.remember(found.report);
    return found;
  }

  /** @param {object} report @returns {boolean} whether it is unknown if the report is signed */
  isUnsure({ id }) {
    return this.#signing.isUnsure(id);
  }

  /** A signed report is shared as such before it is closed. */
  async #tellSigned(resource) {
    const signed = this.#signing.of(resource.id);
    if (!signed || isSigned(this.#shared(resource))) return;
    await this.#app.client.update(() => signed.changes, { anchor: `DiagnosticReport/${resource.id}` });
  }

  /** Close an open report, with the status that was last shared. @param {import("./desk.js").OpenReport} open */
  async close({ resource, studies, patient }) {
    if (this.isUnsure(resource)) await this.#signing.readBack(resource.id).catch(() => null);
    await this.#tellSigned(resource);
    const event = await this.#app.client.close(this.current(resource), ...studies, patient);
    this.#desk.closeReport(event);
  }

  /** @param {string[]} references of the selected resources; none clears the selection */
  async select(references) {
    await this.#app.client.select(references, { anchor: this.#desk.anchor });
    this.#desk.selected = new Set(references);
  }

  /** Ask the hub for the content that was shared before the report was opened here. Throws HubError. */
  async readContent() {
    const found = await this.#app.client.fetch();
    if (found) this.#read = { anchor: found.anchor, content: found.content ?? {} };
  }

  /** @param {string} anchor of a report @returns {object[]} the shared content, as far as known */
  content(anchor) {
    const signed = this.#signing.of(anchor.split("/").at(-1))?.kept ?? [];
    return Object.values(changed(this.#sharedContent(anchor), signed));
  }

  /** @param {object} report as opened @returns {object} as signed, else as last shared */
  current(report) {
    return this.#signing.of(report.id)?.kept[0] ?? this.#shared(report);
  }

  #shared(report) {
    const anchor = `DiagnosticReport/${report.id}`;
    return this.#sharedContent(anchor)[anchor] ?? report;
  }

  #sharedContent(anchor) {
    const read = this.#read.anchor === anchor ? this.#read.content : {};
    return this.#app.client.contexts.get(anchor)?.content ?? read;
  }
}

/** The Observations of a signed report: they are as final as the report. */
function resultsOf({ result = [] }, resources) {
  const known = new Map(resources.map((each) => [`${each.resourceType}/${each.id}`, each]));
  return result.map(({ reference }) => ({ ...known.get(reference), status: "final" }));
}

function changed(content, changes) {
  const after = { ...content };
  for (const change of changes) {
    if (typeof change === "string") delete after[change];
    else after[`${change.resourceType}/${change.id}`] = change;
  }
  return after;
}
