/** Observations for clinicians: measurements, and the findings of a report. */

import { conceptText } from "./fhir.js";
import { htmlLanguage } from "./i18n.js";

const DECIMALS = 1;
const LOINC = "http://loinc.org";
/** The findings of a report, for which the resource has no member, are an Observation of their own. */
export const FINDINGS = { system: LOINC, code: "59776-5", display: "Procedure findings Narrative" };

/** @returns {boolean} whether the Observation is the text of the findings */
export function isFindings(observation) {
  return Boolean(observation.code?.coding?.some(({ system, code }) => system === LOINC && code === FINDINGS.code));
}

/** @param {object[]} content @returns {object[]} the Observations with a measured value, in their order */
export function measurementsOf(content) {
  return content.filter((each) => each.resourceType === "Observation" && !isFindings(each) && valueText(each));
}

/** @returns {string} such as "12.5 mm" or "21 × 14 mm", in the language's form */
export function valueText(observation) {
  if (observation.valueQuantity) return quantityText(observation.valueQuantity);
  const parts = (observation.component ?? []).map((each) => each.valueQuantity).filter(Boolean);
  return (
    parts.map(quantityText).join(" × ") || (observation.valueString ?? conceptText(observation.valueCodeableConcept))
  );
}

function quantityText({ value, unit, code }) {
  const number = new Intl.NumberFormat(htmlLanguage(), { maximumFractionDigits: DECIMALS }).format(value);
  return [number, unit ?? code].filter(Boolean).join(" ");
}

/**
 * @param {object} observation
 * @param {(key: string) => string} t
 * @returns {string} the measured property, in the page's language where there is a word for the code
 */
export function nameOf(observation, t) {
  const keys = (observation.code?.coding ?? []).map(({ code }) => `code.${code}`);
  const known = keys.find((key) => t(key) !== key);
  return known ? t(known) : conceptText(observation.code);
}

/** @param {(key: string) => string} t @returns {string} such as "Length 12.5 mm" */
export function sentence(observation, t) {
  return [nameOf(observation, t), valueText(observation)].filter(Boolean).join(" ");
}

/** @returns {string} author and application, as far as known */
export function whoMeasured(observation) {
  const names = [...(observation.performer ?? []).map((each) => each.display), observation.device?.display];
  return [...new Set(names.filter(Boolean))].join(", ");
}

/** @returns {string} its time of day; "" where unknown */
export function whenMeasured(observation) {
  const at = new Date(observation.issued ?? observation.effectiveDateTime ?? Number.NaN);
  if (Number.isNaN(at.getTime())) return "";
  return at.toLocaleTimeString(htmlLanguage(), { hour: "2-digit", minute: "2-digit" });
}
