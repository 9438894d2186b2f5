/** Waiting for an event: an echo, a SyncError, or a missed update. */

import { sleep } from "./timers.js";

export class EventSignal {
  /** Called at every event. @type {Set<() => void>} */
  #waiting = new Set();
  #signal;

  /** @param {AbortSignal} signal Aborts all waiting when the client ends. */
  constructor(signal) {
    this.#signal = signal;
  }

  /** An event came. */
  notify() {
    for (const look of [...this.#waiting]) look();
  }

  /**
   * @param {() => boolean} condition Checked at every event.
   * @param {number} seconds
   * @returns {Promise<boolean>} Whether the condition became true in time.
   */
  async until(condition, seconds) {
    const over = new AbortController();
    const end = () => over.abort();
    const look = () => condition() && end();
    this.#signal.addEventListener("abort", end);
    this.#waiting.add(look);
    look();
    await sleep(seconds, over.signal);
    this.#waiting.delete(look);
    this.#signal.removeEventListener("abort", end);
    return condition();
  }
}
