/** The network between a fake hub and its clients: lines that can be cut, and the sockets on them. */

const OPEN = 1;
const CLOSED = 3;
const ABNORMAL = 1006;

/** A client's connection to the hub. */
export class Line {
  /** @type {Set<FakeSocket>} */
  sockets = new Set();
  #isCut = false;
  #isSilent = false;
  /** @type {(() => void)[]} */
  #waiting = [];

  /** Let no data pass until `restore`. @param {boolean} silently Whether sockets stay open. */
  cut(silently) {
    this.#isCut = true;
    this.#isSilent = silently;
    for (const socket of [...this.sockets]) {
      if (silently) socket.silence();
      else socket.shut(ABNORMAL);
    }
  }

  /** Let new connections pass. */
  restore() {
    this.#isCut = false;
    for (const pass of this.#waiting.splice(0)) pass();
  }

  /** Let a request or a handshake pass. @param {AbortSignal | null} [signal] @throws {TypeError} Where the line is cut. */
  async pass(signal) {
    signal?.throwIfAborted();
    if (!this.#isCut) return;
    if (!this.#isSilent) throw new TypeError("the line is cut");
    await new Promise((resolve, reject) => {
      this.#waiting.push(() => resolve(undefined));
      signal?.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")));
    });
  }
}

/** The client's end of a WebSocket. */
export class FakeSocket {
  readyState = 0;
  /** @type {((event: any) => void) | null} */
  onmessage = null;
  /** @type {((event: any) => void) | null} */
  onclose = null;
  /** @type {((event: any) => void) | null} */
  onerror = null;
  #line;
  #received;
  /** Cut silently: no data passes any more. */
  #isDead = false;

  /**
   * @param {Line} line
   * @param {(text: string) => void} received Called with each text that the client sends.
   */
  constructor(line, received) {
    this.#line = line;
    this.#received = received;
    line.sockets.add(this);
  }

  /** Whether sent data arrives. */
  get isAlive() {
    return this.readyState !== CLOSED && !this.#isDead;
  }

  /** The hub accepted the handshake. */
  opened() {
    this.readyState = OPEN;
  }

  /** @param {string} text */
  send(text) {
    if (this.isAlive) this.#received(text);
  }

  /** Close from the client's side. */
  close() {
    this.readyState = CLOSED;
    this.#line.sockets.delete(this);
  }

  /** Send a message of the hub, or any text. @param {object | string} message */
  put(message) {
    const data = typeof message === "string" ? message : JSON.stringify(message);
    queueMicrotask(() => this.isAlive && this.onmessage?.({ data }));
  }

  /**
   * The socket is closed. Data that was sent before still arrives.
   * @param {number} code
   * @param {string} [reason] The hub's reason.
   */
  shut(code, reason = "") {
    this.#line.sockets.delete(this);
    queueMicrotask(() => {
      if (this.readyState === CLOSED) return;
      this.readyState = CLOSED;
      this.onclose?.({ code, reason });
    });
  }

  /** Let no data pass any more, without closing. */
  silence() {
    this.#isDead = true;
  }
}
