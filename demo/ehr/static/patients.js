/** The list of patients, with its search. */

import { element, place } from "/shared/dom.js";
import { age, birthDate, humanName, identifier } from "/shared/fhir.js";

/** A separator of facts: long lines break behind the dot. */
const BETWEEN = "\u00a0· ";
/** Letters that Unicode does not split into a letter and an accent. */
const PLAIN = { ø: "o", æ: "ae", đ: "d", ł: "l", ŋ: "n", ʿ: "", ʾ: "" };

/** @param {string} text @returns {string} without case and accents, so that "odegard" finds Ødegård */
export function plain(text) {
  return text
    .toLowerCase()
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .replace(/[øæđłŋʿʾ]/g, (letter) => PLAIN[letter]);
}

/**
 * @returns {boolean} whether every word of `wanted` begins a word of the name, or occurs in the number or date of birth
 */
export function isFound(patient, wanted) {
  const words = plain(`${humanName(patient)} ${(patient.name ?? []).map((name) => name.text ?? "").join(" ")}`).split(
    /[\s,-]+/,
  );
  const numbers = [identifier(patient), identifier(patient, "NI"), patient.birthDate ?? ""];
  return plain(wanted)
    .split(/\s+/)
    .filter(Boolean)
    .every((each) => words.some((word) => word.startsWith(each)) || numbers.some((number) => number.includes(each)));
}

/** Shows the list, and updates it with the desk. */
export function showPatients(app, desk) {
  const [list, found, search] = ["patients", "patients-found", "search"].map(place);
  let choices = [];

  const mark = () => {
    for (const choice of choices)
      choice.setAttribute("aria-current", String(choice.dataset.patient === desk.patient?.id));
  };
  const render = () => {
    const shown = desk.patients.filter((patient) => isFound(patient, search.value));
    choices = shown.map((patient) => choiceOf(patient, desk));
    list.replaceChildren(...choices.map((choice) => element("li", {}, choice)));
    const count = shown.length;
    found.textContent = app.t(count ? (count === 1 ? "patients.one" : "patients.count") : "patients.none", { count });
    mark();
  };

  search.addEventListener("input", render);
  document.addEventListener("language", render);
  desk.addEventListener("change", mark);
  render();
}

function choiceOf(patient, desk) {
  const facts = [birthDate(patient.birthDate), age(patient.birthDate), identifier(patient)]
    .filter(Boolean)
    .join(BETWEEN);
  const attributes = {
    "type": "button",
    "class": "patient-choice",
    "data-test": "patient",
    "data-patient": patient.id,
  };
  return element(
    "button",
    { ...attributes, click: () => desk.openPatient(patient) },
    element("span", {}, humanName(patient)),
    element("span", {}, facts),
  );
}
