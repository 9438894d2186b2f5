/** Follows events: decides what each is, calls its handler, and takes in what came of it. */

import { Refuse, said } from "./errors.js";
import { FOLLOWED } from "./inbox.js";
import { reportsIn } from "./messages.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./inbox.js").Outcome} Outcome */
/**
 * Finds what an event is about here; it refuses by raising `Refuse`.
 * @typedef {{find: (event: Event) => any}} Ids
 */
/** @typedef {{name: string, act: (event: Event) => unknown, ids: Ids | null}} Handler */
/**
 * @typedef {object} Parts
 * @property {string} name Of this application.
 * @property {import("./state.js").State} state
 * @property {import("./status.js").Sync} sync
 * @property {import("./publishing.js").Publishing} publishing
 * @property {import("./resending.js").Resending} resending
 * @property {import("./sharing.js").Sharing} sharing
 * @property {import("./unseen.js").Unseen} unseen
 */

const REFUSED = 409;
const FAILED = 500;

export class Following {
  /** By lower-case name of the event. @type {Map<string, Handler>} */
  #handlers = new Map();
  #parts;

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /** @param {Handler} handler @throws {Error} When the event has one. */
  add(handler) {
    const key = handler.name.toLowerCase();
    if (this.#handlers.has(key)) throw new Error(`${handler.name} has a handler`);
    this.#handlers.set(key, handler);
  }

  /** @param {string} name @returns {boolean} */
  handles(name) {
    return this.#handlers.has(name.toLowerCase());
  }

  /** @returns {string[]} What is subscribed to: what has a handler, the closes of the opens among it, and SyncError. */
  names() {
    /** @type {Map<string, string>} */
    const names = new Map();
    const add = (/** @type {string} */ name) => names.has(name.toLowerCase()) || names.set(name.toLowerCase(), name);
    for (const { name } of this.#handlers.values()) add(name);
    for (const { name } of this.#handlers.values()) {
      if (/^[a-z]+-open$/i.test(name) && name.toLowerCase() !== "home-open") add(name.replace(/open$/i, "close"));
    }
    add("SyncError");
    return [...names.values()];
  }

  /** @param {Event} event @returns {Promise<Outcome>} It never rejects. */
  async follow(event) {
    const { publishing, resending, sharing, state, sync } = this.#parts;
    if (event.changes || event.kind === "syncerror") await publishing.free();
    if (event.kind === "syncerror") this.#reported(event);
    if (event.kind === "update") await sharing.heard(event);
    if (event.changes && !event.own) {
      sync.came(event);
      resending.came(event);
    }
    const verdict = state.judge(event);
    if (verdict === "new") {
      state.handed(event);
      return this.#handle(event);
    }
    state.passed(event, verdict);
    if (verdict === "known" && !event.own) sync.followed(event);
    else sync.dropped(event);
    return FOLLOWED;
  }

  /** What is not urgent after an event: the content of what was opened. @param {Event} event */
  async after(event) {
    const { sharing, state } = this.#parts;
    const context = event.kind === "open" ? state.contexts.get(event.anchor) : null;
    if (context?.version && !context.content && state.isGranted(event.name.replace(/open$/i, "update"))) {
      await sharing.refresh(event.anchor).catch(() => null);
    }
  }

  /** @param {Event} event */
  async #handle(event) {
    const { state, sync } = this.#parts;
    let { last } = state;
    const handler = this.#handlers.get(event.name.toLowerCase());
    try {
      if (handler?.ids) {
        event.local = await handler.ids.find(event);
        if (event.changes && (await this.#isOvertaken(event))) return FOLLOWED;
        ({ last } = state);
      }
      await handler?.act(event);
    } catch (error) {
      return this.#failed(event, error, last !== state.last);
    }
    if (event.changes) state.follow(event, last);
    sync.followed(event);
    return FOLLOWED;
  }

  /**
   * @param {Event} event
   * @returns {Promise<boolean>} Whether the application opened something else while it was found out whom the event is
   *     about: it must go on showing that.
   */
  async #isOvertaken(event) {
    const { publishing, state, sync } = this.#parts;
    await publishing.free();
    const verdict = state.judge(event);
    if (verdict === "new") return false;
    state.passed(event, verdict);
    sync.dropped(event);
    return true;
  }

  /**
   * @param {Event} event
   * @param {unknown} error
   * @param {boolean} isPast Whether the application has published something newer meanwhile.
   * @returns {Outcome}
   */
  #failed(event, error, isPast) {
    const isRefusal = error instanceof Refuse;
    const why = `This application ${isRefusal ? "did not follow" : "failed to follow"} ${event.name}: ${said(error)}`;
    if (event.matters && !isPast) this.#parts.sync.failure(event, why);
    return isRefusal ? { status: REFUSED, reason: error.message } : { status: FAILED, reason: "" };
  }

  /** Somebody did not follow. @param {Event} event A SyncError. */
  #reported(event) {
    const { name, resending, state, sync, unseen } = this.#parts;
    if (event.own) return;
    for (const report of reportsIn(event)) {
      const isAboutHere = report.subscriber === name && sync.failed?.id === report.id;
      if (isAboutHere || state.isPast(report.id)) continue;
      sync.behind(report, state.instantOf(report.id));
      resending.named(report.id);
      // Of an own event it is known here when it is followed: it is sent again, or something newer is opened.
      if (report.name && !state.isGranted(report.name) && !state.isOwn(report.id)) unseen.named(report.id);
    }
  }
}
