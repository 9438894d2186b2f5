import { studyIds } from "./record.js";
import { newReport, written } from "./report.js";

/** What this page tells the session, and has the record keep. Every method raises HubError when the hub refuses. */
export class Publishing {
  #app;
  #desk;
  #record;
  /** What the hub said at the opening, or what was shared here last: for when the client does not know the content. */
  #read = { anchor: "", content: {} };
  /** What was to be kept last, by the report's id: after no answer the same is sent again, word for word. */
  #prepared = new Map();
  /** What the record keeps, by the report's id: the others may not know yet. */
  #signed = new Map();

  /**
   * @param {object} app of startApp
   * @param {import("./desk.js").Desk} desk
   * @param {import("./record.js").Record} record
   */
  constructor(app, desk, record) {
    this.#app = app;
    this.#desk = desk;
    this.#record = record;
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
   * @throws {import("/shared/fhir.js").FhirError} Then nothing is signed.
   */
  async sign({ resource }, text) {
    const prepared = this.#prepare(resource, text);
    const [report, ...results] = prepared.kept;
    const before = this.#record.kept(resource.id);
    await this.#app.fhir.keep([{ resource: report, before }, ...results.map((each) => ({ resource: each }))]);
    this.#signed.set(resource.id, prepared);
    this.#record.remember(report);
  }

  #prepare(resource, text) {
    const content = this.content(`DiagnosticReport/${resource.id}`);
    const key = JSON.stringify([text, content]);
    const last = this.#prepared.get(resource.id);
    if (last?.key === key) return last;
    const said = { ...text, status: "final", at: new Date(), user: this.#app.user };
    const { report, changes } = written(this.current(resource), said, content);
    const prepared = { key, changes, kept: [report, ...resultsOf(report, [...content, ...changes])] };
    this.#prepared.set(resource.id, prepared);
    return prepared;
  }

  /** What is signed is shared as such before it is closed. */
  async #tellSigned(resource) {
    const signed = this.#signedOf(resource);
    if (!signed || this.#shared(resource).status === "final") return;
    await this.#app.client.update(() => signed.changes, { anchor: `DiagnosticReport/${resource.id}` });
  }

  /** @returns {{kept: object[], changes: object[]}|null} the report as the record keeps it, with its results */
  #signedOf({ id }) {
    const kept = this.#record.kept(id);
    if (this.#signed.has(id) || kept?.status !== "final") return this.#signed.get(id) ?? null;
    return { kept: [kept, ...this.#record.resultsOf(kept)], changes: [kept] };
  }

  /** Close a report that is open, with the status that was shared last. @param {import("./desk.js").OpenReport} open */
  async close({ resource, studies, patient }) {
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
    const signed = this.#signedOf({ id: anchor.split("/").at(-1) })?.kept ?? [];
    return Object.values(changed(this.#sharedContent(anchor), signed));
  }

  /** @param {object} report as it was opened @returns {object} as it was signed, else as it was shared last */
  current(report) {
    return this.#signedOf(report)?.kept[0] ?? this.#shared(report);
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
