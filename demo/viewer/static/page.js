/** The page: the shown patient and study, with series and measurements, and announcements for screen readers. */

import { button, element, icon } from "/shared/dom.js";
import { dateText } from "/shared/fhir.js";
import { translatePage } from "/shared/i18n.js";
import { lessMotion } from "./cine.js";
import { MeasurementList } from "./measurement-list.js";
import { Picture } from "./picture.js";
import { refusalText, refusalWords } from "./refusal.js";
import { SeriesList } from "./series-list.js";
import { setText } from "./text.js";
import { Tools } from "./tools.js";
import { Words } from "./words.js";

const SPEECH = 400; // ms of quiet before an announcement, so that scrolling is not read image by image
/** Reasons that say nothing about the study, and may pass. */
const MAY_PASS = ["LookupFailed", "ArchiveError"];

export class Page {
  #app;
  #parts;
  #main = document.querySelector("main");
  #tools;
  #words;
  #picture;
  #seriesList;
  #list;
  #speech = 0;
  /** The id of the last announced measurement; "" after another announcement. */
  #spokenOf = "";
  /** Whether the image had the keyboard focus before it was removed: the next image gets it. */
  #hadFocus = false;
  /** The content of the page without a study. @type {{key: string, reason: Error|null}} */
  #instead = { key: "empty.nothing", reason: null };
  #shown = { patient: null, patientReference: "", patientOpen: false, study: null };

  /**
   * @param {object} app of startApp
   * @param {object} parts stack, sheet, tool, overlay, gestures, cine, frames, archive, measurements and following
   */
  constructor(app, parts) {
    this.#app = app;
    this.#parts = parts;
    const { measurements } = parts;
    this.#tools = new Tools(this.at("tools"), (test) => this.at(test), app.t, parts);
    this.#words = new Words(app.t);
    this.#picture = new Picture(
      (test) => this.at(test),
      this.#words,
      (text) => this.say(text),
      parts,
    );
    this.#seriesList = new SeriesList(this.at("series-list"), this.#words, parts);
    this.#list = new MeasurementList(this.at("measurements"), app.t, measurements, {
      length: (item) => this.#words.length(item),
      place: ({ line }) => this.#words.place(this.#whereIs(line)),
      canShare: () => parts.following.report !== null,
      heading: document.getElementById("measurements-title"),
    });
    this.#listen();
    app.syncStatus.reworded = (said) => this.#reworded(said);
    document.addEventListener("language", () => {
      this.#hush();
      this.render();
    });
  }

  /** @param {string} test @returns {HTMLElement} */
  at(test) {
    return this.#main.querySelector(`[data-test="${test}"]`);
  }

  /** @param {import("./following.js").Shown} shown */
  show(shown) {
    const before = this.#shown.study;
    this.#shown = shown;
    this.#instead = { key: shown.patient ? "empty.patient" : "empty.nothing", reason: null };
    if (shown.study !== before) this.#hush();
    if (!shown.study) this.#parts.stack.clear();
    else if (shown.study !== before) this.#begin(shown.study.series);
    this.render();
    if (this.#hadFocus && shown.study) this.at("viewport").focus({ preventScroll: true });
    this.#hadFocus &&= !shown.study;
  }

  /** A study is being loaded: hide the earlier one. */
  loading(event) {
    this.#without(event, { key: "empty.loading", reason: null });
  }

  /** The session opened a study that is not shown here. @param {Error} reason */
  refuse(event, reason) {
    this.#without(event, { key: "", reason });
  }

  /** Render all texts, in the current language. */
  render() {
    const { t } = this.#app;
    const { patient, patientReference, study } = this.#shown;
    translatePage(t, this.#main);
    this.#main.dataset.patient = patientReference;
    this.#main.dataset.study = study?.reference ?? "";
    this.#main.querySelector("patient-banner").patient = patient;
    this.#renderFacts(study?.study);
    this.#renderInstead(!study);
    this.at("work").hidden = !study;
    this.#tools.render();
    this.#seriesList.render(study?.series ?? []);
    this.#picture.render();
    this.renderMeasurements();
  }

  renderMeasurements() {
    const { t } = this.#app;
    const { following, measurements } = this.#parts;
    if (this.#spokenOf && !measurements.item(this.#spokenOf)) this.#hush();
    const shared = measurements.isCurrent ? "in" : "aside";
    const state = following.report ? shared : following.anyReport ? "other" : "local";
    this.at("sharing").dataset.state = state;
    const unreadable = measurements.unreadable && t("measurements.unread", { why: measurements.unreadable });
    setText(this.at("sharing"), [t(`measurements.${state}`), unreadable].filter(Boolean).join(" "));
    this.at("no-measurements").hidden = measurements.items.length > 0;
    this.#list.render();
    this.#picture.draw();
  }

  /** @param {string} text is read by screen readers after a pause */
  say(text) {
    clearTimeout(this.#speech);
    this.#spokenOf = "";
    this.#speech = setTimeout(() => setText(this.at("announcement"), text), SPEECH);
  }

  /** Go to the image of a measurement, in any series. */
  jump(item) {
    const { stack } = this.#parts;
    const found = this.#whereIs(item?.line);
    if (!found) return;
    if (found.series === stack.series) stack.go(found.index);
    else stack.show(found.series, found.index);
  }

  #listen() {
    const { measurements } = this.#parts;
    measurements.addEventListener("change", () => this.renderMeasurements());
    measurements.addEventListener("added", ({ detail }) => this.#sayOf("done", detail));
    measurements.addEventListener("arrived", ({ detail }) => this.#sayOf("arrived", detail));
    measurements.addEventListener("gone", () => this.say(this.#app.t("measurement.gone")));
    measurements.addEventListener("selected", ({ detail }) => {
      this.jump(detail);
      if (detail) this.#sayOf("selected", detail);
      else if (this.#spokenOf) this.#hush();
    });
  }

  /** The announced measurement is gone: remove the announcement, so that screen readers do not find it. */
  #hush() {
    clearTimeout(this.#speech);
    this.#spokenOf = "";
    setText(this.at("announcement"), "");
  }

  #begin(series) {
    const { stack, cine, sheet, gestures } = this.#parts;
    gestures.use("");
    sheet.fit();
    stack.show(series[0]);
    if (series[0].multiFrame && !lessMotion()) cine.play();
  }

  #without(event, instead) {
    this.#hadFocus ||= this.at("viewport") === document.activeElement;
    this.#hush();
    this.#parts.stack.clear();
    this.#parts.following.leave();
    this.#shown = { ...this.#parts.following.shown, patient: event.resource("patient") };
    this.#instead = instead;
    this.render();
  }

  #renderFacts(study) {
    const { t, language } = this.#app;
    const facts = study && [
      ["local", study.localId],
      ["date", dateText(study.date, language)],
      ["description", study.description],
      ["accession", study.accession],
    ];
    this.at("study-facts").hidden = !study;
    this.at("study-facts").replaceChildren(
      ...(facts ?? [])
        .filter(([, value]) => value)
        .map(([name, value]) =>
          element(
            "div",
            {},
            element("dt", {}, t(`study.${name}`)),
            element("dd", { "data-test": `study-${name}` }, value),
          ),
        ),
    );
  }

  #renderInstead(empty) {
    const { key, reason } = this.#instead;
    const { t, config, language } = this.#app;
    setText(this.at("empty"), empty && key ? t(key) : "");
    this.at("empty").hidden = !empty || !key;
    const text = reason ? refusalText(t, reason, config.title[language]) : "";
    const region = this.at("refusal-region");
    if (text === (region.querySelector("p")?.textContent ?? "")) return; // an alert with the same text is read again
    const again = reason && MAY_PASS.includes(reason.name) && (() => this.#app.client.catchUp());
    region.replaceChildren(...(text ? [refusalCard(t, text, again)] : []));
  }

  /** The header's status gives the reason in the user's language. */
  #reworded(said) {
    const { reason } = this.#instead;
    return reason?.message === said ? refusalWords(this.#app.t, reason) : "";
  }

  #sayOf(what, item) {
    this.say(this.#app.t(`measurement.${what}`, { length: this.#words.length(item) }));
    this.#spokenOf = item.id;
  }

  #whereIs(line) {
    for (const series of (line && this.#shown.study?.series) || []) {
      const index = series.images.findIndex(
        ({ instance, frame }) => instance === line.instance && frame === line.frame,
      );
      if (index >= 0) return { series, index };
    }
    return null;
  }
}

function refusalCard(t, text, again) {
  return element(
    "div",
    { class: "alert refusal", "data-test": "refusal" },
    icon("refused"),
    element(
      "div",
      { class: "alert-text" },
      element("h2", {}, t("refused.title")),
      element("p", { "data-test": "refusal-text" }, text),
    ),
    again && button(t("refused.again"), again, { kind: "primary", test: "refusal-again" }),
  );
}
