/** Queries and answers: an identifier, and the application's own id for its patient or study. */

/**
 * A FHIR resource or a part of one, as JSON.
 * @typedef {{[member: string]: any}} Json
 */
/**
 * One identifier to look up. `type`: the resource type. `system`: "" where none was sent. `codes`: the identifier's
 * type codes. `logical`: the value is a reference such as `Patient/123` on the FHIR server with the base address
 * `system`.
 * @typedef {{type: string, value: string, system: string, codes: string[], logical: boolean}} Query
 */
/**
 * A resolver's answer. See `Local`.
 * @typedef {object} LocalFields
 * @property {string} id
 * @property {string} [type] Default: "Patient".
 * @property {string | null} [family]
 * @property {string | null} [birthDate]
 * @property {string | null} [gender]
 * @property {Json[]} [identifiers]
 * @property {string} [source]
 * @property {Json | null} [resource]
 * @property {Json | null} [patient]
 */

const DATE = /^([0-9]{4})(?:([-.]?)([0-9]{2})(?:\2([0-9]{2}))?)?$/;
/** @type {Record<string, string>} */
const GENDERS = { m: "male", male: "male", f: "female", female: "female" };
const NO_GENDERS = ["", "o", "other", "u", "unknown"];

/** A patient or study with its id in the application. */
export class Local {
  /**
   * `family`, `birthDate` (1970-05-01, 1970-05, 1970 or 19700501) and `gender` (male, female, M, F; other words of FHIR
   * or DICOM count as unknown) are the patient's, also for a study. Null: unknown. `identifiers`: FHIR Identifiers.
   * `resource` and `patient`: the resource to publish and, for a study, its patient. Null: made from the other fields.
   * @param {LocalFields} fields
   * @throws {RangeError} For an empty id, and for a date or gender that cannot be read: a check must not be skipped by
   *   mistake.
   */
  constructor({ id, type = "Patient", family, birthDate, gender, identifiers, source = "", resource, patient }) {
    if (!text(id)) throw new RangeError("the local id must be a string that is not empty");
    if (birthDate && isoDate(birthDate) === null) {
      throw new RangeError("the birth date must be written as 1970-05-01, 1970-05, 1970 or 19700501");
    }
    if (gender && !sex(gender) && !NO_GENDERS.includes(gender.trim().toLowerCase())) {
      throw new RangeError("the gender must be male, female, other, unknown, M, F, O or U");
    }
    this.id = id;
    this.type = type;
    this.family = family || null;
    this.birthDate = birthDate || null;
    this.gender = gender || null;
    this.identifiers = identifiers ?? [];
    this.source = source;
    this.resource = resource ?? null;
    this.patient = patient ?? null;
    Object.freeze(this);
  }
}

/**
 * @param {string} type
 * @param {string} value
 * @param {string} [system]
 * @param {string[]} [codes]
 * @param {boolean} [logical]
 * @returns {Query}
 */
export function query(type, value, system = "", codes = [], logical = false) {
  return { type, value, system, codes, logical };
}

/**
 * @param {string} written A date of FHIR (`1970-05-01`, `1970-05`, `1970`) or DICOM (`19700501`).
 * @returns {string | null} The date as FHIR writes it; null for other texts.
 */
export function isoDate(written) {
  const match = DATE.exec((written.split("T")[0] ?? "").trim());
  return match ? [match[1], match[3], match[4]].filter(Boolean).join("-") : null;
}

/**
 * @param {unknown} word A word of FHIR or DICOM.
 * @returns {string} `male` or `female`; "" for other words, which differ from nothing.
 */
export function sex(word) {
  return (Object.hasOwn(GENDERS, text(word).toLowerCase()) && GENDERS[text(word).toLowerCase()]) || "";
}

/**
 * @param {Json} resource
 * @param {string} name
 * @returns {Json[]} The objects in a member of a resource: one object, a list, or none.
 */
export function objects(resource, name) {
  const member = resource[name];
  return (Array.isArray(member) ? member : [member]).filter(isObject);
}

/**
 * @param {unknown} value
 * @returns {value is Json}
 */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * @param {unknown} value
 * @returns {string} A string without blanks around it; "" for other values.
 */
export function text(value) {
  return typeof value === "string" ? value.trim() : "";
}
