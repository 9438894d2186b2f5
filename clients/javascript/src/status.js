/** Whether the application shows what the others show, for people to see (FHIRcast 3.0.0, 4.2.1). No I/O, no clock. */

/** @typedef {import("./order.js").Mark} Mark */
/** @typedef {"connecting" | "connected" | "ended"} Connection */
/**
 * @typedef {object} Status
 * @property {Connection} connection
 * @property {boolean} inSync Only while connected.
 * @property {string} why Why not in sync, as a sentence for people; "" when in sync.
 * @property {readonly string[]} behind The names of the other applications that did not follow.
 */
/** @typedef {{id: string, mark: Mark, why: string, since: number}} Failure Of an event that was not followed. */

/** Applications that are remembered as behind: a hub has no more subscribers. */
const MOST_BEHIND = 64;

/** What is known to be out of step. */
export class Sync {
  #isOlder;
  /** @type {Connection} */
  #connection = "connecting";
  #trouble = "Not connected to the hub yet";
  #unknown = "";
  /** The moment since which it is not known. */
  #since = 0;
  #untold;
  /** @type {Failure | null} */
  #failed = null;
  /** By name of the subscriber. @type {Map<string, Failure>} */
  #behind = new Map();

  /**
   * @param {(one: Mark, other: Mark) => boolean} isOlder Compares the marks of two events.
   * @param {import("./untold.js").Untold} untold What the others were not told of.
   */
  constructor(isOlder, untold) {
    this.#isOlder = isOlder;
    this.#untold = untold;
  }

  /** @returns {Status} How it is now. */
  get status() {
    const why = this.ownWhy || [...this.#behind.values()].map((one) => one.why).join("; ");
    const behind = Object.freeze([...this.#behind.keys()]);
    return Object.freeze({ connection: this.#connection, inSync: why === "", why, behind });
  }

  /** Why this application itself is out of step; "" where it is not. */
  get ownWhy() {
    return this.#trouble || (this.#failed?.why ?? "") || this.#untold.why || this.#unknown;
  }

  /** The hub confirmed. */
  connected() {
    this.#connection = "connected";
    this.#trouble = "";
  }

  /** There is no connection. @param {Connection} connection @param {string} trouble Why, as a sentence. */
  apart(connection, trouble) {
    this.#connection = connection;
    this.#trouble = trouble;
  }

  /** What is open at the hub is not known. @param {string} why "" when it is. @param {number} [since] The moment. */
  unknown(why, since = 0) {
    this.#unknown = why;
    this.#since = since;
  }

  /**
   * What is shown was told, or is told again: if it came after all that is not known, that is known.
   * @param {Mark} mark
   */
  known(mark) {
    if (mark.heard > this.#since) this.#unknown = "";
  }

  /** This application did not follow an event. @param {string} id @param {Mark} mark @param {string} why */
  failed(id, mark, why) {
    this.#failed = { id, mark, why, since: 0 };
  }

  /**
   * A SyncError came: somebody else did not follow the event, or nobody knows.
   * @param {string} subscriber
   * @param {string} id Of the event.
   * @param {Mark} mark Of the event.
   * @param {string} why
   * @param {number} since The moment.
   */
  told(subscriber, id, mark, why, since) {
    this.#behind.delete(subscriber);
    this.#behind.set(subscriber, { id, mark, why, since });
    if (this.#behind.size > MOST_BEHIND) this.#behind.delete(/** @type {string} */ (this.#behind.keys().next().value));
  }

  /**
   * An open is followed. "When an event is received with a timestamp equal or newer than the event that caused the SyncError,
   * it assumes sync is restored" (4.2.1). What came before the SyncError proves nothing.
   * @param {Mark} mark
   * @param {string} [ownId] Of an own open: it proves nothing of those who did not follow it.
   */
  followed(mark, ownId = "") {
    this.known(mark);
    if (this.#failed && !this.#isOlder(mark, this.#failed.mark)) this.#failed = null;
    for (const [name, one] of this.#behind) {
      const isProof = mark.heard >= one.since && !(ownId && one.id === ownId);
      if (isProof && !this.#isOlder(mark, one.mark)) this.#behind.delete(name);
    }
  }

  /** The event that was not followed is followed now, or needs not be any more. */
  recovered() {
    this.#failed = null;
  }

  /** The event was sent again, and nobody complained. @param {string} id */
  quiet(id) {
    for (const [name, one] of this.#behind) {
      if (one.id === id) this.#behind.delete(name);
    }
  }
}
