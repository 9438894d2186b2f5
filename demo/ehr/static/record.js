/** The record of the open patient: encounters, studies and reports, each with a button that opens it in the session. */

import { button, element, icon, place } from "/shared/dom.js";
import { conceptText, dateText, identifier } from "/shared/fhir.js";
import { isFindings, measurementsOf, sentence, whoMeasured } from "/shared/observations.js";
import { referenceTo } from "./desk.js";

/** A separator of facts: long lines break behind the dot. */
const BETWEEN = "\u00a0· ";

/** How each part is shown: its icon and title, the first line of a row, and the line below. */
const PARTS = {
  ImagingStudy: {
    icon: "image",
    title: "studies",
    name: (study) => study.description ?? conceptText(study.modality),
    facts: (study, app) => [
      conceptText(study.modality),
      dateText(study.started),
      study.numberOfInstances ? app.t("images", { count: study.numberOfInstances }) : statusText(study, app),
      identifier(study, "ACSN"),
    ],
  },
  DiagnosticReport: {
    icon: "report",
    title: "reports",
    name: (report) => conceptText(report.code),
    facts: (report, app) => [
      statusText(report, app),
      dateText(report.issued ?? report.effectiveDateTime),
      conceptText(report.category),
    ],
    more: reportText,
  },
  Encounter: {
    icon: "visit",
    title: "encounters",
    name: (encounter, app) => conceptText(encounter.reasonCode) || classText(encounter, app),
    facts: (encounter, app) => [
      classText(encounter, app),
      dateText(encounter.period?.start?.slice(0, 10)),
      statusText(encounter, app),
    ],
  },
};

/** Shows the record, and updates it with the desk. */
export function showRecord(app, desk) {
  const [banner, close, welcome, parts, lists, failed] = [
    "patient-banner",
    "close-patient",
    "welcome",
    "parts",
    "lists",
    "trouble",
  ].map(place);

  const render = () => {
    const { patient } = desk;
    if (banner.patient !== patient) banner.patient = patient;
    close.hidden = parts.hidden = !patient;
    welcome.hidden = Boolean(patient);
    const trouble = desk.trouble ? app.t(desk.trouble.key, desk.trouble.values) : "";
    failed.hidden = !trouble;
    if (failed.textContent !== trouble) failed.textContent = trouble;
    keepingFocus(lists, () => lists.replaceChildren(...Object.keys(PARTS).map((type) => section(type, app, desk))));
  };

  close.addEventListener("click", async () => {
    await desk.closePatient();
    document.querySelector("[data-test=search]").focus(); // the button is gone
  });
  document.addEventListener("language", render);
  desk.addEventListener("change", render);
  render();
}

function section(type, app, desk) {
  const part = PARTS[type];
  const found = desk.parts?.[type];
  const rows = found?.map((resource) => row(resource, part, app, desk)) ?? [];
  const id = `${part.title}-title`;
  return element(
    "section",
    { "class": "card", "aria-labelledby": id, "data-test": part.title },
    element("div", { class: "card-head" }, element("h2", { id }, icon(part.icon), app.t(part.title))),
    rows.length
      ? element("ul", { class: "list" }, ...rows)
      : element("p", { class: "hint" }, app.t(found ? `none.${type}` : "loading")),
  );
}

function row(resource, part, app, desk) {
  const open = desk.isOpen(resource);
  const current = desk.isCurrent(resource);
  const name = part.name(resource, app);
  const facts = part.facts(resource, app).filter(Boolean).join(BETWEEN);
  return element(
    "li",
    {
      "class": current ? "list-item current" : "list-item",
      "data-test": "part",
      "data-reference": referenceTo(resource),
      "data-open": open,
    },
    element(
      "div",
      { class: "list-text" },
      element("span", {}, name),
      element("span", {}, facts),
      part.more?.(resource, app, desk),
      current && element("span", {}, element("span", { class: "badge badge-accent" }, icon("check"), app.t("is-shown"))),
    ),
    element("div", { class: "row-choices" }, ...choices(resource, name, app, desk)),
  );
}

/** Open contexts that are not shown can be shown again. */
function choices(resource, name, app, desk) {
  const choice = (what, run) => {
    const says = app.t(what);
    return button(says, run, { label: `${says} ${name}`, test: `${what}-part` });
  };
  const open = () => desk.openPart(resource);
  if (!desk.isOpen(resource)) return [choice("open", open)];
  const close = choice("close", () => desk.closePart(resource));
  return desk.isCurrent(resource) ? [close] : [choice("show", open), close];
}

/** A report in the record: its text, and its measurements. */
function reportText(report, app, desk) {
  const belongs = (each) => report.result?.some(({ reference }) => reference === referenceTo(each));
  const results = desk.parts.Observation.filter(belongs);
  const findings = results.find(isFindings)?.valueString;
  const measured = measurementsOf(results).map((each) =>
    element("li", {}, [sentence(each, app.t), whoMeasured(each)].filter(Boolean).join(BETWEEN)),
  );
  if (!findings && !report.conclusion && !measured.length) return null;
  return element(
    "div",
    { "class": "report-text", "data-test": "report-text" },
    findings && element("p", {}, findings),
    report.conclusion && element("p", {}, report.conclusion),
    measured.length > 0 && element("ul", {}, ...measured),
  );
}

function classText(encounter, app) {
  const code = encounter.class?.code;
  const said = app.t(`class.${code}`);
  return said === `class.${code}` ? conceptText(encounter.class) : said;
}

function statusText(resource, app) {
  const said = app.t(`status.${resource.status}`);
  return said === `status.${resource.status}` ? resource.status : said;
}

/** Rows are rendered again when a context opens. The keyboard focus stays at its button, or at the first of the row. */
function keepingFocus(lists, render) {
  const held = document.activeElement;
  const reference = held?.closest?.("[data-reference]")?.dataset.reference;
  render();
  if (!reference) return;
  const row = lists.querySelector(`[data-reference="${CSS.escape(reference)}"]`);
  (row?.querySelector(`[data-test="${held.dataset.test}"]`) ?? row?.querySelector("button"))?.focus();
}
