/** Own events that the others were not told of, and which of them are tried again. No I/O, no clock. */

/** @typedef {import("./events.js").Event} Event */

/** In the order in which they were sent. */
export class UnsentEvents {
  /** By id. @type {Map<string, {event: Event, why: string, isTried: boolean}>} */
  #events = new Map();

  /** Why the newest of them was not told, as a sentence; "" where there is none. */
  get why() {
    return [...this.#events.values()].at(-1)?.why ?? "";
  }

  /** @returns {Event | null} The newest of those that are tried again. */
  get newest() {
    return this.retried.at(-1) ?? null;
  }

  /** @returns {Event[]} Those that are tried again, oldest first. */
  get retried() {
    return [...this.#events.values()].filter(({ isTried }) => isTried).map(({ event }) => event);
  }

  /** @param {Event} event @returns {boolean} Whether it is tried again: the hub may not have it. */
  isRetried({ id }) {
    return this.#events.get(id)?.isTried ?? false;
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether something newer was opened here: the event is not told unless the hub does not take that.
   */
  mustWait({ id, changes }) {
    const all = [...this.#events.values()];
    const newer = this.#events.has(id) ? all.slice(all.findIndex((one) => one.event.id === id) + 1) : [];
    return changes && newer.some(({ event, isTried }) => isTried && event.opens);
  }

  /**
   * @param {Event} event
   * @param {string} why A part of a sentence.
   * @param {boolean} isFinal Whether the hub refused an event that failed before; else nobody knows whether the hub has it.
   */
  failed(event, why, isFinal) {
    if (!event.announces || (isFinal && !this.#events.has(event.id))) return;
    const sentence = `The others were not told of ${event.name}: ${why}`;
    this.#events.set(event.id, { event, why: sentence, isTried: !isFinal });
  }

  /** The hub has it. Whether the application shows it, its turn will say. @param {Event} event */
  reachedHub({ id }) {
    const known = this.#events.get(id);
    if (known) known.isTried = false;
  }

  /** What the application makes of an event is known now. @param {Event} event */
  resolved({ id }) {
    this.#events.delete(id);
  }

  /**
   * The application is shown an event, or the hub has an own one. What it overtakes needs not be told any more. A logout is
   * overtaken by an own open only: nothing that others do undoes it.
   * @param {Event} event
   * @param {boolean} byOwn
   */
  overtaken({ id, kind, opens, anchor }, byOwn) {
    for (const { event: one } of [...this.#events.values()]) {
      if (one.id === id) continue;
      const isOpen = opens && (byOwn || one.changes);
      if (isOpen || (kind === "close" && anchor === one.anchor)) this.resolved(one);
    }
  }

  /** Nothing is told any more. */
  clear() {
    this.#events.clear();
  }
}
