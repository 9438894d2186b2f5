import { place } from "/shared/dom.js";
import { conceptText, dateText, FhirError } from "/shared/fhir.js";
import { hubWords } from "/shared/hub-words.js";
import { measurementsOf, sentence, whenMeasured } from "/shared/observations.js";
import { Desk } from "./desk.js";
import { Drafts } from "./drafts.js";
import { Editor } from "./editor.js";
import { Measurements } from "./measurements.js";
import { Publishing } from "./publishing.js";
import { Record } from "./record.js";
import { isResult, isSigned, sharedText } from "./report.js";
import { Unsigned } from "./unsigned.js";
import { Worklist } from "./worklist.js";

/** The page: shows the desk, and publishes the user's actions. */
export class ReportingPage {
  desk = new Desk((what, report) => this.#turned(what, report));
  drafts = new Drafts();
  #app;
  #t;
  #record;
  #publishing;
  #worklist;
  #measurements;
  #editor;
  #unsigned;
  #busy = false;
  /** Whether the text is being sent to the record or to the others. */
  #isSaving = false;
  /** Measurements that came too late for the signed report, by its id. */
  #late = new Map();
  /** The report's status when it was last shown. */
  #status = { anchor: "", status: "" };
  #failure = () => "";
  #said = () => "";

  /** @param {object} app of startApp */
  constructor(app) {
    this.#app = app;
    this.#t = app.t;
    this.#record = new Record(app.fhir, () => this.render());
    this.#publishing = new Publishing(app, this.desk, this.#record);
    this.#worklist = new Worklist(app.t, this.desk, this.#record, {
      fresh: (study) => this.#attempt(() => this.#publishing.openNew(study, this.#patient())),
      existing: (report) => this.#attempt(() => this.#publishing.openExisting(report, this.#patient())),
    });
    this.#measurements = new Measurements(app.t, {
      select: (references) => this.#attempt(() => this.#publishing.select(references)),
      insert: (text) => this.#editor.insert(text),
    });
    this.#editor = new Editor(app.t, this.drafts);
    this.#unsigned = new Unsigned(app.t, () => this.render());
    this.#buttons();
    document.addEventListener("language", () => this.render());
  }

  #buttons() {
    place("sign").addEventListener("click", () => this.#save(() => this.#sign()));
    place("save-preliminary").addEventListener("click", () => this.#save(() => this.#share("preliminary")));
    place("close-report").addEventListener("click", () => this.#save(() => this.#close()));
  }

  /** @returns {boolean} whether text would be lost with the page */
  get unsaved() {
    return this.#isSaving || this.drafts.any || this.#unsigned.any;
  }

  /** A report was closed, here or elsewhere: the record may keep it as signed. */
  reportClosed() {
    this.#record.readAgain().catch(() => {}); // it is read again with the next patient
  }

  /** Shows the whole state. */
  render() {
    const { report, anchor, selected } = this.desk;
    const content = this.#publishing.content(anchor);
    const current = report && this.#publishing.current(report.resource);
    const signed = isSigned(current) ? current : null;
    this.#noteStatus(anchor, current?.status ?? "");
    if (report) this.#noteLate(report);
    this.#setAside();
    place("patient-banner").patient = this.#patient();
    this.#worklist.render();
    this.#measurements.render(anchor, content, selected, signed);
    const isUnsure = Boolean(report) && this.#publishing.isUnsure(report.resource);
    this.#editor.render(report, current, content, { isHeld: this.#isSaving, isUnsure });
    this.#unsigned.render(this.desk.patient ? `Patient/${this.desk.patient.id}` : "");
    this.#renderSaid();
  }

  #renderSaid() {
    const failure = this.#failure();
    say(place("said"), this.#said());
    say(place("failure"), failure);
    place("failure").hidden = !failure;
  }

  /** A signed report is shown as in the record. Other text that was written here is shown separately. */
  #setAside() {
    for (const id of this.drafts.ids) {
      const report = this.#publishing.current({ id });
      if (!isSigned(report)) continue;
      const texts = this.drafts.setAside(id, sharedText(report, this.#publishing.content(`DiagnosticReport/${id}`)));
      const about = [conceptText(report.code), dateText(report.issued)].filter(Boolean).join(", ");
      if (texts.length) this.#unsigned.add(report, about, texts);
    }
  }

  /** The record server has more data of a patient than an event needs. */
  #patient() {
    const { patient } = this.desk;
    return patient?.name ? patient : (this.#record.patient ?? patient);
  }

  #turned(what, report) {
    if (this.desk.anchor !== this.#status.anchor) this.#readContent();
    const patientId = this.desk.patient?.id ?? "";
    if (patientId !== this.#record.patientId) this.#said = () => "";
    this.#record.turnTo(patientId);
    if (what === "closed") this.#say("closedElsewhere");
    if (what === "moved") this.#leftBehind(report);
    this.render();
  }

  async #readContent() {
    if (!this.desk.anchor) return;
    // content that cannot be read now comes with the next update
    await this.#publishing.readContent().catch(() => null);
    this.render();
  }

  #leftBehind(report) {
    if (this.drafts.has(report.resource.id)) this.#say("draftKept", { study: studyOf(report) });
  }

  #noteStatus(anchor, status) {
    const before = this.#status;
    this.#status = { anchor, status };
    if (!anchor || before.anchor !== anchor || before.status === status) return;
    this.#said = () => this.#t("statusChanged", { status: this.#t(`status.${status}`) });
  }

  async #share(status) {
    const { report, anchor } = this.desk;
    const { text } = this.#editor;
    await this.#publishing.share(report, status, text);
    this.drafts.shared(report.resource.id, text);
    if (this.desk.anchor === anchor) this.#status = { anchor, status };
    this.#say("shared");
  }

  /** A report that the record does not keep is unsigned, and stays open. A signed one may be closed later. */
  async #sign() {
    const { report, anchor } = this.desk;
    const { text } = this.#editor;
    const found = await saying("notSaved", this.#publishing.sign(report, text));
    if (found.by !== "this") return this.#sayKept(found);
    this.drafts.shared(report.resource.id, text);
    this.#status = { anchor, status: "final" };
    this.#noteLate(report);
    this.render();
    await saying("notTold", this.#publishing.close(report));
    this.#saySigned(report);
  }

  /** The record keeps another text than the one to sign. The report stays open, so that the user can read both. */
  #sayKept({ report, by }) {
    const { issued, resultsInterpreter } = report;
    if (by === "earlier") return this.#fail(() => this.#t("keptEarlier", { when: whenMeasured(report) }));
    const name = () => resultsInterpreter?.[0]?.display ?? this.#t("somebody");
    this.#fail(() => this.#t("keptOther", { name: name(), when: dateText(issued) }));
  }

  /** Measurements that came too late for a signed report: after its close, this page has forgotten them. */
  #noteLate({ resource }) {
    const signed = this.#publishing.current(resource);
    const late = isSigned(signed) ? this.#publishing.content(`DiagnosticReport/${resource.id}`) : [];
    this.#late.set(
      resource.id,
      measurementsOf(late).filter((each) => !isResult(signed, each)),
    );
  }

  /** The session may have opened another patient meanwhile. */
  #saySigned({ resource, studies, patient }) {
    const late = this.#late.get(resource.id) ?? [];
    const isBefore = patient?.id !== this.desk.patient?.id;
    this.#said = () => {
      const measurements = late.map((each) => sentence(each, this.#t)).join(", ");
      const before = isBefore && this.#t("before", { study: studyOf({ resource, studies }) });
      return [before, this.#t(late.length ? "signedWithout" : "signed", { measurements })].filter(Boolean).join(" ");
    };
  }

  async #close() {
    const { report } = this.desk;
    const { resource } = report;
    await this.#publishing.close(report);
    if (isSigned(this.#publishing.current(resource))) return this.#saySigned(report);
    if (this.#publishing.isUnsure(resource)) return this.#say("closedUnsure");
    this.drafts.forget(resource.id);
    this.#say("closed");
  }

  /** The text cannot be edited while it is being sent: changes would be lost. */
  async #save(what) {
    if (this.#busy) return;
    this.#isSaving = true;
    await this.#attempt(() => what().finally(() => (this.#isSaving = false)));
  }

  /** One action at a time. A refusal of the hub is shown as a sentence. */
  async #attempt(what) {
    if (this.#busy) return;
    const { anchor } = this.desk;
    this.#busy = true;
    this.#failure = () => "";
    this.#said = () => "";
    this.render();
    try {
      await what();
    } catch (error) {
      this.#fail(() => this.#reason(error));
    }
    this.#busy = false;
    this.render();
    if (this.desk.anchor !== anchor) this.#editor.focus();
  }

  #reason(error) {
    const reason = error instanceof FhirError ? error.message : hubWords(error.message);
    if (!error.isUnsure) return this.#t(error.key ?? "notTaken", { reason });
    return [error.status !== 0 && reason, this.#t("notKnown")].filter(Boolean).join(" ");
  }

  #fail(says) {
    this.#failure = says;
  }

  #say(key, values) {
    this.#said = () => this.#t(key, values);
  }
}

/** @returns {string} the subject of the report */
function studyOf({ resource, studies }) {
  return studies[0]?.description ?? resource.code?.text ?? "";
}

/** The text for a failure. */
function saying(key, attempt) {
  return attempt.catch((error) => {
    throw Object.assign(error, { key });
  });
}

/** Screen readers repeat a live region whenever it is written: write it only after a change. */
function say(region, text) {
  if (region.textContent !== text) region.textContent = text;
}
