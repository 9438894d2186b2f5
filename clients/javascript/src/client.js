/** A FHIRcast client: takes part in a session. */

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
   * @returns {Context | null} The current context: the newest open that was followed or published here and is not
   *     closed.
   */
  get context() {
    return this.#session.engine.current;
  }

  /** @returns {Map<string, Context>} All open contexts by anchor ("Patient/p1"), in the order of their opens. */
  get contexts() {
    return this.#session.engine.contexts;
  }

  /** @returns {Status} Whether this application shows the same context as the others. */
  get status() {
    return this.#session.engine.sync.status;
  }

  /** @returns {readonly string[]} Names of the events that the hub granted. Empty before the confirmation. */
  get events() {
    return this.#session.engine.granted;
  }

  /**
   * Follow an event. The handler may return a promise. It refuses by throwing `Refuse`.
   * @template [Found=unknown]
   * @param {string} name "Patient-open", in any case.
   * @param {(event: Event<Found>) => unknown} handler Called with one event after the other.
   * @param {{ids?: Ids<Found> | null}} [options] `ids` (an `IdentityMap`) finds the local id. The handler reads
   *     `event.local`.
   * @returns {this}
   * @throws {Error} For a second handler of the event, or once the client has been started. TypeError for a handler
   *     that is not a function.
   */
  on(name, handler, { ids = null } = {}) {
    if (typeof handler !== "function") throw new TypeError(`the handler of ${name} must be a function, not ${typeof handler}`);
    if (ids !== null && typeof ids?.find !== "function") throw new TypeError("ids must have a method find");
    if (this.#session.isStarted) throw new Error("add handlers before the client starts: the subscription names their events");
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
   * @param {(message: WireMessage) => void} listener Called with every message, without tokens and endpoints. Messages
   *     contain patient data.
   * @returns {() => void} Removes it.
   */
  onWire(listener) {
    this.#wireListeners.add(listener);
    return () => void this.#wireListeners.delete(listener);
  }

  /**
   * Subscribe and connect. The client retries while the hub is away; see `status`.
   * @returns {Promise<void>} Settled when the hub has confirmed. The client then keeps the connection by itself.
   * @throws {import("./errors.js").HubError} For a final refusal. TokenError when no token is good. Error where the
   *     client was stopped.
   */
  async start() {
    if (this.#session.isStopped) throw new Error("the client was stopped: make a new one");
    this.#session.start();
    return this.#session.started.promise;
  }

  /**
   * @returns {Promise<void>} Settled when the client was stopped.
   * @throws {import("./errors.js").HubError} For a final refusal.
   */
  run() {
    this.#session.start();
    return this.#session.over.promise;
  }

  /** Unsubscribe and close. @returns {Promise<void>} Never rejects. */
  stop() {
    return this.#session.stop();
  }

  /**
   * Open the first resource, with the others as its context.
   * @param {...Resource} resources
   * @returns {Promise<Event>} The event, once the hub has accepted it.
   * @throws {import("./errors.js").HubError} Where the hub has not accepted the event.
   */
  async open(...resources) {
    return this.#session.publisher.open(`${resources[0]?.resourceType}-open`, contextOf(resources));
  }

  /**
   * Close the first resource.
   * @param {...Resource} resources
   * @returns {Promise<Event>} The event, once the hub has accepted it.
   * @throws {import("./errors.js").HubError} Where the hub has not accepted the event.
   */
  async close(...resources) {
    return this.publish(`${resources[0]?.resourceType}-close`, contextOf(resources));
  }

  /**
   * Publish any event.
   * @param {string} name
   * @param {Item[]} context
   * @param {{id?: string | null, timestamp?: string | null}} [options] Defaults: a new UUID, and now.
   * @returns {Promise<Event>} The event, once the hub has accepted it.
   * @throws {import("./errors.js").HubError} Where the hub has not accepted the event.
   */
  async publish(name, context, { id = null, timestamp = null } = {}) {
    return this.#session.publisher.publish(name, context, { id, timestamp });
  }

  /**
   * Change the shared content of a context.
   * @param {Changes | ToChanges} changes Resources are put, references ("Observation/o1") deleted. A function gets the
   *     content by reference and returns the changes. It is called again where another update came first, five times at
   *     most.
   * @param {{anchor?: string | Resource | null}} [options] Default: the current context.
   * @returns {Promise<Event>} The event, once the hub has accepted it and, with a subscription to updates, its echo
   *     came (within 2 s).
   * @throws {import("./errors.js").HubError} Where the hub has not accepted the event. Status 409: another update came
   *     first.
   */
  async update(changes, { anchor = null } = {}) {
    return this.#session.updates.update(changes, this.#anchor(anchor));
  }

  /**
   * Publish what is selected in a context.
   * @param {Changes} items Resources or references. An empty list clears the selection.
   * @param {{anchor?: string | Resource | null}} [options] Default: the current context.
   * @returns {Promise<Event>} The event, once the hub has accepted it.
   * @throws {import("./errors.js").HubError} Where the hub has not accepted the event.
   */
  async select(items, { anchor = null } = {}) {
    return this.#session.updates.select(items, this.#anchor(anchor));
  }

  /**
   * Ask the hub for the current context. No handler is called.
   * @returns {Promise<Context | null>} Id and timestamp of its event are made up, where the event never came here.
   * @throws {import("./errors.js").HubError}
   */
  async fetch() {
    return this.#session.updates.fetch();
  }

  /**
   * Call the handler again with the last event that was not followed, for instance after the user has decided. Do not
   * await it in a handler: it waits for its turn.
   * @returns {Promise<boolean>} Whether the event is followed now. False too when no event was refused, or a newer
   *     change came.
   */
  async catchUp() {
    const { engine, inbox } = this.#session;
    const event = engine.toCatchUp;
    if (!event) return false;
    const delivery = new Delivery(event, { applies: () => engine.toCatchUp === event, retry: true });
    inbox.deliver(delivery);
    return delivery.done.promise;
  }

  /** @param {string | Resource | null} anchor @returns {string} The current anchor, where none is given. */
  #anchor(anchor) {
    const found = anchor === null ? this.#session.engine.following.contexts.current?.anchor : reference(anchor);
    if (!found) throw new Error("no context is open here, so an anchor is required");
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
