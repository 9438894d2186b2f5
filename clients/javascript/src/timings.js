/** How long the client waits, in seconds: its timings, and the backoff between attempts. */

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
 * @property {number} syncErrorExpiry How long a SyncError about an event that is not subscribed to counts, unless another one comes.
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
  syncErrorExpiry: 25,
  settle: 1,
  echo: 2,
});

/** Seconds: whatever the timings are, a hub is not asked without end. */
const LEAST_BACKOFF = 0.05;

/**
 * @param {number} tries That have failed in a row, at least one.
 * @param {Pick<Timings, "backoffFirst" | "backoffMost">} timings
 * @returns {number} Seconds until the next, differing so that not all clients of a hub come at once.
 */
export function backoff(tries, { backoffFirst, backoffMost }) {
  const most = Math.min(backoffFirst * 2 ** (tries - 1), backoffMost);
  return Math.max(most * (0.5 + Math.random() / 2), LEAST_BACKOFF);
}
