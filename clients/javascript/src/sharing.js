/** Content sharing (FHIRcast 3.0.0, 2.10): updates and selects made here, and the content after what others made. */

import { Context } from "./context.js";
import { HubError } from "./errors.js";
import { Event, reference } from "./events.js";
import { copied, makeMessage, selectContext, updateContext } from "./messages.js";
import { deferred, later } from "./timing.js";

/** @typedef {import("./context.js").Content} Content */
/** @typedef {import("./events.js").Item} Item */
/** @typedef {import("./events.js").Resource} Resource */
/** @typedef {(Resource | string)[]} Changes Resources are put, references ("Observation/o1") deleted. */
/** @typedef {(content: Record<string, Resource>) => Changes | Promise<Changes>} ToChanges */
/**
 * @typedef {object} Parts
 * @property {string} topic
 * @property {import("./state.js").State} state
 * @property {import("./hub.js").Hub} hub
 * @property {import("./publishing.js").Publishing} publishing
 * @property {AbortSignal} signal
 */

const CONFLICT = 409;
/** How many times changes are made anew, from content that is newer each time. */
const MOST_TRIES = 5;
/** Seconds that the echo of an update is waited for. */
const ECHO = 2;

export class Sharing {
  #parts;
  /** Updates whose echo is waited for, by id. @type {Map<string, () => void>} */
  #waiting = new Map();
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();
  /** Called when an update was taken in. */
  #news = () => {};

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /**
   * @returns {Promise<Context | null>} What is current in the hub.
   * @throws {HubError}
   */
  async fetch() {
    const { topic, state, hub, signal } = this.#parts;
    const { type, version, items, content } = await hub.context(signal);
    if (!type) return null;
    const event = new Event(makeMessage(topic, `${type}-open`, items, { timestamp: "" }));
    return new Context(state.contexts.get(event.anchor)?.event ?? event, version, content);
  }

  /** Ask for what is shared in a context, if it is current. @param {string} anchor @throws {HubError} */
  async refresh(anchor) {
    const { state } = this.#parts;
    const before = state.contexts.get(anchor);
    const found = await this.fetch();
    const known = state.contexts.get(anchor);
    // What came since the hub was asked may be newer than its answer.
    if (known !== before && known?.content) return known;
    if (found?.anchor !== anchor) return null;
    if (known === before) state.shared(anchor, found.version, found.content);
    return found;
  }

  /** An own update has come back; its turn to be taken in may be later. @param {Event} event */
  echoed(event) {
    const context = this.#parts.state.contexts.get(event.anchor);
    if (context?.content && context.version === event.priorVersion) {
      this.#parts.state.updated(event);
      this.#waiting.get(event.id)?.();
    }
  }

  /** Take in an update. It never rejects: where the content cannot be had, it is not known. @param {Event} event */
  async heard(event) {
    if (!this.#parts.state.updated(event)) await this.refresh(event.anchor).catch(() => null);
    this.#waiting.get(event.id)?.();
    this.#news();
  }

  /**
   * @param {Changes | ToChanges} changes
   * @param {string | Resource | null} anchor
   * @returns {Promise<Event>}
   */
  async update(changes, anchor) {
    const where = this.#anchor(anchor);
    // One after the other: two at once would be made on one version, and the hub takes only the first.
    const mine = this.#last.then(() => this.#update(changes, where));
    this.#last = mine.catch(() => {});
    return mine;
  }

  /** @param {Changes | ToChanges} changes @param {string} where */
  async #update(changes, where) {
    let stale = "";
    for (let tries = 1; ; tries += 1) {
      const isMade = typeof changes === "function";
      const { version, content } = await this.#base(where, isMade, stale);
      const made = isMade ? await changes(copied(content)) : changes;
      try {
        return await this.#post(where, version, made, content);
      } catch (error) {
        // "If a [FHIR resource]-update request fails with the Hub, the Subscriber may issue a GET Context request"
        // (2.10)
        const isStale = error instanceof HubError && error.status === CONFLICT;
        if (!isStale || !isMade || tries === MOST_TRIES) throw error;
        stale = version;
      }
    }
  }

  /** @param {Changes} items @param {string | Resource | null} anchor */
  async select(items, anchor) {
    const where = this.#anchor(anchor);
    const message = makeMessage(
      this.#parts.topic,
      eventOf(where, "select"),
      selectContext(where, items, this.#patient(where)),
    );
    return this.#parts.publishing.publish(message);
  }

  /** @param {string | Resource | null} anchor */
  #anchor(anchor) {
    const found = anchor === null ? this.#parts.state.current : reference(anchor);
    if (!found) throw new Error("Nothing is current, and no anchor was given.");
    return found;
  }

  /** @param {string} anchor */
  #patient(anchor) {
    return this.#parts.state.contexts.get(anchor)?.resource("patient") ?? null;
  }

  /**
   * @param {string} anchor
   * @param {boolean} withContent
   * @param {string} stale The version that the hub has gone beyond; "" for none.
   * @returns {Promise<{version: string, content: Content}>} What an update is made on.
   */
  async #base(anchor, withContent, stale) {
    const known = () => {
      const one = this.#parts.state.contexts.get(anchor);
      return one?.version && one.version !== stale && (one.content || !withContent) ? one : null;
    };
    // Of a context that is not current the hub says nothing: the update that was missed will come.
    const found = known() ?? (await this.refresh(anchor)) ?? (stale ? await this.#coming(known) : null);
    const { version, content } = found ?? {};
    if (!version)
      throw new Error(`The version of ${anchor} is not known: it is not current, or the hub shares no content.`);
    return { version, content: content ?? {} };
  }

  /** @param {() => Context | null} known @returns {Promise<Context | null>} What is known in time. */
  async #coming(known) {
    const found = deferred();
    const cancel = later(ECHO, () => found.resolve(null));
    this.#news = () => {
      const one = known();
      if (one) found.resolve(one);
    };
    this.#news();
    await found.promise;
    cancel();
    this.#news = () => {};
    return known();
  }

  /** @param {string} anchor @param {string} version @param {Changes} changes @param {Content} content That version's. */
  async #post(anchor, version, changes, content) {
    const { topic, state, publishing } = this.#parts;
    const name = eventOf(anchor, "update");
    const context = updateContext(anchor, changes, this.#patient(anchor), content);
    const message = makeMessage(topic, name, context, { version });
    const echo = deferred();
    const cancel = later(ECHO, () => echo.resolve(undefined));
    this.#waiting.set(message.id, () => echo.resolve(undefined));
    try {
      const event = await publishing.publish(message);
      if (state.isGranted(name)) await echo.promise;
      else state.shared(anchor, null, null); // the version it has now nobody has said
      return event;
    } finally {
      cancel();
      this.#waiting.delete(message.id);
    }
  }
}

/** @param {string} anchor @param {string} verb */
function eventOf(anchor, verb) {
  return `${anchor.split("/", 1)[0]}-${verb}`;
}
