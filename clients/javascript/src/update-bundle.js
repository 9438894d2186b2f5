/**
 * What is shared in a context (FHIRcast 3.0.0, 2.10): changes, selections, and the answer to "Get Current Context" (2.9). No
 * I/O.
 */

import { anchorKey, isObject, makeEvent, named, reference, referenceIn, uuid } from "./events.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./events.js").Item} Item */
/** @typedef {import("./events.js").Resource} Resource */
/**
 * What is shared, by reference ("Observation/o1").
 * @typedef {Readonly<Record<string, Resource>>} Content
 */

/**
 * The version of a session in which nothing was opened yet (GET-1). "Each time the context changes, a different versionId is
 * generated" (2.9): no session that has something open is at it.
 */
export const NOTHING_OPENED = "0";

/**
 * The fullUrls of what is shared, by reference: "the `fullUrl` attribute ... enables Subscribers to consistently identify
 * content" (4.4). They are no part of the content that applications see.
 * @type {WeakMap<Content, Map<string, string>>}
 */
const URLS = new WeakMap();

/**
 * The answer to GET hub.url/{topic}: the open that it amounts to (null where nothing is open; its id and timestamp are made
 * up, for the answer has none), its version, and the content (null where the hub says nothing of it).
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
  if (typeof type !== "string" || !Array.isArray(context)) throw new Error("expected context.type and context");
  const all = context.filter(isObject);
  const version = text(given) || null;
  if (!type || all.length === 0) return { event: null, version, content: null };
  const items = /** @type {Item[]} */ (all.filter((item) => item.key !== "content"));
  const event = makeEvent(topic, `${type}-open`, items, { version, own: false });
  if (!event.anchor) throw new Error("expected the resource that the context is about");
  const shared = all.find((item) => item.key === "content");
  return { event, version, content: shared ? contentOf(shared.resource) : null };
}

/**
 * @param {string} anchor "DiagnosticReport/r1"
 * @param {(Resource | string)[]} changes Resources are put, references deleted.
 * @param {string} patient The reference of whom the anchor is about; "" where that is not known.
 * @param {Content | null} [content] What is shared already, as far as that is known: what has a fullUrl keeps it, so that
 *     those who go by it change the same.
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
 * @param {string} patient The reference of whom the anchor is about; "" where that is not known.
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
 * @returns {Content} The content after it; the one given is not changed.
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
 * @returns {string} The fullUrl under which it is shared; the reference where it has none.
 */
export function fullUrlIn(content, ref) {
  return (content && givenUrlIn(content, ref)) || ref;
}

/** @param {Content} content @param {string} ref @returns {string} The fullUrl under which it was shared; "" where it has none. */
export function givenUrlIn(content, ref) {
  return URLS.get(content)?.get(ref) ?? "";
}

/** What is shared, while it changes. */
class Entries {
  /** @type {Record<string, Resource>} */
  content;
  #urls;
  /** References by fullUrl. @type {Map<string, string>} */
  #owners = new Map();

  /** @param {Content} before It is not changed. */
  constructor(before) {
    this.content = { ...before };
    this.#urls = new Map(URLS.get(before));
    for (const [ref, url] of this.#urls) this.#owners.set(url, ref);
    URLS.set(this.content, this.#urls);
  }

  /** @param {any} entry That adds or replaces a resource. Where it has no fullUrl, it takes none away. */
  put({ resource, fullUrl }) {
    const ref = isObject(resource) ? named({ resource }) : "";
    if (!ref) return;
    this.content[ref] = /** @type {Resource} */ (resource);
    if (!text(fullUrl)) return;
    this.#forget(ref);
    this.#urls.set(ref, fullUrl);
    this.#owners.set(fullUrl, ref);
  }

  /** @param {any} entry That deletes what fullUrl names: what has it, or its end; else what request.url ends in. */
  drop({ fullUrl, request }) {
    const ref = this.#owners.get(text(fullUrl)) ?? (referenceIn(fullUrl) || referenceIn(request.url));
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

/** @param {unknown} value */
function text(value) {
  return typeof value === "string" ? value : "";
}

/** @param {string} anchor @param {string} patient @returns {Item[]} */
function about(anchor, patient) {
  const item = { key: anchorKey(anchor.split("/", 1)[0] ?? ""), reference: { reference: anchor } };
  return patient && patient !== anchor ? [item, { key: "patient", reference: { reference: patient } }] : [item];
}
