/** Waiting for what comes from the hub: an echo, a SyncError, an update that was missed. */

import { sleep } from "./timers.js";

export class EventSignal {
  /** Called when something came. @type {Set<() => void>} */
  #waiting = new Set();
  #signal;

  /** @param {AbortSignal} signal Aborts when the client ends, and with it all waiting. */
  constructor(signal) {
    this.#signal = signal;
  }

  /** An event came. */
  notify() {
    for (const look of [...this.#waiting]) look();
  }

  /**
   * @param {() => boolean} condition Looked at whenever something came.
   * @param {number} seconds
   * @returns {Promise<boolean>} Whether it has come true in time.
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
