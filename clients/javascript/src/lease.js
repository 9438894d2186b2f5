/** When to renew a lease, and when a silent hub counts as lost (FHIRcast 3.0.0, 2.4). */

/** Renew when this part of the lease is left, or this many seconds if that is less. Hidden pages have slow timers. */
const LEFT_PART = 0.25;
const LEFT_SECONDS = 90;
/** Seconds between two renewals, at least. */
const LEAST = 0.5;
/** "Three heartbeats missed count as lost", and half a period for the way of a heartbeat. */
const MISSED = 3.5;

/** The lease of a subscription. */
export class Lease {
  /** The last granted lease in seconds; null where the hub told none. @type {number | null} */
  #granted;
  /** Milliseconds since 1970. */
  #endsAt = Infinity;

  /**
   * @param {number | null} asked The lease that the client asks for, in seconds. It counts until the hub grants another
   *     one.
   */
  constructor(asked) {
    this.#granted = asked;
  }

  /**
   * The hub granted a lease that begins now.
   * @param {number | null} [seconds] Null: the hub did not say, and the lease is as long as the last one.
   */
  granted(seconds = null) {
    this.#granted = seconds ?? this.#granted;
    if (this.#granted !== null) this.#endsAt = Date.now() + this.#granted * 1000;
  }

  /** A new subscription begins, whose lease the hub has not told yet. */
  begin() {
    this.#endsAt = Infinity;
  }

  /** Seconds until the lease ends; Infinity without an end. */
  get left() {
    return (this.#endsAt - Date.now()) / 1000;
  }

  /** Seconds between the beginning of the lease and its renewal; null where none is needed. */
  get renewAfter() {
    if (this.#granted === null) return null;
    return Math.max(this.#granted - Math.min(this.#granted * LEFT_PART, LEFT_SECONDS), LEAST);
  }
}

/**
 * @param {number} period Seconds between two heartbeats.
 * @returns {number} Seconds of silence after which the hub counts as lost.
 */
export function silence(period) {
  return MISSED * period;
}
