/** A table of local ids that the application itself provides: an object, a Map, or rows. */

import { Local, text } from "./local.js";
import { DICOM_UID, fhirIdentifier, withoutOid } from "./rules.js";

/** @typedef {import("./local.js").Json} Json */
/** @typedef {import("./local.js").Query} Query */
/** @typedef {{localId: string, family?: string, birthDate?: string, gender?: string}} StoredRecord */
/** The local ids or records of an identifier. @typedef {string | StoredRecord | (string | StoredRecord)[]} Stored */
/** @typedef {{value: string, system: string, code: string, record: Local}} Row One identifier of one record. */
/** @typedef {{system: string, code: string}} Named The kind of identifier in a column: System, TypeCode or StudyUid. */
/**
 * @typedef {object} RowOptions
 * @property {string} [type] Default: "Patient".
 * @property {Record<string, string>} [columns] Renames columns: `{ localId: "PatNo" }`.
 * @property {Record<string, Named>} [identifiers] Where each identifier has a column of its own:
 *   `{ nin: new System("urn:oid:...") }`. Empty identifiers are left out.
 */

const NAME = "the table";
/** The usual columns, by the names that `columns` and records have for them. */
const RECORD = { localId: "local_id", family: "family", birthDate: "birth_date", gender: "gender" };
const LONG = { system: "system", value: "value", code: "code" };

/** Local ids by identifier, for one resource type. */
export class Table {
  name = NAME;
  /** @type {string} */
  #type;
  /** @type {Map<string, Row[]>} */
  #byValue = new Map();
  /** @type {Map<string, Row[]>} */
  #byId = new Map();

  /**
   * Keys of `records`: values, which match any system, or in a Map also `[system, value]`. Values: a local id, a record
   * or a list of these. Write a Study Instance UID without `urn:oid:`, and a FHIR server's id as `[its base address,
   * "Patient/123"]`.
   * @param {Record<string, Stored> | Map<string | [string, string], Stored>} records
   * @param {{type?: string}} [options]
   * @throws {RangeError} For a record that cannot be read.
   */
  constructor(records, { type = "Patient" } = {}) {
    this.#type = type;
    for (const [key, value] of records instanceof Map ? records : Object.entries(records)) {
      const [system, identifier] = typeof key === "string" ? ["", key] : key;
      for (const record of Array.isArray(value) ? value : [value]) {
        this.#add(identifier, system, "", localOf(typeof record === "string" ? { localId: record } : record, type));
      }
    }
  }

  /**
   * A table from rows, as of a CSV file that a library has parsed, or of JSON. A row maps columns to cells: a string,
   * "" or null. The columns are local_id, system, value, code, family, birth_date and gender, with one row for each
   * identifier. Each row must have local_id and value, and the columns that the options name.
   * @param {Iterable<Json>} rows
   * @param {RowOptions} [options]
   * @returns {Table}
   * @throws {RangeError} With the number of the row, counted from 1.
   */
  static fromRows(rows, { type = "Patient", columns = {}, identifiers = {} } = {}) {
    const table = new Table({}, { type });
    const { names, required } = columnsOf(columns, identifiers);
    let number = 0;
    for (const row of rows) {
      number += 1;
      const missing = required.filter((column) => row[column] === undefined);
      if (missing.length > 0) throw new RangeError(`row ${number} lacks ${missing.sort().join(", ")}`);
      /** @type {Json} */
      const cells = Object.fromEntries([...names].map(([name, column]) => [name, cell(row, column, number)]));
      if (!Object.values(cells).some(Boolean)) continue;
      const local = localOfRow(cells, type, number);
      for (const { value, system, code } of identifiersOf(cells, identifiers)) {
        if (value) table.#add(value, system, code, local);
      }
    }
    return table;
  }

  /**
   * @param {string} value
   * @param {string} system
   * @param {string} code
   * @param {Local} record
   */
  #add(value, system, code, record) {
    const bare = system.trim() === DICOM_UID ? withoutOid(value.trim()) : value.trim();
    const row = { value: bare, system: system.trim(), code, record };
    push(this.#byValue, bare, row);
    push(this.#byId, record.id, row);
  }

  /**
   * @param {Query} asked
   * @returns {Promise<Local[]>} The records that have the identifier.
   */
  async find(asked) {
    if (asked.type !== this.#type) return [];
    return (this.#byValue.get(asked.value) ?? []).filter((row) => answers(row, asked)).map((row) => row.record);
  }

  /**
   * @param {string} type
   * @param {string} localId
   * @returns {Promise<Local[]>} The record of a local id with all its identifiers.
   */
  async known(type, localId) {
    const rows = type === this.#type ? (this.#byId.get(localId) ?? []) : [];
    const identifiers = rows.filter((row) => !row.value.startsWith(`${type}/`)).map(({ value, system, code }) => fhirIdentifier(value, system, code));
    // Each row has its own record. Records of one id may differ, and all must be compared.
    const records = new Map(rows.map(({ record }) => [JSON.stringify(record), record]));
    return [...records.values()].map((record) => new Local({ ...record, identifiers }));
  }
}

/**
 * Whether the row matches. A row without system or code matches any. A query without codes matches a coded row only by
 * its system: otherwise two different kinds of numbers could match.
 * @param {Row} row
 * @param {Query} asked
 */
function answers(row, asked) {
  if (row.value !== asked.value || !["", asked.system].includes(row.system)) return false;
  return !row.code || asked.codes.includes(row.code) || (row.system !== "" && asked.codes.length === 0);
}

/**
 * @param {Json} record
 * @param {string} type
 */
function localOf(record, type) {
  const names = Object.keys(RECORD);
  const strange = Object.keys(record).filter((name) => !names.includes(name));
  if (strange.length > 0) throw new RangeError(`a record has only ${names.join(", ")}, not ${strange.sort().join(", ")}`);
  const { localId, family, birthDate, gender } = record;
  return new Local({
    id: text(localId),
    type,
    family: text(family),
    birthDate: text(birthDate),
    gender: text(gender),
    source: NAME,
  });
}

/**
 * @param {Json} cells
 * @param {string} type
 * @param {number} number
 */
function localOfRow(cells, type, number) {
  const record = Object.fromEntries(Object.keys(RECORD).map((name) => [name, cells[name]]));
  try {
    return localOf(record, type);
  } catch (error) {
    throw new RangeError(`row ${number}: ${error instanceof Error ? error.message : error}`);
  }
}

/**
 * @param {Record<string, string>} columns
 * @param {Record<string, Named>} identifiers
 * @returns {{names: Map<string, string>, required: string[]}} The columns that are read, by name, and those that each
 *   row must have.
 */
function columnsOf(columns, identifiers) {
  const own = Object.keys(identifiers);
  const usual = Object.entries({ ...RECORD, ...(own.length > 0 ? {} : LONG) });
  const names = new Map(usual.map(([name, column]) => [name, columns[name] ?? column]));
  for (const column of own) names.set(columnName(column), column);
  const required = ["localId", ...Object.keys(columns), ...(own.length > 0 ? own.map(columnName) : ["value"])];
  return { names, required: [...new Set(required.map((name) => names.get(name) ?? name))] };
}

/**
 * @param {Json} row
 * @param {string} column
 * @param {number} number
 * @returns {string}
 */
function cell(row, column, number) {
  const value = row[column] ?? "";
  if (typeof value !== "string") throw new RangeError(`row ${number}: ${column} must be a string`);
  return value.trim();
}

/** @param {string} column */
function columnName(column) {
  return `identifier ${column}`;
}

/**
 * @param {Json} cells
 * @param {Record<string, Named>} identifiers
 * @returns {{value: string, system: string, code: string}[]}
 */
function identifiersOf(cells, identifiers) {
  const columns = Object.entries(identifiers);
  if (columns.length === 0) return [{ value: cells.value, system: cells.system, code: cells.code }];
  return columns.map(([column, { system, code }]) => ({ value: cells[columnName(column)], system, code }));
}

/**
 * @param {Map<string, Row[]>} rows
 * @param {string} key
 * @param {Row} row
 */
function push(rows, key, row) {
  const there = rows.get(key);
  if (there) there.push(row);
  else rows.set(key, [row]);
}
