/** The queue of events in front of their handlers, with their acknowledgements (FHIRcast 3.0.0, 2.5). */

import { complain, isRefusal, nameOf, said } from "./errors.js";
import { makeEvent } from "./events.js";
import { misspelt } from "./event-names.js";
import { deferred, later } from "./timers.js";
import { now } from "./timestamps.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./following.js").Verdict} Verdict */
/** @typedef {import("./timings.js").Timings} Timings */
/**
 * Finds the local id of an event's resource. Refuses by throwing a refusal.
 * @typedef {{find: (event: Event) => any}} Ids
 */
/** @typedef {{name: string, act: (event: Event) => unknown, ids: Ids | null}} Handling */
/**
 * Sends an acknowledgement: its status, and the reason of a refusal.
 * @typedef {(status: number, reason: string) => void} Answer
 */
/**
 * @typedef {object} Parts
 * @property {import("./engine.js").Engine} engine
 * @property {Map<string, Handling>} handlings Handlers by lower-case event name.
 * @property {Timings} timings
 * @property {boolean} debug Whether to print errors of handlers with text and stack.
 * @property {() => Promise<void>} free Settled when no own open or close is being posted.
 * @property {(event: Event, reason: string) => void} tell Posts a SyncError.
 * @property {() => void} changed Called when the status may have changed.
 * @property {(anchor: string) => Promise<void>} known Waits for the content of a context that is being fetched.
 */

/** Events in the queue. Further events are answered with 503. */
export const MOST_WAITING = 256;
const OVERTAKEN = 0;
const OK = 200;
const ACCEPTED = 202;
const CONFLICT = 409;
const FAILED = 500;
const OVERLOADED = 503;

/** An event in the queue. `answer` sends its acknowledgement, once. */
export class Delivery {
  /** Whether the event was followed. @type {import("./timers.js").Deferred<boolean>} */
  done = deferred();
  isAccepted = false;
  isGivenUp = false;
  #answer;
  /** @type {(() => void)[]} */
  #timers = [];

  /**
   * @param {Event} event
   * @param {object} [options]
   * @param {Answer | null} [options.answer]
   * @param {() => boolean} [options.applies] Called when the event has its turn.
   * @param {boolean} [options.queried] The event is the answer to "Get Current Context".
   * @param {boolean} [options.retry] Skip the checks for age and repeats.
   */
  constructor(event, { answer = null, applies = () => true, queried = false, retry = false } = {}) {
    this.event = event;
    this.applies = applies;
    this.queried = queried;
    this.retry = retry;
    this.#answer = answer;
  }

  /**
   * Start the timers that acknowledge in time: "202: has successfully received the event but has not yet taken action".
   * @param {Timings} timings
   * @param {(delivery: Delivery) => void} giveUp
   */
  start(timings, giveUp) {
    if (!this.#answer) return;
    this.#timers.push(later(timings.acceptAfter, () => this.#accept()));
    if (this.event.kind !== "update" && this.event.kind !== "select")
      this.#timers.push(later(timings.giveUp, () => giveUp(this)));
  }

  /** @param {number} status @param {string} [reason] @returns {boolean} False where a 202 was sent before. */
  answer(status, reason = "") {
    this.#stopTimers();
    if (!this.isAccepted) this.#answer?.(status, reason);
    return !this.isAccepted;
  }

  /** The turn of the event is over. @param {boolean} followed */
  finish(followed) {
    this.#stopTimers();
    this.done.resolve(followed);
  }

  #stopTimers() {
    for (const cancel of this.#timers.splice(0)) cancel();
  }

  #accept() {
    this.#answer?.(ACCEPTED, "");
    this.isAccepted = true;
  }
}

/** Calls the handlers, one event after the other, in the order in which the events came. */
export class Inbox {
  #parts;
  /** @type {Delivery[]} */
  #waiting = [];
  #isAtWork = false;
  #isClosed = false;

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /** @returns {string[]} Names of the events that have a handler. */
  get names() {
    return [...this.#parts.handlings.values()].map(({ name }) => name);
  }

  /** @param {Handling} handling @throws {Error} For a second handler of the event. */
  add(handling) {
    const key = handling.name.toLowerCase();
    if (this.#parts.handlings.has(key)) throw new Error(`${handling.name} has a handler already`);
    const wrong = misspelt(handling.name);
    if (wrong) console.warn(`fhircast-client: ${wrong}`);
    this.#parts.handlings.set(key, handling);
  }

  /** @param {string} name Of an event. @returns {boolean} Whether the event has a handler. */
  handles(name) {
    return this.#parts.handlings.has(name.toLowerCase());
  }

  /** Put an event into the queue. @param {Delivery} delivery */
  deliver(delivery) {
    const { changed, engine, timings } = this.#parts;
    if (this.#isClosed) return delivery.finish(false);
    if (this.#waiting.length >= MOST_WAITING) {
      const why = "too many events wait for their handlers";
      if (delivery.event.kind !== "syncerror") {
        engine.refused(delivery.event, why, { isOver: false });
        delivery.answer(OVERLOADED, why);
        changed();
      }
      return delivery.finish(false);
    }
    delivery.start(timings, (late) => this.#giveUp(late));
    this.#push(delivery);
  }

  /** @returns {Promise<void>} Resolves once all events that are in the queue now had their turn. */
  async idle() {
    if (this.#isClosed) return;
    const nothing = new Delivery(makeEvent("", "heartbeat", []), { applies: () => false });
    this.#push(nothing);
    await nothing.done.promise;
  }

  /** @param {Delivery} delivery */
  #push(delivery) {
    this.#waiting.push(delivery);
    if (!this.#isAtWork) void this.#run();
  }

  /** No event is handed or acknowledged any more. A running handler cannot be stopped. */
  close() {
    this.#isClosed = true;
    for (const delivery of this.#waiting.splice(0)) delivery.finish(false);
  }

  async #run() {
    this.#isAtWork = true;
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
      await this.#handle(next).catch((error) => {
        // A fault of the engine must not stop the queue.
        complain("an event could not be handled", error, this.#parts.debug);
        this.#parts.engine.unreadable();
        next.answer(FAILED);
      });
      next.finish(false);
      this.#parts.changed();
    }
    this.#isAtWork = false;
  }

  /** @param {Delivery} delivery */
  async #handle(delivery) {
    const verdict = await this.#verdict(delivery);
    if (this.#isClosed) return;
    if (verdict === "follow") await this.#follow(delivery);
    else if (verdict) delivery.answer(OK);
  }

  /**
   * @param {Delivery} delivery
   * @returns {Promise<Verdict | null>} The verdict for an event, once no own open or close is being posted. Null: the
   *     event does not apply any more.
   */
  async #verdict(delivery) {
    await this.#parts.free();
    return delivery.applies() ? this.#parts.engine.beginTurn(delivery.event, now(), delivery.retry) : null;
  }

  /** @param {Delivery} delivery */
  async #follow(delivery) {
    const { engine, known } = this.#parts;
    const { event } = delivery;
    if (event.kind === "update") await known(event.anchor);
    const { status, reason } = await this.#call(delivery);
    if (this.#isClosed) return;
    if (status === OVERTAKEN) {
      engine.overtaken();
      delivery.answer(OK);
      return;
    }
    const opened =
      status === OK
        ? engine.followed(event, now(), delivery.queried)
        : engine.refused(event, reason, { shows: status !== CONFLICT });
    if (opened) this.deliver(new Delivery(opened, { applies: () => engine.races.mayBeShown(opened), retry: true }));
    this.#parts.changed();
    const inTime = delivery.answer(status, status === CONFLICT ? reason : "");
    delivery.finish(status === OK);
    if (status !== OK && !inTime && !delivery.isGivenUp) this.#refuseLate(event, reason);
  }

  /** @param {Delivery} delivery */
  async #call(delivery) {
    const { event } = delivery;
    const handling = this.#parts.handlings.get(event.name.toLowerCase());
    try {
      if (handling?.ids) {
        event.local = await handling.ids.find(event);
        // The application opened another context meanwhile, and must go on showing it.
        if ((await this.#verdict(delivery)) !== "follow") return { status: OVERTAKEN, reason: "" };
      }
      await handling?.act(event);
      return { status: OK, reason: "" };
    } catch (error) {
      if (isRefusal(error)) return { status: CONFLICT, reason: said(error) };
      complain(`the handler of ${event.name} failed`, error, this.#parts.debug);
      return { status: FAILED, reason: `it failed (${nameOf(error)})` };
    }
  }

  /**
   * "If the Subscriber cannot determine whether it will follow context within 10 seconds [...] it SHOULD send a SyncError" (2.5).
   * @param {Delivery} delivery
   */
  #giveUp(delivery) {
    const { changed, engine, timings } = this.#parts;
    const { event } = delivery;
    if (engine.verdict(event) !== "follow") return;
    const why = `it was not done within ${timings.giveUp} s`;
    delivery.isGivenUp = true;
    engine.refused(event, why, { isOver: false });
    this.#refuseLate(event, why);
    changed();
  }

  /** @param {Event} event @param {string} reason */
  #refuseLate(event, reason) {
    const { engine, tell } = this.#parts;
    if (event.matters && engine.verdict(event) === "follow") tell(event, reason);
  }
}
