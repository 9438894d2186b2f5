/**
 * Events that go out. Of the own changes of context one is on its way at a time, and what comes meanwhile waits for the
 * hub's answer: only then is it known what the application shows (behaviour CLT-4).
 */

import { Event } from "./events.js";
import { syncError } from "./messages.js";
import { timestampNow } from "./timing.js";

export class Publishing {
  #topic;
  #name;
  #hub;
  #state;
  #sync;
  #onTheirWay = 0;
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();

  /**
   * @param {object} parts
   * @param {string} parts.topic
   * @param {string} parts.name Of this application.
   * @param {import("./hub.js").Hub} parts.hub
   * @param {import("./state.js").State} parts.state
   * @param {import("./status.js").Sync} parts.sync
   */
  constructor({ topic, name, hub, state, sync }) {
    this.#topic = topic;
    this.#name = name;
    this.#hub = hub;
    this.#state = state;
    this.#sync = sync;
  }

  /**
   * @param {import("./events.js").Message} message
   * @param {{isNow?: boolean}} [options] Whether its timestamp is the time when it is its turn.
   * @returns {Promise<Event>} When the hub has accepted it. @throws {HubError}
   */
  publish(message, { isNow = false } = {}) {
    const { changes } = new Event(message);
    const post = async () => {
      const timestamp = isNow ? timestampNow(changes ? this.#state.newest : null) : message.timestamp;
      const event = new Event({ ...message, timestamp }, true);
      this.#state.publishing(event);
      await this.#hub.publish(event.body);
      this.#state.published(event);
      if (event.changes) this.#sync.followed(event);
      return event;
    };
    return changes ? this.#inTurn(post) : post();
  }

  /**
   * Publish an own event once more, with the same id and timestamp "to prevent race conditions" (2.6).
   * @param {Event} event
   * @param {() => boolean} isWanted Asked when it is its turn.
   * @throws {HubError}
   */
  async again(event, isWanted) {
    await this.#inTurn(async () => {
      if (isWanted()) await this.#hub.publish(event.body);
    });
  }

  /**
   * Tell the others that an event is not followed, after it was acknowledged with 202 (3.2.1). That it fails is
   * nobody's news.
   * @param {Event} event
   * @param {string} why
   */
  async report(event, why) {
    await this.publish(syncError(this.#topic, event, this.#name, why)).catch(() => {});
  }

  /** @returns {Promise<void>} Done when no own change is on its way. */
  async free() {
    while (this.#onTheirWay > 0) await this.#last;
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
