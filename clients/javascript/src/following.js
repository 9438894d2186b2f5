/** Which events to follow, and which context becomes current (FHIRcast 3.0.0, 2.5). No I/O, no clock. */

import { Contexts, MOST_CONTEXTS } from "./contexts.js";
import { named, sameJson } from "./events.js";
import { Order, Recent, trim } from "./event-order.js";
import { MINUTE } from "./timestamps.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./event-order.js").Mark} Mark */
/**
 * Whether to call the handler with an event, or only to acknowledge the event.
 * @typedef {"follow" | "repeat" | "old"} Verdict
 */

/** The contexts that this application follows. */
export class Following {
  contexts = new Contexts();
  order = new Order();
  /** The last Home-open, null once a context was opened after it. @type {Event | null} */
  home = null;
  /** Mark of the open that made the current context. Null: any event counts as newer. @type {Mark | null} */
  #currentMark = null;
  /** Timestamp of the current open, as an instant. @type {bigint | null} */
  #currentAt = null;
  #isAdopted = false;
  /** `currentMark` of the last current context, and the mark of its close. @type {[Mark, Mark] | null} */
  #closedMark = null;
  /** Marks of closes, by anchor, until the anchor is opened again. @type {Map<string, Mark>} */
  #closes = new Map();
  /** Ids of other events that were followed or published. */
  #done = new Recent();
  /** Ids of opens whose context was closed. */
  #closed = new Recent();
  #refused = new Recent();
  /** Ids of opens that were followed, refused or published. */
  #handed = new Recent();
  #lastHanded = "";
  /** Whether an open was handed since the last connection was made. */
  #handedOne = false;
  /** Whether an open was handed on a connection that was cut short. */
  #handedBeforeCut = false;
  /** Whether an open was handed before the last connection was made. */
  #knewOpens = false;

  /** The open or Home-open of the current context. @returns {Event | null} */
  get shown() {
    return this.contexts.current ?? this.home;
  }

  /**
   * "Subscribers SHALL ignore messages with older timestamps than the message that established the current context"
   * (2.5).
   * @param {Event} event
   * @returns {Verdict} Whether the application is to follow the event.
   */
  verdict(event) {
    if (this.#isRepeat(event)) return "repeat";
    if (this.#isLeftBehind(event) || this.#endedWhileWaiting(event)) return "old";
    return event.changes && this.#isOld(event) ? "old" : "follow";
  }

  /**
   * A connection was made, and the hub replays the open contexts. The replay is newer than everything received before.
   * @param {boolean} ordered
   * @param {boolean} [wasCutShort] Whether the last connection was lost before its replay may have ended.
   */
  connected(ordered, wasCutShort = false) {
    this.#handedOne &&= wasCutShort && this.#knewOpens;
    this.#handedBeforeCut = this.#handedOne;
    this.#knewOpens = this.#lastHanded !== "";
    this.#currentMark = null;
    this.#currentAt = null;
    this.#closedMark = null;
    this.order.connected(ordered);
  }

  /**
   * The application followed or published an event. An event that was overtaken meanwhile does not become current.
   * @param {Event} event
   * @param {bigint} now The local clock as an instant. A timestamp in the future keeps other events out for a minute at
   *   most.
   */
  followed(event, now) {
    const isOld = this.isOvertaken(event);
    const close = this.#closedSince(event);
    this.#noteHanded(event);
    this.#refused.discard(event.id);
    if (event.kind === "open") {
      this.#closes.delete(event.anchor);
      this.contexts.opened(event, isOld);
    } else if (event.kind === "close") {
      this.#done.add(event.id);
      if (!(isOld && this.contexts.isCurrent(event.anchor))) this.#close(event.anchor, this.order.mark(event));
    } else if (event.kind !== "home") {
      this.#done.add(event.id);
    } else if (!isOld) {
      this.contexts.homeOpened();
      this.home = event;
    }
    if (event.opens && !isOld) this.#setCurrentMark(event, now);
    if (close) this.#close(event.anchor, close);
  }

  /**
   * The event is the answer to "Get Current Context". The time of the open is unknown.
   * @param {Event} event
   */
  adopted(event) {
    this.contexts.opened(event, false);
    this.#forgetCurrentMark();
    this.home = null;
    this.#isAdopted = true;
  }

  /**
   * A repeat came. A new open of the same context counts from now on.
   * @param {Event} event
   * @param {bigint} now
   * @returns {boolean} Whether the application shows its context.
   */
  repeated(event, now) {
    if (event.kind === "home") {
      this.home = event;
      return true;
    }
    if (event.kind !== "open" || this.wasClosed(event)) return false;
    if (this.#saysTheSame(event) && !this.#isOld(event)) {
      this.#noteRepeated(event);
      this.contexts.opened(event, false);
      this.#setCurrentMark(event, now);
    }
    return true;
  }

  /** The order around an own open is not certain: the next replay may hold newer contexts. */
  placeUncertain() {
    this.#knewOpens = true;
  }

  /**
   * @param {Event} event An open or Home-open.
   * @returns {boolean} Whether the event tells the hub's current context: not where the application left that context,
   *   or may have left it.
   */
  tellsCurrent(event) {
    const mayBeLeft = this.#handedBeforeCut && this.#handed.has(event.id);
    return !mayBeLeft && this.verdict(event) !== "old";
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether an open is old only because the echo of an own open is still missing.
   */
  isOldByEcho({ kind }) {
    return kind === "open" && this.order.isKept && this.#currentMark !== null && this.#currentMark.isAwaited;
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether an open was closed before its turn, and is newer than the current context. The current
   *   context is then not current at the hub.
   */
  missedEnd(event) {
    const isClosed = event.kind === "open" && (this.wasClosed(event) || this.#endedWhileWaiting(event));
    if (!isClosed || !this.contexts.current || this.contexts.isCurrent(event.anchor)) return false;
    return !this.#isOld(event) && !this.#isLeftBehind(event);
  }

  /**
   * An old event was ignored. A late close still closes a context that is not current.
   * @param {Event} event
   */
  ignored(event) {
    const open = this.contexts.opens.get(event.anchor);
    if (event.kind !== "close" || !open || this.contexts.isCurrent(event.anchor)) return;
    this.#done.add(event.id);
    const mark = this.order.mark(event);
    if (!this.order.isOlder(mark, this.order.mark(open))) this.#close(event.anchor, mark);
  }

  /** The application did not follow the event. @param {Event} event */
  refused(event) {
    this.#refused.add(event.id);
    this.#noteHanded(event);
  }

  /** @param {Event} event */
  #isRepeat(event) {
    if (event.kind === "open") return this.wasClosed(event) || this.#saysTheSame(event) || this.#isImplied(event);
    if (event.kind === "home") return this.home !== null;
    return this.#done.has(event.id) && !this.#closesStill(event);
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether the context of an open was closed here. Where the hub orders events, the close must not
   *   be older.
   */
  wasClosed(event) {
    const close = this.order.isKept && this.#closes.get(event.anchor);
    return this.#closed.has(event.id) && !(close && this.order.isOlder(close, this.order.mark(event)));
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether the event is a close of a context that was shown since, though the close is newer than
   *   its open.
   */
  #closesStill(event) {
    const open = event.kind === "close" && this.contexts.opens.get(event.anchor);
    return Boolean(open) && this.order.isOlder(this.order.mark(/** @type {Event} */ (open)), this.order.mark(event));
  }

  /** Whether the event is the current open, or opens exactly the current context. @param {Event} event */
  #saysTheSame(event) {
    const { current } = this.contexts;
    if (!current) return false;
    return current.id === event.id || this.#isAdoptedOpen(current, event) || saysTheSame(current, event);
  }

  /**
   * @param {Event} current
   * @param {Event} event
   * @returns {boolean} Whether the event is the open that was learnt from "Get Current Context".
   */
  #isAdoptedOpen(current, event) {
    const isSame = current.anchor === event.anchor && (event.version === null || event.version === current.version);
    return isSame && this.#isAdopted;
  }

  /**
   * Whether the current open implies this one: hubs also send opens for the resources in an open (2.5).
   * @param {Event} event
   */
  #isImplied(event) {
    const { current } = this.contexts;
    return (
      current !== null &&
      current.timestamp === event.timestamp &&
      !this.#refused.has(event.id) &&
      event.anchor !== "" &&
      event.anchor !== current.anchor &&
      current.context.some((item) => named(item) === event.anchor)
    );
  }

  /**
   * The replay holds the newest open of each type, even where everybody moved on to another type. Ignore such opens
   * until an open that was missed is followed: later events are then newer.
   * @param {Event} event
   * @returns {boolean} Whether an open was handed here before, and another open was handed after it.
   */
  #isLeftBehind({ kind, id }) {
    return kind === "open" && this.#handed.has(id) && !this.#handedOne && id !== this.#lastHanded;
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether the context of an open ended while the open waited: by its close, by Home-open, or by
   *   the close of a newer context.
   */
  #endedWhileWaiting(event) {
    return this.#closedSince(event) !== null || this.#leftSince(event);
  }

  /**
   * @param {Event} event
   * @returns {Mark | null} Mark of the close that ended the context of an open, where the open waited or its handler
   *   was at work.
   */
  #closedSince(event) {
    const close = this.#closes.get(event.anchor);
    return event.kind === "open" && close && this.#arrivedBefore(this.order.mark(event), close, close) ? close : null;
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether Home-open, or the close of a newer context, came while an open waited.
   */
  #leftSince(event) {
    const mark = this.order.mark(event);
    const home = this.home && this.order.mark(this.home);
    const limits = [home ? [home, home] : null, this.#closedMark];
    return event.kind === "open" && limits.some((limit) => {
      const [newer, since] = limit ?? [];
      return newer && since && this.#arrivedBefore(mark, newer, since);
    });
  }

  /**
   * @param {Mark} mark
   * @param {Mark} newer
   * @param {Mark} since Mark of a close or Home-open.
   * @returns {boolean} Whether `mark` is older than `newer`, and came before `since`, or belongs there. Clocks prove
   *   nothing about later arrivals.
   */
  #arrivedBefore(mark, newer, since) {
    const isBefore = this.order.isKept || since.isAwaited || mark.lastSeen <= since.lastSeen;
    return isBefore && this.order.isOlder(mark, newer);
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether a newer context became current before the handler ended.
   */
  isOvertaken(event) {
    return this.#isOld(event) || this.#leftSince(event);
  }

  /**
   * Whether the event is older than the current context. Where the hub orders events, a close of another context is not
   * old.
   * @param {Event} event
   */
  #isOld(event) {
    if (this.order.isKept) return this.#currentMark !== null && this.#isBefore(event, this.#currentMark);
    return event.at !== null && this.#currentAt !== null && event.at < this.#currentAt;
  }

  /** @param {Event} event @param {Mark} made */
  #isBefore(event, made) {
    if (event.kind === "close" && !this.contexts.isCurrent(event.anchor)) return false;
    return this.order.isOlder(this.order.mark(event), made);
  }

  /** @param {Event} event @param {bigint} now */
  #setCurrentMark(event, now) {
    this.#forgetCurrentMark();
    this.#currentMark = this.order.mark(event);
    this.#closedMark = null;
    if (event.kind !== "open") return;
    this.home = null;
    const most = now + MINUTE;
    this.#currentAt = event.at !== null && event.at > most ? most : event.at;
  }

  /** The next open counts as newer, whatever its timestamp is. */
  #forgetCurrentMark() {
    this.#currentMark = null;
    this.#currentAt = null;
    this.#isAdopted = false;
  }

  /** @param {Event} event */
  #noteRepeated(event) {
    if (this.#isAdopted) {
      this.#handed.add(event.id);
      this.#lastHanded = event.id;
    } else if (!this.#handed.has(event.id)) {
      this.#noteHanded(event);
    }
  }

  /** @param {Event} event */
  #noteHanded({ opens, id }) {
    if (!opens) return;
    this.#handed.add(id);
    this.#lastHanded = id;
    this.#handedOne = true;
  }

  /** @param {string} anchor @param {Mark} mark Mark of the close. */
  #close(anchor, mark) {
    if (this.contexts.isCurrent(anchor)) {
      this.#closedMark = this.#currentMark && [this.#currentMark, mark];
      this.#forgetCurrentMark();
    }
    const known = this.#closes.get(anchor);
    if (!known || !this.order.isOlder(mark, known)) this.#closes.set(anchor, mark);
    trim(this.#closes, MOST_CONTEXTS);
    const closed = this.contexts.closed(anchor);
    if (closed) this.#closed.add(closed.id);
  }
}

/**
 * @param {Event} one
 * @param {Event} other
 * @returns {boolean} Whether two opens, or two Home-opens, open exactly the same.
 */
export function saysTheSame(one, other) {
  return (
    one.kind === other.kind &&
    one.opens &&
    one.anchor === other.anchor &&
    one.name.toLowerCase() === other.name.toLowerCase() &&
    sameJson(one.context, other.context)
  );
}

/**
 * @param {Event} opened
 * @param {Event} shown
 * @returns {boolean} Whether the first belongs to the second, as a study belongs to its patient.
 */
export function belongs(opened, shown) {
  return opened.context.some((item) => named(item) === shown.anchor);
}
