/** The changes of context: every open, close and Home-open that came, or that the hub accepted. No I/O, no clock. */

import { trim } from "./event-order.js";
import { DAY } from "./timestamps.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./event-order.js").Mark} Mark */

/** The newest changes, in their order. */
export class ContextChanges {
  /** Grows with every change, repeats among them. */
  count = 0;
  #order;
  /** By id. @type {Map<string, {event: Event, mark: Mark}>} */
  #known = new Map();

  /** @param {import("./event-order.js").Order} order */
  constructor(order) {
    this.#order = order;
  }

  /** It came, or the hub accepted it. @param {Event} event */
  add(event) {
    this.count += 1;
    if (this.#known.has(event.id)) return;
    this.#known.set(event.id, { event, mark: this.#order.mark(event) });
    trim(this.#known);
  }

  /** @param {Event} event @returns {boolean} Whether it came or was accepted. */
  has({ id }) {
    return this.#known.has(id);
  }

  /** @param {Event} event @returns {boolean} Whether no newer change came or was accepted since this one. */
  isNewest(event) {
    const mark = this.#order.mark(event);
    for (const other of this.#known.values()) {
      if (other.event.id !== event.id && this.#isSince(other, mark, event.anchor)) return false;
    }
    return true;
  }

  /**
   * @param {bigint} now
   * @returns {bigint | null} The newest timestamp of a change. A clock that is wrong by a day is nobody's to follow.
   */
  newest(now) {
    /** @type {bigint | null} */
    let newest = null;
    for (const { mark } of this.#known.values()) {
      if (mark.at !== null && mark.at < now + DAY && (newest === null || mark.at > newest)) newest = mark.at;
    }
    return newest;
  }

  /** @param {{event: Event, mark: Mark}} other @param {Mark} mark @param {string} anchor */
  #isSince({ event, mark: its }, mark, anchor) {
    const closes = event.kind === "close" && event.anchor === anchor;
    return its.place > mark.place && (closes || this.#order.isOlder(mark, its));
  }
}
