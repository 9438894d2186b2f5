/** SyncErrors about events that are not subscribed to: how they end. */

import { later } from "./timers.js";

/** Events whose end is waited for: a hub has no more subscribers that could be behind. */
const MOST = 64;

/**
 * That somebody follows after all is not seen here, so it is assumed when nobody has said otherwise for a while: whoever sent
 * the event sends it again meanwhile, and is refused again.
 */
export class SyncErrorExpiry {
  #seconds;
  #quiet;
  /** By id of the event, what calls its timer off. @type {Map<string, () => void>} */
  #waiting = new Map();

  /** @param {number} seconds Without a SyncError about an event. @param {(id: string) => void} quiet Called then. */
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

  /** Nothing is waited for any more. */
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
