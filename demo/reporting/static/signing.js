/** Signing reports: the record keeps them. Also finds out what the record keeps after its answer was lost. */

import { FhirError } from "/shared/fhir.js";
import { isResult, isSigned } from "./report.js";

/** The record has another version, or a signed one. */
const CONFLICTS = [409, 412];
const NOT_FOUND = 404;

/**
 * @typedef {object} Prepared
 * @property {string} key of the content: after a lost answer, exactly the same is sent again
 * @property {object[]} kept the report, and its Observations
 * @property {(object | string)[]} changes for `client.update`
 */

export class Signing {
  #fhir;
  #record;
  /** Attempts to sign, by the report's id, in their order. @type {Map<string, Prepared[]>} */
  #tries = new Map();
  /**
   * The signed report and its results, by the report's id: the session may not know yet.
   * @type {Map<string, Prepared>}
   */
  #signed = new Map();
  /** Ids of reports that may be signed: an attempt had no answer. @type {Set<string>} */
  #unsure = new Set();

  /** @param {object} fhir of startApp @param {import("./record.js").Record} record */
  constructor(fhir, record) {
    this.#fhir = fhir;
    this.#record = record;
  }

  /**
   * @param {string} id of a report
   * @returns {{kept: object[], changes: object[]}|null} the record's version; null: unsigned
   */
  of(id) {
    const signed = this.#signed.get(id);
    if (signed) return signed;
    const kept = this.#record.kept(id);
    if (!isSigned(kept)) return null;
    const results = this.#record.resultsOf(kept);
    return { kept: [kept, ...results], changes: [...results, kept] };
  }

  /** @param {string} id of a report @returns {boolean} whether it is unknown if the report is signed */
  isUnsure(id) {
    return this.#unsure.has(id) && !this.of(id);
  }

  /**
   * Sign a report.
   * @param {string} id
   * @param {string} key
   * @param {() => Omit<Prepared, "key">} make called where no attempt has this key
   * @returns {Promise<{report: object, by: "this" | "earlier" | "other"}>} the record's report, and its origin: this
   *   attempt, an earlier one of this page, or another application
   * @throws {FhirError | Error} `isUnsure`: it is unknown whether the report is signed. Else it is unsigned.
   */
  async sign(id, key, make) {
    const prepared = this.#prepared(id, key, make);
    const [report, ...results] = prepared.kept;
    const before = this.#record.kept(id);
    try {
      await this.#fhir.keep([{ resource: report, before }, ...results.map((each) => ({ resource: each }))]);
    } catch (error) {
      const found = CONFLICTS.includes(error.status) && (await this.readBack(id));
      if (found) return found;
      if (error instanceof FhirError && error.status === 0) this.#unsure.add(id);
      throw Object.assign(error, { isUnsure: this.isUnsure(id) });
    }
    this.#is(id, prepared);
    return { report, by: "this" };
  }

  /**
   * Ask the record whether a report is signed.
   * @param {string} id
   * @returns {Promise<{report: object, by: "earlier" | "other"}|null>} the same as of `sign`; null: it is unsigned
   * @throws {FhirError} `isUnsure`
   */
  async readBack(id) {
    const kept = await this.#kept(id).catch((error) => {
      this.#unsure.add(id);
      throw Object.assign(error, { isUnsure: true });
    });
    const [report, ...results] = kept;
    const ours = report && this.#tries.get(id)?.find((each) => isSame(each.kept[0], report));
    this.#is(id, report && (ours ?? { kept, changes: [...results, report] }));
    await this.#record.readAgain().catch(() => {}); // the next attempt uses the record's version
    return report ? { report, by: ours ? "earlier" : "other" } : null;
  }

  /** @returns {Promise<object[]>} the record's signed report, and its results; empty for none. Throws FhirError. */
  async #kept(id) {
    const report = await this.#fhir.read(`DiagnosticReport/${id}`).catch((error) => {
      if (error.status !== NOT_FOUND) throw error;
    });
    if (!isSigned(report)) return [];
    const found = await this.#fhir.search("Observation", { patient: report.subject.reference });
    return [report, ...found.filter((each) => isResult(report, each))];
  }

  #prepared(id, key, make) {
    const tries = this.#tries.get(id) ?? [];
    const before = tries.find((each) => each.key === key);
    if (before) return before;
    const prepared = { key, ...make() };
    this.#tries.set(id, [...tries, prepared]);
    return prepared;
  }

  #is(id, prepared) {
    this.#unsure.delete(id);
    if (prepared) this.#signed.set(id, prepared);
  }
}

/** Whether they are the same, except for the server's additions. */
function isSame(one, other) {
  const bare = (resource) => JSON.stringify({ ...resource, meta: null });
  return bare(one) === bare(other);
}
