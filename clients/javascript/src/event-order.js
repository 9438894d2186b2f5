/**
 * Which of two events is newer: by the order in which the hub tells, where it keeps one, else by timestamps (FHIRcast 3.0.0,
 * 2.5). No I/O, no clock.
 */

/** @typedef {import("./events.js").Event} Event */
/**
 * Where an event stands: its place among those that came, and its timestamp as an instant, null where it has none. `heard`
 * is the moment when it came last, and `connection` the one on which; `isAwaited`: the hub accepted it, and will tell it back.
 * @typedef {{place: number, at: bigint | null, heard: number, connection: number, isAwaited: boolean}} Mark
 */

/** Events that are remembered of each sort. */
export const REMEMBERED = 512;
/** Places of own events that the hub has accepted and not told back yet begin here: all that is told before the echo is older. */
const LAST = 2 ** 50;

/** The ids of events, the newest of them. */
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

/** The marks of the events that came and were sent. */
export class Order {
  /** Whether the hub tells everybody all events in one order (CFG-4). */
  isKept = false;
  /** Of opens, closes and Home-opens, by id. @type {Map<string, Mark>} */
  #changes = new Map();
  /** @type {Map<string, Mark>} */
  #others = new Map();
  /** Of own events that were not told back yet. @type {Map<string, Mark>} */
  #sent = new Map();
  /** Own events that were sent and not answered before this connection was made. */
  #sentBefore = new Recent();
  /** Grows with all that comes, is sent and is accepted. */
  moment = 0;
  #connection = 0;

  /** A connection was made: the echoes that did not come on the last one may never come. @param {boolean} isKept */
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

  /** An event came from the hub. One that is told again on the same connection keeps its place. @param {Event} event */
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

  /** An own event is about to be posted. @param {Event} event */
  sending(event) {
    this.moment += 1;
    if (this.markOf(event.id)) return;
    this.#sent.set(event.id, this.#note(event));
    trim(this.#sent);
  }

  /**
   * The hub accepted an own event.
   * @param {Event} event
   * @param {boolean} comesBack Whether it tells it to this client too.
   * @returns {boolean} Whether its place is certain: not where it was sent before a connection was lost, on which it may have
   *     been told.
   */
  accepted({ id }, comesBack) {
    this.moment += 1;
    const isCertain = !this.#sentBefore.has(id);
    const mark = this.markOf(id);
    if (!mark || (isCertain && !this.#sent.has(id))) return isCertain; // it was told back already
    mark.heard = this.moment;
    mark.isAwaited = comesBack && isCertain;
    if (this.isKept) mark.place = this.moment + (mark.isAwaited ? LAST : 0);
    this.#sentBefore.discard(id);
    this.#sent.set(id, mark);
    return isCertain;
  }

  /** An echo is not waited for any more. @param {Event} event @returns {boolean} Whether it was. */
  echoMissing(event) {
    const mark = this.markOf(event.id);
    if (!mark?.isAwaited) return false;
    mark.place = Math.min(mark.place, this.moment);
    mark.isAwaited = false;
    return true;
  }

  /** @param {Event} event @returns {Mark} Where it stands; one that never came is the newest. */
  mark(event) {
    const { moment } = this;
    return (
      this.markOf(event.id) ?? { place: moment, at: event.at, heard: moment, connection: 0, isAwaited: false }
    );
  }

  /** @param {string} id Of an event. @returns {Mark | null} Null for one that never came. */
  markOf(id) {
    return this.#changes.get(id) ?? this.#others.get(id) ?? null;
  }

  /**
   * @param {Mark} one
   * @param {Mark} other
   * @returns {boolean} Whether one is older than the other. What has no timestamp is as old as its place says.
   */
  isOlder(one, other) {
    return this.isKept || one.at === null || other.at === null ? one.place < other.place : one.at < other.at;
  }

  /** @param {Event} event @returns {Mark} */
  #note(event) {
    const marks = event.changes ? this.#changes : this.#others;
    const mark = this.mark(event);
    mark.heard = this.moment;
    marks.set(event.id, mark);
    trim(marks);
    return mark;
  }
}

/** @param {Set<string> | Map<string, unknown>} remembered The oldest goes where there are too many. */
export function trim(remembered) {
  if (remembered.size > REMEMBERED) remembered.delete(/** @type {string} */ (remembered.keys().next().value));
}
