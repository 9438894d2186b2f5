/** One client's life in a session: puts the parts together, starts them and stops them. */

import { Connection } from "./connection.js";
import { Event } from "./events.js";
import { Following } from "./following.js";
import { Hub } from "./hub.js";
import { Inbox } from "./inbox.js";
import { Joining } from "./joining.js";
import { Publishing } from "./publishing.js";
import { Resending } from "./resending.js";
import { Sharing } from "./sharing.js";
import { State } from "./state.js";
import { Sync } from "./status.js";
import { deferred, TIMINGS } from "./timing.js";
import { Unseen } from "./unseen.js";

/** @typedef {import("./channel.js").Channel} Channel */
/** @typedef {import("./events.js").Message} Message */
/** @typedef {import("./hub.js").Wire} Wire */
/** @typedef {import("./inbox.js").Outcome} Outcome */
/**
 * @typedef {object} Options
 * @property {import("./token.js").TokenSource} [token] The access token, or a function that returns one (or a promise
 *     of one): it is called for the first request, when the hub does not take the token, and at each renewal. Without
 *     it none is sent.
 * @property {string} [name] Of this application, for people: others are shown it when it does not follow.
 * @property {number | null} [leaseSeconds] How long to subscribe for, until it is renewed; the hub decides where it is
 *     left out.
 * @property {boolean} [heartbeat] Whether to ask for heartbeats where the hub has them, to notice a dead connection;
 *     default true.
 * @property {Partial<import("./timing.js").Timings>} [timings] In seconds.
 * @property {typeof globalThis.fetch} [fetch]
 * @property {import("./channel.js").SocketClass} [WebSocket]
 */

export class Session {
  state = new State();
  sync;
  sharing;
  publishing;
  following;
  inbox;
  /** Settled when the first subscription is confirmed. @type {import("./timing.js").Deferred<void>} */
  started = deferred();
  /** Settled when it has ended; rejected with the error that ended it. @type {import("./timing.js").Deferred<void>} */
  over = deferred();
  #topic;
  #timings;
  #wire;
  #connection;
  #joining;
  #resending;
  #unseen;
  #isStarted = false;
  #wasConnected = false;
  #stopping = new AbortController();
  /** @type {Promise<void> | null} */
  #stopped = null;

  /**
   * @param {string} hubUrl
   * @param {string} topic
   * @param {Options} options
   * @param {(status: import("./status.js").Status) => void} onStatus
   * @param {Wire} onWire
   */
  constructor(hubUrl, topic, options, onStatus, onWire) {
    const { token = null, name = "", leaseSeconds = null, heartbeat = true } = options;
    const { state } = this;
    const { signal } = this.#stopping;
    const fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    const timings = (this.#timings = { ...TIMINGS, ...options.timings });
    const hub = new Hub({ url: hubUrl, topic, token, fetch, timings, wire: onWire });
    const sync = (this.sync = new Sync(onStatus));
    const publishing = (this.publishing = new Publishing({ topic, name, hub, state, sync }));
    const resending = (this.#resending = new Resending(timings.resend, state, sync, publishing));
    const sharing = (this.sharing = new Sharing({ topic, state, hub, publishing, signal }));
    const unseen = (this.#unseen = new Unseen(timings.unseen, sync));
    const following = (this.following = new Following({ name, state, sync, publishing, resending, sharing, unseen }));
    const inbox = (this.inbox = new Inbox(timings, this.#work()));
    const { settle } = timings;
    this.#joining = new Joining({ topic, settle, state, sync, inbox, following, sharing, publishing, signal });
    const events = () => following.names();
    const WebSocket = webSocket(options);
    const listener = this.#listener();
    this.#connection = new Connection({ hub, WebSocket, timings, events, heartbeat, name, leaseSeconds, listener });
    this.#topic = topic;
    this.#wire = onWire;
  }

  get isStarted() {
    return this.#isStarted;
  }

  start() {
    if (this.#isStarted || this.#stopped) return;
    this.#isStarted = true;
    this.sync.connection("connecting", "Connecting to the hub.");
    void this.#connection.run().then((error) => {
      if (error && !this.#stopped) this.#end(error.message, error);
    });
  }

  /** @returns {Promise<void>} It never rejects. */
  stop() {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop() {
    if (this.sync.status.connection !== "ended") this.#end("Stopped.", null);
    await this.#connection.stop();
    this.over.resolve();
  }

  /** @param {string} why @param {Error | null} error */
  #end(why, error) {
    this.#stopping.abort();
    this.#resending.stop();
    this.#unseen.stop();
    this.inbox.close();
    this.started.reject(error ?? new Error("Stopped before the hub had confirmed the subscription."));
    if (error) this.over.reject(error);
    this.sync.connection("ended", why);
  }

  /** @returns {import("./connection.js").Listener} */
  #listener() {
    return {
      wire: (message) => this.#wire(message),
      connecting: (why) => {
        this.#joining.lost();
        this.sync.connection("connecting", why);
      },
      connected: (events) => {
        this.#granted(events);
        this.sync.connection("connected", "", this.#wasConnected);
        this.#wasConnected = true;
        this.state.joined();
        void this.#joining.joined();
        this.started.resolve();
      },
      renewed: (events) => this.#granted(events),
      event: (message, channel) => this.#event(message, channel),
    };
  }

  /** @param {string[]} events */
  #granted(events) {
    this.state.granted = Object.freeze(events);
  }

  /** @param {Message} message @param {Channel} channel On which it is acknowledged. */
  #event(message, channel) {
    const topic = message.event["hub.topic"];
    if (typeof topic === "string" && topic !== this.#topic) return; // another session's must not be followed
    this.#wire({ direction: "in", kind: "event", body: message, status: null });
    const event = new Event(message, this.state.isOwn(message.id));
    this.#joining.heard(event);
    if (event.changes) this.state.heard(event);
    if (event.own && event.kind === "update") this.sharing.echoed(event);
    this.inbox.take(event, (status, reason) => {
      const body = { id: event.id, status, ...(reason ? { reason } : {}) };
      if (channel.send(body)) this.#wire({ direction: "out", kind: "acknowledgement", body, status });
    });
  }

  /** @returns {import("./inbox.js").Work} */
  #work() {
    return {
      follow: (event) => this.following.follow(event),
      after: (event) => this.following.after(event),
      late: (event, outcome) => this.#late(event, outcome),
      full: (event) => this.sync.failure(event, `Too many events wait here; ${event.name} is not followed.`),
    };
  }

  /**
   * An event that was accepted is not followed, or it is not known yet whether it is: "if the Subscriber cannot
   * determine whether it will follow context within 10 seconds after reception of the event it SHOULD send a SyncError"
   * (2.5).
   * @param {Event} event
   * @param {Outcome | null} outcome
   */
  #late(event, outcome) {
    if (!event.matters || (event.changes && this.state.judge(event) === "old")) return;
    const slow = `it was not done within ${this.#timings.giveUp} seconds`;
    if (!outcome) this.sync.failure(event, `This application did not follow ${event.name}: ${slow}`);
    void this.publishing.report(event, outcome ? outcome.reason || "it failed" : slow);
  }
}

/** @param {Options} options @returns {import("./channel.js").SocketClass} */
function webSocket(options) {
  const found = options.WebSocket ?? globalThis.WebSocket;
  if (!found)
    throw new Error("There is no WebSocket here: give one as an option, for instance that of the package ws.");
  return found;
}
