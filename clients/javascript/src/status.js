/** Whether the application shows what the others show, for people to see (FHIRcast 3.0.0, 4.2.1). No I/O, no clock. */

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./event-order.js").Mark} Mark */
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
  /** Of the open that was followed last. @type {Mark} */
  #lastFollowed = { place: 0, at: null, heard: 0, connection: 0, isAwaited: false };
  #unsent;
  #races;
  /** Why each is not followed here, by id. @type {Map<string, {event: Event, mark: Mark, why: string}>} */
  #failed = new Map();
  /** By name of the subscriber. @type {Map<string, Failure>} */
  #behind = new Map();

  /**
   * @param {(one: Mark, other: Mark) => boolean} isOlder Compares the marks of two events.
   * @param {import("./unsent.js").UnsentEvents} unsent What the others were not told of.
   * @param {import("./handler-races.js").HandlerRaces} races What this application may show instead.
   */
  constructor(isOlder, unsent, races) {
    this.#isOlder = isOlder;
    this.#unsent = unsent;
    this.#races = races;
  }

  /** @returns {Status} How it is now. */
  get status() {
    const why = this.ownWhy || [...this.#behind.values()].map((one) => one.why).join("; ");
    const behind = Object.freeze([...this.#behind.keys()]);
    return Object.freeze({ connection: this.#connection, inSync: why === "", why, behind });
  }

  /** Why this application itself is out of step; "" where it is not. */
  get ownWhy() {
    const failed = [...this.#failed.values()].at(-1)?.why ?? "";
    return this.#trouble || failed || this.#races.why || this.#unsent.why || this.#unknown;
  }

  /** @returns {Event[]} The events that were not followed here, the newest last, as long as nothing newer is. */
  get failures() {
    return [...this.#failed.values()].map(({ event }) => event);
  }

  /** The hub confirmed. */
  connected() {
    this.#connection = "connected";
    this.#trouble = "";
  }

  /** There is no connection. @param {Connection} connection @param {string} trouble Why, as a sentence. */
  disconnected(connection, trouble) {
    this.#connection = connection;
    this.#trouble = trouble;
  }

  /** What is open at the hub is not known. @param {string} why "" when it is. @param {number} [since] The moment. */
  contextUnknown(why, since = 0) {
    this.#unknown = why;
    this.#since = since;
  }

  /**
   * What is shown was told, or is told again: if it came after all that is not known, that is known.
   * @param {Mark} mark
   */
  contextKnown(mark) {
    if (mark.heard > this.#since) this.#unknown = "";
  }

  /** This application did not follow an event. @param {Event} event @param {Mark} mark @param {string} why */
  failed(event, mark, why) {
    this.#failed.delete(event.id);
    this.#failed.set(event.id, { event, mark, why });
    bound(this.#failed);
  }

  /**
   * A SyncError came: somebody else did not follow the event, or nobody knows.
   * @param {string} subscriber
   * @param {string} id Of the event.
   * @param {Mark} mark Of the event.
   * @param {string} why
   * @param {number} since The moment.
   */
  otherFailed(subscriber, id, mark, why, since) {
    this.#behind.delete(subscriber);
    this.#behind.set(subscriber, { id, mark, why, since });
    bound(this.#behind);
  }

  /**
   * @param {Mark} mark Of an event.
   * @returns {boolean} Whether a newer open was followed since. Then nobody needs to follow that event any more.
   */
  isSuperseded(mark) {
    return this.#lastFollowed.place > mark.place && !this.#isOlder(this.#lastFollowed, mark);
  }

  /**
   * An open is followed. "When an event is received with a timestamp equal or newer than the event that caused the SyncError,
   * it assumes sync is restored" (4.2.1). What came before the SyncError proves nothing.
   * @param {Mark} mark
   * @param {string} [ownId] Of an own open: it proves nothing of those who did not follow it.
   */
  followed(mark, ownId = "") {
    if (mark.place >= this.#lastFollowed.place) this.#lastFollowed = mark;
    this.contextKnown(mark);
    for (const [id, one] of this.#failed) if (!this.#isOlder(mark, one.mark)) this.#failed.delete(id);
    for (const [name, one] of this.#behind) {
      const isProof = mark.heard >= one.since && !(ownId && one.id === ownId);
      if (isProof && !this.#isOlder(mark, one.mark)) this.#behind.delete(name);
    }
  }

  /** The event that was not followed is followed now. @param {string} id */
  recovered(id) {
    this.#failed.delete(id);
  }

  /** What the hub shows is followed now. */
  recoveredAll() {
    this.#failed.clear();
  }

  /** The event was sent again, and nobody complained. @param {string} id */
  assumeRecovered(id) {
    for (const [name, one] of this.#behind) {
      if (one.id === id) this.#behind.delete(name);
    }
  }
}

/** @param {Map<string, unknown>} map The oldest goes where there are too many. */
function bound(map) {
  if (map.size > MOST_BEHIND) map.delete(/** @type {string} */ (map.keys().next().value));
}
