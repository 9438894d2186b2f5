/**
 * SyncErrors about events that are not subscribed to: that somebody follows after all is not seen here, so it is assumed
 * when nobody has said otherwise for a while. Whoever sent the event sends it again meanwhile, and is refused again.
 */

import { later } from "./timing.js";

/** Events whose end is waited for: a hub has no more subscribers that could be behind. */
const MOST = 64;

export class Unseen {
  #seconds;
  #sync;
  /** By id of the event, what calls its timer off. @type {Map<string, () => void>} */
  #waiting = new Map();

  /** @param {number} seconds Without a SyncError about an event. @param {import("./status.js").Sync} sync */
  constructor(seconds, sync) {
    this.#seconds = seconds;
    this.#sync = sync;
  }

  /** A SyncError names an event. @param {string} id */
  named(id) {
    this.#waiting.get(id)?.();
    this.#waiting.delete(id);
    if (this.#waiting.size < MOST) this.#waiting.set(id, later(this.#seconds, () => this.#quiet(id)));
  }

  stop() {
    for (const cancel of this.#waiting.values()) cancel();
    this.#waiting.clear();
  }

  /** @param {string} id */
  #quiet(id) {
    this.#waiting.delete(id);
    this.#sync.quiet(id);
  }
}
