/** Contexts: what is open, with what is shared in it (FHIRcast 3.0.0, 2.10 "Content Sharing"). No I/O. */

import { isObject, referenceIn, referenceTo } from "./events.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./events.js").Item} Item */
/** @typedef {import("./events.js").Resource} Resource */
/**
 * What is shared, by reference ("Observation/o1").
 * @typedef {Readonly<Record<string, Resource>>} Content
 */

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
  const after = { ...content };
  for (const entry of entriesOf(event.context.find((item) => item.key === "updates")?.resource)) {
    if (entry.request?.method === "DELETE") {
      delete after[referenceIn(String(entry.fullUrl ?? "")) || referenceIn(String(entry.request.url ?? ""))];
    } else if (referenceTo(entry.resource)) {
      after[referenceTo(entry.resource)] = entry.resource;
    }
  }
  return after;
}

/** @param {any} bundle @returns {Content} */
function contentOf(bundle) {
  /** @type {Record<string, Resource>} */
  const content = {};
  for (const { resource } of entriesOf(bundle)) {
    if (referenceTo(resource)) content[referenceTo(resource)] = resource;
  }
  return content;
}

/** @param {any} bundle @returns {any[]} */
function entriesOf(bundle) {
  return Array.isArray(bundle?.entry) ? bundle.entry.filter(isObject) : [];
}
