/** Local ids on a FHIR server, found by identifier. */

import { isObject, Local, objects, query, text } from "./local.js";
import { bareUid, codes, DICOM_UID, inForce } from "./rules.js";
import { ask, escaped, token, trimmed, UnusableAnswer, usualFetch } from "./http-json.js";

/** @typedef {import("./local.js").Json} Json */
/** @typedef {import("./local.js").Query} Query */

/**
 * Members of a server's resource that are published. Other members are not for the session.
 * @type {Record<string, string[]>}
 */
const PUBLISHED = {
  Patient: ["resourceType", "id", "identifier", "name", "gender", "birthDate"],
  ImagingStudy: ["resourceType", "id", "identifier", "status", "subject", "patient", "basedOn", "started"],
};

/**
 * `GET base/Patient?identifier=system|value`.
 *
 * The local id is the resource's id or, with `idSystem`, the value of its identifier of that system. Each resource must
 * have the identifier: some servers ignore parameters that they do not know.
 */
export class FhirSearch {
  name = "the FHIR server";
  #base;
  #http;
  #idSystem;

  /**
   * @param {string} base
   * @param {typeof globalThis.fetch} [http] Adds headers that the server needs, such as a token.
   * @param {{idSystem?: string}} [options]
   */
  constructor(base, http = usualFetch(), { idSystem = "" } = {}) {
    this.#base = trimmed(base);
    this.#http = http;
    this.#idSystem = idSystem.trim();
  }

  /**
   * @param {Query} asked
   * @param {AbortSignal} [signal]
   * @returns {Promise<Local[]>} The resources with this identifier.
   */
  async find(asked, signal) {
    if (asked.logical) return asked.system === this.#base ? this.#byId(asked.type, asked.value, signal) : [];
    const bundle = await this.#search(asked.type, "identifier", tokens(asked), signal);
    const now = new Date();
    return this.#locals(bundle, asked.type, (resource) => carries(resource, asked, now));
  }

  /**
   * @param {string} type
   * @param {string} localId
   * @param {AbortSignal} [signal]
   * @returns {Promise<Local[]>} The resource of a local id.
   */
  async known(type, localId, signal) {
    if (this.#idSystem) return this.find(query(type, localId, this.#idSystem), signal);
    return this.#byId(type, `${type}/${localId}`, signal);
  }

  /**
   * @param {string} type
   * @param {string} reference
   * @param {AbortSignal} [signal]
   */
  async #byId(type, reference, signal) {
    const id = reference.slice(reference.indexOf("/") + 1);
    const bundle = await this.#search(type, "_id", escaped(id), signal);
    return this.#locals(bundle, type, (resource) => referenceTo(resource) === reference);
  }

  /**
   * @param {string} type
   * @param {string} parameter
   * @param {string} value
   * @param {AbortSignal} [signal]
   * @returns {Promise<Json>}
   */
  async #search(type, parameter, value, signal) {
    /** @type {[string, string][]} */
    const parameters = [[parameter, value]];
    if (type === "ImagingStudy") parameters.push(["_include", "ImagingStudy:patient"]);
    const address = `${this.#base}/${type}`;
    const { status, answer } = await ask(this.#http, address, parameters, "application/fhir+json", signal);
    if (status !== 200 || !isObject(answer) || answer.resourceType !== "Bundle") {
      throw new UnusableAnswer(`the answer must be status 200 and a Bundle, and this one is status ${status}`);
    }
    if (objects(answer, "entry").some((entry) => isError(entry.resource))) {
      throw new UnusableAnswer("the Bundle holds an error");
    }
    return answer;
  }

  /**
   * Further pages are not read: a single match on the first page may not be the only one.
   * @param {Json} bundle
   * @param {string} type
   * @param {(resource: Json) => boolean} isWanted
   * @returns {Local[]} The wanted matches of a Bundle.
   */
  #locals(bundle, type, isWanted) {
    const all = entries(bundle);
    const matches = all.filter(({ resource, isMatch }) => isMatch && resource.resourceType === type);
    const found = matches.filter(({ resource }) => isWanted(resource) && !isVoid(resource));
    if (found.length <= 1 && isPartial(bundle, matches.length)) throw new UnusableAnswer("the Bundle is not complete");
    /** @type {Map<string, Json>} */
    const people = new Map();
    for (const { resource, url } of all) people.set(referenceTo(resource), resource).set(url, resource);
    return found.map(({ resource }) => this.#local(resource, people));
  }

  /**
   * @param {Json} resource
   * @param {Map<string, Json>} people
   */
  #local(resource, people) {
    const now = new Date();
    const identifiers = objects(resource, "identifier");
    const own = identifiers.filter((each) => text(each.system) === this.#idSystem && inForce(each, now));
    const ids = new Set(this.#idSystem ? own.map((each) => text(each.value)) : [text(resource.id)]);
    const [id = ""] = ids;
    if (ids.size !== 1 || !id) throw new UnusableAnswer("a resource has no local id, or several");
    const patient = resource.resourceType === "Patient" ? null : subjectOf(resource, people);
    return new Local({
      id,
      type: resource.resourceType,
      identifiers,
      source: this.name,
      resource: published(resource),
      patient: patient ? published(patient) : null,
    });
  }
}

/** @param {Query} asked */
function tokens({ system, value }) {
  if (system !== DICOM_UID) return token(system, value);
  return `${token(DICOM_UID, `urn:oid:${value}`)},${token(DICOM_UID, value)}`;
}

/**
 * @param {Json} bundle
 * @returns {{resource: Json, url: string, isMatch: boolean}[]} Its resources, with their addresses, and whether they
 *   are matches. Entries without a search mode are matches.
 */
function entries(bundle) {
  return objects(bundle, "entry")
    .filter(({ resource }) => isObject(resource) && typeof resource.resourceType === "string")
    .map((entry) => {
      const mode = objects(entry, "search").map((each) => text(each.mode)).join("");
      return { resource: entry.resource, url: text(entry.fullUrl), isMatch: ["", "match"].includes(mode) };
    });
}

/**
 * @param {Json} bundle
 * @param {number} matches
 * @returns {boolean} Whether there are more matches than these.
 */
function isPartial(bundle, matches) {
  return objects(bundle, "link").some((link) => link.relation === "next") || (typeof bundle.total === "number" && bundle.total > matches);
}

/**
 * @param {Json} resource
 * @param {Query} asked
 * @param {Date} now
 * @returns {boolean} Whether the resource has exactly this identifier, still in force. A token search of FHIR does not
 *   guarantee that.
 */
function carries(resource, asked, now) {
  return objects(resource, "identifier").some((identifier) => inForce(identifier, now) && isIt(identifier, asked));
}

/**
 * @param {Json} identifier
 * @param {Query} asked
 * @returns {boolean} Whether the identifier matches the query. Numbers without a system match only with the same type.
 */
function isIt(identifier, asked) {
  const system = text(identifier.system);
  const value = text(identifier.value);
  if (system !== asked.system || (system === DICOM_UID ? bareUid(value) : value) !== asked.value) return false;
  const types = codes(identifier);
  return system !== "" || types.some((code) => asked.codes.includes(code)) || types.length + asked.codes.length === 0;
}

/**
 * @param {Json} resource
 * @returns {boolean} Whether the resource "must no longer be used": merged into another one (in DSTU2 `replace`), or
 *   entered in error.
 */
function isVoid(resource) {
  const isMerged = objects(resource, "link").some((link) => ["replaced-by", "replace"].includes(link.type));
  return isMerged || resource.status === "entered-in-error";
}

/**
 * @param {Json} resource
 * @param {Map<string, Json>} people
 * @returns {Json | undefined} The patient of a study (in STU3 `patient`), where the Bundle contains the resource.
 */
function subjectOf(resource, people) {
  const [member = {}] = ["subject", "patient"].flatMap((name) => objects(resource, name));
  const [reference = ""] = text(member.reference).split("/_history/");
  return reference ? (people.get(reference) ?? people.get(reference.split("/").slice(-2).join("/"))) : undefined;
}

/** @param {unknown} resource */
function isError(resource) {
  if (!isObject(resource) || resource.resourceType !== "OperationOutcome") return false;
  return objects(resource, "issue").some((issue) => ["error", "fatal"].includes(issue.severity));
}

/**
 * @param {Json} resource
 * @returns {Json}
 */
function published(resource) {
  const members = PUBLISHED[resource.resourceType];
  if (!members) return resource;
  return Object.fromEntries(members.filter((name) => name in resource).map((name) => [name, resource[name]]));
}

/** @param {Json} resource */
function referenceTo(resource) {
  return `${resource.resourceType}/${text(resource.id)}`;
}
