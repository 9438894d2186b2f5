/**
 * Where events wait for their turn, and are acknowledged in time (FHIRcast 3.0.0, 2.5 "Event Notification Response").
 */

import { deferred, later } from "./timing.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./timing.js").Timings} Timings */
/**
 * What became of an event.
 * @typedef {object} Outcome
 * @property {number} status 200; 409 where the handler refused; 500 where it failed.
 * @property {string} reason Why it refused, for other applications; else "".
 */
/** @typedef {(status: number, reason: string) => void} Acknowledge */
/**
 * @typedef {object} Work
 * @property {(event: Event) => Promise<Outcome>} follow
 * @property {(event: Event) => Promise<void>} after Called when it was acknowledged.
 * @property {(event: Event, outcome: Outcome | null) => void} late Called when 202 was answered and it is not followed:
 *     null as long as that is not known.
 * @property {(event: Event) => void} full Called when an event finds no place.
 */

/** @type {Outcome} */
export const FOLLOWED = Object.freeze({ status: 200, reason: "" });
const ACCEPTED = 202;
const FAILURES = 300;
const UNAVAILABLE = 503;
/** @type {Outcome} */
const DROPPED = Object.freeze({ status: UNAVAILABLE, reason: "" });
/** Events that may wait while a handler does not return. */
const MOST_WAITING = 256;

export class Inbox {
  /** @type {Delivery[]} */
  #waiting = [];
  /** @type {Delivery | null} */
  #current = null;
  #isClosed = false;
  #timings;
  #work;
  /** @type {(() => void)[]} */
  #untilIdle = [];

  /** @param {Timings} timings @param {Work} work */
  constructor(timings, work) {
    this.#timings = timings;
    this.#work = work;
  }

  /** @param {Event} event @param {Acknowledge} acknowledge */
  take(event, acknowledge) {
    if (this.#isClosed) return;
    if (this.#waiting.length >= MOST_WAITING) {
      acknowledge(UNAVAILABLE, "");
      this.#work.full(event);
      return;
    }
    const delivery = new Delivery(event);
    delivery.time(this.#timings, acknowledge, this.#work.late);
    this.#push(delivery);
  }

  /**
   * Follow an event in its turn that nobody waits for.
   * @param {Event} event
   * @returns {Promise<Outcome>} When it was its turn, or the inbox was closed.
   */
  hand(event) {
    const delivery = new Delivery(event);
    if (this.#isClosed) delivery.drop();
    else this.#push(delivery);
    return delivery.outcome.promise;
  }

  /** @returns {Promise<void>} Done when nothing waits and no handler runs, or when it is closed. */
  idle() {
    if (this.#isClosed || !this.#current) return Promise.resolve();
    return new Promise((resolve) => this.#untilIdle.push(resolve));
  }

  /** Nothing is taken or acknowledged any more. A handler that runs cannot be stopped. */
  close() {
    this.#isClosed = true;
    for (const delivery of [this.#current, ...this.#waiting]) delivery?.drop();
    this.#waiting = [];
    this.#tellIdle();
  }

  /** @param {Delivery} delivery */
  #push(delivery) {
    this.#waiting.push(delivery);
    if (!this.#current) void this.#run();
  }

  async #run() {
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
      this.#current = next;
      const outcome = await this.#work.follow(next.event);
      if (this.#isClosed) break;
      next.done(outcome);
      await this.#work.after(next.event);
    }
    this.#current = null;
    this.#tellIdle();
  }

  #tellIdle() {
    for (const tell of this.#untilIdle.splice(0)) tell();
  }
}

/** One event on its way through the inbox. */
class Delivery {
  /** @type {import("./timing.js").Deferred<Outcome>} */
  outcome = deferred();
  /** @type {(() => void)[]} */
  #timers = [];
  /** @type {Acknowledge} */
  #acknowledge = () => {};
  /** @type {Work["late"]} */
  #late = () => {};
  #isAnswered = false;
  #isReported = false;

  /** @param {Event} event */
  constructor(event) {
    this.event = event;
  }

  /** @param {Timings} timings @param {Acknowledge} acknowledge @param {Work["late"]} late */
  time({ acceptAfter, giveUp }, acknowledge, late) {
    this.#acknowledge = acknowledge;
    this.#late = late;
    this.#timers = [later(acceptAfter, () => this.#answer(ACCEPTED, "")), later(giveUp, () => this.#giveUp())];
  }

  /** @param {Outcome} outcome */
  done(outcome) {
    this.#cancel();
    if (!this.#isAnswered) this.#answer(outcome.status, outcome.reason);
    else if (outcome.status >= FAILURES && !this.#isReported) this.#late(this.event, outcome);
    this.outcome.resolve(outcome);
  }

  /** It will not be followed. */
  drop() {
    this.#cancel();
    this.outcome.resolve(DROPPED);
  }

  #cancel() {
    for (const cancel of this.#timers) cancel();
  }

  #giveUp() {
    if (!this.#isAnswered) this.#answer(ACCEPTED, "");
    this.#isReported = true;
    this.#late(this.event, null);
  }

  /** @param {number} status @param {string} reason */
  #answer(status, reason) {
    this.#isAnswered = true;
    this.#acknowledge(status, reason);
  }
}
