import { Mismatch, NoMatch } from "/fhircast-identity/index.js";
import { heightAs } from "/shared/dom.js";
import { humanName } from "/shared/fhir.js";
import { htmlLanguage } from "/shared/i18n.js";
import { RecordView } from "./record-view.js";

/** The page: banner, vital signs, medication, notes, and the region with the reason for not following. */
export class ChartPage {
  #app;
  #following;
  #notes;
  #main = document.querySelector("main");
  #record;
  #failure = "";

  /**
   * @param {object} app of startApp
   * @param {import("./following.js").Following} following
   * @param {import("./notes.js").Notes} notes
   */
  constructor(app, following, notes) {
    this.#app = app;
    this.#following = following;
    this.#notes = notes;
    this.#record = new RecordView(this.#main, app.t);
    for (const name of ["notes-save", "moved-save"]) this.#on(name, "click", () => this.#done("save"));
    for (const name of ["notes-discard", "moved-discard"]) this.#on(name, "click", () => this.#done("discard"));
    this.#on("notes", "input", ({ target }) => {
      notes.write(following.shown.number, target.value);
      this.#renderNotes();
    });
    document.addEventListener("language", () => this.render());
    heightAs("--pinned", this.#place("pinned"));
  }

  /** Shows the state of `following` and `notes`. */
  render() {
    const { shown } = this.#following;
    this.#place("shown").hidden = this.#place("who").hidden = !shown;
    this.#place("no-patient").hidden = Boolean(shown);
    if (shown) {
      this.#place("patient-banner").patient = shown.patient;
      this.#place("local-number").textContent = shown.number;
      this.#record.show(shown);
      this.#renderNotes();
    }
    this.#renderBehind();
  }

  #place(test) {
    return this.#main.querySelector(`[data-test="${test}"]`);
  }

  #on(test, event, listener) {
    this.#place(test).addEventListener(event, listener);
  }

  #renderNotes() {
    const { number } = this.#following.shown;
    const field = this.#place("notes");
    // Setting the value moves the cursor: set it only for another patient's notes.
    if (field.value !== this.#notes.text(number)) field.value = this.#notes.text(number);
    const unsaved = this.#notes.unsaved(number);
    this.#place("notes-save").disabled = this.#place("notes-discard").disabled = !unsaved;
    this.#say("notes-state", this.#notesState(number, unsaved));
    this.#place("notes-state").classList.toggle("unsaved", unsaved);
  }

  #notesState(number, unsaved) {
    if (unsaved) return this.#app.t("notesUnsaved");
    const at = this.#notes.savedAt(number);
    if (!at) return this.#app.t("notesNone");
    const time = at.toLocaleTimeString(htmlLanguage(), { hour: "2-digit", minute: "2-digit" });
    return this.#app.t("notesSaved", { time });
  }

  #renderBehind() {
    const { behind, shown } = this.#following;
    const moved = this.#place("moved");
    const appears = moved.hidden;
    moved.hidden = !behind && !this.#failure;
    this.#place("moved-choices").hidden = behind?.why !== "notes";
    this.#main.classList.toggle("behind", Boolean(behind));
    this.#say("moved-text", behind ? this.#whyBehind(behind, shown) : this.#failure);
    if (appears && !moved.hidden) moved.scrollIntoView({ block: "nearest" });
  }

  #whyBehind({ why, patient, refusal }, shown) {
    const { t } = this.#app;
    if (why === "notes") return patient ? t("moved", { name: humanName(patient) }) : t("movedNowhere");
    const still = shown ? t("stillShown", { name: humanName(shown.patient) }) : t("nothingShown");
    return `${this.#refused(refusal, patient ? humanName(patient) : t("thisPatient"))} ${still}`;
  }

  #refused(refusal, name) {
    const { t } = this.#app;
    if (refusal instanceof NoMatch) return t("unknownHere", { name });
    if (!(refusal instanceof Mismatch) || !refusal.differing.length)
      return t("notFollowed", { name, reason: refusal.message });
    return t("differsHere", { name, what: refusal.differing.map((each) => t(each)).join(t("and")) });
  }

  /** Screen readers repeat a live region whenever it is written: write it only after a change. */
  #say(test, text) {
    const place = this.#place(test);
    if (place.textContent !== text) place.textContent = text;
  }

  async #done(how) {
    const { shown, behind } = this.#following;
    if (!shown) return;
    if (how === "save") this.#notes.save(shown.number, new Date());
    else this.#notes.discard(shown.number);
    this.#failure = "";
    this.render();
    this.#place("notes").focus();
    if (behind?.why === "notes") await this.#catchUp();
  }

  async #catchUp() {
    try {
      await this.#app.client.catchUp();
    } catch (error) {
      this.#failure = this.#app.t("failed", { reason: error.message });
    }
    this.render();
  }
}
