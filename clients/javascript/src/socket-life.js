/** One socket, from its opening to its end: its timers, and the reason of its end. */

import { silence } from "./lease.js";
import { Channel, GIVEN_UP } from "./socket.js";
import { deferred, later } from "./timers.js";

/**
 * Why a connection ended.
 * @typedef {object} Loss
 * @property {string} why A sentence for the console.
 * @property {string} sentence The same for the user, with the hub's text, which must not be logged.
 */

export class Life {
  /** Settled at the first confirmation. @type {import("./timers.js").Deferred<void>} */
  confirmed = deferred();
  /**
   * Settled with the reason of the end; rejected when the hub refuses for good.
   * @type {import("./timers.js").Deferred<Loss>}
   */
  over = deferred();
  isConfirmed = false;
  isOver = false;
  channel;
  #ended;
  #abort = new AbortController();
  /** Functions that cancel the timers, by name. @type {Map<string, () => void>} */
  #timers = new Map();

  /**
   * @param {object} listener
   * @param {(message: unknown) => void} listener.received
   * @param {(frame: string) => void} listener.unreadable
   * @param {(code: number, error: unknown, reason: string) => void} listener.closed Called when the socket has ended by
   *     itself.
   * @param {(loss: Loss) => void} listener.ended Called first at the end.
   */
  constructor({ received, unreadable, closed, ended }) {
    this.channel = new Channel(received, unreadable, closed);
    this.#ended = ended;
  }

  /** Aborts at the end. */
  get signal() {
    return this.#abort.signal;
  }

  /**
   * Set a timer, which ends with the socket. Replaces a timer of the same name.
   * @param {"confirmation" | "renewal" | "heartbeat" | "steady"} name
   * @param {number} seconds
   * @param {() => void} act
   */
  after(name, seconds, act) {
    this.#timers.get(name)?.();
    if (!this.isOver) this.#timers.set(name, later(seconds, act));
  }

  /** A frame came. @param {number} period Seconds between two heartbeats; 0 without heartbeats. */
  alive(period) {
    if (period > 0) this.after("heartbeat", silence(period), () => this.end("The hub sent nothing for three heartbeats."));
  }

  /** A confirmation came. */
  confirm() {
    this.#timers.get("confirmation")?.();
    this.isConfirmed = true;
    this.confirmed.resolve();
  }

  /** @param {string} why A sentence. @param {number} [code] @param {string} [said] The hub's text. */
  end(why, code = GIVEN_UP, said = "") {
    if (this.isOver) return;
    this.#finish(code);
    const loss = { why, sentence: said ? `${why.replace(/\.$/, "")}: ${said}.` : why };
    this.#ended(loss);
    this.over.resolve(loss);
  }

  /** @param {Error} error The error that ends the client. */
  fail(error) {
    if (this.isOver) return;
    this.#finish(GIVEN_UP);
    this.over.reject(error);
  }

  /** @param {number} code */
  #finish(code) {
    this.isOver = true;
    for (const cancel of this.#timers.values()) cancel();
    this.#timers.clear();
    this.#abort.abort();
    this.channel.close(code);
  }
}
