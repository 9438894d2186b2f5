/** Timings in seconds, and the backoff between attempts. */

/**
 * @typedef {object} Timings In seconds.
 * @property {number} backoffFirst Delay before the first attempt to reconnect, roughly. Each next delay is twice as
 *     long.
 * @property {number} backoffMost Longest delay between two attempts.
 * @property {number} request For the answer to a request.
 * @property {number} confirmation For a socket to open and to be confirmed.
 * @property {number} acceptAfter Until an event is answered with 202 while its handler runs.
 * @property {number} giveUp Until a SyncError tells that an event is not followed.
 * @property {number | null} resend After a SyncError, until an own open is sent again. 0 or null: never.
 * @property {number} syncErrorExpiry How long a SyncError about an event without a subscription counts, unless another
 *     one comes.
 * @property {number} settle After the confirmation, until a hub that has told no context is asked for it.
 * @property {number} echo For the echo of an own update.
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

/** The shortest delay, whatever the timings are: protects the hub. */
const LEAST_BACKOFF = 0.05;

/**
 * @param {number} tries Failed attempts in a row, at least one.
 * @param {Pick<Timings, "backoffFirst" | "backoffMost">} timings
 * @returns {number} Seconds until the next attempt, with a random part so that the clients of a hub do not reconnect
 *     together.
 */
export function backoff(tries, { backoffFirst, backoffMost }) {
  const most = Math.min(backoffFirst * 2 ** (tries - 1), backoffMost);
  return Math.max(most * (0.5 + Math.random() / 2), LEAST_BACKOFF);
}
