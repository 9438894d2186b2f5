/** After a connection is made: does the application show the hub's current context? (FHIRcast 3.0.0, 2.4 and 2.9) */

import { HubError } from "./errors.js";
import { makeEvent } from "./events.js";
import { Delivery } from "./inbox.js";
import { sleep } from "./timers.js";
import { now, timestampNow } from "./timestamps.js";
import { backoff } from "./timings.js";

/** @typedef {import("./events.js").Event} Event */
/**
 * @typedef {object} Parts
 * @property {string} topic
 * @property {import("./engine.js").Engine} engine
 * @property {import("./updates.js").Updates} updates
 * @property {import("./inbox.js").Inbox} inbox
 * @property {() => void} changed Called when the status may have changed.
 */

/** Statuses of a hub that does not tell its current context. */
const NEVER = new Set([400, 401, 403, 404, 405, 501]);
/** Seconds between two requests: the first delay, and the longest. */
const FIRST_DELAY = 1;
const MOST_DELAY = 30;

/** Asks the hub for its current context where no event tells it, and hands differences to the application. */
export class ContextCheck {
  #parts;
  /** Cancels the request that is under way. */
  #asking = new AbortController();

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /** The connection is lost, or the client stops. */
  stop() {
    this.#asking.abort();
  }

  /**
   * After a while, ask the hub if no event told the current context. Never rejects.
   * @param {number} seconds
   */
  async settle(seconds) {
    const { changed, engine } = this.#parts;
    this.stop();
    const { signal } = (this.#asking = new AbortController());
    await sleep(seconds, signal);
    if (signal.aborted) return;
    engine.content.replayEnded();
    const delays = { backoffFirst: Math.max(seconds, FIRST_DELAY), backoffMost: MOST_DELAY };
    for (let tries = 1; !engine.doubt.isAnswered && !(await this.#ask(signal)); tries += 1) {
      changed();
      await sleep(backoff(tries, delays), signal);
      if (signal.aborted) return;
    }
    if (!signal.aborted) changed();
  }

  /** @param {AbortSignal} signal @returns {Promise<boolean>} Whether the client is done asking. */
  async #ask(signal) {
    const { engine, inbox, updates } = this.#parts;
    await inbox.idle(); // the running handler would show its event over the answer
    if (signal.aborted || engine.doubt.isAnswered) return true;
    const { count: asked } = engine.changes;
    let event;
    let version;
    try {
      ({ event, version } = await updates.current());
    } catch (error) {
      if (signal.aborted) return true;
      const isFinal = error instanceof HubError ? NEVER.has(error.status) && error.isHubs : true;
      engine.doubt.unanswered(isFinal);
      return isFinal || !engine.doubt.mustAskAgain;
    }
    if (signal.aborted) return true;
    const applies = () => !signal.aborted && engine.changes.count === asked;
    const isOpen = event !== null;
    const deliveries = engine.differences(event, version).map((opened) => this.#delivery(opened, applies, isOpen));
    for (const delivery of deliveries) inbox.deliver(delivery);
    for (const { done } of deliveries) await done.promise;
    return signal.aborted || engine.contextChecked(event, asked, deliveries.length > 0);
  }

  /**
   * @param {Event} opened
   * @param {() => boolean} applies
   * @param {boolean} isOpen
   * @returns {Delivery} The hub's open, or the close of a context that the hub does not have open.
   */
  #delivery(opened, applies, isOpen) {
    return new Delivery(isOpen ? opened : this.#close(opened), { applies, queried: isOpen, retry: true });
  }

  /** @param {Event} shown @returns {Event} The missing close of a context that is open here. */
  #close(shown) {
    const { engine, topic } = this.#parts;
    const timestamp = timestampNow(engine.changes.newest(now()));
    return makeEvent(topic, `${shown.anchor.split("/", 1)[0]}-close`, shown.context, { timestamp, own: false });
  }
}
