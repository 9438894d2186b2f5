/**
 * What may stand on the application's screen: a slow handler may show something older over what was opened here. No I/O, no
 * clock.
 */

import { belongs, saysTheSame } from "./following.js";

/** @typedef {import("./events.js").Event} Event */

/** Own opens that are handed again one after the other, where each handler is overtaken by the next own open. */
const MOST_RESHOWS = 3;
const MOST_MAYBE_SHOWN = 8;

/** Which handler is at work, what the application opened meanwhile, and what its handler must show again. */
export class HandlerRaces {
  /** The event that its handler is being shown. @type {Event | null} */
  handling = null;
  /** What the application must be shown again: an open, or an own close of what was shown over it. @type {Event | null} */
  toReshow = null;
  /**
   * What the application may show though it is not followed: a handler that failed, or an own open; nothing was shown since.
   * @type {Event[]}
   */
  maybeShown = [];
  /** What was shown over it. @type {Event | null} */
  #shownOver = null;
  /**
   * Since the handler began: the own open that was posted last, or an own close of what the handler is called with.
   * @type {Event | null}
   */
  #ownEvent = null;
  #reshows = 0;
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
    if (!this.toReshow || !this.#shownOver) return "";
    return `${this.#shownOver.name} was shown here after the newer ${this.toReshow.name}`;
  }

  /**
   * @param {Event} event
   * @returns {Event | null} What the application shows, or is being shown, where `event` opens exactly that and nothing newer
   *     came.
   */
  alreadyShown(event) {
    const known = [this.handling, this.#following.contexts.current];
    return known.find((one) => one && saysTheSame(one, event) && this.#changes.isNewest(one)) ?? null;
  }

  /** @param {Event} event @returns {boolean} Whether a handler publishes what it is just being shown. */
  isEchoedByHandler(event) {
    return this.handling !== null && saysTheSame(this.handling, event);
  }

  /**
   * @param {Event} event
   * @param {Event[]} unsent Own events that failed.
   * @returns {boolean} Whether it is a new event, and not closed, and an own open or a handler of something else failed: the
   *     application may show that.
   */
  mayShowAnother(event, unsent) {
    const isNew = event.opens && this.#following.contexts.current?.id !== event.id;
    const mayShow = [...unsent, ...this.maybeShown].some((one) => one.opens && !saysTheSame(one, event));
    return isNew && mayShow && !this.#following.wasClosed(event);
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether the application must be shown it again still: the hub has it, and nothing newer came.
   */
  mayBeShown(event) {
    const { shown } = this.#following;
    const isShown = shown !== null && saysTheSame(shown, event);
    return event === this.toReshow && this.#changes.has(event) && (isShown || this.#changes.isNewest(event));
  }

  /**
   * @param {Event} event
   * @returns {Event | null} What has overtaken an open while its handler was at work, and does not belong to it.
   */
  newerThan(event) {
    const { shown } = this.#following;
    return shown && this.#following.isOvertaken(event) && !belongs(shown, event) ? shown : null;
  }

  /** A handler is called. @param {Event} event */
  handlerBegins(event) {
    this.handling = event;
    this.#ownEvent = null;
    if (event.opens && !event.own && event !== this.toReshow) this.#reshows = 0;
  }

  /**
   * An own event is posted: the application shows what it opens, before or after the hub's answer, and not what it closes.
   * @param {Event} event
   */
  ownPosted(event) {
    const { handling } = this;
    if (!handling) return;
    if (event.opens) this.#ownEvent = belongs(event, handling) ? null : event;
    else if (event.kind === "close" && event.anchor === handling.anchor) this.#ownEvent ??= event;
  }

  /** The application may show these, though they are not followed. @param {...Event} events */
  mayShow(...events) {
    this.maybeShown = [...this.maybeShown, ...events].slice(-MOST_MAYBE_SHOWN);
  }

  /** The hub refused an own event. @param {Event} event */
  ownRefused(event) {
    if (this.#ownEvent === event) this.#ownEvent = null;
    this.resolved(event);
  }

  /**
   * The handler has ended.
   * @param {Event} event
   * @param {boolean} shows Whether it may have shown what it was called with.
   * @param {Event | null} [newer] What has overtaken that.
   * @returns {Event | null} What is to be shown again.
   */
  handlerEnds(event, shows, newer = null) {
    const newerEvent = this.#ownEvent ?? newer;
    this.#ownEvent = null;
    if (this.handling?.id === event.id) this.handling = null;
    if (!newerEvent || !shows || !event.opens) return null;
    this.toReshow = newerEvent;
    this.#shownOver = event;
    this.#reshows += 1;
    return this.#reshows <= MOST_RESHOWS ? newerEvent : null;
  }

  /** It is shown, or need not be any more. @param {Event} event */
  resolved(event) {
    if (this.toReshow?.id === event.id) this.toReshow = this.#shownOver = null;
  }

  /** Something was opened: what was to be shown again may be left behind. */
  anotherOpened() {
    const { toReshow } = this;
    if (toReshow && this.#changes.has(toReshow) && !this.mayBeShown(toReshow)) this.resolved(toReshow);
  }

  /** The client is stopped: no handler is at work. */
  ended() {
    this.handling = this.toReshow = this.#shownOver = this.#ownEvent = null;
    this.maybeShown = [];
  }
}
