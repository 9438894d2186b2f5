import { studyIds } from "./record.js";
import { newReport, written } from "./report.js";

/** What this page tells the session. Every method raises HubError when the hub does not take it. */
export class Publishing {
  #app;
  #desk;
  #record;
  /** What the hub said at the opening, or what was shared here last: for when the client does not know the content. */
  #read = { anchor: "", content: {} };

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

  /** Close a report that is open, with the status that was shared last. @param {import("./desk.js").OpenReport} open */
  async close({ resource, studies, patient }) {
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
    const read = this.#read.anchor === anchor ? this.#read.content : {};
    return Object.values(this.#app.client.contexts.get(anchor)?.content ?? read);
  }

  /** @param {object} report as it was opened @returns {object} as it was shared last */
  current(report) {
    const content = this.content(`DiagnosticReport/${report.id}`);
    return content.find((each) => each.resourceType === "DiagnosticReport" && each.id === report.id) ?? report;
  }
}

function changed(content, changes) {
  const after = { ...content };
  for (const change of changes) {
    if (typeof change === "string") delete after[change];
    else after[`${change.resourceType}/${change.id}`] = change;
  }
  return after;
}
