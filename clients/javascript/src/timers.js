/** Timers, and promises that others settle. */

/** Milliseconds; a timer that is set longer than this fires at once. */
const LONGEST = 2 ** 31 - 1;

/**
 * @param {number} seconds
 * @param {() => void} act Called then.
 * @returns {() => void} Calls it off.
 */
export function later(seconds, act) {
  const timer = setTimeout(act, Math.min(Math.max(seconds, 0) * 1000, LONGEST));
  return () => clearTimeout(timer);
}

/**
 * @param {number} seconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>} Done after so long, or when the signal aborts; it never rejects.
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
 * @returns {Deferred<T>} A promise that others settle. Nobody needs to wait for it: its rejection is never unhandled.
 */
export function deferred() {
  /** @type {any} */
  const found = {};
  found.promise = new Promise((resolve, reject) => Object.assign(found, { resolve, reject }));
  found.promise.catch(() => {});
  return found;
}
