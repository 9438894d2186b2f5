/** Waiting. All times are in seconds. */

/**
 * @typedef {object} Timings In seconds.
 * @property {number} backoffFirst About how long to wait before the first try to reconnect; each next wait is twice as
 *     long.
 * @property {number} backoffMost The longest wait between two tries.
 * @property {number} request How long a request to the hub may take.
 * @property {number} confirmation How long a socket may take to open and confirm the subscription.
 * @property {number} acceptAfter After which a handler that is not done is answered for with 202.
 * @property {number} giveUp After which others are told that an event is not followed, since it came.
 * @property {number | null} resend How long after a SyncError an own open is sent again; 0 or null: never.
 * @property {number} unseen How long a SyncError about an event that is not subscribed to counts, unless another one comes.
 * @property {number} settle How long after the confirmation the hub is given to tell what is open.
 */

/**
 * "It is recommended to wait at least 10 seconds before resending" and 10 to decide (2.5, 2.6).
 * @type {Readonly<Timings>}
 */
export const TIMINGS = Object.freeze({
  backoffFirst: 0.5,
  backoffMost: 30,
  request: 5,
  confirmation: 10,
  acceptAfter: 2,
  giveUp: 10,
  resend: 10,
  unseen: 25,
  settle: 1,
});

const DAY = 86_400_000;
const NANOSECONDS = 1_000_000n;

/**
 * @param {bigint | null} after The instant of what this follows: where another machine's clock is ahead, by up to a day,
 *     the next millisecond is taken, for what is older than the current context is ignored by everybody ("SHALL ignore
 *     messages with older timestamps", 2.5).
 * @returns {string} The time in UTC.
 */
export function timestampNow(after) {
  const now = Date.now();
  const ahead = after === null ? -1 : Number(after / NANOSECONDS) - now;
  return new Date(ahead >= 0 && ahead < DAY ? now + ahead + 1 : now).toISOString();
}

/** Milliseconds; a timer that is set longer than this fires at once. */
const LONGEST = 2 ** 31 - 1;

/** Seconds: whatever the timings are, a hub is not asked without end. */
const LEAST_BACKOFF = 0.05;

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
 * @param {number} tries That have failed in a row, at least one.
 * @param {Timings} timings
 * @returns {number} Seconds until the next, differing so that not all clients of a hub come at once.
 */
export function backoff(tries, { backoffFirst, backoffMost }) {
  const most = Math.min(backoffFirst * 2 ** (tries - 1), backoffMost);
  return Math.max(most * (0.5 + Math.random() / 2), LEAST_BACKOFF);
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
