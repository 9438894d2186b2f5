/** The check: does the patient in the event match the patient that was found? */

import { isoDate, objects, sex, text } from "./local.js";
import { spellings } from "./family-names.js";
import { inForce } from "./rules.js";

/** @typedef {import("./local.js").Json} Json */
/** @typedef {import("./local.js").Local} Local */
/**
 * The compared data: spellings of all family names, the birth date as in FHIR, `male` or `female`.
 * @typedef {{families: Set<string>, birthDate: string, gender: string}} Person
 */

/** Uses of a person's current names. A name without a use may have any of them. */
const USES = [undefined, "official", "usual"];

/**
 * @param {Json} patient A Patient resource.
 * @param {Date} now
 * @returns {Person}
 */
export function person(patient, now) {
  const names = objects(patient, "name").filter((name) => USES.includes(name.use ?? undefined) && inForce(name, now));
  return {
    families: new Set(names.flatMap((name) => [...spellings(family(name))])),
    birthDate: isoDate(text(patient.birthDate)) ?? "",
    gender: sex(patient.gender),
  };
}

/**
 * @param {Json} name
 * @returns {string} The family name. In DSTU2 it is a list of parts.
 */
function family(name) {
  return Array.isArray(name.family) ? name.family.map(text).join(" ") : text(name.family);
}

/**
 * @param {Local} local
 * @param {Date} now
 * @returns {Person} The person in a resolver's answer: for a study, its patient.
 */
export function localPerson(local, now) {
  const patient = local.patient ?? (local.type === "Patient" ? local.resource : null);
  const whole = person(patient ?? {}, now);
  return {
    families: new Set([...whole.families, ...spellings(local.family ?? "")]),
    birthDate: isoDate(local.birthDate ?? "") || whole.birthDate,
    gender: sex(local.gender) || whole.gender,
  };
}

/**
 * @param {Person} one
 * @param {Person} other
 * @returns {string[]} Differences in data that both have: `family name`, `birth date`, `gender`. Dates are compared to
 *   the shorter precision.
 */
export function differences(one, other) {
  const found = [];
  const shared = [...one.families].some((family) => other.families.has(family));
  if (one.families.size > 0 && other.families.size > 0 && !shared) found.push("family name");
  const days = Math.min(one.birthDate.length, other.birthDate.length);
  if (one.birthDate.slice(0, days) !== other.birthDate.slice(0, days)) found.push("birth date");
  if (one.gender && other.gender && one.gender !== other.gender) found.push("gender");
  return found;
}
