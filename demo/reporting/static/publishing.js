import { studyIds } from "./record.js";
import { isSigned, newReport, written } from "./report.js";
import { Signing } from "./signing.js";

/** What this page tells the session, and has the record keep. Every method raises HubError when the hub refuses. */
export class Publishing {
  #app;
  #desk;
  #record;
  /** What the hub said at the opening, or what was shared here last: for when the client does not know the content. */
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
   * Tell the status and the text of a report that is open.
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
   * Sign a report that is open: the record keeps it and all that was measured, before anybody is told.
   * @param {import("./desk.js").OpenReport} open
   * @param {{findings: string, conclusion: string}} text
   * @returns {ReturnType<Signing["sign"]>} Throws as `Signing.sign` does.
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

  /** @param {object} report @returns {boolean} whether nobody knows if it is signed */
  isUnsure({ id }) {
    return this.#signing.isUnsure(id);
  }

  /** What is signed is shared as such before it is closed. */
  async #tellSigned(resource) {
    const signed = this.#signing.of(resource.id);
    if (!signed || isSigned(this.#shared(resource))) return;
    await this.#app.client.update(() => signed.changes, { anchor: `DiagnosticReport/${resource.id}` });
  }

  /** Close a report that is open, with the status that was shared last. @param {import("./desk.js").OpenReport} open */
  async close({ resource, studies, patient }) {
    if (this.isUnsure(resource)) await this.#signing.readBack(resource.id).catch(() => null);
    await this.#tellSigned(resource);
    const event = await this.#app.client.close(this.current(resource), ...studies, patient);
    this.#desk.closeReport(event);
  }

  /** @param {string[]} references of what is selected now; none clears */
  async select(references) {
    await this.#app.client.select(references, { anchor: this.#desk.anchor });
    this.#desk.selected = new Set(references);
  }

  /** Ask the hub what was shared in the open report before it was opened here. Raises HubError. */
  async readContent() {
    const found = await this.#app.client.fetch();
    if (found) this.#read = { anchor: found.anchor, content: found.content ?? {} };
  }

  /** @param {string} anchor of a report @returns {object[]} what is shared in it, as far as it is known */
  content(anchor) {
    const signed = this.#signing.of(anchor.split("/").at(-1))?.kept ?? [];
    return Object.values(changed(this.#sharedContent(anchor), signed));
  }

  /** @param {object} report as it was opened @returns {object} as it was signed, else as it was shared last */
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

/** The Observations that belong to a report which is signed: they are as final as it is. */
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
