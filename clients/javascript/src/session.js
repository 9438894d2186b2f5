/** One client's session: makes the parts, starts them and stops them. */

import { EventSignal } from "./event-signal.js";
import { Connection } from "./connection.js";
import { Engine } from "./engine.js";
import { Event, isEvent, isObject, kindOf } from "./events.js";
import { heartbeatPeriod } from "./frames.js";
import { Hub } from "./hub.js";
import { Delivery, Inbox } from "./inbox.js";
import { ContextCheck } from "./context-check.js";
import { Publisher } from "./publisher.js";
import { deferred } from "./timers.js";
import { TIMINGS } from "./timings.js";
import { SyncErrorExpiry } from "./sync-error-expiry.js";
import { Updates } from "./updates.js";

/** @typedef {import("./frames.js").Confirmation} Confirmation */
/** @typedef {import("./hub.js").Wire} Wire */
/** @typedef {import("./inbox.js").Handling} Handling */
/** @typedef {import("./socket.js").Channel} Channel */
/** @typedef {import("./status.js").Status} Status */
/**
 * @typedef {object} Options
 * @property {import("./tokens.js").TokenSource} [token] The access token, or a function that returns one or a promise.
 *     The function is called for the first request, after a 401 and for every renewal. Left out: no token is sent.
 * @property {string} [name] subscriber.name: other users read it when this application does not follow.
 * @property {number | null} [leaseSeconds] The lease to ask for, in seconds. Left out: the hub decides.
 * @property {boolean} [heartbeat] Whether to subscribe to heartbeats where the hub has them, to notice a dead
 *     connection. Default true.
 * @property {Partial<import("./timings.js").Timings>} [timings] In seconds.
 * @property {boolean} [debug] Print errors of handlers with text and stack. The text may name a patient. Default false.
 * @property {typeof globalThis.fetch} [fetch]
 * @property {import("./socket.js").SocketClass} [WebSocket]
 */

const OK = 200;
const FAILED = 500;
/** Seconds between two heartbeats, where the hub does not tell them. */
const HEARTBEAT_SECONDS = 30;

export class Session {
  engine;
  publisher;
  updates;
  inbox;
  /** Settled when the first subscription is confirmed. @type {import("./timers.js").Deferred<void>} */
  started = deferred();
  /**
   * Settled at the end; rejected with the error that ended the session.
   * @type {import("./timers.js").Deferred<void>}
   */
  over = deferred();
  #topic;
  #timings;
  #wire;
  #report;
  /** @type {Status} */
  #status;
  #eventSignal;
  #connection;
  #joining;
  #syncErrorExpiry;
  #isStarted = false;
  #stopping = new AbortController();
  /** @type {Promise<void> | null} */
  #stopped = null;

  /**
   * @param {string} hubUrl
   * @param {string} topic
   * @param {Options} options
   * @param {(status: Status) => void} onStatus
   * @param {Wire} onWire
   */
  constructor(hubUrl, topic, options, onStatus, onWire) {
    const { token = null, name = "", leaseSeconds = null, heartbeat = true, debug = false } = options;
    const { signal } = this.#stopping;
    const fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    const timings = (this.#timings = { ...TIMINGS, ...options.timings });
    const hub = new Hub({ url: hubUrl, topic, token, fetch, timings, wire: onWire });
    /** @type {Map<string, Handling>} */
    const handlings = new Map();
    const engine = (this.engine = new Engine(name, handlings));
    const changed = () => this.#changed();
    const hand = (/** @type {Event} */ event) => this.inbox.deliver(new Delivery(event));
    const isRunning = () => this.#isStarted && !signal.aborted;
    const eventSignal = (this.#eventSignal = new EventSignal(signal));
    const common = { topic, hub, engine, timings, eventSignal, signal };
    const publisher = (this.publisher = new Publisher({ ...common, name, changed, hand, isRunning }));
    const updates = (this.updates = new Updates({ ...common, post: (event) => publisher.post(event) }));
    const inbox = (this.inbox = new Inbox({
      engine,
      handlings,
      timings,
      debug,
      changed,
      free: () => publisher.free(),
      tell: (event, reason) => void publisher.refuse(event, reason),
      known: (anchor) => updates.known(anchor),
    }));
    this.#joining = new ContextCheck({ topic, engine, updates, inbox, changed });
    this.#syncErrorExpiry = new SyncErrorExpiry(timings.syncErrorExpiry, (id) => this.#quiet(id));
    this.#topic = topic;
    this.#wire = onWire;
    this.#report = onStatus;
    this.#status = engine.sync.status;
    const WebSocket = webSocket(options);
    const listener = this.#listener();
    const events = () => this.#wanted();
    this.#connection = new Connection({ hub, WebSocket, timings, events, heartbeat, name, leaseSeconds, listener });
  }

  get isStarted() {
    return this.#isStarted;
  }

  get isStopped() {
    return this.#stopped !== null;
  }

  start() {
    if (this.#isStarted || this.#stopped) return;
    this.#isStarted = true;
    this.#disconnected("Connecting to the hub");
    void this.#connection.run().then((error) => {
      if (error && !this.#stopped) this.#end(error.message, error);
    });
  }

  /** @returns {Promise<void>} Never rejects. */
  stop() {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop() {
    if (this.#status.connection !== "ended") this.#end("Stopped", null);
    await this.#connection.stop();
    this.over.resolve();
  }

  /** @param {string} why @param {Error | null} error */
  #end(why, error) {
    this.#stopping.abort();
    this.#joining.stop();
    this.#syncErrorExpiry.stop();
    this.inbox.close();
    this.started.reject(error ?? new Error("Stopped before the hub had confirmed the subscription."));
    if (error) this.over.reject(error);
    this.engine.ended(why);
    this.#changed();
  }

  /** The event names to subscribe to: those with a handler, the closes that belong to opens, and SyncError. */
  #wanted() {
    const { names } = this.inbox;
    const closes = names.filter((name) => kindOf(name) === "open").map((name) => name.replace(/open$/i, "close"));
    const wanted = [...closes, "SyncError", ...names];
    return [...new Map(wanted.map((name) => [name.toLowerCase(), name])).values()];
  }

  /** @returns {import("./connection.js").Listener} */
  #listener() {
    return {
      wire: (message) => this.#wire(message),
      connecting: (why) => {
        this.#joining.stop();
        this.#disconnected(why);
      },
      confirmed: (confirmation, isFirst, ordered) => this.#confirmed(confirmation, isFirst, ordered),
      received: (message, channel) => this.#received(message, channel),
      unreadable: (id, channel) => this.#unreadable(id, channel),
    };
  }

  /** @param {string} why */
  #disconnected(why) {
    this.engine.disconnected(why);
    this.#changed();
  }

  /** @param {Confirmation} confirmation @param {boolean} isFirst @param {boolean} ordered */
  #confirmed({ events, leaseSeconds }, isFirst, ordered) {
    const body = { "hub.mode": "subscribe", "hub.events": events, "hub.lease_seconds": leaseSeconds };
    this.#wire({ direction: "in", kind: "confirmation", body, status: null });
    if (!isFirst) {
      this.engine.granted = Object.freeze(events);
      return;
    }
    this.engine.connected(events, ordered);
    void this.#joining.settle(this.#timings.settle);
    this.publisher.tellUntold();
    this.#changed();
    this.started.resolve();
  }

  /**
   * @param {unknown} message
   * @param {Channel} channel
   * @returns {number} Seconds until the next heartbeat, for a heartbeat.
   */
  #received(message, channel) {
    if (!isObject(message) || !("event" in message)) return 0;
    if (!isEvent(message)) {
      this.#unreadable(typeof message.id === "string" ? message.id : "", channel);
      return 0;
    }
    const event = new Event(message, this.engine.isOwn(String(message.id)));
    if (event.topic && event.topic !== this.#topic) return 0; // events of another session must not be followed
    this.#wire({ direction: "in", kind: "event", body: message, status: null });
    if (event.kind === "heartbeat") {
      this.#answer(event, channel, OK, "");
      if (this.inbox.handles(event.name)) this.inbox.deliver(new Delivery(event));
      return heartbeatPeriod(event) ?? HEARTBEAT_SECONDS;
    }
    if ((event.kind === "open" || event.kind === "close") && !event.anchor) this.#unreadable(event.id, channel);
    else this.#event(event, channel);
    this.#changed();
    return 0;
  }

  /** @param {string} id Id of the event; "" where it cannot be read. @param {Channel} channel */
  #unreadable(id, channel) {
    const body = { id, status: FAILED };
    if (id && channel.send(body)) this.#wire({ direction: "out", kind: "acknowledgement", body, status: FAILED });
    this.engine.unreadable();
    this.#changed();
  }

  /** @param {Event} event @param {Channel} channel */
  #event(event, channel) {
    const answer = (/** @type {number} */ status, /** @type {string} */ reason) =>
      this.#answer(event, channel, status, reason);
    this.engine.received(event);
    if (event.kind === "syncerror") {
      answer(OK, "");
      this.#syncError(event);
    }
    this.updates.received(event);
    this.#eventSignal.notify();
    if (event.kind === "syncerror") {
      if (this.inbox.handles(event.name)) this.inbox.deliver(new Delivery(event));
      return;
    }
    if (event.kind === "open" || event.kind === "update") this.#fetchUnknown(event.anchor);
    this.inbox.deliver(new Delivery(event, { answer }));
  }

  /** Fetch unknown content where a handler of updates needs it. @param {string} anchor */
  #fetchUnknown(anchor) {
    if (this.inbox.handles(`${anchor.split("/", 1)[0]}-update`)) this.updates.fetchUnknown(anchor);
  }

  /** @param {Event} event @param {Channel} channel @param {number} status @param {string} reason */
  #answer({ id }, channel, status, reason) {
    const body = { id, status, ...(reason ? { reason } : {}) };
    if (channel.send(body)) this.#wire({ direction: "out", kind: "acknowledgement", body, status });
  }

  /** @param {Event} event */
  #syncError(event) {
    const { resend, unsubscribed } = this.engine.syncError(event);
    if (this.#timings.resend) for (const ownOpen of resend) void this.publisher.resend(ownOpen);
    for (const id of unsubscribed) this.#syncErrorExpiry.named(id);
  }

  /** @param {string} id */
  #quiet(id) {
    this.engine.sync.assumeRecovered(id);
    this.#changed();
  }

  #changed() {
    if (this.engine.doubt.mustAsk && !this.#stopping.signal.aborted) {
      this.engine.doubt.mustAsk = false;
      void this.#joining.settle(0);
    }
    const { status } = this.engine.sync;
    if (JSON.stringify(status) === JSON.stringify(this.#status)) return;
    this.#status = status;
    this.#report(status);
  }
}

/** @param {Options} options @returns {import("./socket.js").SocketClass} */
function webSocket(options) {
  const found = options.WebSocket ?? globalThis.WebSocket;
  if (!found)
    throw new Error("There is no WebSocket here: pass one as an option, such as that of the package ws.");
  return found;
}
