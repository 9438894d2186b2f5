/** One socket's life (FHIRcast 3.0.0, 2.4 "Subscription Confirmation" and 2.5). */

import { encoded } from "./events.js";

/**
 * What the library needs of a WebSocket, in browsers and in Node.
 * @typedef {object} Socket
 * @property {number} readyState
 * @property {number} [bufferedAmount] Bytes that were sent and not taken yet.
 * @property {((event: any) => void) | null} onmessage
 * @property {((event: any) => void) | null} onclose
 * @property {((event: any) => void) | null} onerror
 * @property {(data: string) => void} send
 * @property {(code?: number, reason?: string) => void} close
 */
/** @typedef {new (url: string) => Socket} SocketClass */

const OPEN = 1;
const ABNORMAL = 1006;
/** Two pings of a hub, in milliseconds. */
const MOST_STUCK = 30_000;
/** The application closes because it stops, or because it has given this socket up. */
export const NORMAL = 1000;
export const GIVEN_UP = 4000;
export const TAKEN_OVER = 1008;

export class Channel {
  /** @type {Socket | null} */
  #socket = null;
  /** Since when, in milliseconds of the epoch, the socket has not taken all that was sent; 0 where it has. */
  #stuckSince = 0;
  #heard;
  #unread;
  #closed;

  /**
   * @param {(message: unknown) => void} heard Called with each frame that is JSON.
   * @param {(frame: string) => void} unread Called with one that cannot be read.
   * @param {(code: number) => void} closed Called once when the socket has ended, unless `close` was called before.
   */
  constructor(heard, unread, closed) {
    this.#heard = heard;
    this.#unread = unread;
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
      socket.onclose = (event) => this.#end(Number(event?.code) || ABNORMAL);
      // A close follows, and says as much: a page may not know why a connection failed.
      socket.onerror = () => {};
    } catch {
      this.#end(ABNORMAL); // the endpoint is none, or the page may not go there
    }
  }

  /** @param {object} message @returns {boolean} Whether it could be sent. */
  send(message) {
    if (this.#socket?.readyState !== OPEN) return false;
    try {
      this.#socket.send(encoded(message));
      this.#look();
      return true;
    } catch {
      return false;
    }
  }

  /** A socket that has taken nothing for two pings is lost, whatever it says. */
  #look() {
    if (!this.#socket?.bufferedAmount) this.#stuckSince = 0;
    else if (this.#stuckSince === 0) this.#stuckSince = Date.now();
    else if (Date.now() - this.#stuckSince > MOST_STUCK) this.#end(ABNORMAL);
  }

  /** Nothing more is heard of it. @param {number} code @param {string} [reason] */
  close(code, reason = "") {
    const socket = this.#socket;
    this.#socket = null;
    this.#closed = () => {};
    this.#heard = () => {};
    this.#unread = () => {};
    try {
      socket?.close(code, reason);
    } catch {
      // It was never open.
    }
  }

  /** @param {unknown} data */
  #read(data) {
    const frame = typeof data === "string" ? data : "";
    let message;
    try {
      message = JSON.parse(frame);
    } catch {
      this.#unread(frame);
      return;
    }
    this.#heard(message);
  }

  /** @param {number} code */
  #end(code) {
    const closed = this.#closed;
    this.#socket = null;
    this.#closed = () => {};
    closed(code);
  }
}
