/**
 * A fake hub for the tests of applications: in the same process, without sockets and ports.
 *
 *     const hub = new FakeHub();
 *     const client = hub.client("viewer");
 *     ...
 *     const event = await hub.publish("Patient-open", { resourceType: "Patient", id: "p1" });
 *     assert.equal((await hub.acknowledged(event)).status, 200);
 *     hub.stop();
 *
 * The fake hub accepts every token, has one session, and checks requests only in part. Do not test a hub against it.
 */

import { FHIRcastClient } from "./client.js";
import { HubError } from "./errors.js";
import { contextOf, Event, isEvent, isObject, kindOf, makeEvent, uuid } from "./events.js";
import { FakeAnswers, isNamed, requested } from "./fake-answers.js";
import { FakeContexts } from "./fake-contexts.js";
import { FakeSocket, Line } from "./fake-sockets.js";
import { makeSyncError } from "./sync-errors.js";
import { later } from "./timers.js";

/** @typedef {import("./events.js").Message} Message */
/** @typedef {import("./events.js").Resource} Resource */
/**
 * An acknowledgement: name of the client, id and name of the event, status, and the reason of a refusal.
 * @typedef {{client: string, eventId: string, event: string, status: number, reason: string}} Acknowledgement
 */
/** @typedef {import("./fake-answers.js").Answer} Answer */
/** @typedef {import("./fake-answers.js").Kind} Kind */
/**
 * @typedef {object} Subscription
 * @property {string} client
 * @property {string[]} events
 * @property {FakeSocket | null} socket
 * @property {number} ends Milliseconds since 1970.
 * @property {() => void} cancel Cancels its end.
 * @property {Message[] | null} missed Null before its first socket.
 * @property {Set<string>} sent Ids of the events that the client received, and has not refused.
 */

const ENDPOINT = "hub.channel.endpoint";
const URL_OF_HUB = "http://hub.invalid/hub";
const NORMAL = 1000;
const GOING_AWAY = 1001;
const TAKEN_OVER = 1008;
const ABNORMAL = 1006;
const BAD = 400;
const GONE = 404;
/** Seconds that `acknowledged` waits. */
const PATIENCE = 15;
const TYPES = ["Patient", "Encounter", "ImagingStudy", "DiagnosticReport"];
const EVENTS = [
  ...TYPES.flatMap((type) => [`${type}-open`, `${type}-close`]),
  ...["DiagnosticReport-update", "DiagnosticReport-select", "SyncError", "UserLogout", "UserHibernate", "Home-open"],
];

/** A hub of STU3 (versions, content, replay, GET, heartbeat) or of STU2 (without these). */
export class FakeHub {
  url = URL_OF_HUB;
  /** Received acknowledgements, in order. @type {Acknowledgement[]} */
  acknowledgements = [];
  /** Distributed messages, in order. @type {Message[]} */
  messages = [];
  /** Tokens of the requests. @type {string[]} */
  tokens = [];
  #isStu3;
  #leaseSeconds;
  #contexts;
  /** By endpoint. @type {Map<string, Subscription>} */
  #subscriptions = new Map();
  /** By name of the client. @type {Map<string, Line>} */
  #lines = new Map();
  #answers = new FakeAnswers();
  /** Event names, by event id. @type {Map<string, string>} */
  #names = new Map();
  /** @type {Set<() => void>} */
  #waiting = new Set();
  #toLose = 0;

  /** @param {{version?: "STU3" | "STU2", topic?: string, leaseSeconds?: number}} [options] @throws {TypeError} For another version. */
  constructor(options = {}) {
    const { version = "STU3", topic = "session", leaseSeconds = 3600 } = options;
    if (!isObject(options) || !["STU2", "STU3"].includes(version)) {
      throw new TypeError(`version must be STU2 or STU3, not ${JSON.stringify(isObject(options) ? version : options)}`);
    }
    this.#isStu3 = version === "STU3";
    /** Whether new connections are told the open contexts. */
    this.replays = this.#isStu3;
    this.topic = topic;
    this.#leaseSeconds = leaseSeconds;
    this.#contexts = new FakeContexts(this.#isStu3);
  }

  /** Stop the hub. */
  stop() {
    for (const endpoint of [...this.#subscriptions.keys()]) this.#drop(endpoint, GOING_AWAY);
  }

  /**
   * @param {string} name
   * @param {import("./session.js").Options} [options]
   * @returns {FHIRcastClient} A client of this hub, with a connection of its own.
   */
  client(name, options = {}) {
    const line = this.#lines.get(name) ?? new Line();
    this.#lines.set(name, line);
    /** @type {any} */
    const fetch = async (/** @type {string} */ url, /** @type {RequestInit} */ init) => {
      await line.pass(init.signal ?? null);
      const { status, body, headers } = this.#answer(url, init, name);
      return new Response(body, { status, headers });
    };
    const connect = (/** @type {string} */ endpoint) => this.#connect(endpoint, line);
    // A class, because the library makes sockets with `new`.
    const WebSocket = /** @type {any} */ (
      function FakeWebSocket(/** @type {string} */ endpoint) {
        return connect(endpoint);
      }
    );
    return new FHIRcastClient(this.url, this.topic, { token: "fake-token", ...options, name, fetch, WebSocket });
  }

  /**
   * Publish as another application.
   * @param {string | Event | Message} event A name, with the resources of its context; or a whole event.
   * @param {...Resource} resources
   * @returns {Promise<Event>} The event as distributed.
   */
  async publish(event, ...resources) {
    const context = resources.length > 0 ? contextOf(resources) : [];
    const made = typeof event === "string" ? makeEvent(this.topic, event, context, { own: false }) : event;
    return new Event(this.#accept(made instanceof Event ? made.body : made));
  }

  /**
   * Publish a SyncError: the subscriber did not follow the event.
   * @param {Event} about
   * @param {string} [subscriber]
   * @param {string} [reason]
   */
  syncError(about, subscriber = "another application", reason = "no reason") {
    return this.publish(this.#syncError(about, subscriber, reason));
  }

  /**
   * @param {Event} event
   * @param {string} [by] Name of the client. Left out: any client.
   * @returns {Promise<Acknowledgement>} The acknowledgement.
   * @throws {Error} After 15 seconds.
   */
  async acknowledged(event, by) {
    const isIt = (/** @type {Acknowledgement} */ one) => one.eventId === event.id && (!by || one.client === by);
    return new Promise((resolve, reject) => {
      const cancel = later(PATIENCE, () => {
        this.#waiting.delete(look);
        const isKnown = [...this.#subscriptions.values()].some(({ events }) => isNamed(events, event.name));
        const why = isKnown ? "" : ", and nobody is subscribed to it";
        reject(new Error(`no acknowledgement of ${event.name} within ${PATIENCE} s${why}`));
      });
      const look = () => {
        const found = this.acknowledgements.find(isIt);
        if (!found) return;
        cancel();
        this.#waiting.delete(look);
        resolve(found);
      };
      this.#waiting.add(look);
      look();
    });
  }

  /** Send a heartbeat to its subscribers. @param {number} period Seconds until the next one. */
  heartbeat(period) {
    const item = /** @type {any} */ ({ key: "period", decimal: `${period}` });
    this.#distribute(makeEvent(this.topic, "heartbeat", [item]).body);
  }

  /** Cut the connection of a client, or of all. @param {string | null} [name] @param {{silently?: boolean}} [how] */
  cut(name = null, { silently = false } = {}) {
    for (const line of this.#chosen(name)) line.cut(silently);
  }

  /** Let a client, or all, connect again. @param {string | null} [name] */
  restore(name = null) {
    for (const line of this.#chosen(name)) line.restore();
  }

  /** Break the connections of a client, or of all. New ones can be made at once. @param {string | null} [name] */
  disconnect(name = null) {
    for (const line of this.#chosen(name)) for (const socket of [...line.sockets]) socket.shut(ABNORMAL);
  }

  /** End the subscriptions of a client, or of all. @param {string | null} [name] @param {string} [reason] */
  deny(name = null, reason = "the session has ended") {
    for (const [endpoint, { client }] of [...this.#subscriptions]) {
      if (name === null || client === name) this.#drop(endpoint, NORMAL, reason);
    }
  }

  /** Give these answers to the next requests of a kind. @param {Kind} kind @param {...Answer} answers @throws {TypeError} */
  answerNext(kind, ...answers) {
    this.#answers.give(kind, answers);
  }

  /** Lose the next messages to all subscribers. @param {number} count */
  loseNext(count) {
    this.#toLose = count;
  }

  /** @param {string} name @returns {string[]} The events that a client is subscribed to; empty where it is not. */
  subscribed(name) {
    const found = [...this.#subscriptions.values()].filter(({ client }) => client === name);
    return found.at(-1)?.events ?? [];
  }

  /** @param {string | null} name */
  #chosen(name) {
    if (name !== null && !this.#lines.has(name)) throw new Error(`no client of this hub is called ${name}`);
    return [...this.#lines].filter(([client]) => name === null || client === name).map(([, line]) => line);
  }

  // HTTP

  /** @param {string} url @param {RequestInit} init @param {string} client */
  #answer(url, { body, headers = {}, method }, client) {
    const given = /** @type {Record<string, string>} */ (headers);
    const { kind, sent } = requested(url, method ?? "GET", given["Content-Type"] ?? "", String(body ?? ""));
    if (kind !== "configuration") this.tokens.push((given.Authorization ?? "").replace("Bearer ", ""));
    return this.#answers.next(kind, () => this.#handle(kind, sent, client));
  }

  /** @param {string} kind @param {any} sent @param {string} client @returns {[number, object]} */
  #handle(kind, sent, client) {
    if (kind === "subscribe") return [202, { [ENDPOINT]: this.#subscribe(sent, client) }];
    if (kind === "configuration") return [200, this.#configuration()];
    if (kind === "context" && this.#isStu3) return [200, this.#contexts.current()];
    if (kind === "publish") {
      this.#accept(sent);
      return [202, {}];
    }
    if (kind === "unsubscribe" && this.#subscriptions.has(sent[ENDPOINT])) {
      this.#drop(sent[ENDPOINT], NORMAL, "unsubscribed");
      return [202, { [ENDPOINT]: sent[ENDPOINT] }];
    }
    throw new HubError(GONE, kind === "unsubscribe" ? "the endpoint does not exist" : "there is nothing here");
  }

  #configuration() {
    const common = { websocketSupport: true, webhookSupport: false };
    if (!this.#isStu3)
      return { ...common, eventsSupported: EVENTS.map((name) => name.toLowerCase()), fhircastVersion: "STU2" };
    // As CFG-4: events are sent to all subscribers in one order, whatever their timestamps are.
    const capabilities = { supportsGetCurrentContext: true, ordersEvents: true };
    return { ...common, eventsSupported: [...EVENTS, "heartbeat"], fhircastVersion: "3.0.0", capabilities };
  }

  // Subscriptions

  /** @param {Record<string, string>} form @param {string} client */
  #subscribe(form, client) {
    const events = (form["hub.events"] ?? "").split(",").filter(Boolean);
    if (events.length === 0 || !form["hub.channel.type"])
      throw new HubError(BAD, "hub.events is required");
    const endpoint = form[ENDPOINT] ?? this.#newEndpoint(client);
    const subscription = this.#subscriptions.get(endpoint);
    if (!subscription) throw new HubError(GONE, "the endpoint does not exist");
    const seconds = Number(form["hub.lease_seconds"] ?? this.#leaseSeconds);
    subscription.cancel();
    Object.assign(subscription, {
      events,
      ends: Date.now() + seconds * 1000,
      cancel: later(seconds, () => this.#drop(endpoint, NORMAL, "the lease has ended")),
    });
    if (this.#isStu3 && subscription.socket) this.#confirm(subscription);
    return endpoint;
  }

  /** @param {string} client */
  #newEndpoint(client) {
    for (const [other, one] of [...this.#subscriptions]) {
      if (one.client === client && !one.socket?.isAlive) this.#drop(other, NORMAL);
    }
    const endpoint = `ws://hub.invalid/${uuid()}`;
    this.#subscriptions.set(endpoint, {
      client,
      events: [],
      socket: null,
      ends: 0,
      cancel: () => {},
      missed: null,
      sent: new Set(),
    });
    return endpoint;
  }

  /** @param {string} endpoint @param {Line} line @returns {FakeSocket} */
  #connect(endpoint, line) {
    const socket = new FakeSocket(line, (text) => this.#received(endpoint, text));
    void line.pass().then(
      () => this.#joined(endpoint, socket),
      () => socket.shut(ABNORMAL),
    );
    return socket;
  }

  /** @param {string} endpoint @param {FakeSocket} socket */
  #joined(endpoint, socket) {
    const subscription = this.#subscriptions.get(endpoint);
    if (!subscription) return socket.shut(ABNORMAL);
    subscription.socket?.shut(TAKEN_OVER, "another socket took over this endpoint");
    subscription.socket = socket;
    socket.opened();
    this.#confirm(subscription);
    const missed = subscription.missed ?? [];
    subscription.missed = [];
    if (!this.replays) return;
    const isLeft = (/** @type {Message} */ { event }) =>
      kindOf(event["hub.event"]) === "update" || !this.#contexts.isOpen(new Event({ timestamp: "", id: "-", event }).anchor);
    for (const message of [...missed.filter(isLeft), ...this.#contexts.replay()]) this.#send(subscription, message);
  }

  /** @param {Subscription} subscription */
  #confirm({ socket, events, ends }) {
    const names = this.#isStu3 ? events : events.map((name) => name.toLowerCase());
    socket?.put({
      "hub.mode": "subscribe",
      "hub.topic": this.topic,
      "hub.events": names.join(","),
      "hub.lease_seconds": Math.max(1, Math.floor((ends - Date.now()) / 1000)),
    });
  }

  /** @param {string} endpoint @param {number} code @param {string} [reason] */
  #drop(endpoint, code, reason = "") {
    const subscription = this.#subscriptions.get(endpoint);
    this.#subscriptions.delete(endpoint);
    if (!subscription) return;
    subscription.cancel();
    const about = { "hub.topic": this.topic, "hub.events": subscription.events.join(","), "hub.reason": reason };
    if (reason) subscription.socket?.put({ "hub.mode": "denied", ...about });
    subscription.socket?.shut(code);
  }

  // Events

  /** @param {unknown} message @returns {Message} */
  #accept(message) {
    if (!isObject(message) || !isEvent(message)) throw new HubError(BAD, "the body is not an event");
    const accepted = this.#contexts.accept(message);
    this.#names.set(message.id, message.event["hub.event"]);
    if (accepted) this.#distribute(accepted);
    return accepted ?? message;
  }

  /** @param {Message} message @param {Subscription} [but] */
  #distribute(message, but) {
    this.messages.push(message);
    if (this.#toLose > 0) {
      this.#toLose -= 1;
      return;
    }
    for (const subscription of [...this.#subscriptions.values()]) {
      if (subscription !== but) this.#send(subscription, message);
    }
  }

  /** @param {Subscription} subscription @param {Message} message */
  #send({ events, missed, socket, sent }, message) {
    const name = message.event["hub.event"];
    if (!isNamed(events, name)) return;
    if (socket?.isAlive) {
      sent.add(message.id);
      socket.put(message);
    } else if (["close", "update"].includes(kindOf(name))) missed?.push(message);
  }

  /** An acknowledgement came. A refusal becomes a SyncError. @param {string} endpoint @param {string} text */
  #received(endpoint, text) {
    const { id: eventId, status: given, reason = "" } = JSON.parse(text);
    const event = this.#names.get(eventId) ?? "";
    const kind = kindOf(event);
    const subscription = this.#subscriptions.get(endpoint);
    if (!subscription || !event || given === undefined || kind === "syncerror" || kind === "heartbeat") return;
    const status = Number(given);
    this.acknowledgements.push({ client: subscription.client, eventId, event, status, reason });
    for (const look of [...this.#waiting]) look();
    if (Math.floor(status / 100) === 2 || kind === "update" || kind === "select") return;
    if (!subscription.sent.delete(eventId)) return; // a refusal counts once, and only for an event that was sent
    const about = makeEvent(this.topic, event, [], { id: eventId });
    this.#distribute(this.#syncError(about, subscription.client, reason).body, subscription);
  }

  /** @param {Event} about @param {string} subscriber @param {string} reason @returns {Event} */
  #syncError(about, subscriber, reason) {
    const { body } = makeSyncError(this.topic, about, subscriber, reason);
    return new Event(this.#isStu3 ? body : { ...body, event: { ...body.event, "hub.event": "syncerror" } });
  }
}
