/** After joining: is what the application shows what is open at the hub? (FHIRcast 3.0.0, 2.4 and 2.9) */

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
 * @property {() => void} changed Learns that the status may be another one.
 */

/** Statuses of a hub that has no current context to tell. */
const NEVER = new Set([400, 401, 403, 404, 405, 501]);
/** Seconds between two questions: at first, and at most. */
const FIRST_DELAY = 1;
const MOST_DELAY = 30;

/** Asks the hub what is open where it does not tell by itself, and has the application follow the answer. */
export class ContextCheck {
  #parts;
  /** Ends the question that is being asked. */
  #asking = new AbortController();

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /** The connection is lost, or nobody is interested any more. */
  stop() {
    this.#asking.abort();
  }

  /**
   * After a while, ask the hub if it told nothing that settles it. It never rejects.
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

  /** @param {AbortSignal} signal @returns {Promise<boolean>} Whether there is nothing more to be asked. */
  async #ask(signal) {
    const { engine, inbox, updates } = this.#parts;
    await inbox.idle(); // a handler at work would show its event over the answer
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
   * @returns {Delivery} What the application has to be handed: what is open at the hub, or the close of what is not.
   */
  #delivery(opened, applies, isOpen) {
    return new Delivery(isOpen ? opened : this.#close(opened), { applies, queried: isOpen, retry: true });
  }

  /** @param {Event} shown @returns {Event} The close that nobody told, of what is open here. */
  #close(shown) {
    const { engine, topic } = this.#parts;
    const timestamp = timestampNow(engine.changes.newest(now()));
    return makeEvent(topic, `${shown.anchor.split("/", 1)[0]}-close`, shown.context, { timestamp, own: false });
  }
}
