/** State of a fake hub: open contexts, their versions and their content. No I/O. */

import { HubError } from "./errors.js";
import { Event, referenceIn, uuid } from "./events.js";
import { changed, givenUrlIn } from "./update-bundle.js";

/** @typedef {import("./events.js").Message} Message */
/** @typedef {import("./update-bundle.js").Content} Content */

const BAD = 400;
const CONFLICT = 409;

/** The open contexts of one session. tests/clients/test_fake_contexts.py compares them with the hub's core. */
export class FakeContexts {
  #hasVersions;
  /** By anchor, in the order of their opens. @type {Map<string, Message>} */
  #opens = new Map();
  /** @type {Map<string, Content>} */
  #content = new Map();
  #current = "";
  /** Version of the current context, or of no context. */
  #version = "0";
  /** @type {Message | null} */
  #home = null;
  /** Count of accepted changes, in all and until the last change of context. */
  #order = 0;
  #changed = 0;
  /** When each change was accepted, by its text. @type {Map<string, number>} */
  #recent = new Map();
  /** The texts of updates. @type {Set<string>} */
  #updates = new Set();

  /** @param {boolean} hasVersions Whether the hub has versions (STU3). */
  constructor(hasVersions) {
    this.#hasVersions = hasVersions;
  }

  /**
   * Accept an event.
   * @param {Message} message
   * @returns {Message | null} The message to distribute; null for a repeated open that is no longer the newest.
   * @throws {HubError} 409 for an update of another version than the current one, and for a select outside the current
   *     context. 400 where an update deletes a resource that is not shared.
   */
  accept(message) {
    const event = new Event(message);
    if (event.kind === "update" && this.#hasVersions) return this.#update(event, message);
    if (event.kind === "select" && this.#hasVersions) this.#checkSelect(event);
    if (!event.changes) return message;
    const text = JSON.stringify(message);
    const seen = this.#recent.get(text);
    if (seen !== undefined) {
      const newest = event.kind === "open" ? (this.#opens.get(event.anchor) ?? message) : message;
      return seen >= this.#changed ? newest : null;
    }
    this.#recent.set(text, (this.#order += 1));
    if (event.kind === "open") return this.#open(event, message);
    if (event.kind === "close") this.#close(event);
    else this.#goHome(message);
    return message;
  }

  /** The replay for a new connection: the newest open of each type, oldest first, and Home-open where it is newer. */
  replay() {
    const newest = new Map([...this.#opens].map(([anchor, message]) => [anchor.split("/", 1)[0], message]));
    const ordered = [...this.#opens.values()].filter((message) => [...newest.values()].includes(message));
    return this.#home ? [...ordered, this.#home] : ordered;
  }

  /** @returns {Record<string, any>} The answer to "Get Current Context". */
  current() {
    const opened = this.#opens.get(this.#current);
    if (!opened) return { "context.type": "", "context.versionId": this.#version, "context": [] };
    const { "context.versionId": version, context } = opened.event;
    const content = this.#content.get(this.#current) ?? {};
    const entry = Object.entries(content).map(([ref, resource]) => {
      const fullUrl = givenUrlIn(content, ref);
      return fullUrl ? { fullUrl, resource } : { resource };
    });
    // JSON of FHIR has no empty arrays.
    const bundle = { resourceType: "Bundle", id: version, type: "collection", ...(entry.length > 0 ? { entry } : {}) };
    return {
      "context.type": this.#current.split("/", 1)[0],
      "context.versionId": version,
      "context": [...context, { key: "content", resource: bundle }],
    };
  }

  /** @param {string} anchor */
  isOpen(anchor) {
    return this.#opens.has(anchor);
  }

  /** @param {Event} event @param {Message} message */
  #open({ anchor }, message) {
    const opened = this.#versioned(message);
    this.#opens.delete(anchor);
    this.#opens.set(anchor, opened);
    this.#content.set(anchor, this.#content.get(anchor) ?? {});
    this.#current = anchor;
    this.#home = null;
    this.#changed = this.#order;
    return opened;
  }

  /** @param {Event} event */
  #close({ anchor }) {
    if (this.#opens.delete(anchor)) this.#changed = this.#order;
    this.#content.delete(anchor);
    if (this.#current !== anchor) return;
    this.#current = "";
    this.#version = uuid();
  }

  /** @param {Message} message */
  #goHome(message) {
    this.#current = "";
    this.#version = uuid();
    this.#home = message;
    this.#changed = this.#order;
  }

  /** @param {Event} event */
  #checkSelect({ anchor }) {
    if (!this.#opens.has(anchor)) throw new HubError(CONFLICT, "the context is not open");
    if (this.#current !== anchor) throw new HubError(CONFLICT, "the context is not current");
  }

  /** @param {Event} event @param {Message} message @returns {Message | null} */
  #update(event, message) {
    const text = JSON.stringify(message);
    const opened = this.#opens.get(event.anchor);
    if (!opened) throw new HubError(CONFLICT, "the context is not open");
    if (this.#updates.has(text)) return null;
    const version = opened.event["context.versionId"];
    if (event.version !== version) throw new HubError(CONFLICT, `the current version is ${version}`);
    const content = this.#content.get(event.anchor) ?? {};
    for (const entry of event.resource("updates")?.entry ?? []) {
      if (entry.request?.method === "DELETE") checkDelete(content, entry);
    }
    this.#updates.add(text);
    this.#content.set(event.anchor, changed(content, event));
    const updated = this.#versioned(message, version);
    const inner = { ...opened.event, "context.versionId": updated.event["context.versionId"] };
    this.#opens.set(event.anchor, { ...opened, event: inner });
    this.#changed = this.#order += 1;
    return updated;
  }

  /** @param {Message} message @param {string} [prior] @returns {Message} */
  #versioned(message, prior) {
    if (!this.#hasVersions) return message;
    const { "context.versionId": _, ...inner } = message.event;
    const given = { "context.versionId": uuid(), ...(prior ? { "context.priorVersionId": prior } : {}) };
    return { ...message, event: /** @type {import("./events.js").Body} */ ({ ...inner, ...given }) };
  }
}

/**
 * @param {Content} content
 * @param {any} entry
 * @throws {HubError} Where an entry names two resources, or a resource that is not shared.
 */
function checkDelete(content, { fullUrl, request: { url } }) {
  const owner = Object.keys(content).find((ref) => fullUrl && givenUrlIn(content, ref) === fullUrl);
  const [one, other] = [owner ?? referenceIn(fullUrl), referenceIn(url)];
  if (one && other && one !== other) throw new HubError(BAD, `updates: an entry names two resources, ${one} and ${other}`);
  if (!content[one || other]) throw new HubError(BAD, "updates: the resource is not shared");
}
