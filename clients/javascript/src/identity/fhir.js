/** The application's own ids on a FHIR server, found by identifier. */

import { isObject, Local, objects, query, text } from "./local.js";
import { bareUid, DICOM_UID } from "./rules.js";
import { ask, escaped, token, trimmed, Unanswered, usualFetch } from "./web.js";

/** @typedef {import("./local.js").Json} Json */
/** @typedef {import("./local.js").Query} Query */

/**
 * What is published of a resource that the server knows. The rest concerns nobody who follows.
 * @type {Record<string, string[]>}
 */
const PUBLISHED = {
  Patient: ["resourceType", "id", "identifier", "name", "gender", "birthDate"],
  ImagingStudy: ["resourceType", "id", "identifier", "status", "subject", "basedOn", "started"],
};

/**
 * `GET base/Patient?identifier=system|value`.
 *
 * The local id is the resource's id or, with `idSystem`, the value of its identifier of that system. A resource counts
 * only if it carries the identifier that was asked for: some servers leave out a parameter that they do not know.
 */
export class FhirSearch {
  name = "the FHIR server";
  #base;
  #http;
  #idSystem;

  /**
   * @param {string} base
   * @param {typeof globalThis.fetch} [http] Adds what the server wants, such as a token.
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
    return this.#locals(bundle, asked.type).filter((local) => carries(local.resource ?? {}, asked));
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
    return this.#locals(bundle, type).filter((local) => referenceTo(local.resource ?? {}) === reference);
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
      throw new Unanswered(`status ${status}, or no Bundle`);
    }
    if (objects(answer, "entry").some((entry) => isError(entry.resource))) {
      throw new Unanswered("the Bundle holds an error");
    }
    return answer;
  }

  /**
   * Every match of a Bundle. The pages behind it are not read, so more than one match is several.
   * @param {Json} bundle
   * @param {string} type
   * @returns {Local[]}
   */
  #locals(bundle, type) {
    const all = entries(bundle);
    const found = all.filter(({ resource, mode }) => mode === "match" && resource.resourceType === type);
    if (found.length <= 1 && objects(bundle, "link").some((link) => link.relation === "next")) {
      throw new Unanswered("the Bundle is not complete");
    }
    const people = new Map(all.map(({ resource }) => [referenceTo(resource), resource]));
    return found.map(({ resource }) => this.#local(resource, people));
  }

  /**
   * @param {Json} resource
   * @param {Map<string, Json>} people
   */
  #local(resource, people) {
    const identifiers = objects(resource, "identifier");
    const own = identifiers.filter((each) => text(each.system) === this.#idSystem && each.use !== "old");
    const ids = new Set(this.#idSystem ? own.map((each) => text(each.value)) : [text(resource.id)]);
    const [id = ""] = ids;
    if (ids.size !== 1 || !id) throw new Unanswered("a resource without one local id");
    const subject = text(objects(resource, "subject")[0]?.reference).split("/").slice(-2).join("/");
    const patient = resource.resourceType === "Patient" ? undefined : people.get(subject);
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
 * @returns {{resource: Json, mode: string}[]} Its resources, each with its search mode; a server that gives none means
 *   a match.
 */
function entries(bundle) {
  return objects(bundle, "entry")
    .filter(({ resource }) => isObject(resource) && typeof resource.resourceType === "string")
    .map((entry) => ({ resource: entry.resource, mode: isObject(entry.search) ? text(entry.search.mode) : "match" }));
}

/**
 * @param {Json} resource
 * @param {Query} asked
 * @returns {boolean} Whether the resource has the identifier exactly, as FHIR's search for tokens need not.
 */
function carries(resource, asked) {
  return objects(resource, "identifier").some((identifier) => {
    const system = text(identifier.system);
    const value = text(identifier.value);
    return system === asked.system && (system === DICOM_UID ? bareUid(value) : value) === asked.value;
  });
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
