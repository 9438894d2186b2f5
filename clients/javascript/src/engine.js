/**
 * The session as one client knows it: contexts, shared content, and who is out of step. No I/O, no clock.
 *
 * The client reports received frames, published events and their results to the engine. clients/following.json lists
 * what the engine must answer. Python and JavaScript run the same table; both engines are alike, file by file.
 */

import { ContextDoubt, DOUBT, NO_ECHO, UNCERTAIN, UNREAD } from "./context-doubt.js";
import { ContextChanges } from "./context-changes.js";
import { Contents } from "./content.js";
import { Context } from "./contexts.js";
import { kindOf, named } from "./events.js";
import { Following } from "./following.js";
import { Recent } from "./event-order.js";
import { Resending } from "./resending.js";
import { HandlerRaces } from "./handler-races.js";
import { NOTHING_OPENED } from "./update-bundle.js";
import { Sync } from "./status.js";
import { readSyncErrors } from "./sync-errors.js";
import { UnsentEvents } from "./unsent.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./following.js").Verdict} Verdict */
/** @typedef {import("./sync-errors.js").Reported} Reported */

/** State of the session. Calls must come in the order in which frames arrive and events are published. */
export class Engine {
  following = new Following();
  content = new Contents();
  resending = new Resending();
  unsent = new UnsentEvents();
  sync;
  changes;
  doubt;
  /** The names of the events that the hub sends. @type {readonly string[]} */
  granted = Object.freeze([]);
  races;
  #name;
  #handled;
  #order;
  #wasConnected = false;
  #own = new Recent();
  #inFlight = new Recent();

  /**
   * @param {string} [name] The subscriber.name of this application.
   * @param {{has: (name: string) => boolean, keys: () => Iterable<string>}} [handled] Lower-case names of the events
   *   that have a handler.
   */
  constructor(name = "", handled = new Set()) {
    this.#name = name;
    this.#handled = handled;
    const order = (this.#order = this.following.order);
    this.changes = new ContextChanges(order);
    this.races = new HandlerRaces(this.following, this.changes);
    this.sync = new Sync((one, other) => order.isOlder(one, other), this.unsent, this.races);
    this.doubt = new ContextDoubt(this.sync, order);
  }

  // State

  /** @returns {Context | null} The newest open that was followed or published here and is not closed. */
  get current() {
    const { current } = this.following.contexts;
    return current ? this.#context(current) : null;
  }

  /** @returns {Map<string, Context>} All open contexts by anchor, in the order of their opens. */
  get contexts() {
    return new Map([...this.following.contexts.opens].map(([anchor, event]) => [anchor, this.#context(event)]));
  }

  /** @param {string} name Of an event. @returns {boolean} Whether the hub grants events of this name. */
  isGranted(name) {
    return this.granted.some((one) => one.toLowerCase() === name.toLowerCase());
  }

  /** @param {string} id @returns {boolean} Whether this client published the event, or tried to. */
  isOwn(id) {
    return this.#own.has(id);
  }

  // The connection

  /**
   * The hub confirmed the subscription on a new socket.
   * @param {string[]} granted
   * @param {boolean} ordered Whether the hub declares one order for all events (CFG-4).
   */
  connected(granted, ordered) {
    this.granted = Object.freeze(granted);
    this.following.connected(ordered, this.content.isReplaying);
    this.content.replayBegins();
    this.sync.connected();
    const mayDiffer = this.#wasConnected || this.following.contexts.current !== null;
    const followsOpens = [...this.#handled.keys()].some((name) => kindOf(name) === "open");
    this.doubt.connected(mayDiffer, followsOpens);
    this.#wasConnected = true;
  }

  /** The connection is lost. The client reconnects. @param {string} why */
  disconnected(why) {
    this.sync.disconnected("connecting", why);
  }

  /** The client is stopped, or cannot go on. @param {string} why */
  ended(why) {
    this.granted = Object.freeze([]);
    this.#wasConnected = false;
    this.races.ended();
    this.unsent.clear();
    this.sync.disconnected("ended", why);
  }

  /** A frame could not be read, so its event is unknown. */
  unreadable() {
    this.doubt.raiseDoubt(UNREAD);
  }

  // Get Current Context

  /**
   * Compares the answer to "Get Current Context" with the contexts here.
   * @param {Event | null} event The open of the current context, null for none.
   * @param {string | null} version
   * @returns {Event[]} The opens to hand to the application. Where `event` is null, their closes are to be handed
   *   instead.
   */
  differences(event, version) {
    const { contexts } = this.following;
    if (!event) {
      // The answer names only the current context (2.9). Other contexts here may be open still.
      if (version === NOTHING_OPENED) return [...contexts.opens.values()].reverse();
      return contexts.current ? [contexts.current] : [];
    }
    const isOther = !contexts.isCurrent(event.anchor);
    return isOther && this.#handled.has(event.name.toLowerCase()) ? [event] : [];
  }

  /**
   * The differences were handed to the application.
   * @param {Event | null} event The open in the hub's answer.
   * @param {number} asked `changes.count` when the hub was asked.
   * @param {boolean} wasHanded
   * @returns {boolean} False where the hub must be asked again.
   */
  contextChecked(event, asked, wasHanded) {
    if (this.changes.count !== asked) return false; // an event received meanwhile is newer than the answer
    const { current: shown } = this.following.contexts;
    const agrees = wasHanded || !event || !shown || event.context.some((item) => named(item) === shown.anchor);
    this.doubt.resolved(agrees);
    return true;
  }

  // Publishing

  /**
   * @param {Event} event Not sent yet.
   * @returns {Event | null} The event that is shown here already, where `event` would open the same and all
   *   applications are in sync. `event` need not be sent.
   */
  alreadyShown(event) {
    return this.sync.status.inSync ? this.races.alreadyShown(event) : null;
  }

  /** The client is about to post an own event. @param {Event} event */
  sending(event) {
    this.#own.add(event.id);
    this.#inFlight.add(event.id);
    this.#order.sending(event);
    this.resending.sending(event);
    this.races.ownPosted(event);
  }

  /**
   * The hub refused an own event, or did not answer, so the hub may have the event. An echo of the event is followed
   * like any other event. A change of context is retried until the other applications were told.
   * @param {Event} event
   * @param {string} why A part of a sentence.
   * @param {boolean} isFinal Whether the hub refused the event.
   */
  publishFailed(event, why, isFinal) {
    this.#inFlight.discard(event.id);
    if (isFinal) {
      this.resending.refused(event);
      this.races.ownRefused(event);
    }
    this.unsent.failed(event, why, isFinal);
  }

  /**
   * The hub accepted an own event, which the application shows.
   * @param {Event} event
   * @param {bigint} now The local clock, as an instant.
   */
  accepted(event, now) {
    const isGranted = this.isGranted(event.name);
    const isCertain = this.#noteAccepted(event);
    this.unsent.resolved(event);
    this.unsent.overtaken(event, true);
    this.following.followed(event, now);
    if (event.opens) this.sync.followed(this.#order.mark(event), event.id);
    if (event === this.following.shown) this.doubt.accepted(this.#order.mark(event));
    if (event.opens) this.races.anotherOpened();
    if (event.changes && !isCertain) this.#placeUncertain();
    if (isGranted) return;
    if (event.kind === "close") this.content.closed(event.anchor);
    else if (event.kind === "open") this.content.forget(event.anchor);
  }

  /** The echo of an accepted event did not come in time. Other events may be missing too. @param {Event} event */
  echoMissing(event) {
    if (this.#order.echoMissing(event)) this.doubt.raiseDoubt(NO_ECHO);
  }

  /**
   * A retry of an own event was accepted. Its handler decides whether the application still shows the event.
   * @param {Event} event
   */
  acceptedLate(event) {
    this.races.ownPosted(event);
    this.unsent.overtaken(event, true);
    this.unsent.reachedHub(event);
    if (!this.#noteAccepted(event) && event.changes) this.#placeUncertain();
  }

  // Receiving

  /** An event came from the hub. Its handler is called later, in the event's turn. @param {Event} event */
  received(event) {
    const { kind, anchor } = event;
    this.#order.received(event);
    this.unsent.reachedHub(event);
    // An open older than the current one was open before. Whether the current context is still open is unknown.
    if (event.opens) this.doubt.isAnswered ||= this.following.tellsCurrent(event);
    if (event.changes) this.changes.add(event);
    if (kind === "open" && anchor) this.content.opened(event);
    else if (kind === "update" && anchor) this.content.updated(event);
    else if (kind === "close") this.content.closed(anchor);
  }

  /**
   * A SyncError came. A SyncError about an event that everybody has left is ignored.
   * @param {Event} event
   * @returns {Reported}
   */
  syncError(event) {
    /** @type {Reported} */
    const reported = { resend: [], unsubscribed: [] };
    if (event.own) return reported;
    for (const { id, name, subscriber, why } of readSyncErrors(event)) {
      const mark = this.#order.markOf(id) ?? this.#order.mark(event);
      const isOurs = subscriber === this.#name && this.sync.failures.some((one) => one.id === id);
      if (!isOurs && !this.sync.isSuperseded(mark)) this.sync.otherFailed(subscriber, id, mark, why, this.#order.moment);
      const ownOpen = this.resending.reported(id, (one) => this.changes.isNewest(one));
      if (ownOpen) reported.resend.push(ownOpen);
      // For an own event, recovery is noticed here: the event is resent, or a newer context opened.
      if (name && !this.isGranted(name) && !this.isOwn(id)) reported.unsubscribed.push(id);
    }
    return reported;
  }

  /** @param {Event} event @returns {Verdict} Whether to call the handler with the event. */
  verdict(event) {
    if (this.#inFlight.has(event.id) && !event.changes) return "repeat";
    const verdict = this.following.verdict(event);
    return verdict === "repeat" && this.races.mayShowAnother(event, this.unsent.retried) ? "follow" : verdict;
  }

  /**
   * An event has its turn. Events that are not to be handled are taken in here.
   * @param {Event} event
   * @param {bigint} now
   * @param {boolean} [retry] Skip the checks for age and repeats.
   * @returns {Verdict}
   */
  beginTurn(event, now, retry = false) {
    const verdict = retry ? "follow" : this.verdict(event);
    if (verdict === "follow") {
      this.races.handlerBegins(event);
      this.races.mayShow(...this.unsent.retried);
      this.unsent.overtaken(event, false);
      return verdict;
    }
    this.unsent.resolved(event);
    const ended = this.following.missedEnd(event);
    if (verdict === "repeat") this.#repeat(event, now);
    else this.following.ignored(event);
    if (ended || (verdict === "old" && this.following.isOldByEcho(event))) this.doubt.raiseDoubt(DOUBT);
    return verdict;
  }

  /** The event whose handler is about to be called is not to be followed any more. */
  overtaken() {
    if (this.races.handling) this.races.handlerEnds(this.races.handling, false);
  }

  /**
   * The handler followed the event.
   * @param {Event} event
   * @param {bigint} now
   * @param {boolean} [queried] The event is the answer to "Get Current Context", without a timestamp.
   * @returns {Event | null} The event to hand to the application again: the handler may have shown an older context
   *   over a newer one, or a closed one.
   */
  followed(event, now, queried = false) {
    const isHandled = this.#handled.has(event.name.toLowerCase());
    const newer = queried || !isHandled ? null : this.races.newerThan(event);
    this.unsent.resolved(event);
    if (queried) {
      this.following.adopted(event);
      this.sync.recoveredAll();
      this.sync.followed(this.#order.mark(event));
    } else {
      this.following.followed(event, now);
      if (event.opens) {
        this.sync.followed(this.#order.mark(event));
        this.races.maybeShown = [];
      }
      this.sync.recovered(event.id);
    }
    // Without a handler, nothing is shown.
    if (isHandled) this.races.resolved(event);
    if (event.opens) this.races.anotherOpened();
    return this.races.handlerEnds(event, true, newer);
  }

  /**
   * The handler refused or failed.
   * @param {Event} event
   * @param {string} why A part of a sentence.
   * @param {{shows?: boolean, isOver?: boolean}} [how] `shows`: the handler failed and may have shown the event. Not
   *   `isOver`: the handler is still at work.
   * @returns {Event | null} The same as `followed`.
   */
  refused(event, why, { shows = false, isOver = true } = {}) {
    this.unsent.resolved(event);
    this.following.refused(event);
    const mark = this.#order.mark(event);
    if (event.opens) this.sync.contextKnown(mark);
    if (event.matters && !(event.changes && this.following.shown && this.sync.isSuperseded(mark))) {
      this.sync.failed(event, mark, `This application did not follow ${event.name}: ${why}`);
    }
    if (shows) this.races.maybeShown = [event];
    else if (event.own && event.opens) this.races.mayShow(event); // since the event was posted
    return isOver ? this.races.handlerEnds(event, shows) : null;
  }

  /** @returns {Event | null} The last event that was not followed, if no newer change came. */
  get toCatchUp() {
    const failed = this.races.toReshow ?? this.sync.failures.at(-1);
    if (!failed || !this.#handled.has(failed.name.toLowerCase())) return null;
    if (failed === this.races.toReshow) return this.races.mayBeShown(failed) ? failed : null;
    return failed.changes && !this.changes.isNewest(failed) ? null : failed;
  }

  /** The order of an own event among the others is not certain. */
  #placeUncertain() {
    this.following.placeUncertain();
    this.doubt.raiseDoubt(UNCERTAIN);
  }

  /** @param {Event} event @param {bigint} now */
  #repeat(event, now) {
    if (!this.following.repeated(event, now)) return;
    if (event.own) this.sync.contextKnown(this.#order.mark(event));
    else this.sync.followed(this.#order.mark(event));
  }

  /**
   * The hub has an own event.
   * @param {Event} event
   * @returns {boolean} Whether its order among received events is certain.
   */
  #noteAccepted(event) {
    this.#inFlight.discard(event.id);
    const isCertain = this.#order.accepted(event, this.isGranted(event.name));
    if (event.changes) this.changes.add(event);
    return isCertain;
  }

  /** @param {Event} event */
  #context(event) {
    const shared = this.content.get(event.anchor);
    return new Context(event, shared ? shared.version : event.version, shared ? shared.content : null);
  }
}
