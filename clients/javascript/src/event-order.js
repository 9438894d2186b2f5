/**
 * Which of two events is newer: by the hub's order where the hub declares one, else by timestamps (FHIRcast 3.0.0,
 * 2.5). No I/O, no clock.
 */

/** @typedef {import("./events.js").Event} Event */
/**
 * The rank of an event. `place`: its place in the order of arrival. `at`: its timestamp as an instant, null where the
 * event has none. `lastSeen`: the moment at which the event came last, on `connection`. `isAwaited`: the hub accepted
 * the event, and its echo is due.
 * @typedef {{place: number, at: bigint | null, lastSeen: number, connection: number, isAwaited: boolean}} Mark
 */

/** Events that are remembered, for changes of context and for other events each. */
export const REMEMBERED = 512;
/** First place of accepted own events that await their echo. Every event that comes before the echo is older. */
const LAST = 2 ** 50;

/** Ids of events, as many as are remembered. */
export class Recent {
  /** @type {Set<string>} */
  #ids = new Set();

  /** @param {string} id */
  add(id) {
    this.#ids.delete(id);
    this.#ids.add(id);
    trim(this.#ids);
  }

  /** @param {string} id */
  discard(id) {
    this.#ids.delete(id);
  }

  /** @param {string} id */
  has(id) {
    return this.#ids.has(id);
  }
}

/** Marks of the events that were received or sent. */
export class Order {
  /** Whether the hub declares one order for all events (CFG-4). */
  isKept = false;
  /** Marks of opens, closes and Home-opens, by id. @type {Map<string, Mark>} */
  #changes = new Map();
  /** @type {Map<string, Mark>} */
  #others = new Map();
  /** Marks of own events without an echo yet. @type {Map<string, Mark>} */
  #sent = new Map();
  /** Own events without an answer when this connection was made. */
  #sentBefore = new Recent();
  /** Counts events that are received, sent and accepted. */
  moment = 0;
  #connection = 0;

  /** A connection was made. Echoes that were due on the last connection may never come. @param {boolean} isKept */
  connected(isKept) {
    this.isKept = isKept;
    this.#connection += 1;
    for (const [id, mark] of this.#sent) {
      if (!mark.isAwaited) {
        this.#sent.delete(id);
        this.#sentBefore.add(id);
      }
      mark.place = Math.min(mark.place, this.moment);
      mark.isAwaited = false;
    }
  }

  /** An event came from the hub. A repeat on the same connection keeps its place. @param {Event} event */
  received(event) {
    this.moment += 1;
    const isOwn = this.#sent.has(event.id) || this.#sentBefore.has(event.id);
    this.#sent.delete(event.id);
    this.#sentBefore.discard(event.id);
    const mark = this.#note(event);
    const isFirst = isOwn || mark.connection !== this.#connection;
    mark.connection = this.#connection;
    mark.isAwaited = false;
    if (isFirst && this.isKept) mark.place = this.moment;
  }

  /** The client is about to post an own event. @param {Event} event */
  sending(event) {
    this.moment += 1;
    if (this.markOf(event.id)) return;
    this.#sent.set(event.id, this.#note(event));
    trim(this.#sent);
  }

  /**
   * The hub accepted an own event.
   * @param {Event} event
   * @param {boolean} comesBack Whether the hub also sends the event to this client.
   * @returns {boolean} Whether its place is certain. An event that was sent before a cut may have been broadcast on the
   *     lost connection.
   */
  accepted({ id }, comesBack) {
    this.moment += 1;
    const isCertain = !this.#sentBefore.has(id);
    const mark = this.markOf(id);
    if (!mark || (isCertain && !this.#sent.has(id))) return isCertain; // the echo came before the answer
    mark.lastSeen = this.moment;
    mark.isAwaited = comesBack && isCertain;
    if (this.isKept) mark.place = this.moment + (mark.isAwaited ? LAST : 0);
    this.#sentBefore.discard(id);
    this.#sent.set(id, mark);
    return isCertain;
  }

  /** Stop waiting for an echo. @param {Event} event @returns {boolean} Whether the client waited for one. */
  echoMissing(event) {
    const mark = this.markOf(event.id);
    if (!mark?.isAwaited) return false;
    mark.place = Math.min(mark.place, this.moment);
    mark.isAwaited = false;
    return true;
  }

  /** @param {Event} event @returns {Mark} The mark of the event. An event that never came is the newest. */
  mark(event) {
    const { moment } = this;
    return (
      this.markOf(event.id) ?? { place: moment, at: event.at, lastSeen: moment, connection: 0, isAwaited: false }
    );
  }

  /** @param {string} id Of an event. @returns {Mark | null} Null for an event that never came. */
  markOf(id) {
    return this.#changes.get(id) ?? this.#others.get(id) ?? null;
  }

  /**
   * @param {Mark} one
   * @param {Mark} other
   * @returns {boolean} Whether the first is older than the second. Without timestamps, the places decide.
   */
  isOlder(one, other) {
    return this.isKept || one.at === null || other.at === null ? one.place < other.place : one.at < other.at;
  }

  /** @param {Event} event @returns {Mark} */
  #note(event) {
    const marks = event.changes ? this.#changes : this.#others;
    const mark = this.mark(event);
    mark.lastSeen = this.moment;
    marks.set(event.id, mark);
    trim(marks);
    return mark;
  }
}

/** @param {Set<string> | Map<string, unknown>} remembered Loses its oldest entry beyond the limit. @param {number} [most] */
export function trim(remembered, most = REMEMBERED) {
  if (remembered.size > most) remembered.delete(/** @type {string} */ (remembered.keys().next().value));
}
