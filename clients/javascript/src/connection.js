/**
 * Keeps one subscription: subscribes, connects, renews, and reconnects, until it is stopped or refused for good (2.4).
 */

import { HubError, TokenError } from "./errors.js";
import { kindOf } from "./events.js";
import { denialReason, idIn, isDenial, readConfirmation } from "./frames.js";
import { Lease } from "./lease.js";
import { Life } from "./socket-life.js";
import { NORMAL, POLICY_VIOLATION } from "./socket.js";
import { sleep } from "./timers.js";
import { backoff } from "./timings.js";
import { knownCause } from "./unreachable.js";

/** @typedef {import("./socket.js").Channel} Channel */
/** @typedef {import("./frames.js").Confirmation} Confirmation */
/**
 * @typedef {object} Listener Who is told.
 * @property {(why: string) => void} connecting
 * @property {(confirmation: Confirmation, isFirst: boolean, ordered: boolean) => void} confirmed On a new socket
 *     (`isFirst`), or for a renewal. `ordered`: the hub declares one order for all events.
 * @property {(message: unknown, channel: Channel) => number} received A message came that is not a confirmation. Returns
 *     the seconds until the next heartbeat for a heartbeat, else 0.
 * @property {(id: string, channel: Channel) => void} unreadable A frame could not be read. `id` is "" where the frame has
 *     no id.
 * @property {import("./hub.js").Wire} wire
 */
/**
 * @typedef {object} Options
 * @property {import("./hub.js").Hub} hub
 * @property {import("./socket.js").SocketClass} WebSocket
 * @property {import("./timings.js").Timings} timings
 * @property {() => string[]} events The event names to subscribe to, without heartbeats.
 * @property {boolean} heartbeat Whether to subscribe to heartbeats where the hub has them.
 * @property {string} name
 * @property {number | null} leaseSeconds
 * @property {Listener} listener
 */

/** After a connection of so many seconds, the backoff begins again. */
const STEADY = 5;
/** Close reasons that this project's hub gives with 1008. After "more frames came ...", the endpoint is still good. */
const TAKEN_OVER = "another socket took over this endpoint";
const TOO_MUCH = "more frames came than acknowledge what was sent";
/** Statuses of a renewal that mean that the subscription is gone. */
const ENDED = new Set([404, 410]);

export class Connection {
  #options;
  #stop = new AbortController();
  /** Ends the wait before the next attempt. @type {AbortController | null} */
  #hurry = null;
  /** @type {string | null} */
  #endpoint = null;
  /** @type {Life | null} */
  #life = null;
  #lease;
  /** Failed attempts in a row. */
  #tries = 0;
  /** Seconds between two heartbeats; 0 before the first. */
  #period = 0;
  #wasConfirmed = false;
  /** The subscribed event names. @type {string[]} */
  #names = [];
  /** Whether the hub declares one order for all events. */
  #isOrdered = false;

  /** @param {Options} options */
  constructor(options) {
    this.#options = options;
    this.#lease = new Lease(options.leaseSeconds);
  }

  /** @returns {Promise<Error | null>} Settled at the end, with the error; null when stopped. */
  async run() {
    const unwatch = watchNetwork(() => this.#hurry?.abort());
    try {
      for (;;) {
        const { why, sentence, retryAfter } = await this.#once();
        if (this.#stop.signal.aborted) return null;
        this.#tries += 1;
        console.warn(`fhircast-client: ${tryingAgain(why)}`);
        this.#options.listener.connecting(tryingAgain(sentence));
        await this.#pause(retryAfter);
        if (this.#stop.signal.aborted) return null;
      }
    } catch (error) {
      return this.#stop.signal.aborted ? null : /** @type {Error} */ (error);
    } finally {
      unwatch();
    }
  }

  /** Unsubscribe and close: "during a normal shutdown of a Subscriber, it SHALL unsubscribe" (2.5). Never rejects. */
  async stop() {
    this.#stop.abort();
    this.#hurry?.abort();
    const endpoint = this.#endpoint;
    this.#endpoint = null;
    if (endpoint) await this.#options.hub.unsubscribe(endpoint, this.#options.name).catch(() => {});
    this.#life?.end("", NORMAL);
  }

  /**
   * One connection, from the first request to its end.
   * @returns {Promise<import("./socket-life.js").Loss & {retryAfter: number}>}
   */
  async #once() {
    try {
      const life = await this.#connect();
      return { ...(await life.over.promise), retryAfter: 0 };
    } catch (error) {
      if (!(error instanceof HubError) || this.#isFinal(error)) throw error;
      const why = error.status ? `The hub answered ${error.status}` : error.message;
      return { why, sentence: error.message, retryAfter: error.retryAfter };
    }
  }

  /**
   * @param {HubError} error
   * @returns {boolean} Whether a refusal is final. After the first confirmation, only the hub's own refusal is.
   */
  #isFinal(error) {
    return error.isFinal && (error.isFromHub || !this.#wasConfirmed);
  }

  /** @returns {Promise<Life>} A socket that is confirmed, or closed. @throws {HubError} */
  async #connect() {
    if (this.#endpoint && this.#lease.left > 0) {
      const life = await this.#open(this.#endpoint);
      // Whether the network or the endpoint is gone is unknown here. The hub tells on the next attempt.
      if (life.isConfirmed || this.#stop.signal.aborted) return life;
    }
    const { hub, leaseSeconds: lease, name } = this.#options;
    const events = (this.#names = await this.#wanted());
    this.#endpoint = await hub.subscribe({ events, lease, name, endpoint: null, signal: this.#stop.signal });
    this.#lease.begin();
    return this.#open(this.#endpoint);
  }

  /** @param {string} endpoint @returns {Promise<Life>} A socket that is confirmed, or closed. @throws {HubError} */
  async #open(endpoint) {
    const { timings, WebSocket } = this.#options;
    if (this.#stop.signal.aborted) throw new HubError(0, "Stopped.");
    const life = new Life({
      received: (message) => this.#received(life, message),
      unreadable: (frame) => this.#options.listener.unreadable(idIn(frame), life.channel),
      closed: (code, error, said) => this.#closed(life, code, knownCause(error, endpoint), said),
      ended: ({ sentence }) => this.#ended(life, sentence),
    });
    this.#life = life;
    life.after("confirmation", timings.confirmation, () =>
      life.end("The hub did not confirm the subscription in time."),
    );
    life.channel.open(WebSocket, endpoint);
    await Promise.race([life.confirmed.promise, life.over.promise]);
    return life;
  }

  /** @param {Life} life @param {unknown} message */
  #received(life, message) {
    if (this.#stop.signal.aborted) return;
    const confirmation = readConfirmation(message);
    if (confirmation) {
      this.#confirmed(life, confirmation);
    } else if (isDenial(message)) {
      this.#options.listener.wire({ direction: "in", kind: "denial", body: message, status: null });
      this.#endpoint = null;
      life.end("The hub ended the subscription.", undefined, denialReason(message));
    } else {
      this.#period = this.#options.listener.received(message, life.channel) || this.#period;
    }
    life.alive(this.#period);
  }

  /** @param {Life} life @param {Confirmation} confirmation */
  #confirmed(life, confirmation) {
    const isFirst = !life.isConfirmed;
    this.#wasConfirmed = true;
    this.#granted(life, confirmation.leaseSeconds);
    life.confirm();
    if (isFirst) life.after("steady", STEADY, () => void (this.#tries = 0));
    this.#options.listener.confirmed(confirmation, isFirst, this.#isOrdered);
  }

  /**
   * @param {Life} life
   * @param {number} code
   * @param {string} cause "" where unknown.
   * @param {string} said The hub's text.
   */
  #closed(life, code, cause, said) {
    if (code === POLICY_VIOLATION && said === TOO_MUCH) {
      life.end(`The hub closed the connection: ${said}.`);
    } else if (code === POLICY_VIOLATION) {
      this.#endpoint = null; // another client took over the endpoint; two would take it from each other for ever
      if (!said || said === TAKEN_OVER) life.end("Another connection took the subscription over.");
      else life.end(`The hub closed the connection (${code}).`, undefined, said);
    } else if (cause && !life.isConfirmed) {
      life.end(`The hub was not reached: ${cause}.`);
    } else {
      life.end(`The connection to the hub was lost (${code}).`, undefined, said);
    }
  }

  /** @param {Life} life @param {string} sentence */
  #ended(life, sentence) {
    if (life.isConfirmed && !this.#stop.signal.aborted) this.#options.listener.connecting(tryingAgain(sentence));
  }

  /** @param {Life} life @param {number | null} seconds The granted lease; null where the hub does not tell. */
  #granted(life, seconds) {
    this.#lease.granted(seconds);
    const { renewAfter } = this.#lease;
    if (renewAfter !== null) life.after("renewal", renewAfter, () => void this.#renew(life, 1));
  }

  /** @param {Life} life @param {number} tries */
  async #renew(life, tries) {
    const { hub, leaseSeconds: lease, name, timings } = this.#options;
    const endpoint = this.#endpoint;
    try {
      const granted = await hub.subscribe({ events: this.#names, lease, name, endpoint, signal: life.signal });
      if (life.isOver) return;
      this.#endpoint = granted;
      if (granted === endpoint) this.#granted(life, null);
      else life.end("The hub has moved the subscription.");
    } catch (error) {
      if (life.isOver) return;
      const isTokens = error instanceof TokenError && this.#isFinal(error);
      if (!(error instanceof HubError) || isTokens) return life.fail(/** @type {Error} */ (error));
      if (ENDED.has(error.status) && error.isHubs) return this.#lapse(life);
      const { left } = this.#lease;
      const wait = this.#isFinal(error) ? Infinity : Math.max(backoff(tries, timings), error.retryAfter);
      if (wait < left) life.after("renewal", wait, () => void this.#renew(life, tries + 1));
      else life.after("renewal", left, () => this.#lapse(life));
    }
  }

  /** The lease ended without a renewal. The client subscribes again. @param {Life} life */
  #lapse(life) {
    this.#endpoint = null;
    life.end("The hub did not renew the subscription.");
  }

  /** @returns {Promise<string[]>} */
  async #wanted() {
    const { hub, events, heartbeat } = this.#options;
    const { events: declared, ordersEvents } = await hub.configuration(this.#stop.signal);
    this.#isOrdered = ordersEvents;
    const names = events();
    const isAsked = !heartbeat || names.some((name) => kindOf(name) === "heartbeat");
    return !isAsked && declared.includes("heartbeat") ? [...names, "heartbeat"] : names;
  }

  /** @param {number} retryAfter Seconds that the hub asks to wait. Nothing shortens this wait. */
  async #pause(retryAfter) {
    const wait = backoff(this.#tries, this.#options.timings);
    await sleep(retryAfter, this.#stop.signal);
    if (this.#stop.signal.aborted || wait <= retryAfter) return;
    this.#hurry = new AbortController();
    await sleep(wait - retryAfter, this.#hurry.signal);
    this.#hurry = null;
  }
}

/** @param {string} why A sentence, with or without its full stop. */
function tryingAgain(why) {
  return `${why}${/[.!?]$/.test(why) ? "" : "."} Trying again.`;
}

/**
 * @param {() => void} back Called when the network may be back, or the page becomes visible.
 * @returns {() => void} Removes the listeners.
 */
function watchNetwork(back) {
  const seen = () => {
    if (globalThis.document?.visibilityState !== "hidden") back();
  };
  globalThis.addEventListener?.("online", back);
  globalThis.addEventListener?.("visibilitychange", seen);
  return () => {
    globalThis.removeEventListener?.("online", back);
    globalThis.removeEventListener?.("visibilitychange", seen);
  };
}
