/** Update bundles, selects, and the answer to "Get Current Context" (FHIRcast 3.0.0, 2.9 and 2.10). No I/O. */

import { anchorKey, isObject, makeEvent, named, reference, referenceIn, text, uuid } from "./events.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./events.js").Item} Item */
/** @typedef {import("./events.js").Resource} Resource */
/**
 * Shared resources, by reference ("Observation/o1").
 * @typedef {Readonly<Record<string, Resource>>} Content
 */

/**
 * Version of a session without any open yet (GET-1). "Each time the context changes, a different versionId is
 * generated" (2.9), so no later session has this version.
 */
export const NOTHING_OPENED = "0";

/**
 * fullUrls of shared resources, by reference: "the `fullUrl` attribute ... enables Subscribers to consistently identify
 * content" (4.4). Applications do not see them in the content.
 * @type {WeakMap<Content, Map<string, string>>}
 */
const URLS = new WeakMap();

/**
 * The answer to GET hub.url/{topic} as an open event, with its version and content. The event is null where no context
 * is open. Its id and timestamp are made up, because the answer has none. The content is null where the hub does not
 * tell it.
 * @typedef {{event: Event | null, version: string | null, content: Content | null}} Current
 */

/**
 * @param {any} answer As JSON.
 * @param {string} topic
 * @returns {Current}
 * @throws {Error} For an answer that cannot be read.
 */
export function readCurrent(answer, topic) {
  const { "context.type": type, "context.versionId": given, context } = isObject(answer) ? answer : {};
  if (typeof type !== "string" || !Array.isArray(context)) throw new Error("context.type and context are required");
  const all = context.filter(isObject);
  const version = text(given);
  if (!type || all.length === 0) return { event: null, version, content: null };
  const items = /** @type {Item[]} */ (all.filter((item) => item.key !== "content"));
  const event = makeEvent(topic, `${type}-open`, items, { version, own: false });
  if (!event.anchor) throw new Error("the resource of the context is missing");
  const shared = all.find((item) => item.key === "content");
  return { event, version, content: shared ? contentOf(shared.resource) : null };
}

/**
 * @param {string} anchor "DiagnosticReport/r1"
 * @param {(Resource | string)[]} changes Resources are put, references deleted.
 * @param {string} patient Reference of the anchor's patient; "" where unknown.
 * @param {Content | null} [content] Known shared content. Resources keep their fullUrls, so that applications that use
 *     fullUrls change the same resource.
 * @returns {Item[]} The context of an update: "one and only one Bundle SHALL be present" (2.10).
 */
export function updateContext(anchor, changes, patient, content = null) {
  const entry = changes.map((change) => {
    const url = reference(change);
    const fullUrl = fullUrlIn(content, url);
    return typeof change === "string"
      ? { fullUrl, request: { method: "DELETE", url } }
      : { fullUrl, request: { method: "PUT", url }, resource: change };
  });
  const bundle = { resourceType: "Bundle", id: uuid(), type: "transaction", entry };
  return [...about(anchor, patient), { key: "updates", resource: bundle }];
}

/**
 * @param {string} anchor
 * @param {(Resource | string)[]} selected Resources or references; none clears the selection.
 * @param {string} patient Reference of the anchor's patient; "" where unknown.
 * @returns {Item[]} The context of a select (3.6.4).
 */
export function selectContext(anchor, selected, patient) {
  return [
    ...about(anchor, patient),
    ...selected.map((one) => ({ key: "select", reference: { reference: reference(one) } })),
  ];
}

/**
 * @param {Content} content
 * @param {Event} event An update.
 * @returns {Content} The content after the update. The given content is not changed.
 */
export function changed(content, event) {
  const entries = new Entries(content);
  for (const entry of entriesOf(event.resource("updates"))) {
    if (entry.request?.method === "DELETE") entries.drop(entry);
    else entries.put(entry);
  }
  return entries.content;
}

/**
 * @param {Content | null} content
 * @param {string} ref "Observation/o1"
 * @returns {string} Its fullUrl; the reference where it has none.
 */
export function fullUrlIn(content, ref) {
  return (content && givenUrlIn(content, ref)) || ref;
}

/** @param {Content} content @param {string} ref @returns {string} Its fullUrl until now; "" where it had none. */
export function givenUrlIn(content, ref) {
  return URLS.get(content)?.get(ref) ?? "";
}

/** Shared content while an update is applied. */
class Entries {
  /** @type {Record<string, Resource>} */
  content;
  #urls;
  /** References by fullUrl. @type {Map<string, string>} */
  #owners = new Map();

  /** @param {Content} before Is not changed. */
  constructor(before) {
    this.content = { ...before };
    this.#urls = new Map(URLS.get(before));
    for (const [ref, url] of this.#urls) this.#owners.set(url, ref);
    URLS.set(this.content, this.#urls);
  }

  /** @param {any} entry Adds or replaces a resource, which keeps its fullUrl where the entry has none. */
  put({ resource, fullUrl }) {
    const ref = isObject(resource) ? named({ resource }) : "";
    if (!ref) return;
    this.content[ref] = /** @type {Resource} */ (resource);
    if (!text(fullUrl)) return;
    this.#forget(ref);
    this.#urls.set(ref, fullUrl);
    this.#owners.set(fullUrl, ref);
  }

  /**
   * @param {any} entry Deletes the resource that fullUrl names, by itself or by its end; else the reference in which
   *     request.url ends.
   */
  drop({ fullUrl, request }) {
    const ref = this.#owners.get(text(fullUrl) ?? "") ?? (referenceIn(fullUrl) || referenceIn(request.url));
    this.#forget(ref);
    delete this.content[ref];
  }

  /** @param {string} ref */
  #forget(ref) {
    const url = this.#urls.get(ref);
    this.#urls.delete(ref);
    if (url !== undefined && this.#owners.get(url) === ref) this.#owners.delete(url);
  }
}

/** @param {any} bundle @returns {Content} */
function contentOf(bundle) {
  const entries = new Entries({});
  for (const entry of entriesOf(bundle)) entries.put(entry);
  return entries.content;
}

/** @param {any} bundle @returns {any[]} */
function entriesOf(bundle) {
  return Array.isArray(bundle?.entry) ? bundle.entry.filter(isObject) : [];
}

/** @param {string} anchor @param {string} patient @returns {Item[]} */
function about(anchor, patient) {
  const item = { key: anchorKey(anchor.split("/", 1)[0] ?? ""), reference: { reference: anchor } };
  return patient && patient !== anchor ? [item, { key: "patient", reference: { reference: patient } }] : [item];
}
