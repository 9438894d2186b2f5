/** One WebSocket: reading, writing, closing (FHIRcast 3.0.0, 2.4 "Subscription Confirmation" and 2.5). */

import { inOneLine } from "./errors.js";
import { encoded } from "./events.js";
import { later } from "./timers.js";

/**
 * The part of a WebSocket that the library uses, in browsers and in Node.
 * @typedef {object} Socket
 * @property {number} readyState
 * @property {number} [bufferedAmount] Bytes that were sent and are not written yet.
 * @property {((event: any) => void) | null} onmessage
 * @property {((event: any) => void) | null} onclose
 * @property {((event: any) => void) | null} onerror
 * @property {(data: string) => void} send
 * @property {(code?: number, reason?: string) => void} close
 */
/** @typedef {new (url: string) => Socket} SocketClass */

const OPEN = 1;
const ABNORMAL = 1006;
/** Two pings of a hub, in seconds. */
const MOST_STUCK = 30;
/** Close codes: the client stops, or gives up this socket. */
export const NORMAL = 1000;
export const GIVEN_UP = 4000;
export const POLICY_VIOLATION = 1008;

export class Channel {
  /** @type {Socket | null} */
  #socket = null;
  /** The last time at which all sent data was written, in milliseconds since 1970. */
  #takenAt = 0;
  /** Stops watching the sent data. @type {(() => void) | null} */
  #unwatch = null;
  /** @type {unknown} */
  #error = null;
  #received;
  #unreadable;
  #closed;

  /**
   * @param {(message: unknown) => void} received Called with each frame that is JSON.
   * @param {(frame: string) => void} unreadable Called with frames that cannot be read.
   * @param {(code: number, error: unknown, reason: string) => void} closed Called once when the socket has ended,
   *     unless `close` was called before. `error`: the error, where the page or Node tells it. `reason`: the hub's
   *     reason, in one line.
   */
  constructor(received, unreadable, closed) {
    this.#received = received;
    this.#unreadable = unreadable;
    this.#closed = closed;
  }

  /**
   * @param {SocketClass} WebSocket
   * @param {string} endpoint
   */
  open(WebSocket, endpoint) {
    try {
      const socket = new WebSocket(endpoint);
      this.#socket = socket;
      socket.onmessage = ({ data }) => this.#read(data);
      socket.onclose = (event) => this.#end(Number(event?.code) || ABNORMAL, event?.reason);
      // A close event follows. Pages do not learn why a connection failed, but Node does.
      socket.onerror = (event) => void (this.#error = event?.error);
    } catch {
      this.#end(ABNORMAL); // invalid endpoint, or the page may not connect to it
    }
  }

  /** @param {object} message @returns {boolean} Whether the message could be sent. */
  send(message) {
    if (this.#socket?.readyState !== OPEN) return false;
    try {
      if (!this.#socket.bufferedAmount) this.#takenAt = Date.now();
      this.#socket.send(encoded(message));
      this.#watch();
      return true;
    } catch {
      return false;
    }
  }

  /** A socket that writes no data for two pings counts as lost. */
  #watch() {
    this.#unwatch ??= later(MOST_STUCK, () => {
      this.#unwatch = null;
      const socket = this.#socket;
      if (!socket?.bufferedAmount) return;
      if (Date.now() - this.#takenAt < MOST_STUCK * 1000) return this.#watch();
      const closed = this.#closed;
      this.close(GIVEN_UP);
      closed(ABNORMAL, null, "");
    });
  }

  /** Close the socket, and ignore all further frames. @param {number} code @param {string} [reason] */
  close(code, reason = "") {
    const socket = this.#socket;
    this.#unwatch?.();
    this.#socket = null;
    this.#closed = () => {};
    this.#received = () => {};
    this.#unreadable = () => {};
    try {
      socket?.close(code, reason);
    } catch {
      // The socket was never open.
    }
  }

  /** @param {unknown} data */
  #read(data) {
    const frame = typeof data === "string" ? data : "";
    let message;
    try {
      message = JSON.parse(frame);
    } catch {
      this.#unreadable(frame);
      return;
    }
    this.#received(message);
  }

  /** @param {number} code @param {unknown} [reason] */
  #end(code, reason) {
    const closed = this.#closed;
    this.#unwatch?.();
    this.#socket = null;
    this.#closed = () => {};
    closed(code, this.#error, typeof reason === "string" ? inOneLine(reason) : "");
  }
}
