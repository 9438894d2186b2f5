/** Makes the resources of a published event, with all identifiers (FHIRcast 3.3.1, 3.5.1). */

import { isoDate, objects, sex, text } from "./local.js";
import { bareUid, DICOM_UID, inForce } from "./rules.js";
import { uuid5 } from "./uuid.js";

/** @typedef {import("./local.js").Json} Json */
/** @typedef {import("./local.js").Local} Local */

/**
 * @param {Local[]} locals At least one.
 * @param {Date} now
 * @returns {Promise<Json>} One resource of all answers: the first full resource, or made from their fields. Has the
 *   identifiers of all.
 */
export async function anchor(locals, now) {
  const { type = "", id = "" } = locals[0] ?? {};
  const full = locals.find((each) => each.resource)?.resource ?? { resourceType: type };
  const resource = { ...full, identifier: merged(locals.map(ofLocal), now) };
  if (type === "Patient") return withId({ ...demographics(locals), ...resource }, id);
  return withId(type === "ImagingStudy" ? { status: "unknown", ...resource } : resource, id);
}

/**
 * @param {Local[]} locals
 * @param {Date} now
 * @returns {Json | null} The patient of a study, as far as known.
 */
export function subject(locals, now) {
  const known = locals.map((each) => each.patient).filter((each) => each !== null);
  const patient = Object.assign(demographics(locals), ...known.slice().reverse());
  const identifier = merged(known.map((each) => objects(each, "identifier")), now);
  if (Object.keys(patient).length < 2) return null;
  return identifier.length > 0 ? { ...patient, identifier } : patient;
}

/**
 * @param {Local} local
 * @returns {Json[]} The identifiers in a resolver's answer.
 */
export function ofLocal(local) {
  return [...local.identifiers, ...objects(local.resource ?? {}, "identifier")];
}

/**
 * @param {Local[]} locals
 * @returns {Json} A Patient with the known fields.
 */
function demographics(locals) {
  /** @type {Json} */
  const patient = { resourceType: "Patient" };
  for (const { family, birthDate, gender } of locals) {
    if (family) patient.name ??= [{ family }];
    if (birthDate) patient.birthDate ??= isoDate(birthDate);
    if (sex(gender)) patient.gender ??= sex(gender);
  }
  return patient;
}

/**
 * @param {Json[][]} lists
 * @param {Date} now
 * @returns {Json[]} All identifiers in force, once for each system and value.
 */
export function merged(lists, now) {
  /** @type {Map<string, Json>} */
  const found = new Map();
  for (const identifier of lists.flat()) {
    const system = text(identifier.system);
    const value = text(identifier.value);
    const key = JSON.stringify([system, system === DICOM_UID ? bareUid(value) : value]);
    if (value && inForce(identifier, now) && !found.has(key)) found.set(key, identifier);
  }
  return [...found.values()];
}

/**
 * "If the resource is not stored in a FHIR server, the Subscriber [...] SHOULD use a mechanism to generate the id such
 * that it will be globally unique". A close must have the same id, also after a restart.
 * @param {Json} resource
 * @param {string} localId
 * @returns {Promise<Json>} The resource with an id: of its server, else made from an identifier with a system.
 */
export async function withId(resource, localId) {
  if (text(resource.id)) return resource;
  const systems = objects(resource, "identifier").filter((each) => text(each.system));
  const [named = `local|${localId}`] = systems.map((each) => `${text(each.system)}|${text(each.value)}`).sort();
  return { ...resource, id: await uuid5(`${resource.resourceType}|${named}`) };
}
