/**
 * IdentityMap: finds the local id of the patient or study in an event. The result is certain; otherwise the map
 * refuses.
 */

import { Answers } from "./cache.js";
import { differences, localPerson, person } from "./demographics.js";
import { Local, objects, text } from "./local.js";
import { namedIn } from "./event-resource.js";
import { anchor, merged, ofLocal, subject, withId } from "./publish.js";
import * as refusals from "./refusals.js";
import { choose } from "./rules.js";

/** @typedef {import("./local.js").Json} Json */
/** @typedef {import("./local.js").Query} Query */
/**
 * A resource, as `client.open` accepts it.
 * @typedef {{resourceType: string, id?: string, [member: string]: any}} Published
 */
/** @typedef {import("./local.js").LocalFields} LocalFields */
/** @typedef {import("./rules.js").Rule} Rule */
/** @typedef {Iterable<Local | LocalFields> | null | undefined} Answer */
/** @typedef {(query: Query, signal: AbortSignal) => Promise<Answer>} Lookup */
/**
 * Looks up identifiers. Optional: `known` for a local id, with the same kind of answer.
 * @typedef {object} Resolver
 * @property {Lookup} find
 * @property {(type: string, localId: string, signal: AbortSignal) => Promise<Answer>} [known]
 * @property {string} [name]
 */
/**
 * @typedef {object} Options
 * @property {number} [cacheSeconds] How long an answer is kept. An answer that led to a refusal: 3 s at most.
 * @property {number} [cacheSize] Answers that are kept.
 * @property {number} [askSeconds] The time for a resolver.
 * @property {() => number} [clock] Monotonic seconds.
 */

/** Values of one kind, at most. No patient has more. */
const MOST_VALUES = 20;

/** Finds the local id of the patient or study in a FHIR resource. */
export class IdentityMap {
  #rules;
  #resolvers;
  #answers;
  #askSeconds;

  /**
   * @param {Record<string, Rule[]>} rules For each resource type, the rules that select identifiers. The first rule
   *   that selects any decides.
   * @param {(Resolver | Lookup)[]} resolvers A Table, FhirSearch, PixManager, QidoRs or any async function from a Query
   *   to a list of Local. They are asked in order until one knows the identifier. All of them must give ids of this
   *   application.
   * @param {Options} [options]
   * @throws {TypeError} For other objects.
   */
  constructor(rules, resolvers, { cacheSeconds = 300, cacheSize = 1000, askSeconds = 5, clock = seconds } = {}) {
    this.#rules = new Map(Object.entries(rules).map(([type, found]) => [type, checked(type, found)]));
    this.#resolvers = [...resolvers];
    for (const each of this.#resolvers) {
      if (typeof each !== "function" && typeof each?.find !== "function")
        throw new TypeError(`a resolver must be a function or have a method find, not ${typeof each}`);
    }
    this.#answers = new Answers(cacheSeconds, cacheSize, clock);
    this.#askSeconds = askSeconds;
  }

  /**
   * @param {{name: string, context: Json[]}} event
   * @returns {Promise<Local>} The local id for the event. A study is checked against the event's patient.
   * @throws {import("./refusals.js").Refusal} NoMatch, SeveralMatches, Mismatch or LookupFailed, with a sentence for
   *   the user.
   */
  async find(event) {
    const [named = ""] = event.name.split("-");
    const type = [...this.#rules.keys()].find((each) => each.toLowerCase() === named.toLowerCase()) ?? named;
    const { resource, url } = namedIn(event.context, type);
    if (resource === null) throw refusals.notNamed(type);
    const patient = type === "Patient" ? null : namedIn(event.context, "Patient").resource;
    return this.findResource(resource, patient, { url });
  }

  /**
   * @param {Json | null} resource Null is refused: the event has no such resource.
   * @param {Json | null} [patient] The study's patient, for the check.
   * @param {{url?: string}} [options] The resource's absolute address, if known.
   * @returns {Promise<Local>} The local id of a resource.
   * @throws {import("./refusals.js").Refusal} The same as `find`.
   */
  async findResource(resource, patient = null, { url = "" } = {}) {
    if (!resource) throw refusals.notSent();
    const type = text(resource.resourceType);
    const rules = this.#rules.get(type);
    const now = new Date();
    if (!rules) throw refusals.noRule(type);
    const chosen = choose(rules, resource, url, now);
    if (!chosen) throw refusals.noIdentifier(type, rules.map((rule) => rule.label));
    const { rule, queries } = chosen;
    if (queries.length > MOST_VALUES) throw refusals.tooMany(type, rule.label);
    const answers = await Promise.all(queries.map((each) => this.#answers.get(each, (query) => this.#lookUp(query))));
    try {
      const local = certain(type, rule.label, answers);
      compare(type, resource, patient, answers.flat(), now);
      return local;
    } catch (error) {
      for (const each of queries) this.#answers.expireSoon(each);
      throw error;
    }
  }

  /**
   * @param {string} type
   * @param {string} localId
   * @returns {Promise<Published[]>} The resources to publish for a local id, the anchor first, with all identifiers
   *   that the resolvers know. For a study, its patient follows.
   * @throws {import("./refusals.js").Refusal} NoMatch where no resolver knows the id, Mismatch where resolvers disagree
   *   about the person, and LookupFailed where a resolver cannot be asked.
   */
  async publishable(type, localId) {
    const now = new Date();
    const locals = await this.#known(type, localId, now);
    const resource = await anchor(locals, now);
    const patient = type === "Patient" ? null : subject(locals, now);
    if (!patient) return [/** @type {Published} */ (resource)];
    const identified = await withId(await this.#withAllIdentifiers(patient, now), `${type}/${localId}`);
    const study = { ...resource, subject: { reference: `Patient/${identified.id}` } };
    return /** @type {Published[]} */ ([study, identified]);
  }

  /**
   * @param {Json} patient
   * @param {Date} now
   * @returns {Promise<Json>} A study's patient with the resolvers' data about that patient, where the patient is
   *   certain.
   */
  async #withAllIdentifiers(patient, now) {
    try {
      const local = await this.findResource(patient);
      const known = await this.#known("Patient", local.id, now);
      return { ...patient, identifier: merged([objects(patient, "identifier"), ...known.map(ofLocal)], now) };
    } catch (error) {
      if (error instanceof refusals.LookupFailed || !refusals.isRefusal(error)) throw error;
      return patient;
    }
  }

  /**
   * @param {string} type
   * @param {string} localId
   * @param {Date} now
   * @returns {Promise<Local[]>} The resolvers' answers for a local id, all about the same patient or study.
   */
  async #known(type, localId, now) {
    const asked = this.#resolvers.map(async (resolver) => {
      if (typeof resolver === "function" || !resolver.known) return [];
      return this.#ask(resolver, type, async (signal) => resolver.known?.(type, localId, signal));
    });
    const locals = (await Promise.all(asked)).flat();
    if (locals.length === 0) throw refusals.notHere(type);
    if (locals.some((local) => local.id !== localId)) throw refusals.severalKnown(type);
    const people = locals.map((local) => localPerson(local, now));
    for (const [index, one] of people.entries()) {
      const differing = people.slice(index + 1).map((other) => differences(one, other)).find((each) => each.length > 0);
      if (differing) throw refusals.sourcesDiffer(type, differing);
    }
    return locals;
  }

  /**
   * Ask the resolvers in order. The first one that knows the identifier decides.
   * @param {Query} query
   * @returns {Promise<Local[]>}
   */
  async #lookUp(query) {
    for (const resolver of this.#resolvers) {
      const find = async (/** @type {AbortSignal} */ signal) =>
        typeof resolver === "function" ? resolver(query, signal) : resolver.find(query, signal);
      const answer = await this.#ask(resolver, query.type, find);
      if (answer.length > 0) return answer;
    }
    return [];
  }

  /**
   * A failure of a resolver is not an answer, and must never count as "not known".
   * @param {Resolver | Lookup} resolver
   * @param {string} type
   * @param {(signal: AbortSignal) => Promise<Answer>} question
   * @returns {Promise<Local[]>}
   */
  async #ask(resolver, type, question) {
    const limit = new AbortController();
    let timer;
    try {
      const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error("no answer in time")), this.#askSeconds * 1000);
      });
      const answer = await Promise.race([question(limit.signal), late]);
      return [...(answer ?? [])].map((each) => localOf(each, type));
    } catch (error) {
      if (refusals.isRefusal(error)) throw error;
      const source = typeof resolver === "function" ? "the lookup" : (resolver.name ?? "the lookup");
      throw refusals.failed(type, source, error);
    } finally {
      clearTimeout(timer);
      limit.abort();
    }
  }
}

function seconds() {
  return performance.now() / 1000;
}

/**
 * @param {any} given
 * @param {string} type
 * @returns {Local}
 */
function localOf(given, type) {
  const local = given instanceof Local ? given : new Local(given);
  if (local.type !== type) throw new TypeError(`a resolver answers with Local objects of type ${type}`);
  return local;
}

/** @param {string} type @param {Rule[]} rules @returns {Rule[]} @throws {TypeError} For other objects. */
function checked(type, rules) {
  const isList = Array.isArray(rules) && rules.length > 0;
  if (isList && rules.every((rule) => typeof rule?.select === "function")) return rules;
  throw new TypeError(`the rules for ${type} must be a list such as [new StudyUid()], not ${typeof rules}`);
}

/**
 * @param {string} type
 * @param {string} label
 * @param {Local[][]} answers
 * @returns {Local} The local id on which all answers agree.
 */
function certain(type, label, answers) {
  const ids = answers.map((answer) => new Set(answer.map((local) => local.id)));
  const all = new Set(ids.flatMap((each) => [...each]));
  const [local] = answers.flat();
  if (!local) throw refusals.unknown(type, label);
  if (ids.some((each) => each.size > 1)) throw refusals.several(type, label);
  if (all.size > 1) throw refusals.conflicting(type, label);
  if (ids.some((each) => each.size === 0)) throw refusals.partlyKnown(type, label);
  return local;
}

/**
 * Throws Mismatch where the patient in the event differs from the patient that was found.
 * @param {string} type
 * @param {Json} resource
 * @param {Json | null} patient
 * @param {Local[]} found
 * @param {Date} now
 */
function compare(type, resource, patient, found, now) {
  const sent = type === "Patient" ? resource : patient;
  if (!sent) return;
  if (type !== "Patient" && !belongs(resource, sent)) throw refusals.anotherSubject(type);
  for (const local of found) {
    const differing = differences(person(sent, now), localPerson(local, now));
    if (differing.length > 0) throw refusals.differ(type, differing);
  }
}

/**
 * @param {Json} resource
 * @param {Json} patient
 * @returns {boolean} Whether the resource's subject is this patient; true too where one of them does not tell.
 */
function belongs(resource, patient) {
  const ids = ["subject", "patient"]
    .flatMap((name) => objects(resource, name))
    .map((each) => (text(each.reference).split("/_history/")[0] ?? "").split("/").slice(-2))
    .filter(([type, id]) => type === "Patient" && id)
    .map(([, id]) => id);
  return ids.length === 0 || !text(patient.id) || ids.includes(text(patient.id));
}
