/**
 * The own open that is sent again because somebody did not follow it (FHIRcast 3.0.0, 2.6). No I/O, no clock.
 *
 * "A Subscriber that initiates a context change and receives a SyncError related to a context change event it sent, SHOULD
 * resend this event at regular intervals until sync is reestablished or another, newer, event has been received."
 */

/** @typedef {import("./events.js").Event} Event */

/** Of the own opens and Home-opens the last one, and whether it is being sent again. */
export class Resending {
  /** @type {Event | null} */
  #last = null;
  /** @type {Event | null} */
  #previous = null;
  /** @type {Event | null} */
  #resent = null;
  /** By a SyncError, since it was sent last. */
  #isReported = false;

  /** An own event is about to be posted. @param {Event} event */
  sending(event) {
    if (!event.opens) return;
    this.#previous = this.#last;
    this.#last = event;
  }

  /** The hub refused it: what was open before still is. @param {Event} event */
  refused(event) {
    if (this.#last === event) this.#last = this.#previous;
  }

  /**
   * A SyncError names an event.
   * @param {string} id Of the event.
   * @param {(event: Event) => boolean} isNewest
   * @returns {Event | null} The own open that is to be sent again from now on.
   */
  reported(id, isNewest) {
    if (this.#resent?.id === id) {
      this.#isReported = true;
      return null;
    }
    if (this.#last?.id !== id || !isNewest(this.#last)) return null;
    this.#resent = this.#last;
    this.#isReported = true;
    return this.#resent;
  }

  /** It is sent again. Who refuses at once may be heard of sooner than the hub's answer. @param {Event} event */
  sent(event) {
    if (this.#resent === event) this.#isReported = false;
  }

  /** @param {Event} event @returns {boolean} Whether it is to be sent once more: a SyncError has named it since. */
  isDue(event) {
    return this.#resent === event && this.#isReported;
  }

  /** It is not sent again any more. @param {Event} event */
  ended(event) {
    if (this.#resent === event) this.#resent = null;
  }
}
