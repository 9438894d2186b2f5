/** Contexts: what is open, with what is shared in it (FHIRcast 3.0.0, 2.10 "Content Sharing"). No I/O. */

import { isObject, referenceTo } from "./events.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./events.js").Item} Item */
/** @typedef {import("./events.js").Resource} Resource */
/**
 * What is shared, by reference ("Observation/o1").
 * @typedef {Readonly<Record<string, Resource>>} Content
 */

/** The Type/id in which a URL ends, or that of the version in which it ends. */
const NAMED = /(?:^|[/:])([A-Z][A-Za-z]*\/[^/?#\s]+?)(?:\/_history\/[^/?#\s]+)?$/;
/**
 * The fullUrls of what is shared, by reference: "the `fullUrl` attribute ... enables Subscribers to consistently identify
 * content" (4.4). They are no part of the content that applications see.
 * @type {WeakMap<Content, Map<string, string>>}
 */
const URLS = new WeakMap();

/** Something that is open. It does not change: what is newer is another one. */
export class Context {
  /**
   * @param {Event} event The open that opened it.
   * @param {string | null} version The hub's context.versionId; null where it is not known.
   * @param {Content | null} content What is shared in it; null where that is not known.
   */
  constructor(event, version, content) {
    this.anchor = event.anchor;
    this.event = event;
    this.version = version;
    this.content = content;
    Object.freeze(this);
  }

  /**
   * @param {string} keyOrType "study", or "ImagingStudy".
   * @returns {Resource | null} The resource that it was opened with.
   */
  resource(keyOrType) {
    return this.event.resource(keyOrType);
  }
}

/**
 * @typedef {{version: string | null, type: string, items: Item[], content: Content | null}} Answer
 */

/**
 * @param {any} answer The hub's, to the question what is current, as JSON.
 * @returns {Answer | null} Null for what is no answer; `type` is "" when nothing is current, `content` null where the
 *     hub does not share any.
 */
export function readAnswer(answer) {
  const { "context.type": type, "context.versionId": version, context } = isObject(answer) ? answer : {};
  if (typeof type !== "string" || !Array.isArray(context)) return null;
  const all = context.filter(isObject);
  const bundle = all.find((item) => item.key === "content")?.resource;
  return {
    type,
    version: typeof version === "string" && version ? version : null,
    items: /** @type {Item[]} */ (all.filter((item) => item.key !== "content")),
    content: bundle ? contentOf(bundle) : null,
  };
}

/**
 * @param {Content} content
 * @param {Event} event An update.
 * @returns {Content} The content after it; the one given is not changed.
 */
export function applied(content, event) {
  const entries = new Entries(content);
  for (const entry of entriesOf(event.context.find((item) => item.key === "updates")?.resource)) {
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
  return (content && URLS.get(content)?.get(ref)) || ref;
}

/**
 * @param {unknown} url
 * @returns {string} "Observation/o1" of a URL that ends in it; "" of another: one to which requests go, say.
 */
export function namedBy(url) {
  return NAMED.exec(text(url))?.[1] ?? "";
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
    const ref = referenceTo(resource);
    if (!ref) return;
    this.content[ref] = resource;
    if (!text(fullUrl)) return;
    this.#forget(ref);
    this.#urls.set(ref, fullUrl);
    this.#owners.set(fullUrl, ref);
  }

  /** @param {any} entry That deletes what fullUrl names: what has it, or its end; else what request.url ends in. */
  drop({ fullUrl, request }) {
    const ref = this.#owners.get(text(fullUrl)) ?? (namedBy(fullUrl) || namedBy(request.url));
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
