/** What a fake hub knows: which contexts are open, at which version, with which content. No I/O. */

import { HubError } from "./errors.js";
import { Event, uuid } from "./events.js";
import { changed, fullUrlIn } from "./sharing.js";

/** @typedef {import("./events.js").Message} Message */
/** @typedef {import("./sharing.js").Content} Content */

const CONFLICT = 409;

/** The open contexts of one session. */
export class FakeContexts {
  #hasVersions;
  /** By anchor, in the order in which they were opened. @type {Map<string, Message>} */
  #opens = new Map();
  /** @type {Map<string, Content>} */
  #content = new Map();
  #current = "";
  /** @type {Message | null} */
  #home = null;
  /** The id of the newest change. */
  #newest = "";

  /** @param {boolean} hasVersions Whether the hub gives contexts versions (STU3). */
  constructor(hasVersions) {
    this.#hasVersions = hasVersions;
  }

  /**
   * Take an event.
   * @param {Message} message
   * @returns {Message | null} What is distributed; null for a repeat of what is not the newest any more.
   * @throws {HubError} 409 for an update of another version than the current one.
   */
  accept(message) {
    const event = new Event(message);
    if (event.kind === "open") return this.#open(event, message);
    if (event.kind === "update" && this.#hasVersions) return this.#update(event, message);
    if (event.kind === "close") {
      this.#opens.delete(event.anchor);
      this.#content.delete(event.anchor);
      if (this.#current === event.anchor) this.#current = "";
    } else if (event.kind === "home") {
      this.#current = "";
      this.#home = message;
    }
    if (event.changes) this.#newest = event.id;
    return message;
  }

  /** What somebody who joins is told: the newest open of each type, oldest first, and Home-open where that is newer. */
  replay() {
    const newest = new Map([...this.#opens].map(([anchor, message]) => [anchor.split("/", 1)[0], message]));
    const ordered = [...this.#opens.values()].filter((message) => [...newest.values()].includes(message));
    return this.#home ? [...ordered, this.#home] : ordered;
  }

  /** @returns {Record<string, any>} The answer to "Get Current Context". */
  current() {
    const opened = this.#opens.get(this.#current);
    if (!opened) return { "context.type": "", "context.versionId": "0", "context": [] };
    const { "context.versionId": version, context } = opened.event;
    const content = this.#content.get(this.#current) ?? {};
    const entry = Object.entries(content).map(([ref, resource]) => {
      const fullUrl = fullUrlIn(content, ref);
      return fullUrl === ref ? { resource } : { fullUrl, resource };
    });
    const bundle = { resourceType: "Bundle", id: version, type: "collection", entry };
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
  #open({ anchor, id }, message) {
    const before = this.#opens.get(anchor);
    if (before?.id === id) return this.#newest === id ? before : null;
    const opened = this.#versioned(message);
    this.#opens.delete(anchor);
    this.#opens.set(anchor, opened);
    this.#content.set(anchor, this.#content.get(anchor) ?? {});
    this.#current = anchor;
    this.#home = null;
    this.#newest = id;
    return opened;
  }

  /** @param {Event} event @param {Message} message */
  #update(event, message) {
    const opened = this.#opens.get(event.anchor);
    if (!opened) throw new HubError(CONFLICT, "expected an open context");
    const version = opened.event["context.versionId"];
    if (event.version !== version) throw new HubError(CONFLICT, `expected the current version ${version}`);
    this.#content.set(event.anchor, changed(this.#content.get(event.anchor) ?? {}, event));
    const updated = this.#versioned(message, version);
    const inner = { ...opened.event, "context.versionId": updated.event["context.versionId"] };
    this.#opens.set(event.anchor, { ...opened, event: inner });
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
