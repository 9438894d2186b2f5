/** Changes of context: every open, close and Home-open that was received, or accepted by the hub. No I/O, no clock. */

import { trim } from "./event-order.js";
import { DAY } from "./timestamps.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./event-order.js").Mark} Mark */

/** The newest changes, in the order in which they came. */
export class ContextChanges {
  /** Grows with every change, also with repeats. */
  count = 0;
  #order;
  /** By id. @type {Map<string, {event: Event, mark: Mark}>} */
  #known = new Map();

  /** @param {import("./event-order.js").Order} order */
  constructor(order) {
    this.#order = order;
  }

  /** The change was received, or the hub accepted it. @param {Event} event */
  add(event) {
    this.count += 1;
    if (this.#known.has(event.id)) return;
    this.#known.set(event.id, { event, mark: this.#order.mark(event) });
    trim(this.#known);
  }

  /** @param {Event} event @returns {boolean} Whether the change was received or accepted. */
  has({ id }) {
    return this.#known.has(id);
  }

  /** @param {Event} event @returns {boolean} Whether no newer change was received or accepted since. */
  isNewest(event) {
    const mark = this.#order.mark(event);
    for (const other of this.#known.values()) {
      if (other.event.id !== event.id && this.#isSince(other, mark, event.anchor)) return false;
    }
    return true;
  }

  /**
   * @param {bigint} now
   * @returns {bigint | null} The newest timestamp of a change. Clocks that are ahead by a day or more are ignored.
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
