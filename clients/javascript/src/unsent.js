/** Own events that other applications may not have received, and which are retried. No I/O, no clock. */

/** @typedef {import("./events.js").Event} Event */

/** Own events, in the order in which they were sent. */
export class UnsentEvents {
  /** By id. @type {Map<string, {event: Event, why: string, isTried: boolean}>} */
  #events = new Map();

  /** Why the newest event was not delivered, as a sentence; "" where there is none. */
  get why() {
    return [...this.#events.values()].at(-1)?.why ?? "";
  }

  /** @returns {Event | null} The newest event that is retried. */
  get newest() {
    return this.retried.at(-1) ?? null;
  }

  /** @returns {Event[]} The events that are retried, oldest first. */
  get retried() {
    return [...this.#events.values()].filter(({ isTried }) => isTried).map(({ event }) => event);
  }

  /** @param {Event} event @returns {boolean} Whether the event is retried: the hub may not have the event. */
  isRetried({ id }) {
    return this.#events.get(id)?.isTried ?? false;
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether a newer own open is retried. The older event is then sent only if the hub refuses the
   *   newer one.
   */
  mustWait({ id, changes }) {
    const all = [...this.#events.values()];
    const newer = this.#events.has(id) ? all.slice(all.findIndex((one) => one.event.id === id) + 1) : [];
    return changes && newer.some(({ event, isTried }) => isTried && event.opens);
  }

  /**
   * @param {Event} event
   * @param {string} why A part of a sentence.
   * @param {boolean} isFinal Whether the hub refused an event that failed before. False: the hub may have the event.
   */
  failed(event, why, isFinal) {
    if (!event.announces || (isFinal && !this.#events.has(event.id))) return;
    const sentence = `The others were not told of ${event.name}: ${why}`;
    this.#events.set(event.id, { event, why: sentence, isTried: !isFinal });
  }

  /** The hub has the event. Its turn decides whether the application shows the event. @param {Event} event */
  reachedHub({ id }) {
    const known = this.#events.get(id);
    if (known) known.isTried = false;
  }

  /** Whether the application follows the event is known now. @param {Event} event */
  resolved({ id }) {
    this.#events.delete(id);
  }

  /**
   * The application is shown an event, or the hub has an own one. Events that are overtaken need not be sent any more.
   * Only an own open overtakes a logout: events of other applications do not undo a logout.
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

  /** Nothing is retried any more. */
  clear() {
    this.#events.clear();
  }
}
