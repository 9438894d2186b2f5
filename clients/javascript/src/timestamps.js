/** Timestamps, and instants: picoseconds since 1970. */

const SECOND = 1_000_000_000_000n;
const MILLISECOND = 1_000_000_000n;
/** Differences of two instants. */
export const MINUTE = 60n * SECOND;
export const DAY = 1440n * MINUTE;
const DECIMALS = 12;
const TIMESTAMP =
  /^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?(?:[Zz]|([+-])(\d\d):?(\d\d)?)?$/;
const MOST_HOURS = 23;
const MOST_MINUTES = 59;

/**
 * @param {string} timestamp An ISO 8601 date and time, in UTC where the zone is missing.
 * @returns {bigint | null} Null where the timestamp cannot be read.
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

/** @returns {bigint} The local clock, as an instant. */
export function now() {
  return BigInt(Date.now()) * MILLISECOND;
}

/**
 * @param {bigint | null} [after] The instant of the previous event. Another machine's clock may be ahead, and everybody
 *     "SHALL ignore messages with older timestamps" (2.5). The result is then one millisecond after `after`, if `after`
 *     is ahead by at most a day.
 * @returns {string} The time in UTC.
 */
export function timestampNow(after = null) {
  const time = Date.now();
  const ahead = after === null ? -1 : Number(after / MILLISECOND) - time;
  return new Date(ahead >= 0 && BigInt(ahead) < DAY / MILLISECOND ? time + ahead + 1 : time).toISOString();
}
