/** Updates and selects of shared content, and fetching of that content (FHIRcast 3.0.0, 2.9 and 2.10). */

import { Context } from "./contexts.js";
import { HubError, TokenError } from "./errors.js";
import { copied, makeEvent } from "./events.js";
import { readCurrent, selectContext, updateContext } from "./update-bundle.js";
import { deferred, later } from "./timers.js";

/** @typedef {import("./content.js").Shared} Shared */
/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./events.js").Resource} Resource */
/** @typedef {import("./update-bundle.js").Content} Content */
/** @typedef {(Resource | string)[]} Changes Resources are put, references ("Observation/o1") deleted. */
/** @typedef {(content: Record<string, Resource>) => Changes | Promise<Changes>} ToChanges */
/**
 * @typedef {object} Parts
 * @property {string} topic
 * @property {import("./hub.js").Hub} hub
 * @property {import("./engine.js").Engine} engine
 * @property {import("./timings.js").Timings} timings
 * @property {import("./event-signal.js").EventSignal} eventSignal
 * @property {(event: Event) => Promise<Event>} post Posts an event.
 * @property {AbortSignal} signal Aborts when the client ends.
 */

const CONFLICT = 409;
/** Calls of a function that makes the changes, at most. */
const MOST_ATTEMPTS = 5;

/** Changes and fetches shared content. */
export class Updates {
  #parts;
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();
  /** Own updates that await their echo, by id. @type {Map<string, () => void>} */
  #echoes = new Map();
  /** Contexts with unknown content. @type {Set<string>} */
  #unknown = new Set();
  /** @type {Promise<void> | null} */
  #fetching = null;

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /**
   * Post an update of a context. A function is called again where another update came first.
   * @param {Changes | ToChanges} changes
   * @param {string} anchor
   * @returns {Promise<Event>}
   * @throws {HubError}
   */
  update(changes, anchor) {
    // One update at a time: two updates of one version would make the hub refuse the second.
    const mine = this.#last.then(() => this.#updateInTurn(changes, anchor));
    this.#last = mine.catch(() => {});
    return mine;
  }

  /** Post a selection. @param {Changes} items @param {string} anchor @returns {Promise<Event>} */
  async select(items, anchor) {
    const { engine, post, topic } = this.#parts;
    const context = selectContext(anchor, items, engine.following.contexts.patientOf(anchor));
    return post(makeEvent(topic, eventOf(anchor, "select"), context));
  }

  /** @returns {Promise<Context | null>} The hub's current context. Its content is kept. @throws {HubError} */
  async fetch() {
    const { event, version, content } = await this.current();
    if (!event) return null;
    const known = this.#parts.engine.following.contexts.opens.get(event.anchor);
    return new Context(known ?? event, version, content && copied(content));
  }

  /** @returns {Promise<import("./update-bundle.js").Current>} @throws {HubError} Also for an answer that cannot be read. */
  async current() {
    const { engine, hub, signal, topic } = this.#parts;
    const { moment } = engine.content;
    const answer = await hub.context(signal);
    let current;
    try {
      current = readCurrent(answer, topic);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new HubError(0, `the hub's answer to the current context cannot be read: ${why}`);
    }
    const { event, version, content } = current;
    if (event) engine.content.fetched(event.anchor, version, content, moment);
    return current;
  }

  /** An event came, perhaps the echo of an own update. @param {Event} event */
  received(event) {
    this.#echoes.get(event.id)?.();
  }

  /** Fetch the content of a context, where it is unknown. @param {string} anchor */
  fetchUnknown(anchor) {
    const shared = this.#parts.engine.content.get(anchor);
    if (!shared || shared.content || shared.isContentless) return;
    this.#unknown.add(anchor);
    this.#fetching ??= this.#fetch().finally(() => {
      this.#fetching = null;
    });
  }

  /**
   * Wait until the content is fetched, so that a handler of an update finds it, up to the time of a request.
   * @param {string} anchor
   */
  async known(anchor) {
    const { engine, timings } = this.#parts;
    if (!this.#fetching || engine.content.get(anchor)?.content !== null) return;
    const late = deferred();
    const cancel = later(timings.request, () => late.resolve(undefined));
    await Promise.race([this.#fetching, late.promise]);
    cancel();
  }

  async #fetch() {
    const { content } = this.#parts.engine;
    while (this.#unknown.size > 0) {
      this.#unknown.clear();
      await this.current().catch(() => this.#unknown.clear());
      for (const anchor of this.#unknown) {
        if (content.get(anchor)?.content !== null) this.#unknown.delete(anchor);
      }
    }
  }

  /** @param {Changes | ToChanges} changes @param {string} anchor */
  async #updateInTurn(changes, anchor) {
    const { content: contents } = this.#parts.engine;
    for (let attempt = 1; ; attempt += 1) {
      const isFunction = typeof changes === "function";
      const { version, content } = await this.#newest(anchor, isFunction);
      if (isFunction && !content) throw new HubError(0, "the content of the context is unknown: the hub does not tell it");
      const wanted = isFunction ? await changes(copied(content ?? {})) : changes;
      try {
        return await this.#update(anchor, wanted, version, content);
      } catch (error) {
        if (!(error instanceof HubError) || error.status !== CONFLICT) throw error;
        contents.markUncertain(anchor, version);
        if (attempt === MOST_ATTEMPTS || !isFunction) throw error;
      }
    }
  }

  /** @param {string} anchor @param {Changes} changes @param {string | null} version @param {Content | null} content */
  async #update(anchor, changes, version, content) {
    const { engine, post, timings, topic } = this.#parts;
    const name = eventOf(anchor, "update");
    const context = updateContext(anchor, changes, engine.following.contexts.patientOf(anchor), content);
    const event = makeEvent(topic, name, context, { version });
    /** @type {import("./timers.js").Deferred<boolean>} */
    const echo = deferred();
    this.#echoes.set(event.id, () => echo.resolve(true));
    try {
      await post(event);
      const cancel = later(timings.echo, () => echo.resolve(false));
      if (!engine.isGranted(name) || !(await echo.promise)) engine.content.markUncertain(anchor, version);
      cancel();
      return event;
    } finally {
      this.#echoes.delete(event.id);
    }
  }

  /**
   * @param {string} anchor
   * @param {boolean} needsContent
   * @returns {Promise<{version: string | null, content: Content | null}>} Version and content of a context now. Asks
   *     the hub where they are unknown.
   */
  async #newest(anchor, needsContent) {
    const { engine } = this.#parts;
    let shared = engine.content.get(anchor);
    if (!shared || !this.#follows(anchor, shared) || (needsContent && !shared.content)) {
      try {
        await this.current();
      } catch (error) {
        if (!(error instanceof HubError) || error instanceof TokenError) throw error;
      }
      shared = await this.#afterQuery(anchor);
    }
    return { version: shared?.version ?? null, content: shared?.content ?? null };
  }

  /**
   * @param {string} anchor
   * @returns {Promise<Shared | null>} The content after a request. The answer tells only the current context: for
   *     another one, wait for the missing update.
   */
  async #afterQuery(anchor) {
    const { eventSignal, engine, timings } = this.#parts;
    const isMissing = () => engine.content.get(anchor)?.isCertain === false && engine.isGranted(eventOf(anchor, "update"));
    await eventSignal.until(() => !isMissing(), timings.echo);
    return engine.content.get(anchor);
  }

  /** @param {string} anchor @param {Shared} shared */
  #follows(anchor, shared) {
    return shared.isCertain && shared.version !== null && this.#parts.engine.isGranted(eventOf(anchor, "update"));
  }
}

/** @param {string} anchor @param {string} verb */
function eventOf(anchor, verb) {
  return `${anchor.split("/", 1)[0]}-${verb}`;
}
