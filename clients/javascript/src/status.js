/** Whether this application and the others show the same, and why not: what the user must be told (4.2.1). No I/O. */

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./messages.js").Report} Report */
/** @typedef {"connecting" | "connected" | "ended"} Connection */
/**
 * @typedef {object} Status
 * @property {Connection} connection
 * @property {boolean} inSync
 * @property {string} why Why not in sync, as a sentence for people; "" when in sync.
 * @property {readonly string[]} behind The names of the other applications that did not follow.
 */

/** Subscribers that are remembered as not following: a hub has no more. */
const MOST_BEHIND = 64;

/** Keeps what makes the status, and tells of each change. */
export class Sync {
  /** @type {Connection} */
  #connection = "connecting";
  #why = "Not started.";
  /** Whether what is open is still being asked for, after the connection was lost. */
  #checking = false;
  /** The event that was not followed here last, and why. @type {{event: Event, why: string, newer: boolean} | null} */
  #failure = null;
  /** By name of the subscriber. @type {Map<string, {id: string, why: string, instant: bigint | null}>} */
  #behind = new Map();
  /** @type {Status} */
  #status;
  #told;

  /** @param {(status: Status) => void} told Called after every change. */
  constructor(told) {
    this.#told = told;
    this.#status = this.#made();
  }

  /** @returns {Status} */
  get status() {
    return this.#status;
  }

  /** @returns {Event | null} The event that was not followed here last, if nothing newer came. */
  get failed() {
    return this.#failure && !this.#failure.newer ? this.#failure.event : null;
  }

  /**
   * @param {Connection} connection
   * @param {string} why A sentence; "" when connected.
   * @param {boolean} [checking] Whether the application may show something old until `checked`.
   */
  connection(connection, why, checking = false) {
    this.#connection = connection;
    this.#why = why;
    this.#checking = checking;
    this.#changed();
  }

  /** What is open has been told. */
  checked() {
    this.#checking = false;
    this.#changed();
  }

  /** An event was not followed here. @param {Event} event @param {string} why A sentence. */
  failure(event, why) {
    this.#failure = { event, why, newer: false };
    this.#changed();
  }

  /** A change came: whether it is newer than what was not followed here. @param {Event} event */
  came(event) {
    const failed = this.#failure?.event;
    if (!this.#failure || !failed || failed.id === event.id) return;
    const isClosed = event.kind === "close" && event.anchor === failed.anchor;
    if (isClosed || failed.instant === null || event.instant === null || event.instant > failed.instant) {
      this.#failure.newer = true;
    }
  }

  /**
   * An event is followed here: "an event is received with a timestamp equal or newer than the event that caused the
   * SyncError, it assumes sync is restored" (4.2.1).
   * @param {Event} event
   */
  followed(event) {
    const failed = this.#failure?.event;
    const opens = event.kind === "open" || event.kind === "home";
    if (failed && (failed.id === event.id || (opens && notOlder(event, failed.instant)))) this.#failure = null;
    if (opens) {
      for (const [name, { instant }] of this.#behind) {
        if (notOlder(event, instant)) this.#behind.delete(name);
      }
    }
    this.#changed();
  }

  /** An event needs not be followed any more: the application shows something newer. @param {Event} event */
  dropped(event) {
    if (this.#failure?.event.id === event.id) this.#failure = null;
    this.#changed();
  }

  /**
   * Another application did not follow.
   * @param {Report} report
   * @param {bigint | null} instant Of the event it did not follow, if that is known here.
   */
  behind(report, instant) {
    const what = `${report.subscriber} did not follow${report.name ? ` ${report.name}` : ""}`;
    this.#behind.delete(report.subscriber);
    this.#behind.set(report.subscriber, { id: report.id, why: report.why || what, instant });
    if (this.#behind.size > MOST_BEHIND) this.#behind.delete(/** @type {string} */ (this.#behind.keys().next().value));
    this.#changed();
  }

  /** @param {string} id Of an event. @returns {boolean} Whether somebody did not follow it. */
  isBehind(id) {
    return [...this.#behind.values()].some((one) => one.id === id);
  }

  /** Nobody says any more that they do not follow this event. @param {string} id */
  quiet(id) {
    for (const [name, one] of this.#behind) {
      if (one.id === id) this.#behind.delete(name);
    }
    this.#changed();
  }

  #changed() {
    const before = this.#status;
    const after = this.#made();
    if (JSON.stringify(before) === JSON.stringify(after)) return;
    this.#status = after;
    this.#told(after);
  }

  /** @returns {Status} */
  #made() {
    const why = this.#sentence();
    return Object.freeze({
      connection: this.#connection,
      inSync: why === "",
      why,
      behind: Object.freeze([...this.#behind.keys()]),
    });
  }

  #sentence() {
    if (this.#connection !== "connected") return this.#why;
    if (this.#failure) return this.#failure.why;
    if (this.#behind.size > 0) return [...this.#behind.values()].map((one) => one.why).join("; ");
    return this.#checking ? "The connection is back; what is open now is being asked for." : "";
  }
}

/**
 * @param {Event} event
 * @param {bigint | null} then
 */
function notOlder(event, then) {
  return then === null || event.instant === null || event.instant >= then;
}
