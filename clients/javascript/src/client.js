/** A FHIRcast client: it follows what others open, and opens what others follow. */

import { complain } from "./errors.js";
import { contextOf, reference } from "./events.js";
import { Delivery } from "./inbox.js";
import { Session } from "./session.js";

/** @typedef {import("./contexts.js").Context} Context */
/**
 * @template [Found=unknown]
 * @typedef {import("./events.js").Event<Found>} Event
 */
/**
 * @template [Found=unknown]
 * @typedef {import("./events.js").Ids<Found>} Ids
 */
/** @typedef {import("./events.js").Item} Item */
/** @typedef {import("./events.js").Resource} Resource */
/** @typedef {import("./hub.js").WireMessage} WireMessage */
/** @typedef {import("./updates.js").Changes} Changes */
/** @typedef {import("./updates.js").ToChanges} ToChanges */
/** @typedef {import("./session.js").Options} Options */
/** @typedef {import("./status.js").Status} Status */

export class FHIRcastClient {
  #session;
  /** @type {Set<(status: Status) => void>} */
  #statusListeners = new Set();
  /** @type {Set<(message: WireMessage) => void>} */
  #wireListeners = new Set();

  /**
   * @param {string} hubUrl hub.url
   * @param {string} topic hub.topic, which names the session.
   * @param {Options} [options]
   * @throws {Error} Where there is no WebSocket.
   */
  constructor(hubUrl, topic, options = {}) {
    const onStatus = (/** @type {Status} */ status) => tell(this.#statusListeners, status, options.debug);
    const onWire = (/** @type {WireMessage} */ message) => tell(this.#wireListeners, message, options.debug);
    this.#session = new Session(hubUrl, topic, options, onStatus, onWire);
  }

  /**
   * @returns {Context | null} What is current: the newest open that was followed or published here, until its close or
   *     Home-open.
   */
  get context() {
    return this.#session.engine.current;
  }

  /** @returns {Map<string, Context>} What is open, by anchor ("Patient/p1"), in the order in which it was opened. */
  get contexts() {
    return this.#session.engine.contexts;
  }

  /** @returns {Status} Whether this application and the others show the same. */
  get status() {
    return this.#session.engine.sync.status;
  }

  /** @returns {readonly string[]} The names of the events that the hub has confirmed; none before. */
  get events() {
    return this.#session.engine.granted;
  }

  /**
   * Follow an event. The handler may take its time and return a promise; it refuses by raising `Refuse`.
   * @template [Found=unknown]
   * @param {string} name "Patient-open", in any case.
   * @param {(event: Event<Found>) => unknown} handler Called for one event after the other.
   * @param {{ids?: Ids<Found> | null}} [options] `ids` (an `IdentityMap`) finds what the event is about here; the handler
   *     reads `event.local`.
   * @returns {this}
   * @throws {Error} When that event has a handler, or the client has been started; TypeError for what is no handler.
   */
  on(name, handler, { ids = null } = {}) {
    if (typeof handler !== "function") throw new TypeError(`expected a handler for ${name}, got ${typeof handler}`);
    if (ids !== null && typeof ids?.find !== "function") throw new TypeError("expected ids with a method find");
    if (this.#session.isStarted) throw new Error("Handlers are given before the client is started.");
    this.#session.inbox.add({ name, act: /** @type {(event: Event) => unknown} */ (handler), ids });
    return this;
  }

  /**
   * @param {(status: Status) => void} listener Called at every change.
   * @returns {() => void} Removes it.
   */
  onStatus(listener) {
    this.#statusListeners.add(listener);
    return () => void this.#statusListeners.delete(listener);
  }

  /**
   * @param {(message: WireMessage) => void} listener Called with every message that comes or goes. They hold data of
   *     patients.
   * @returns {() => void} Removes it.
   */
  onWire(listener) {
    this.#wireListeners.add(listener);
    return () => void this.#wireListeners.delete(listener);
  }

  /**
   * Subscribe and connect. While the hub is away it is tried again and again; `status` tells.
   * @returns {Promise<void>} When the hub has confirmed. From then on the client keeps the connection by itself.
   * @throws {import("./errors.js").HubError} When the hub says never; TokenError when no token is good; Error where the client
   *     was stopped.
   */
  async start() {
    if (this.#session.isStopped) throw new Error("expected a client that was not stopped: make a new one");
    this.#session.start();
    return this.#session.started.promise;
  }

  /**
   * @returns {Promise<void>} When the client was stopped.
   * @throws {import("./errors.js").HubError} When the hub says never.
   */
  run() {
    this.#session.start();
    return this.#session.over.promise;
  }

  /** Unsubscribe and close. @returns {Promise<void>} It never rejects. */
  stop() {
    return this.#session.stop();
  }

  /**
   * Open the first of these resources, with the others as its context.
   * @param {...Resource} resources
   * @returns {Promise<Event>} When the hub has accepted it.
   * @throws {import("./errors.js").HubError} When it has not.
   */
  async open(...resources) {
    return this.#session.publisher.open(`${resources[0]?.resourceType}-open`, contextOf(resources));
  }

  /**
   * Close the first of these resources.
   * @param {...Resource} resources
   * @returns {Promise<Event>} When the hub has accepted it.
   * @throws {import("./errors.js").HubError} When it has not.
   */
  async close(...resources) {
    return this.publish(`${resources[0]?.resourceType}-close`, contextOf(resources));
  }

  /**
   * Publish any event.
   * @param {string} name
   * @param {Item[]} context
   * @param {{id?: string | null, timestamp?: string | null}} [options] Without them a UUID and now.
   * @returns {Promise<Event>} When the hub has accepted it.
   * @throws {import("./errors.js").HubError} When it has not.
   */
  async publish(name, context, { id = null, timestamp = null } = {}) {
    return this.#session.publisher.publish(name, context, { id, timestamp });
  }

  /**
   * Change what is shared in a context.
   * @param {Changes | ToChanges} changes Resources are put, references ("Observation/o1") deleted. A function gets what
   *     is shared now, by reference, and returns changes; it is called again when somebody else was faster, five times
   *     at most.
   * @param {{anchor?: string | Resource | null}} [options] Default: what is current.
   * @returns {Promise<Event>} When the hub has accepted it, and its echo has come where updates are subscribed to (2 s
   *     at most).
   * @throws {import("./errors.js").HubError} When it has not: with status 409 because somebody else was faster.
   */
  async update(changes, { anchor = null } = {}) {
    return this.#session.updates.update(changes, this.#anchor(anchor));
  }

  /**
   * Tell what is selected in a context.
   * @param {Changes} items Resources or references; none clears the selection.
   * @param {{anchor?: string | Resource | null}} [options] Default: what is current.
   * @returns {Promise<Event>} When the hub has accepted it.
   * @throws {import("./errors.js").HubError} When it has not.
   */
  async select(items, { anchor = null } = {}) {
    return this.#session.updates.select(items, this.#anchor(anchor));
  }

  /**
   * Ask the hub what is current. No handler is called.
   * @returns {Promise<Context | null>} The id and the timestamp of the event in it are made up, where it never came here.
   * @throws {import("./errors.js").HubError}
   */
  async fetch() {
    return this.#session.updates.fetch();
  }

  /**
   * Hand the event that was not followed last to its handler again, for instance when the user has decided. Not to be
   * awaited in a handler: it waits for its turn.
   * @returns {Promise<boolean>} Whether it is followed now. False too when nothing was refused, or something newer has
   *     come.
   */
  async catchUp() {
    const { engine, inbox } = this.#session;
    const event = engine.toCatchUp;
    if (!event) return false;
    const delivery = new Delivery(event, { applies: () => engine.toCatchUp === event, retry: true });
    inbox.deliver(delivery);
    return delivery.done.promise;
  }

  /** @param {string | Resource | null} anchor @returns {string} Of what is current, where none is given. */
  #anchor(anchor) {
    const found = anchor === null ? this.#session.engine.following.contexts.current?.anchor : reference(anchor);
    if (!found) throw new Error("Nothing is current, and no anchor was given.");
    return found;
  }
}

/**
 * @template T
 * @param {Set<(what: T) => void>} listeners
 * @param {T} what
 * @param {boolean} [debug]
 */
function tell(listeners, what, debug = false) {
  for (const listener of [...listeners]) {
    try {
      listener(what);
    } catch (error) {
      // A listener that fails must not stop the events.
      complain("a listener failed", error, debug);
    }
  }
}
