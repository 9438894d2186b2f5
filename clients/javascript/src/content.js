/**
 * Content by versions (FHIRcast 3.0.0, 2.10): what is shared in each open context, in the order in which the hub sent it. No
 * I/O.
 */

import { MOST_CONTEXTS } from "./contexts.js";
import { changed } from "./update-bundle.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./update-bundle.js").Content} Content */
/**
 * What is known of one context.
 * @typedef {object} Shared
 * @property {string | null} version Null where it is not known.
 * @property {Content | null} content Null where it is not known.
 * @property {string} openedBy The id of the open.
 * @property {boolean} isSure False where the hub may have gone on without this client having been told.
 * @property {boolean} isContentless Whether the hub, when it was asked, told of no content.
 * @property {number} heard What `moment` was when something last came about it.
 * @property {Event[]} waiting Updates that wait for the content to be fetched.
 */

/** Updates that wait for the content of one context to be fetched. */
const MOST_WAITING = 64;

/** The content of every open context. Contents are replaced, never changed. */
export class Contents {
  /** Grows with all that comes: what the hub is asked for at one moment it may answer after another. */
  moment = 0;
  /** @type {Map<string, Shared>} */
  #shared = new Map();
  /** Whether what comes may tell of what was opened before. */
  isReplaying = true;
  /** Types of which a context was open before. @type {Set<string>} */
  #openBefore = new Set();
  /** The moment of the close, by anchor. @type {Map<string, number>} */
  #closed = new Map();

  /** @param {string} anchor @returns {Shared | null} Null for a context that was not opened while this client listened. */
  get(anchor) {
    return this.#shared.get(anchor) ?? null;
  }

  /** A connection was made: what comes until `joined` may tell of what was opened before. */
  replayBegins() {
    this.isReplaying = true;
    for (const shared of this.#shared.values()) Object.assign(shared, { isSure: false, waiting: [] });
  }

  /** What comes from now on happens now. */
  replayEnded() {
    this.isReplaying = false;
  }

  /** An open came: it brings a version, and the content is kept where it is known. @param {Event} event */
  opened({ anchor, id, version }) {
    this.moment += 1;
    const [type = ""] = anchor.split("/");
    const known = this.#shared.get(anchor);
    if (!known) {
      // Of the contexts of one type that were open before, only the newest is told to those who join.
      const isUnknown = this.isReplaying || this.#openBefore.has(type);
      if (this.isReplaying) this.#openBefore.add(type);
      this.#put(anchor, { version, content: isUnknown ? null : {}, openedBy: id, heard: this.moment });
      return;
    }
    const isSame = known.openedBy === id;
    if ((isSame && version !== known.version) || !(isSame || known.isSure)) known.content = null;
    Object.assign(known, { version, openedBy: id, isSure: true, heard: this.moment, waiting: [] });
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
    known.heard = this.moment;
  }

  /** A close came: "the Hub should dispose of the content". @param {string} anchor */
  closed(anchor) {
    this.moment += 1;
    this.#shared.delete(anchor);
    this.#closed.delete(anchor);
    this.#closed.set(anchor, this.moment);
    bound(this.#closed);
  }

  /**
   * The hub was asked: what came since is applied where it fits; where it was applied already, or was a close, the answer may
   * be older than what is known.
   * @param {string} anchor
   * @param {string | null} version
   * @param {Content | null} content
   * @param {number} asked The moment.
   */
  fetched(anchor, version, content, asked) {
    const before = this.#shared.get(anchor);
    if ((this.#closed.get(anchor) ?? 0) > asked || (before && before.heard > asked && before.content)) return;
    const known = before ?? this.#put(anchor, {});
    const { waiting } = known;
    Object.assign(known, { version, content, isSure: true, isContentless: content === null, waiting: [] });
    for (const event of waiting) {
      if (!known.content || event.priorVersion !== known.version || event.version === known.version) continue;
      known.content = changed(known.content, event);
      known.version = event.version;
    }
  }

  /** The version may be another one by now, if it is still this one. @param {string} anchor @param {string | null} version */
  markUncertain(anchor, version) {
    const known = this.#shared.get(anchor);
    if (known && known.version === version) known.isSure = false;
  }

  /** The hub gave the context a version that it does not tell this client. @param {string} anchor */
  forget(anchor) {
    const known = this.#shared.get(anchor);
    if (known) Object.assign(known, { isSure: false, version: null, content: null });
  }

  /** @param {string} anchor @param {Partial<Shared>} given @returns {Shared} */
  #put(anchor, given) {
    const nothing = { version: null, content: null, openedBy: "", isSure: true, isContentless: false, heard: 0, waiting: [] };
    const shared = { ...nothing, ...given };
    this.#shared.set(anchor, shared);
    bound(this.#shared);
    return shared;
  }
}

/** @param {Shared} known @param {Event} event An update. */
function apply(known, event) {
  const { content, version } = known;
  if (event.version !== null && event.version === version) {
    known.isSure = true;
  } else if (known.isContentless) {
    known.version = event.version;
  } else if (content && event.priorVersion === version) {
    Object.assign(known, { content: changed(content, event), version: event.version, isSure: true });
  } else {
    const waiting = [...known.waiting, event].slice(-MOST_WAITING);
    Object.assign(known, { content: null, version: event.version, waiting });
  }
}

/** @param {Map<string, unknown>} map The oldest goes where there are too many. */
function bound(map) {
  if (map.size > MOST_CONTEXTS) map.delete(/** @type {string} */ (map.keys().next().value));
}
