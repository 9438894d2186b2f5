/** From the opening of a socket to its end: what is waited for meanwhile, and why it ended. */

import { silence } from "./lease.js";
import { Channel, GIVEN_UP } from "./socket.js";
import { deferred, later } from "./timers.js";

/**
 * Why a connection is over.
 * @typedef {object} Loss
 * @property {string} why A sentence for the console.
 * @property {string} sentence The same for the user, with the hub's own words, which no log may have.
 */

export class Life {
  /** Settled with the first confirmation. @type {import("./timers.js").Deferred<void>} */
  confirmed = deferred();
  /**
   * Settled with why it ended; rejected when the hub will never have the client.
   * @type {import("./timers.js").Deferred<Loss>}
   */
  over = deferred();
  isConfirmed = false;
  isOver = false;
  channel;
  #ended;
  #abort = new AbortController();
  /** What to call off at the end, by name. @type {Map<string, () => void>} */
  #timers = new Map();

  /**
   * @param {object} listener
   * @param {(message: unknown) => void} listener.heard
   * @param {(frame: string) => void} listener.unread
   * @param {(code: number, error: unknown, reason: string) => void} listener.closed Called when the socket has ended by itself.
   * @param {(loss: Loss) => void} listener.ended Called at the end, before anything else happens.
   */
  constructor({ heard, unread, closed, ended }) {
    this.channel = new Channel(heard, unread, closed);
    this.#ended = ended;
  }

  /** Aborts at the end. */
  get signal() {
    return this.#abort.signal;
  }

  /**
   * Set a timer that ends with this life. One of the same name is called off.
   * @param {"confirmation" | "renewal" | "heartbeat" | "steady"} name
   * @param {number} seconds
   * @param {() => void} act
   */
  after(name, seconds, act) {
    this.#timers.get(name)?.();
    if (!this.isOver) this.#timers.set(name, later(seconds, act));
  }

  /** Something was heard. @param {number} period Seconds between two heartbeats; 0 where there are none. */
  alive(period) {
    if (period > 0) this.after("heartbeat", silence(period), () => this.end("The hub has fallen silent."));
  }

  /** The first or another confirmation has come. */
  confirm() {
    this.#timers.get("confirmation")?.();
    this.isConfirmed = true;
    this.confirmed.resolve();
  }

  /** @param {string} why A sentence. @param {number} [code] @param {string} [said] What the hub says of it, in its own words. */
  end(why, code = GIVEN_UP, said = "") {
    if (this.isOver) return;
    this.#finish(code);
    const loss = { why, sentence: said ? `${why.replace(/\.$/, "")}: ${said}.` : why };
    this.#ended(loss);
    this.over.resolve(loss);
  }

  /** @param {Error} error For which it cannot go on. */
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
