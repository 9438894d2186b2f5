/**
 * Rules: select the identifiers to look up. The first rule that selects any decides.
 *
 * FHIRcast 3.5.1: the Study Instance UID has the system `urn:dicom:uid` and the prefix `urn:oid:`, the accession number
 * the type ACSN. Other versions of FHIR have other members: `uid` and `accession` (DSTU2, STU3), `basedOn` (R5).
 */

import { objects, query, text } from "./local.js";

/** @typedef {import("./local.js").Json} Json */
/** @typedef {import("./local.js").Query} Query */
/**
 * Selects identifiers of a resource. `url`: its absolute address, "" where unknown. `label`: their name for clinicians.
 * @typedef {{label: string, select: (resource: Json, url: string, now: Date) => Query[]}} Rule
 */

export const DICOM_UID = "urn:dicom:uid";
/** The code system of identifier types. */
const TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203";
const UID = /^[0-9]+(\.[0-9]+)+$/;
const PADDING = /^[ \0]+|[ \0]+$/g;
const ZONE = /(Z|[+-][0-9]{2}:?[0-9]{2})$/i;
const DAY_LENGTH = "2026-11-24".length;
/** @type {Record<string, string>} */
const LABELS = {
  MR: "medical record number",
  PI: "patient number",
  NI: "national identity number",
  ACSN: "accession number",
};

/**
 * @param {Json} identifier
 * @returns {string[]} Its type codes, of any code system.
 */
export function codes(identifier) {
  return objects(identifier, "type")
    .flatMap((type) => objects(type, "coding"))
    .map((coding) => coding.code)
    .filter((code) => typeof code === "string");
}

/**
 * @param {Json} item An identifier or a name.
 * @param {Date} now
 * @returns {boolean} Whether it is in force: not of use `old`, and within its period.
 */
export function inForce(item, now) {
  if (item.use === "old") return false;
  const end = text(objects(item, "period")[0]?.end);
  if (end.length <= DAY_LENGTH) return !end || end >= now.toISOString().slice(0, end.length);
  const over = Date.parse(ZONE.test(end) ? end : `${end}Z`);
  return Number.isNaN(over) || over >= now.getTime();
}

/**
 * @param {Json} resource
 * @param {Date} now
 * @returns {Json[]} The identifiers in force with a value, in the members of all versions of FHIR.
 */
export function identifiers(resource, now) {
  const found = objects(resource, "identifier");
  if (resource.resourceType === "ImagingStudy") {
    const accession = { type: { coding: [{ code: "ACSN" }] } };
    found.push(...objects(resource, "accession").map((identifier) => ({ ...identifier, ...accession })));
    found.push(...objects(resource, "basedOn").flatMap((order) => objects(order, "identifier")));
  }
  return found.filter((identifier) => text(identifier.value) && inForce(identifier, now));
}

/**
 * @param {string} value
 * @returns {string} A UID without `urn:oid:` and padding; "" for other texts.
 */
export function bareUid(value) {
  const uid = withoutOid(value.replace(PADDING, ""));
  return UID.test(uid) ? uid : "";
}

/** @param {string} value */
export function withoutOid(value) {
  return value.startsWith("urn:oid:") ? value.slice("urn:oid:".length) : value;
}

/**
 * @param {string} value Without `urn:oid:`.
 * @param {string} [system]
 * @param {string} [code] A type such as MR.
 * @returns {Json} An Identifier of FHIR.
 */
export function fhirIdentifier(value, system = "", code = "") {
  return {
    ...(code ? { type: { coding: [{ system: TYPES, code }] } } : {}),
    ...(system ? { system } : {}),
    value: system === DICOM_UID ? `urn:oid:${value}` : value,
  };
}

/** @param {Query} asked */
export function keyOf(asked) {
  return JSON.stringify([asked.type, asked.value, asked.system, asked.codes, asked.logical]);
}

/**
 * @param {Query[]} queries
 * @returns {Query[]} Each query once, in the order of first occurrence.
 */
function distinct(queries) {
  return [...new Map(queries.map((each) => [keyOf(each), each])).values()];
}

/**
 * @param {Json} resource
 * @param {Json} identifier
 */
function queryOf(resource, identifier) {
  return query(resource.resourceType, text(identifier.value), text(identifier.system), codes(identifier));
}

/** The identifiers of one system, such as `urn:oid:2.16.578.1.12.4.1.4.1`, compared exactly. */
export class System {
  code = "";

  /**
   * @param {string} system
   * @param {string} [label] The name for clinicians, such as "national identity number".
   */
  constructor(system, label = "") {
    this.system = system.trim();
    this.label = label || `identifier of the system ${this.system}`;
  }

  /** @type {Rule["select"]} */
  select(resource, _url, now) {
    const found = identifiers(resource, now).filter((each) => text(each.system) === this.system);
    return distinct(found.map((each) => queryOf(resource, each)));
  }
}

/**
 * The identifiers of a type (MR, PI, ACSN, ...), with `system` only those of that system. Another hospital may use the
 * same number for another patient: give the system wherever it is known.
 */
export class TypeCode {
  /**
   * @param {string} code
   * @param {string} [system]
   * @param {string} [label]
   */
  constructor(code, system = "", label = "") {
    this.code = code;
    this.system = system.trim();
    this.label = label || LABELS[code] || `identifier of type ${code}`;
  }

  /** @type {Rule["select"]} */
  select(resource, _url, now) {
    const found = identifiers(resource, now).filter((each) => codes(each).includes(this.code));
    const ours = found.filter((each) => ["", text(each.system)].includes(this.system));
    return distinct(ours.map((each) => queryOf(resource, each)));
  }
}

/** The Study Instance UID, with or without `urn:oid:`, from the identifiers or from the older `uid`. */
export class StudyUid {
  code = "";
  system = DICOM_UID;

  /** @param {string} [label] */
  constructor(label = "Study Instance UID") {
    this.label = label;
  }

  /** @type {Rule["select"]} */
  select(resource, _url, now) {
    const found = identifiers(resource, now).filter((each) => text(each.system) === DICOM_UID);
    const uids = [...found.map((each) => each.value), text(resource.uid)].map(bareUid).filter(Boolean);
    return distinct(uids.map((uid) => query(resource.resourceType, uid, DICOM_UID)));
  }
}

/**
 * The resource's id on the FHIR server at `base`, looked up as `Patient/123` of the system `base` (as in ITI-83).
 *
 * An id is valid only on its own server. The rule selects ids of events that give the absolute address (a reference or
 * fullUrl) on that server. With `assumed: true`, it also selects ids without an address. Use that only where all
 * applications of the session take their resources from this server.
 */
export class LogicalId {
  /**
   * @param {string} base
   * @param {{assumed?: boolean, label?: string}} [options]
   */
  constructor(base, { assumed = false, label = "" } = {}) {
    this.base = base.replace(/\/+$/, "");
    this.assumed = assumed;
    this.label = label || `record of the server ${this.base}`;
  }

  /** @type {Rule["select"]} */
  select(resource, url, _now) {
    const id = text(resource.id);
    const reference = `${resource.resourceType}/${id}`;
    const known = url ? url.split("/_history/")[0] === `${this.base}/${reference}` : this.assumed;
    return known && id ? [query(resource.resourceType, reference, this.base, [], true)] : [];
  }
}

/**
 * @param {Rule[]} rules
 * @param {Json} resource
 * @param {string} url
 * @param {Date} now
 * @returns {{rule: Rule, queries: Query[]} | null} The first rule that selects any identifiers, and these identifiers.
 */
export function choose(rules, resource, url, now) {
  for (const rule of rules) {
    const queries = rule.select(resource, url, now);
    if (queries.length > 0) return { rule, queries };
  }
  return null;
}
