/**
 * Whether all applications of the session show the same context, for users to see (FHIRcast 3.0.0, 4.2.1). No I/O, no
 * clock.
 */

import { trim } from "./event-order.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./event-order.js").Mark} Mark */
/** @typedef {"connecting" | "connected" | "ended"} Connection */
/**
 * @typedef {object} Status
 * @property {Connection} connection
 * @property {boolean} inSync True only while connected.
 * @property {string} why Why not in sync, as a sentence for users; "" when in sync.
 * @property {readonly string[]} behind Names of other applications that did not follow.
 */
/** @typedef {{id: string, mark: Mark, why: string, since: number}} Failure Of an event that was not followed. */

/** Subscribers that are remembered as behind. */
const MOST_BEHIND = 64;

/** Reasons for being out of sync. */
export class Sync {
  #isOlder;
  /** @type {Connection} */
  #connection = "connecting";
  #trouble = "Not connected to the hub yet";
  #unknown = "";
  /** The moment since which the hub's context is not known. */
  #since = 0;
  /** The mark of the last open that was followed. @type {Mark} */
  #lastFollowed = { place: 0, at: null, lastSeen: 0, connection: 0, isAwaited: false };
  #unsent;
  #races;
  /**
   * Events that were not followed here, with mark and reason, by id.
   * @type {Map<string, {event: Event, mark: Mark, why: string}>}
   */
  #failed = new Map();
  /** By name of the subscriber. @type {Map<string, Failure>} */
  #behind = new Map();

  /**
   * @param {(one: Mark, other: Mark) => boolean} isOlder Compares the marks of two events.
   * @param {import("./unsent.js").UnsentEvents} unsent Own events that other applications may not have.
   * @param {import("./handler-races.js").HandlerRaces} races Contexts that this application may show by mistake.
   */
  constructor(isOlder, unsent, races) {
    this.#isOlder = isOlder;
    this.#unsent = unsent;
    this.#races = races;
  }

  /** @returns {Status} The status now. */
  get status() {
    const why = this.ownWhy || [...this.#behind.values()].map((one) => one.why).join("; ");
    const behind = Object.freeze([...this.#behind.keys()]);
    return Object.freeze({ connection: this.#connection, inSync: why === "", why, behind });
  }

  /** Why this application itself is out of sync; "" where it is in sync. */
  get ownWhy() {
    const failed = [...this.#failed.values()].at(-1)?.why ?? "";
    return this.#trouble || failed || this.#races.why || this.#unsent.why || this.#unknown;
  }

  /**
   * @returns {Event[]} The events that were not followed here, newest last. A newer open that is followed clears them.
   */
  get failures() {
    return [...this.#failed.values()].map(({ event }) => event);
  }

  /** The hub confirmed the subscription. */
  connected() {
    this.#connection = "connected";
    this.#trouble = "";
  }

  /** There is no connection. @param {Connection} connection @param {string} trouble The reason, as a sentence. */
  disconnected(connection, trouble) {
    this.#connection = connection;
    this.#trouble = trouble;
  }

  /**
   * The hub's current context is not known.
   * @param {string} why "" once the context is known.
   * @param {number} [since] The moment.
   */
  contextUnknown(why, since = 0) {
    this.#unknown = why;
    this.#since = since;
  }

  /**
   * The hub sent the context that is shown here. A context that came after `since` ends the doubt.
   * @param {Mark} mark
   */
  contextKnown(mark) {
    if (mark.lastSeen > this.#since) this.#unknown = "";
  }

  /** This application did not follow an event. @param {Event} event @param {Mark} mark @param {string} why */
  failed(event, mark, why) {
    this.#failed.delete(event.id);
    this.#failed.set(event.id, { event, mark, why });
    trim(this.#failed, MOST_BEHIND);
  }

  /**
   * A SyncError came: the subscriber did not follow the event, or did not answer.
   * @param {string} subscriber
   * @param {string} id Id of the event.
   * @param {Mark} mark Mark of the event.
   * @param {string} why
   * @param {number} since The moment.
   */
  otherFailed(subscriber, id, mark, why, since) {
    this.#behind.delete(subscriber);
    this.#behind.set(subscriber, { id, mark, why, since });
    trim(this.#behind, MOST_BEHIND);
  }

  /**
   * @param {Mark} mark Mark of an event.
   * @returns {boolean} Whether a newer open was followed since. No application needs to follow the older event then.
   */
  isSuperseded(mark) {
    return this.#lastFollowed.place > mark.place && !this.#isOlder(this.#lastFollowed, mark);
  }

  /**
   * An open is followed. "When an event is received with a timestamp equal or newer than the event that caused the
   * SyncError, it assumes sync is restored" (4.2.1). An event that came before the SyncError proves nothing.
   * @param {Mark} mark
   * @param {string} [ownId] Id of an own open, which proves nothing about subscribers that did not follow that open.
   */
  followed(mark, ownId = "") {
    if (mark.place >= this.#lastFollowed.place) this.#lastFollowed = mark;
    this.contextKnown(mark);
    for (const [id, one] of this.#failed) if (!this.#isOlder(mark, one.mark)) this.#failed.delete(id);
    for (const [name, one] of this.#behind) {
      const isProof = mark.lastSeen >= one.since && !(ownId && one.id === ownId);
      if (isProof && !this.#isOlder(mark, one.mark)) this.#behind.delete(name);
    }
  }

  /** The event is followed after all. @param {string} id */
  recovered(id) {
    this.#failed.delete(id);
  }

  /** The application follows the hub's current context. */
  recoveredAll() {
    this.#failed.clear();
  }

  /** The event was resent, and no SyncError about it came. @param {string} id */
  assumeRecovered(id) {
    for (const [name, one] of this.#behind) {
      if (one.id === id) this.#behind.delete(name);
    }
  }
}
