/**
 * Resending an own open that another application did not follow (FHIRcast 3.0.0, 2.6). No I/O, no clock.
 *
 * "A Subscriber that initiates a context change and receives a SyncError related to a context change event it sent,
 * SHOULD resend this event at regular intervals until sync is reestablished or another, newer, event has been
 * received."
 */

/** @typedef {import("./events.js").Event} Event */

/** The last own open or Home-open, and whether the client resends it. */
export class Resending {
  /** @type {Event | null} */
  #last = null;
  /** @type {Event | null} */
  #previous = null;
  /** @type {Event | null} */
  #resent = null;
  /** Whether a SyncError has named the event since it was last sent. */
  #isReported = false;

  /** The client is about to post an own event. @param {Event} event */
  sending(event) {
    if (!event.opens) return;
    this.#previous = this.#last;
    this.#last = event;
  }

  /** The hub refused the event: the context before it is still open. @param {Event} event */
  refused(event) {
    if (this.#last === event) this.#last = this.#previous;
  }

  /**
   * A SyncError names an event.
   * @param {string} id Id of the event.
   * @param {(event: Event) => boolean} isNewest
   * @returns {Event | null} The own open to resend from now on.
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

  /** The event is sent again. A SyncError may come before the hub's answer. @param {Event} event */
  sent(event) {
    if (this.#resent === event) this.#isReported = false;
  }

  /** @param {Event} event @returns {boolean} Whether to send the event once more: a SyncError has named it since. */
  isDue(event) {
    return this.#resent === event && this.#isReported;
  }

  /** The event is not resent any more. @param {Event} event */
  ended(event) {
    if (this.#resent === event) this.#resent = null;
  }
}
