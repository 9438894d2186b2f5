/** Which events are followed, and what they make current (FHIRcast 3.0.0, 2.5). No I/O, no clock. */

import { Contexts, MOST_CONTEXTS } from "./contexts.js";
import { named, sameJson } from "./events.js";
import { Order, Recent } from "./event-order.js";
import { MINUTE } from "./timestamps.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./event-order.js").Mark} Mark */
/** What is to be done with an event: hand it to its handler, or only acknowledge it. @typedef {"follow" | "repeat" | "old"} Verdict */

/** What this application follows. */
export class Following {
  contexts = new Contexts();
  order = new Order();
  /** The Home-open that nothing has followed since. @type {Event | null} */
  home = null;
  /** The mark of what made the current context; null where anything is newer. @type {Mark | null} */
  #currentMark = null;
  /** Its timestamp as an instant, as far as it counts. @type {bigint | null} */
  #currentAt = null;
  #isAdopted = false;
  /** As `made`, of what was current until a close, and the close. @type {[Mark, Mark] | null} */
  #closedMark = null;
  /** Of what was closed and not opened since, by anchor. @type {Map<string, Mark>} */
  #closes = new Map();
  /** Events other than opens that were followed or published. */
  #done = new Recent();
  /** Opens whose context was closed. */
  #closed = new Recent();
  #refused = new Recent();
  /** Opens that were followed, refused or published. */
  #handed = new Recent();
  #lastHanded = "";
  /** Whether one was since the last connection was made. */
  #handedOne = false;
  /** Whether that was on a connection that was cut short. */
  #handedBeforeCut = false;
  /** Whether one was before the last connection was made. */
  #knewOpens = false;

  /** The open or Home-open that made what is current. @returns {Event | null} */
  get shown() {
    return this.contexts.current ?? this.home;
  }

  /**
   * "Subscribers SHALL ignore messages with older timestamps than the message that established the current context" (2.5).
   * @param {Event} event
   * @returns {Verdict} Whether the application is to follow it.
   */
  verdict(event) {
    if (this.#isRepeat(event)) return "repeat";
    if (this.#isLeftBehind(event) || this.#endedWhileWaiting(event)) return "old";
    return event.changes && this.#isOld(event) ? "old" : "follow";
  }

  /**
   * A connection was made: the hub tells again what is open. What it tells now is newer than what it told before.
   * @param {boolean} ordered
   * @param {boolean} [wasCutShort] Whether the last connection was lost before the hub may have told everything.
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
   * The application follows, or published, an event; one that something newer overtook meanwhile is not current.
   * @param {Event} event
   * @param {bigint} now The own clock as an instant: a timestamp of the future keeps others from being followed for a minute
   *     at most.
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
   * The hub answered, when asked, that an event made the current context; when it was made is not known.
   * @param {Event} event
   */
  adopted(event) {
    this.contexts.opened(event, false);
    this.#forgetCurrentMark();
    this.home = null;
    this.#isAdopted = true;
  }

  /**
   * A repeat came. One that says the same anew counts from now on.
   * @param {Event} event
   * @param {bigint} now
   * @returns {boolean} Whether it is what the application shows.
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

  /** What else was opened before or after an own open is not certain: the next connection may tell what is newer. */
  placeUncertain() {
    this.#knewOpens = true;
  }

  /**
   * @param {Event} event An open or Home-open.
   * @returns {boolean} Whether it says what is open at the hub: not one that was left, or that may have been.
   */
  tellsCurrent(event) {
    const mayBeLeft = this.#handedBeforeCut && this.#handed.has(event.id);
    return !mayBeLeft && this.verdict(event) !== "old";
  }

  /** @param {Event} event @returns {boolean} Whether an open is old only because the echo of an own one has not come yet. */
  isOldByEcho({ kind }) {
    return kind === "open" && this.order.isKept && this.#currentMark !== null && this.#currentMark.isAwaited;
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether it is an open that is not followed, for it was closed while it waited here, and it is newer than
   *     what is shown: at the hub that is not current any more.
   */
  missedEnd(event) {
    const isClosed = event.kind === "open" && (this.wasClosed(event) || this.#endedWhileWaiting(event));
    if (!isClosed || !this.contexts.current || this.contexts.isCurrent(event.anchor)) return false;
    return !this.#isOld(event) && !this.#isLeftBehind(event);
  }

  /**
   * An old event came. It changes nothing that is shown; a context that is not current may be closed by it.
   * @param {Event} event
   */
  ignored(event) {
    const open = this.contexts.opens.get(event.anchor);
    if (event.kind !== "close" || !open || this.contexts.isCurrent(event.anchor)) return;
    this.#done.add(event.id);
    const mark = this.order.mark(event);
    if (!this.order.isOlder(mark, this.order.mark(open))) this.#close(event.anchor, mark);
  }

  /** The application did not follow. @param {Event} event */
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
   * @returns {boolean} Whether it is an open whose context was closed here, by a close that is not older where the hub keeps an
   *     order.
   */
  wasClosed(event) {
    const close = this.order.isKept && this.#closes.get(event.anchor);
    return this.#closed.has(event.id) && !(close && this.order.isOlder(close, this.order.mark(event)));
  }

  /** @param {Event} event @returns {boolean} Whether it is a close, and what it closes was shown since, though it is older. */
  #closesStill(event) {
    const open = event.kind === "close" && this.contexts.opens.get(event.anchor);
    return Boolean(open) && this.order.isOlder(this.order.mark(/** @type {Event} */ (open)), this.order.mark(event));
  }

  /** Whether it is the current open, told again, or another open of exactly what is current. @param {Event} event */
  #saysTheSame(event) {
    const { current } = this.contexts;
    if (!current) return false;
    return current.id === event.id || this.#isAdoptedOpen(current, event) || saysTheSame(current, event);
  }

  /**
   * @param {Event} current
   * @param {Event} event
   * @returns {boolean} Whether it is the event of which the hub only told, when it was asked, that it made the current
   *     context.
   */
  #isAdoptedOpen(current, event) {
    const isSame = current.anchor === event.anchor && (event.version === null || event.version === current.version);
    return isSame && this.#isAdopted;
  }

  /**
   * Whether an open says no more than the current one: hubs send the opens of the resources in an open too (2.5).
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
   * Of each type the hub tells the newest open that is not closed, also one that everybody has left for another type: who
   * knows it has left it too. Only when something that was missed was followed since is what comes after that newer.
   * @param {Event} event
   * @returns {boolean} Whether it is an open that was followed or refused here, and another came after it.
   */
  #isLeftBehind({ kind, id }) {
    return kind === "open" && this.#handed.has(id) && !this.#handedOne && id !== this.#lastHanded;
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether it is an open that waited here while what it opens was closed, Home was opened, or what was
   *     opened after it was closed.
   */
  #endedWhileWaiting(event) {
    return this.#closedSince(event) !== null || this.#leftSince(event);
  }

  /**
   * @param {Event} event
   * @returns {Mark | null} Of the close that closed what an open opens, where the open waited here meanwhile, or its handler was
   *     at work.
   */
  #closedSince(event) {
    const close = this.#closes.get(event.anchor);
    return event.kind === "open" && close && this.#arrivedBefore(this.order.mark(event), close, close) ? close : null;
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether Home was opened while an open waited here, or what was opened after it was closed.
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
   * @param {Mark} since Of a close or Home-open.
   * @returns {boolean} Whether it is older than `newer`, and came before `since`, or would have: clocks alone prove nothing of
   *     what comes later.
   */
  #arrivedBefore(mark, newer, since) {
    const isBefore = this.order.isKept || since.isAwaited || mark.heard <= since.heard;
    return isBefore && this.order.isOlder(mark, newer);
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether something newer is current, or was, than an event whose handler has ended.
   */
  isOvertaken(event) {
    return this.#isOld(event) || this.#leftSince(event);
  }

  /**
   * Whether it is older than what made the current context. A close of another context is not, where the hub keeps an order.
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

  /** Whatever is opened next is newer. */
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

  /** @param {string} anchor @param {Mark} mark Of the close. */
  #close(anchor, mark) {
    if (this.contexts.isCurrent(anchor)) {
      this.#closedMark = this.#currentMark && [this.#currentMark, mark];
      this.#forgetCurrentMark();
    }
    const known = this.#closes.get(anchor);
    if (!known || !this.order.isOlder(mark, known)) this.#closes.set(anchor, mark);
    if (this.#closes.size > MOST_CONTEXTS) this.#closes.delete(/** @type {string} */ (this.#closes.keys().next().value));
    const closed = this.contexts.closed(anchor);
    if (closed) this.#closed.add(closed.id);
  }
}

/** @param {Event} one @param {Event} other @returns {boolean} Whether two opens, or two Home-opens, open exactly the same. */
export function saysTheSame(one, other) {
  return (
    one.kind === other.kind &&
    one.opens &&
    one.anchor === other.anchor &&
    one.name.toLowerCase() === other.name.toLowerCase() &&
    sameJson(one.context, other.context)
  );
}

/** @param {Event} opened @param {Event} shown @returns {boolean} Whether the first belongs to the other, as a study of that patient does. */
export function belongs(opened, shown) {
  return opened.context.some((item) => named(item) === shown.anchor);
}
