/**
 * Handlers that overlap with own events: a slow handler may show an older context over a newer one. No I/O, no clock.
 */

import { belongs, saysTheSame } from "./following.js";

/** @typedef {import("./events.js").Event} Event */

/** Re-shown events in a row, where each handler is overtaken by the next own open. */
const MOST_RESHOWS = 3;
const MOST_MAYBE_SHOWN = 8;

/** Which handler runs, what the application published meanwhile, and which event must be shown again. */
export class HandlerRaces {
  /** The event whose handler is running. @type {Event | null} */
  handling = null;
  /** The event to show again: an open, or an own close of a context that was shown over it. @type {Event | null} */
  toReshow = null;
  /**
   * Events that the application may show without following them: a failed handler's event, or an own open. Empty once
   * an event was followed.
   * @type {Event[]}
   */
  maybeShown = [];
  /** The event that was shown over it. @type {Event | null} */
  #shownOver = null;
  /**
   * Since the handler began: the last own open, or an own close of the handler's context.
   * @type {Event | null}
   */
  #ownEvent = null;
  #reshows = 0;
  #following;
  #changes;

  /**
   * @param {import("./following.js").Following} following The contexts that the application follows.
   * @param {import("./context-changes.js").ContextChanges} changes Events that were received or accepted.
   */
  constructor(following, changes) {
    this.#following = following;
    this.#changes = changes;
  }

  /** Why the application may show the wrong context; "" where all is well. */
  get why() {
    if (!this.toReshow || !this.#shownOver) return "";
    return `${this.#shownOver.name} was shown here after the newer ${this.toReshow.name}`;
  }

  /**
   * @param {Event} event
   * @returns {Event | null} The shown event, or the event of the running handler, that opens the same and is the
   *   newest.
   */
  alreadyShown(event) {
    const known = [this.handling, this.#following.contexts.current];
    return known.find((one) => one && saysTheSame(one, event) && this.#changes.isNewest(one)) ?? null;
  }

  /** @param {Event} event @returns {boolean} Whether a handler publishes the event that it was called with. */
  isEchoedByHandler(event) {
    return this.handling !== null && saysTheSame(this.handling, event);
  }

  /**
   * @param {Event} event
   * @param {Event[]} unsent Own events that are retried.
   * @returns {boolean} Whether the event is a new open, and the application may show another context: of an own open,
   *   or of a failed handler.
   */
  mayShowAnother(event, unsent) {
    const isNew = event.opens && this.#following.contexts.current?.id !== event.id;
    const mayShow = [...unsent, ...this.maybeShown].some((one) => one.opens && !saysTheSame(one, event));
    return isNew && mayShow && !this.#following.wasClosed(event);
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether the event must still be shown again: the hub has the event, and no newer change came.
   */
  mayBeShown(event) {
    const { shown } = this.#following;
    const isShown = shown !== null && saysTheSame(shown, event);
    return event === this.toReshow && this.#changes.has(event) && (isShown || this.#changes.isNewest(event));
  }

  /**
   * @param {Event} event
   * @returns {Event | null} The context that overtook an open while its handler ran, unless that context belongs to the
   *   open.
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
   * An own event is posted. The application shows an own open before or after the hub's answer, and hides the context
   * of an own close.
   * @param {Event} event
   */
  ownPosted(event) {
    const { handling } = this;
    if (!handling) return;
    if (event.opens) this.#ownEvent = belongs(event, handling) ? null : event;
    else if (event.kind === "close" && event.anchor === handling.anchor) this.#ownEvent ??= event;
  }

  /** The application may show these events without following them. @param {...Event} events */
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
   * @param {boolean} shows Whether the application may show the event.
   * @param {Event | null} [newer] The context that has overtaken the event.
   * @returns {Event | null} The event to show again.
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

  /** The event is shown, or need not be shown again. @param {Event} event */
  resolved(event) {
    if (this.toReshow?.id === event.id) this.toReshow = this.#shownOver = null;
  }

  /** A context was opened, which may replace the event that was to be shown again. */
  anotherOpened() {
    const { toReshow } = this;
    if (toReshow && this.#changes.has(toReshow) && !this.mayBeShown(toReshow)) this.resolved(toReshow);
  }

  /** The client is stopped. No handler is at work. */
  ended() {
    this.handling = this.toReshow = this.#shownOver = this.#ownEvent = null;
    this.maybeShown = [];
  }
}
