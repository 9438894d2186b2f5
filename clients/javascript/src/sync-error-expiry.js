/** When SyncErrors about events end that this client is not subscribed to. */

import { later } from "./timers.js";

/** Events that are waited for: a hub has no more subscribers that could be behind. */
const MOST = 64;

/**
 * The client does not receive these events, so it does not see that a subscriber follows after all. Where no SyncError
 * names the event for a while, the client assumes so: the publisher resends the event meanwhile, and would be refused
 * again.
 */
export class SyncErrorExpiry {
  #seconds;
  #quiet;
  /** Cancels the timer of an event, by id. @type {Map<string, () => void>} */
  #waiting = new Map();

  /**
   * @param {number} seconds Without a SyncError about an event.
   * @param {(id: string) => void} quiet Called with the event's id after that time.
   */
  constructor(seconds, quiet) {
    this.#seconds = seconds;
    this.#quiet = quiet;
  }

  /** A SyncError names an event. @param {string} id */
  named(id) {
    this.#waiting.get(id)?.();
    this.#waiting.delete(id);
    if (this.#waiting.size < MOST) this.#waiting.set(id, later(this.#seconds, () => this.#end(id)));
  }

  /** Stop all waiting. */
  stop() {
    for (const cancel of this.#waiting.values()) cancel();
    this.#waiting.clear();
  }

  /** @param {string} id */
  #end(id) {
    this.#waiting.delete(id);
    this.#quiet(id);
  }
}
