/**
 * What is open when a connection begins: "Hubs SHALL follow a successful subscription with an event notification" of it
 * (2.4). A hub that tells nothing is asked, once ("Get Current Context", 2.9).
 */

import { Event } from "./events.js";
import { makeMessage } from "./messages.js";
import { sleep } from "./timing.js";

/** @typedef {import("./context.js").Context} Context */
/**
 * @typedef {object} Parts
 * @property {string} topic
 * @property {number} settle How long the hub is given to tell, in seconds.
 * @property {import("./state.js").State} state
 * @property {import("./status.js").Sync} sync
 * @property {import("./inbox.js").Inbox} inbox
 * @property {import("./following.js").Following} following
 * @property {import("./sharing.js").Sharing} sharing
 * @property {import("./publishing.js").Publishing} publishing
 * @property {AbortSignal} signal
 */

export class Joining {
  #parts;
  /** Which connection it is; those before it do not matter any more. */
  #round = 0;
  #isTold = false;

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /** An event came. @param {Event} event */
  heard(event) {
    if (event.kind === "open" || event.kind === "home") this.#isTold = true;
  }

  /** The connection was lost. */
  lost() {
    this.#round += 1;
  }

  /** A connection was confirmed. It never rejects. */
  async joined() {
    const { inbox, publishing, settle, signal, state, sync } = this.#parts;
    const round = (this.#round += 1);
    const { last } = state;
    const isOver = () => signal.aborted || round !== this.#round;
    // What was opened here since is newer than any answer.
    const isKnown = () => isOver() || this.#isTold || last !== state.last;
    this.#isTold = false;
    await sleep(settle, signal);
    await inbox.idle();
    await publishing.free();
    if (!isKnown()) await this.#ask(isKnown);
    if (!isOver()) sync.checked();
  }

  /** @param {() => boolean} isKnown Whether the answer is not needed any more. */
  async #ask(isKnown) {
    const { following, inbox, publishing, sharing, state } = this.#parts;
    const before = state.context;
    let current;
    try {
      current = await sharing.fetch();
    } catch {
      return; // "Hubs MAY support" this
    }
    await publishing.free();
    if (isKnown()) return;
    if (!current) {
      await this.#closed();
    } else if (current.anchor !== state.current && current.anchor && following.handles(current.event.name)) {
      await inbox.hand(current.event);
    }
    const { context } = state;
    const isNews = context === before || !context?.content; // else an update came since, and the answer may be older
    if (current?.version && current.anchor === state.current && isNews)
      state.shared(current.anchor, current.version, current.content);
  }

  /** Nothing is current in the hub: what is here was closed while nobody was told. */
  async #closed() {
    const { inbox, state, topic } = this.#parts;
    const event = state.context?.event;
    const name = event?.name.replace(/open$/i, "close");
    if (!event || !name || !state.isGranted(name)) return;
    await inbox.hand(new Event(makeMessage(topic, name, event.context, { timestamp: "" })));
  }
}
