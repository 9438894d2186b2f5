/** Timers, and deferred promises. */

/** The longest timer in milliseconds. Longer ones would fire at once. */
const LONGEST = 2 ** 31 - 1;

/**
 * @param {number} seconds
 * @param {() => void} act Called after that time.
 * @returns {() => void} Cancels the timer.
 */
export function later(seconds, act) {
  const timer = setTimeout(act, Math.min(Math.max(seconds, 0) * 1000, LONGEST));
  return () => clearTimeout(timer);
}

/**
 * @param {number} seconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>} Settled after that time, or when the signal aborts. Never rejects.
 */
export function sleep(seconds, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      cancel();
      signal.removeEventListener("abort", done);
      resolve();
    };
    const cancel = later(seconds, done);
    signal.addEventListener("abort", done);
  });
}

/**
 * @template T
 * @typedef {{promise: Promise<T>, resolve: (value: T) => void, reject: (error: unknown) => void}} Deferred
 */
/**
 * @template T
 * @returns {Deferred<T>} A promise with its resolve and reject. A rejection is never reported as unhandled.
 */
export function deferred() {
  /** @type {any} */
  const found = {};
  found.promise = new Promise((resolve, reject) => Object.assign(found, { resolve, reject }));
  found.promise.catch(() => {});
  return found;
}
