/**
 * What may stand on the application's screen: a slow handler may show something older over what was opened here. No I/O, no
 * clock.
 */

import { belongs } from "./following.js";

/** @typedef {import("./events.js").Event} Event */

/** Own opens that are handed again one after the other, where each handler is overtaken by the next own open. */
const MOST_AGAIN = 3;
const MOST_FAILED = 8;

/** Which handler is at work, what the application opened meanwhile, and what its handler must show again. */
export class Screen {
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

  /** Why the screen may be wrong; "" where it is not. */
  get why() {
    if (!this.again || !this.#over) return "";
    return `${this.#over.name} was shown here after the newer ${this.again.name}`;
  }

  /** A handler is called; only those of opens show something else. @param {Event} event */
  begins(event) {
    if (!event.opens) return;
    this.handling = event;
    this.#chosen = null;
    if (!event.own && event !== this.again) this.#times = 0;
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
    if (!event.opens) return null;
    const chosen = this.#chosen ?? newer;
    this.handling = this.#chosen = null;
    if (!chosen || !shows) return null;
    this.again = chosen;
    this.#over = event;
    this.#times += 1;
    return this.#times <= MOST_AGAIN ? chosen : null;
  }

  /** It is shown, or need not be any more. @param {Event} event */
  settled(event) {
    if (this.again?.id === event.id) this.again = this.#over = null;
  }

  /** The client is stopped: no handler is at work. */
  ended() {
    this.handling = this.again = this.#over = this.#chosen = null;
    this.failed = [];
  }
}
