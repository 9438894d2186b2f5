/**
 * Time: how long the client waits for what, in seconds, and the order of timestamps, as instants: picoseconds since 1970.
 */

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
 * @property {number} echo How long an own update may take to come back.
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
  echo: 2,
});

const SECOND = 1_000_000_000_000n;
const MILLISECOND = 1_000_000_000n;
/** As the difference of two instants. */
export const MINUTE = 60n * SECOND;
export const DAY = 1440n * MINUTE;
const DECIMALS = 12;
const TIMESTAMP =
  /^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?(?:[Zz]|([+-])(\d\d):?(\d\d)?)?$/;
const MOST_HOURS = 23;
const MOST_MINUTES = 59;

/**
 * @param {string} timestamp An ISO 8601 date and time; without a zone it is UTC.
 * @returns {bigint | null} Null for what is none.
 */
export function instant(timestamp) {
  const found = TIMESTAMP.exec(timestamp);
  if (!found) return null;
  const [, year, month, day, hour, minute, second = 0, fraction = "", sign, hours = 0, minutes = 0] = found;
  const [h, m, s, zone] = [Number(hour), Number(minute), Number(second), Number(hours)];
  if (h > MOST_HOURS || m > MOST_MINUTES || s > MOST_MINUTES || zone > MOST_HOURS || Number(minutes) > MOST_MINUTES)
    return null;
  const date = new Date(0);
  date.setUTCFullYear(Number(year), Number(month) - 1, Number(day));
  if (Number(year) === 0 || date.getUTCMonth() !== Number(month) - 1) return null;
  const offset = (sign === "-" ? -1 : 1) * (zone * 60 + Number(minutes));
  date.setUTCHours(h, m - offset, s);
  return BigInt(date.getTime()) * MILLISECOND + BigInt(fraction.slice(0, DECIMALS).padEnd(DECIMALS, "0"));
}

/** @returns {bigint} The own clock, as an instant. */
export function now() {
  return BigInt(Date.now()) * MILLISECOND;
}

/**
 * @param {bigint | null} [after] The instant of what this follows: where another machine's clock is ahead, by up to a day,
 *     the next millisecond is taken, for what is older than the current context is ignored by everybody ("SHALL ignore
 *     messages with older timestamps", 2.5).
 * @returns {string} The time in UTC.
 */
export function timestampNow(after = null) {
  const time = Date.now();
  const ahead = after === null ? -1 : Number(after / MILLISECOND) - time;
  return new Date(ahead >= 0 && BigInt(ahead) < DAY / MILLISECOND ? time + ahead + 1 : time).toISOString();
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
 * @param {Pick<Timings, "backoffFirst" | "backoffMost">} timings
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
