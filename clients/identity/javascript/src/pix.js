/** A PIX manager: IHE PIXm, transaction ITI-83. */

import { isObject, Local, objects, text } from "./local.js";
import { inForce } from "./rules.js";
import { ask, token, trimmed, UnusableAnswer, usualFetch } from "./http-json.js";

/** @typedef {import("./local.js").Json} Json */
/** @typedef {import("./local.js").Query} Query */

/**
 * 2:3.83.4.2.2: an unknown identifier is 404 `not-found`, an unknown source system 400 `code-invalid`. An unknown
 * target system is 403, which is a fault of the configuration here, and not an answer about the patient.
 */
const UNKNOWN_STATUSES = [400, 404];
const UNKNOWN_CODES = ["not-found", "code-invalid"];

/**
 * `GET base/Patient/$ihe-pix?sourceIdentifier=system|value&targetSystem=...`.
 *
 * The local id is the identifier of `targetSystem`. Where that is a FHIR server's base address, the local id is the id
 * of the Patient there. Without `targetSystem`, it is the id of the Patient in the answer. Answers have no
 * demographics: the check needs another resolver. Knows only patients, and only identifiers with a system.
 */
export class PixManager {
  name = "the patient index";
  #base;
  #http;
  #target;

  /**
   * @param {string} base
   * @param {typeof globalThis.fetch} [http] Adds headers that the server needs, such as a token.
   * @param {{targetSystem?: string}} [options]
   */
  constructor(base, http = usualFetch(), { targetSystem = "" } = {}) {
    this.#base = trimmed(base);
    this.#http = http;
    this.#target = targetSystem.trim();
  }

  /**
   * @param {Query} asked
   * @param {AbortSignal} [signal]
   * @returns {Promise<Local[]>} The patient's ids in the target system.
   */
  async find(asked, signal) {
    if (asked.type !== "Patient" || !asked.system) return [];
    const parameters = await this.#ask(asked.system, asked.value, this.#target, signal);
    if (parameters === null) return [];
    const identifiers = identifiersOf(parameters);
    const ids = this.#ids(parameters, asked).filter(Boolean);
    return ids.map((id) => new Local({ id, identifiers, source: this.name }));
  }

  /**
   * @param {string} type
   * @param {string} localId
   * @param {AbortSignal} [signal]
   * @returns {Promise<Local[]>} The patient of a local id with its identifiers in all systems.
   */
  async known(type, localId, signal) {
    if (type !== "Patient" || !this.#target) return [];
    const parameters = await this.#ask(this.#target, localId, "", signal);
    if (parameters === null) return [];
    const own = { system: this.#target, value: localId };
    return [new Local({ id: localId, identifiers: [own, ...identifiersOf(parameters)], source: this.name })];
  }

  /**
   * @param {Json[]} parameters
   * @param {Query} asked
   * @returns {string[]}
   */
  #ids(parameters, asked) {
    const own = identifiersOf(parameters).filter((each) => each.system === this.#target);
    const found = own.map((each) => each.value);
    // "The identifier value given in the sourceIdentifier parameter shall not be included in the response."
    if (this.#target === asked.system && !asked.logical) return [asked.value, ...found];
    const references = parameters
      .filter((each) => each.name === "targetId")
      .flatMap((target) => objects(target, "valueReference"))
      .map((each) => text(each.reference).split("/_history/")[0] ?? "")
      .filter((reference) => this.#isOurs(reference));
    // Ids of two servers may be the same by chance, so several addresses count as several ids.
    const addresses = [...new Set(references)];
    return [...found, ...(addresses.length === 1 ? addresses.map((each) => each.split("/").pop() ?? "") : addresses)];
  }

  /**
   * @param {string} reference
   * @returns {boolean} Whether the reference is a Patient, on the target server where there is one.
   */
  #isOurs(reference) {
    const [, server, id] = /^(.*)\/Patient\/([^/]+)$/.exec(`/${reference}`) ?? [];
    return id !== undefined && (!this.#target || server === `/${trimmed(this.#target)}`);
  }

  /**
   * @param {string} system
   * @param {string} value
   * @param {string} target
   * @param {AbortSignal} [signal]
   * @returns {Promise<Json[] | null>} The parameters of the answer; null where the manager does not know the
   *   identifier.
   */
  async #ask(system, value, target, signal) {
    /** @type {[string, string][]} */
    const asked = [["sourceIdentifier", token(system, value)]];
    if (target) asked.push(["targetSystem", target]);
    const address = `${this.#base}/Patient/$ihe-pix`;
    const { status, answer } = await ask(this.#http, address, asked, "application/fhir+json", signal);
    if (UNKNOWN_STATUSES.includes(status) && saysUnknown(answer)) return null;
    if (status !== 200 || !isObject(answer) || answer.resourceType !== "Parameters") {
      throw new UnusableAnswer(`the answer must be status 200 and Parameters, and this one is status ${status}`);
    }
    return objects(answer, "parameter");
  }
}

/**
 * @param {Json[]} parameters
 * @returns {Json[]}
 */
function identifiersOf(parameters) {
  const now = new Date();
  return parameters
    .filter((each) => each.name === "targetIdentifier")
    .flatMap((each) => objects(each, "valueIdentifier"))
    .filter((each) => text(each.value) && inForce(each, now))
    .map((each) => ({ ...each, system: text(each.system), value: text(each.value) }));
}

/** @param {unknown} answer */
function saysUnknown(answer) {
  if (!isObject(answer) || answer.resourceType !== "OperationOutcome") return false;
  return objects(answer, "issue").some((issue) => UNKNOWN_CODES.includes(issue.code));
}
