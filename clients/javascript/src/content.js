/**
 * Shared content of each open context, by versions (FHIRcast 3.0.0, 2.10), in the order of the hub's updates. No I/O.
 */

import { MOST_CONTEXTS } from "./contexts.js";
import { trim } from "./event-order.js";
import { changed } from "./update-bundle.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./update-bundle.js").Content} Content */
/**
 * The shared content of one context.
 * @typedef {object} Shared
 * @property {string | null} version Null where unknown.
 * @property {Content | null} content Null where unknown.
 * @property {string} openedBy Id of the open.
 * @property {boolean} isCertain False where the hub may have a newer version.
 * @property {boolean} isContentless Whether the hub's answer had no content.
 * @property {number} lastSeen `moment` at the last event about the context.
 * @property {Event[]} waiting Updates that wait until the content is fetched.
 */

/** Updates kept for one context until its content is fetched. */
const MOST_WAITING = 64;

/** The content of every open context. Contents are replaced, never changed. */
export class Contents {
  /** Counts events. An answer of the hub is compared with the moment of the request. */
  moment = 0;
  /** @type {Map<string, Shared>} */
  #shared = new Map();
  /** Whether the hub may still be replaying opens from before the connection. */
  isReplaying = true;
  /** Types with a context that was open before. @type {Set<string>} */
  #openBefore = new Set();
  /** The moment of the close, by anchor. @type {Map<string, number>} */
  #closed = new Map();

  /**
   * @param {string} anchor
   * @returns {Shared | null} Null for a context that was not opened while this client was connected.
   */
  get(anchor) {
    return this.#shared.get(anchor) ?? null;
  }

  /** A connection was made: until `replay_ended`, events may tell about earlier opens. */
  replayBegins() {
    this.isReplaying = true;
    for (const shared of this.#shared.values()) Object.assign(shared, { isCertain: false, waiting: [] });
  }

  /** The replay is over: events are new from now on. */
  replayEnded() {
    this.isReplaying = false;
  }

  /** An open came, with a version. Known content is kept. @param {Event} event */
  opened({ anchor, id, version }) {
    this.moment += 1;
    const [type = ""] = anchor.split("/");
    const known = this.#shared.get(anchor);
    if (!known) {
      // The hub replays only the newest open of each type.
      const isUnknown = this.isReplaying || this.#openBefore.has(type);
      if (this.isReplaying) this.#openBefore.add(type);
      this.#put(anchor, { version, content: isUnknown ? null : {}, openedBy: id, lastSeen: this.moment });
      return;
    }
    const isSame = known.openedBy === id;
    if ((isSame && version !== known.version) || !(isSame || known.isCertain)) known.content = null;
    Object.assign(known, { version, openedBy: id, isCertain: true, lastSeen: this.moment, waiting: [] });
  }

  /**
   * An update came: "receiving applications MAY use [priorVersionId] to ensure they apply the updates to the proper version".
   * @param {Event} event
   */
  updated(event) {
    this.moment += 1;
    const before = this.#shared.get(event.anchor);
    if (before) apply(before, event);
    const known = before ?? this.#put(event.anchor, { version: event.version });
    known.lastSeen = this.moment;
  }

  /** A close came: "the Hub should dispose of the content". @param {string} anchor */
  closed(anchor) {
    this.moment += 1;
    this.#shared.delete(anchor);
    this.#closed.delete(anchor);
    this.#closed.set(anchor, this.moment);
    trim(this.#closed, MOST_CONTEXTS);
  }

  /**
   * The hub's answer came. Later updates are applied where they fit. The answer is ignored where a later update was
   * applied already, or a close came: it may be older than the content here.
   * @param {string} anchor
   * @param {string | null} version
   * @param {Content | null} content
   * @param {number} asked The moment of the request.
   */
  fetched(anchor, version, content, asked) {
    const before = this.#shared.get(anchor);
    if ((this.#closed.get(anchor) ?? 0) > asked || (before && before.lastSeen > asked && before.content)) return;
    const known = before ?? this.#put(anchor, {});
    const { waiting } = known;
    Object.assign(known, { version, content, isCertain: true, isContentless: content === null, waiting: [] });
    for (const event of waiting) {
      if (!known.content || event.priorVersion !== known.version || event.version === known.version) continue;
      known.content = changed(known.content, event);
      known.version = event.version;
    }
  }

  /**
   * The version may be out of date, if it is still this version.
   * @param {string} anchor
   * @param {string | null} version
   */
  markUncertain(anchor, version) {
    const known = this.#shared.get(anchor);
    if (known && known.version === version) known.isCertain = false;
  }

  /** The hub gave the context a version that it does not send to this client. @param {string} anchor */
  forget(anchor) {
    const known = this.#shared.get(anchor);
    if (known) Object.assign(known, { isCertain: false, version: null, content: null });
  }

  /** @param {string} anchor @param {Partial<Shared>} given @returns {Shared} */
  #put(anchor, given) {
    const nothing = { version: null, content: null, openedBy: "", isCertain: true, isContentless: false, lastSeen: 0, waiting: [] };
    const shared = { ...nothing, ...given };
    this.#shared.set(anchor, shared);
    trim(this.#shared, MOST_CONTEXTS);
    return shared;
  }
}

/** @param {Shared} known @param {Event} event An update. */
function apply(known, event) {
  const { content, version } = known;
  if (event.version !== null && event.version === version) {
    known.isCertain = true;
  } else if (known.isContentless) {
    known.version = event.version;
  } else if (content && event.priorVersion === version) {
    Object.assign(known, { content: changed(content, event), version: event.version, isCertain: true });
  } else {
    const waiting = [...known.waiting, event].slice(-MOST_WAITING);
    Object.assign(known, { content: null, version: event.version, waiting });
  }
}
