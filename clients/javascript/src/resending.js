/**
 * "A Subscriber that initiates a context change and receives a SyncError related to a context change event it sent,
 * SHOULD resend this event at regular intervals until sync is reestablished or another, newer, event has been received"
 * (2.6).
 */

import { HubError } from "./errors.js";
import { later } from "./timing.js";

/** @typedef {import("./events.js").Event} Event */

/** Seconds that the others have to say that they do not follow, beside the interval. */
const QUIET = 2;

export class Resending {
  #interval;
  #state;
  #sync;
  #publishing;
  /** The own open that somebody does not follow. @type {Event | null} */
  #event = null;
  /** Whether it is to be sent again; else it was, and nobody has said anything yet. */
  #isDue = false;
  #cancel = () => {};

  /**
   * @param {number | null} interval In seconds; null or 0: never.
   * @param {import("./state.js").State} state
   * @param {import("./status.js").Sync} sync
   * @param {import("./publishing.js").Publishing} publishing
   */
  constructor(interval, state, sync, publishing) {
    this.#interval = interval ?? 0;
    this.#state = state;
    this.#sync = sync;
    this.#publishing = publishing;
  }

  /** A SyncError names an event. @param {string} id */
  named(id) {
    const shown = this.#state.context?.event;
    if (this.#interval <= 0 || !shown?.own || shown.id !== id) return;
    if (this.#event?.id === id && this.#isDue) return;
    this.#event = shown;
    this.#plan();
  }

  /** A change came from somebody else. @param {Event} event */
  came(event) {
    const own = this.#event?.instant ?? null;
    if (this.#event && (own === null || event.instant === null || event.instant > own)) this.stop();
  }

  stop() {
    this.#cancel();
    this.#event = null;
    this.#isDue = false;
  }

  #plan() {
    this.#isDue = true;
    this.#cancel();
    this.#cancel = later(this.#interval, () => void this.#again());
  }

  async #again() {
    const event = this.#event;
    if (!event) return;
    const isWanted = () => this.#event === event && this.#state.context?.event.id === event.id;
    if (!isWanted()) return this.stop();
    this.#isDue = false;
    this.#cancel = later(this.#interval + QUIET, () => this.#quiet(event));
    try {
      await this.#publishing.again(event, isWanted);
    } catch (error) {
      if (!isWanted()) return;
      if (error instanceof HubError && error.isFinal) this.stop();
      else this.#plan();
    }
  }

  /** @param {Event} event */
  #quiet(event) {
    this.stop();
    this.#sync.quiet(event.id);
  }
}
