/** Publishing events, one open or close at a time, and sending them again (FHIRcast 3.0.0, 2.6). */

import { HubError, said } from "./errors.js";
import { Event, makeEvent } from "./events.js";
import { saysTheSame } from "./following.js";
import { makeSyncError } from "./sync-errors.js";
import { sleep } from "./timers.js";
import { now, timestampNow } from "./timestamps.js";
import { backoff } from "./timings.js";

/** @typedef {import("./events.js").Item} Item */
/**
 * @typedef {object} Parts
 * @property {string} topic
 * @property {string} name The subscriber.name of this application.
 * @property {import("./hub.js").Hub} hub
 * @property {import("./engine.js").Engine} engine
 * @property {import("./timings.js").Timings} timings
 * @property {import("./event-signal.js").EventSignal} eventSignal
 * @property {() => void} changed Called when the status may have changed.
 * @property {(event: Event) => void} hand Puts an own event into the queue of the handlers.
 * @property {() => boolean} isRunning Whether the client was started, and has not ended.
 * @property {AbortSignal} signal Aborts when the client ends.
 */

/** Attempts to post a SyncError. */
const MOST_POSTS = 3;
/** Seconds beyond `resend` after which a resent open counts as followed, unless a SyncError names it. */
const QUIET = 2;
/** Two pings of a hub, in seconds: an echo comes much sooner. */
const ECHO_SECONDS = 30;

/** Posts events and reports the hub's answer to the engine. */
export class Publisher {
  #parts;
  /** Own opens and closes that are being posted, or wait for their turn. */
  #onTheirWay = 0;
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();
  /** Ids of own events that are being retried. @type {Set<string>} */
  #telling = new Set();
  /** Names of events whose handlers publish the event that they were called with. @type {Set<string>} */
  #noticed = new Set();

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /**
   * Post an open. A context that all applications show is not posted again.
   * @param {string} name
   * @param {Item[]} context
   * @returns {Promise<Event>} The event, once the hub has accepted it.
   * @throws {HubError}
   */
  open(name, context) {
    const { engine, topic } = this.#parts;
    const made = makeEvent(topic, name, context);
    return this.#inTurn(async () => {
      const event = this.#stamped(made);
      const known = engine.alreadyShown(event);
      if (known) {
        this.#notice(event);
        return known;
      }
      const unsent = engine.unsent.newest;
      // An event that is not being retried gets a new timestamp: other applications may have opened a context since.
      const isTried = unsent && this.#telling.has(unsent.id) && saysTheSame(unsent, event);
      return this.post(isTried ? unsent : event);
    });
  }

  /**
   * @param {string} name
   * @param {Item[]} context
   * @param {{id?: string | null, timestamp?: string | null}} [options]
   * @returns {Promise<Event>} The event, once the hub has accepted it.
   * @throws {HubError}
   */
  async publish(name, context, { id = null, timestamp = null } = {}) {
    const event = makeEvent(this.#parts.topic, name, context, { id, timestamp });
    if (!event.changes) return this.post(event);
    return this.#inTurn(() => this.post(timestamp ? event : this.#stamped(event)));
  }

  /** The client runs again: retry the events that were not sent before. */
  tellUntold() {
    for (const event of this.#parts.engine.unsent.retried) void this.#tell(event, 0);
  }

  /** @returns {Promise<void>} Settled when no own open or close is being posted. */
  async free() {
    while (this.#onTheirWay > 0) await this.#last;
  }

  /**
   * Post a SyncError about an event that was answered with 202 and is not followed (3.2.1).
   * @param {Event} about
   * @param {string} reason
   */
  async refuse(about, reason) {
    const { name, signal, timings, topic } = this.#parts;
    const event = makeSyncError(topic, about, name, reason);
    for (let tries = 1; tries <= MOST_POSTS && !signal.aborted; tries += 1) {
      try {
        await this.post(event);
        return;
      } catch (error) {
        if (!(error instanceof HubError) || error.isRefusal) break;
        await sleep(Math.max(backoff(tries, timings), error.retryAfter), signal);
      }
    }
    if (!signal.aborted) console.warn("fhircast-client: no SyncError could be sent about an event that is not followed");
  }

  /**
   * Post an own open again at regular intervals, until no SyncError names it any more or a newer change came (2.6).
   * @param {Event} event
   */
  async resend(event) {
    const { eventSignal, changed, engine, signal, timings } = this.#parts;
    const interval = timings.resend ?? 0;
    await sleep(interval, signal);
    while (!signal.aborted) {
      const isSent = await this.#sentAgain(event);
      if (isSent === false) break;
      if (isSent && !(await eventSignal.until(() => engine.resending.isDue(event), interval + QUIET))) {
        engine.sync.assumeRecovered(event.id);
        if (!signal.aborted) changed();
        break;
      }
      await sleep(interval, signal);
    }
    engine.resending.ended(event);
  }

  /**
   * @param {Event} event
   * @returns {Promise<boolean | null>} True if the hub accepted, false to stop (a newer change came, or the hub
   *     refused), null to try again.
   */
  #sentAgain(event) {
    const { engine, hub, signal } = this.#parts;
    return this.#inTurn(async () => {
      if (signal.aborted || !engine.changes.isNewest(event)) return false;
      engine.resending.sent(event);
      try {
        await hub.publish(event.body, signal);
        return true;
      } catch (error) {
        return error instanceof HubError && !error.isRefusal ? null : false;
      }
    });
  }

  /**
   * Retry an own event that the hub may not have, with backoff, until the hub accepts it or a newer event overtakes it.
   * @param {Event} event
   * @param {number} retryAfter Seconds that the hub asks to wait.
   */
  async #tell(event, retryAfter) {
    if (this.#telling.has(event.id)) return;
    this.#telling.add(event.id);
    await this.#tellUntilTold(event, retryAfter).finally(() => this.#telling.delete(event.id));
  }

  /** @param {Event} event @param {number} retryAfter */
  async #tellUntilTold(event, retryAfter) {
    const { changed, engine, hand, hub, signal, timings } = this.#parts;
    let wait = retryAfter;
    for (let tries = 1; ; tries += 1) {
      await sleep(Math.max(backoff(tries, timings), wait), signal);
      const isSent = await this.#inTurn(async () => {
        if (signal.aborted || !engine.unsent.isRetried(event)) return false;
        if (engine.unsent.mustWait(event)) return null;
        try {
          await hub.publish(event.body, signal);
          engine.acceptedLate(event);
          return true;
        } catch (error) {
          wait = this.#notSent(event, error);
          return null;
        }
      });
      if (isSent) hand(event);
      changed();
      if (isSent !== null) return;
    }
  }

  /** @param {Event} event @returns {Event} An own event with a timestamp that is newer than all received events. */
  #stamped({ body }) {
    return new Event({ ...body, timestamp: timestampNow(this.#parts.engine.changes.newest(now())) }, true);
  }

  /** @param {Event} event */
  #notice(event) {
    const name = event.name.toLowerCase();
    if (!this.#parts.engine.races.isEchoedByHandler(event) || this.#noticed.has(name)) return;
    this.#noticed.add(name);
    console.warn(`fhircast-client: the handler of ${event.name} publishes the event that it was called with`);
  }

  /**
   * Post an event.
   * @param {Event} event
   * @returns {Promise<Event>} The event, once the hub has accepted it.
   * @throws {HubError}
   */
  async post(event) {
    const { changed, engine, hub, isRunning, signal } = this.#parts;
    this.#notice(event);
    engine.sending(event);
    try {
      await hub.publish(event.body, signal);
    } catch (error) {
      const wait = this.#notSent(event, error);
      if (engine.unsent.isRetried(event) && isRunning()) void this.#tell(event, wait);
      changed();
      throw error;
    }
    engine.accepted(event, now());
    if (event.changes && engine.isGranted(event.name)) void this.#awaitEcho(event);
    changed();
    return event;
  }

  /** @param {Event} event */
  async #awaitEcho(event) {
    const { changed, engine, signal } = this.#parts;
    await sleep(ECHO_SECONDS, signal);
    if (signal.aborted) return;
    engine.echoMissing(event);
    changed();
  }

  /** @param {Event} event @param {unknown} error @returns {number} Seconds that the hub asks to wait. */
  #notSent(event, error) {
    const why = said(error).replace(/^The/, "the");
    this.#parts.engine.publishFailed(event, why, !(error instanceof HubError) || error.isRefusal);
    return error instanceof HubError ? error.retryAfter : 0;
  }

  /**
   * @template T
   * @param {() => Promise<T>} post
   * @returns {Promise<T>}
   */
  #inTurn(post) {
    this.#onTheirWay += 1;
    const mine = this.#last.then(post).finally(() => {
      this.#onTheirWay -= 1;
    });
    this.#last = mine.catch(() => {});
    return mine;
  }
}
