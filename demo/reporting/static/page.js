import { FhirError } from "/shared/fhir.js";
import { hubWords } from "/shared/hub-words.js";
import { Desk } from "./desk.js";
import { Drafts } from "./drafts.js";
import { Editor } from "./editor.js";
import { Measurements } from "./measurements.js";
import { Publishing } from "./publishing.js";
import { Record } from "./record.js";
import { Worklist } from "./worklist.js";

/** The page: what lies on the desk is shown, what the user does is published. */
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
  #busy = false;
  /** What the report's status was when it was shown last. */
  #status = { anchor: "", status: "" };
  #failure = "";
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
    this.#buttons();
    document.addEventListener("language", () => this.render());
  }

  #buttons() {
    place("sign").addEventListener("click", () => this.#attempt(() => this.#sign()));
    place("save-preliminary").addEventListener("click", () => this.#attempt(() => this.#share("preliminary")));
    place("close-report").addEventListener("click", () => this.#attempt(() => this.#close()));
  }

  /** Shows all that is known now. */
  render() {
    const { report, anchor, selected } = this.desk;
    const content = this.#publishing.content(anchor);
    const current = report && this.#publishing.current(report.resource);
    this.#noteStatus(anchor, current?.status ?? "");
    place("patient-banner").patient = this.#patient();
    this.#worklist.render();
    this.#measurements.render(anchor, content, selected);
    this.#editor.render(report, current, content);
    say(place("said"), this.#said());
    say(place("failure"), this.#failure);
    place("failure").hidden = !this.#failure;
  }

  /** The record server knows more of a patient than an event must say. */
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
    // What cannot be read now comes with the next update
    await this.#publishing.readContent().catch(() => null);
    this.render();
  }

  #leftBehind(report) {
    const study = report.studies[0]?.description ?? report.resource.code?.text ?? "";
    if (this.drafts.has(report.resource.id)) this.#say("draftKept", { study });
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

  /** A report that the record does not keep is not signed, and stays open; one that it keeps may be closed later. */
  async #sign() {
    const { report, anchor } = this.desk;
    const { text } = this.#editor;
    await saying("notSaved", this.#publishing.sign(report, text));
    this.drafts.shared(report.resource.id, text);
    this.#status = { anchor, status: "final" };
    await saying("notTold", this.#publishing.close(report));
    this.#say("signed");
  }

  async #close() {
    const { report } = this.desk;
    const signed = this.#publishing.current(report.resource).status === "final";
    await this.#publishing.close(report);
    this.drafts.forget(report.resource.id);
    this.#say(signed ? "signed" : "closed");
  }

  /** One thing at a time; what the hub does not take is told in a sentence. */
  async #attempt(what) {
    if (this.#busy) return;
    const { anchor } = this.desk;
    this.#busy = true;
    this.#failure = "";
    this.#said = () => "";
    this.render();
    try {
      await what();
    } catch (error) {
      const reason = error instanceof FhirError ? error.message : hubWords(error.message);
      this.#failure = this.#t(error.key ?? "notTaken", { reason });
    }
    this.#busy = false;
    this.render();
    if (this.desk.anchor !== anchor) this.#editor.focus();
  }

  #say(key, values) {
    this.#said = () => this.#t(key, values);
  }
}

/** What is to be said where it fails. */
function saying(key, attempt) {
  return attempt.catch((error) => {
    throw Object.assign(error, { key });
  });
}

function place(test) {
  return document.querySelector(`[data-test="${test}"]`);
}

/** Screen readers say a live region again whenever it is written: only where it changed. */
function say(region, text) {
  if (region.textContent !== text) region.textContent = text;
}
