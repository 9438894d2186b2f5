/** clients/identity/cases.json: the cases of local ids that both client libraries are tested with. */

import { readFileSync } from "node:fs";
import { LogicalId, StudyUid, System, Table, TypeCode } from "../src/index.js";

export const CASES = JSON.parse(readFileSync(new URL("../../cases.json", import.meta.url), "utf-8"));
export const NIN = "urn:oid:2.16.578.1.12.4.1.4.1";
export const MRN = "urn:oid:2.999.19.5";
/** @type {Record<string, string>} */
const CAMEL = { local_id: "localId", birth_date: "birthDate" };

/** @typedef {import("../src/rules.js").Rule} Rule */

/**
 * @param {any} given A rule as the file writes it.
 * @returns {any}
 */
export function rule(given) {
  if ("study_uid" in given) return new StudyUid();
  if ("logical_id" in given) return new LogicalId(given.logical_id, { assumed: given.assumed });
  if ("code" in given) return new TypeCode(given.code, given.system);
  return new System(given.system, given.label);
}

/**
 * @param {Record<string, any>} given Members as Python names them.
 * @returns {any}
 */
export function camel(given) {
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [CAMEL[name] ?? name, value]));
}

/** The tables of the file. */
export function tables() {
  return Object.values(CASES.tables).map(({ type, rows }) => {
    /** @type {Map<string, any[]>} */
    const byKey = new Map();
    for (const { system, value, ...record } of rows) {
      const key = JSON.stringify(system ? [system, value] : value);
      byKey.set(key, [...(byKey.get(key) ?? []), camel(record)]);
    }
    const records = new Map([...byKey].map(([key, of]) => [JSON.parse(key), of]));
    return new Table(records, { type });
  });
}

/** A Patient with one identifier. */
export function patient(value = "4438001", members = {}) {
  return { resourceType: "Patient", id: "p1", identifier: [{ system: MRN, value }], ...members };
}

/**
 * @param {string} uid
 * @param {object} [members]
 */
export function study(uid, members = {}) {
  const identifier = [{ system: "urn:dicom:uid", value: `urn:oid:${uid}` }];
  return { resourceType: "ImagingStudy", id: "s1", identifier, ...members };
}

/** @param {string} value */
export function accession(value) {
  const identifier = [{ type: { coding: [{ code: "ACSN" }] }, value }];
  return { resourceType: "ImagingStudy", id: "s1", identifier };
}

/**
 * @param {string} kind The name of a refusal.
 * @param {RegExp | string} reason
 * @returns {(error: any) => boolean}
 */
export function refusal(kind, reason = /./) {
  return (error) => {
    const says = reason instanceof RegExp ? reason.test(error.message) : error.message === reason;
    return error.name === kind && says;
  };
}
