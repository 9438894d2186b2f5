/** When a lease is to be renewed, and when a silent hub counts as lost (FHIRcast 3.0.0, 2.4). */

/**
 * A subscription is renewed when so much of its lease is left, in parts and in seconds: pages that are not seen have
 * slow timers.
 */
const LEFT_PART = 0.25;
const LEFT_SECONDS = 90;
/** Seconds between two renewals, at least. */
const LEAST = 0.5;
/** "Three heartbeats missed count as lost", and half a one for what is on its way. */
const MISSED = 3.5;

/** The time of a subscription. */
export class Lease {
  /** What was granted last, in seconds; null where none was said. @type {number | null} */
  #granted;
  /** In milliseconds of the epoch. */
  #endsAt = Infinity;

  /** @param {number | null} asked In seconds, which holds until the hub says another. */
  constructor(asked) {
    this.#granted = asked;
  }

  /** The hub says how long it lasts from now on. @param {number | null} [seconds] Null where it does not: as long as the last. */
  granted(seconds = null) {
    this.#granted = seconds ?? this.#granted;
    if (this.#granted !== null) this.#endsAt = Date.now() + this.#granted * 1000;
  }

  /** There is a new subscription, and the hub has not said how long it lasts. */
  begin() {
    this.#endsAt = Infinity;
  }

  /** Seconds until it ends; Infinity where it does not. */
  get left() {
    return (this.#endsAt - Date.now()) / 1000;
  }

  /** Seconds between its beginning and its renewal; null where it needs none. */
  get renewAfter() {
    if (this.#granted === null) return null;
    return Math.max(this.#granted - Math.min(this.#granted * LEFT_PART, LEFT_SECONDS), LEAST);
  }
}

/** @param {number} period Seconds between two heartbeats. @returns {number} Seconds of silence after which a hub is lost. */
export function silence(period) {
  return MISSED * period;
}
