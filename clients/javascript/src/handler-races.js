/**
 * What may stand on the application's screen: a slow handler may show something older over what was opened here. No I/O, no
 * clock.
 */

import { belongs, saysTheSame } from "./following.js";

/** @typedef {import("./events.js").Event} Event */

/** Own opens that are handed again one after the other, where each handler is overtaken by the next own open. */
const MOST_AGAIN = 3;
const MOST_FAILED = 8;

/** Which handler is at work, what the application opened meanwhile, and what its handler must show again. */
export class HandlerRaces {
  /** The event that its handler is being shown. @type {Event | null} */
  handling = null;
  /** What the application must be shown again: an open, or an own close of what was shown over it. @type {Event | null} */
  again = null;
  /**
   * What the application may show though it is not followed: a handler that failed, or an own open; nothing was shown since.
   * @type {Event[]}
   */
  failed = [];
  /** What was shown over it. @type {Event | null} */
  #over = null;
  /**
   * Since the handler began: the own open that was posted last, or an own close of what the handler is called with.
   * @type {Event | null}
   */
  #chosen = null;
  #times = 0;
  #following;
  #changes;

  /**
   * @param {import("./following.js").Following} following What the application follows.
   * @param {import("./context-changes.js").ContextChanges} changes What came and was accepted.
   */
  constructor(following, changes) {
    this.#following = following;
    this.#changes = changes;
  }

  /** Why the screen may be wrong; "" where it is not. */
  get why() {
    if (!this.again || !this.#over) return "";
    return `${this.#over.name} was shown here after the newer ${this.again.name}`;
  }

  /**
   * @param {Event} event
   * @returns {Event | null} What the application shows, or is being shown, where `event` opens exactly that and nothing newer
   *     came.
   */
  shows(event) {
    const known = [this.handling, this.#following.contexts.current];
    return known.find((one) => one && saysTheSame(one, event) && this.#changes.isNewest(one)) ?? null;
  }

  /** @param {Event} event @returns {boolean} Whether a handler publishes what it is just being shown. */
  isShownAgain(event) {
    return this.handling !== null && saysTheSame(this.handling, event);
  }

  /**
   * @param {Event} event
   * @param {Event[]} untold Own events that failed.
   * @returns {boolean} Whether it is a new event, and not closed, and an own open or a handler of something else failed: the
   *     application may show that.
   */
  mayShowAnother(event, untold) {
    const isNew = event.opens && this.#following.contexts.current?.id !== event.id;
    const mayShow = [...untold, ...this.failed].some((one) => one.opens && !saysTheSame(one, event));
    return isNew && mayShow && !this.#following.wasClosed(event);
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether the application must be shown it again still: the hub has it, and nothing newer came.
   */
  mayBeShown(event) {
    const { shown } = this.#following;
    const isShown = shown !== null && saysTheSame(shown, event);
    return event === this.again && this.#changes.has(event) && (isShown || this.#changes.isNewest(event));
  }

  /**
   * @param {Event} event
   * @returns {Event | null} What has overtaken an open while its handler was at work, and does not belong to it.
   */
  newer(event) {
    const { shown } = this.#following;
    return shown && this.#following.isOvertaken(event) && !belongs(shown, event) ? shown : null;
  }

  /** A handler is called. @param {Event} event */
  begins(event) {
    this.handling = event;
    this.#chosen = null;
    if (event.opens && !event.own && event !== this.again) this.#times = 0;
  }

  /**
   * An own event is posted: the application shows what it opens, before or after the hub's answer, and not what it closes.
   * @param {Event} event
   */
  chosen(event) {
    const { handling } = this;
    if (!handling) return;
    if (event.opens) this.#chosen = belongs(event, handling) ? null : event;
    else if (event.kind === "close" && event.anchor === handling.anchor) this.#chosen ??= event;
  }

  /** The application may show these, though they are not followed. @param {...Event} events */
  mayShow(...events) {
    this.failed = [...this.failed, ...events].slice(-MOST_FAILED);
  }

  /** The hub refused an own event. @param {Event} event */
  withdrawn(event) {
    if (this.#chosen === event) this.#chosen = null;
    this.settled(event);
  }

  /**
   * The handler has ended.
   * @param {Event} event
   * @param {boolean} shows Whether it may have shown what it was called with.
   * @param {Event | null} [newer] What has overtaken that.
   * @returns {Event | null} What is to be shown again.
   */
  ends(event, shows, newer = null) {
    const chosen = this.#chosen ?? newer;
    this.#chosen = null;
    if (this.handling?.id === event.id) this.handling = null;
    if (!chosen || !shows || !event.opens) return null;
    this.again = chosen;
    this.#over = event;
    this.#times += 1;
    return this.#times <= MOST_AGAIN ? chosen : null;
  }

  /** It is shown, or need not be any more. @param {Event} event */
  settled(event) {
    if (this.again?.id === event.id) this.again = this.#over = null;
  }

  /** Something was opened: what was to be shown again may be left behind. */
  left() {
    const { again } = this;
    if (again && this.#changes.has(again) && !this.mayBeShown(again)) this.settled(again);
  }

  /** The client is stopped: no handler is at work. */
  ended() {
    this.handling = this.again = this.#over = this.#chosen = null;
    this.failed = [];
  }
}
