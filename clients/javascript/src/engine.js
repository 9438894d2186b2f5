/**
 * The session as one client knows it: what to follow, what is current, what is shared, who is out of step. No I/O, no clock.
 *
 * The engine is told what comes, what is published, and what came of both. clients/following.json says what it must make of
 * them, and is run in Python and in JavaScript: both engines are the same, file by file.
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

/** Everything that follows from what comes and what is published, in the order in which the engine is told. */
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
   * @param {string} [name] This application's.
   * @param {{has: (name: string) => boolean, keys: () => Iterable<string>}} [handled] The names in lower case of the events
   *     that have a handler.
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

  // What is known

  /** @returns {Context | null} The newest open that is not closed and was followed or published here. */
  get current() {
    const { current } = this.following.contexts;
    return current ? this.#context(current) : null;
  }

  /** @returns {Map<string, Context>} All that are open, by anchor, in the order in which they were opened. */
  get contexts() {
    return new Map([...this.following.contexts.opens].map(([anchor, event]) => [anchor, this.#context(event)]));
  }

  /** @param {string} name Of an event. @returns {boolean} Whether the hub sends events of this name. */
  isGranted(name) {
    return this.granted.some((one) => one.toLowerCase() === name.toLowerCase());
  }

  /** @param {string} id @returns {boolean} Whether this client published that event, or tried to. */
  isOwn(id) {
    return this.#own.has(id);
  }

  // The connection

  /**
   * The hub confirmed on a new socket.
   * @param {string[]} granted
   * @param {boolean} ordered Whether it declares that it tells all events in one order (CFG-4).
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

  /** The connection is lost, and is being made again. @param {string} why */
  apart(why) {
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

  /** A message could not be read: what it said is not known. */
  unread() {
    this.doubt.raiseDoubt(UNREAD);
  }

  // The hub is asked what is open

  /**
   * The hub says what made the current context.
   * @param {Event | null} event Null for nothing.
   * @param {string | null} version
   * @returns {Event[]} What this application must be handed: that open, or, where it is null, the opens whose close it must be
   *     handed.
   */
  differences(event, version) {
    const { contexts } = this.following;
    if (!event) {
      // What is open beside what was current may be open still: of that the hub says nothing (2.9).
      if (version === NOTHING_OPENED) return [...contexts.opens.values()].reverse();
      return contexts.current ? [contexts.current] : [];
    }
    const isOther = !contexts.isCurrent(event.anchor);
    return isOther && this.#handled.has(event.name.toLowerCase()) ? [event] : [];
  }

  /**
   * What was to be handed is.
   * @param {Event | null} event That the hub told of.
   * @param {number} asked What `changes.count` was when the hub was asked.
   * @param {boolean} wasHanded
   * @returns {boolean} False where it must be asked again.
   */
  contextChecked(event, asked, wasHanded) {
    if (this.changes.count !== asked) return false; // what came in the meantime is newer than the answer
    const { current: shown } = this.following.contexts;
    const agrees = wasHanded || !event || !shown || event.context.some((item) => named(item) === shown.anchor);
    this.doubt.resolved(agrees);
    return true;
  }

  // What is published here

  /**
   * @param {Event} event That was not sent yet.
   * @returns {Event | null} What this application shows or is being shown, where it opens exactly that and everybody is in
   *     step: nobody needs to be told.
   */
  alreadyShown(event) {
    return this.sync.status.inSync ? this.races.alreadyShown(event) : null;
  }

  /** An own event is about to be posted. @param {Event} event */
  sending(event) {
    this.#own.add(event.id);
    this.#inFlight.add(event.id);
    this.#order.sending(event);
    this.resending.sending(event);
    this.races.ownPosted(event);
  }

  /**
   * The hub refused it, or nobody knows whether the hub has it. Should it come back, it is followed like any other. A change
   * of context is tried again until the others were told.
   * @param {Event} event
   * @param {string} why A part of a sentence.
   * @param {boolean} isFinal Whether the hub refused it.
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
   * The hub accepted it: the application shows it.
   * @param {Event} event
   * @param {bigint} now The own clock, as an instant.
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

  /** An own event was accepted, and its echo has not come for long: what else is not told? @param {Event} event */
  echoMissing(event) {
    if (this.#order.echoMissing(event)) this.doubt.raiseDoubt(NO_ECHO);
  }

  /**
   * The hub accepted it when it was tried again: whether the application still shows it, its handler must say.
   * @param {Event} event
   */
  acceptedLate(event) {
    this.races.ownPosted(event);
    this.unsent.overtaken(event, true);
    this.unsent.reachedHub(event);
    if (!this.#noteAccepted(event) && event.changes) this.#placeUncertain();
  }

  // What comes

  /** An event came from the hub; in which order its handler has its turn is another matter. @param {Event} event */
  received(event) {
    const { kind, anchor } = event;
    this.#order.received(event);
    this.unsent.reachedHub(event);
    // An older open than what is shown was open before. Whether what is shown still is open, nobody has said.
    if (event.opens) this.doubt.isAnswered ||= this.following.tellsCurrent(event);
    if (event.changes) this.changes.add(event);
    if (kind === "open" && anchor) this.content.opened(event);
    else if (kind === "update" && anchor) this.content.updated(event);
    else if (kind === "close") this.content.closed(anchor);
  }

  /**
   * A SyncError came. One about what everybody has left behind since is no news.
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
      // Of an own event it is known here when it is followed: it is sent again, or something newer is opened.
      if (name && !this.isGranted(name) && !this.isOwn(id)) reported.unsubscribed.push(id);
    }
    return reported;
  }

  /** @param {Event} event @returns {Verdict} What is to be done with it. */
  verdict(event) {
    if (this.#inFlight.has(event.id) && !event.changes) return "repeat";
    const verdict = this.following.verdict(event);
    return verdict === "repeat" && this.races.mayShowAnother(event, this.unsent.retried) ? "follow" : verdict;
  }

  /**
   * An event has its turn. What is not followed is taken in.
   * @param {Event} event
   * @param {bigint} now
   * @param {boolean} [retry] Neither its age nor that it is a repeat counts.
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

  /** The event that has its turn is not to be followed any more. */
  overtaken() {
    if (this.races.handling) this.races.handlerEnds(this.races.handling, false);
  }

  /**
   * Its handler followed it.
   * @param {Event} event
   * @param {bigint} now
   * @param {boolean} [queried] The hub only named it when it was asked, and gave no timestamp.
   * @returns {Event | null} What the application must be handed again: the handler may have shown an older context over a
   *     newer, or what is closed.
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
    // What no handler is called with is shown by nobody.
    if (isHandled) this.races.resolved(event);
    if (event.opens) this.races.anotherOpened();
    return this.races.handlerEnds(event, true, newer);
  }

  /**
   * Its handler refused or failed.
   * @param {Event} event
   * @param {string} why A part of a sentence.
   * @param {{shows?: boolean, isOver?: boolean}} [how] `shows`: it failed, and may have shown the event. Not `isOver`: it is at
   *     work still.
   * @returns {Event | null} As `followed`.
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
    else if (event.own && event.opens) this.races.mayShow(event); // since it was posted
    return isOver ? this.races.handlerEnds(event, shows) : null;
  }

  /** @returns {Event | null} The event that was not followed last, if nothing newer came. */
  get toCatchUp() {
    const failed = this.races.toReshow ?? this.sync.failures.at(-1);
    if (!failed || !this.#handled.has(failed.name.toLowerCase())) return null;
    if (failed === this.races.toReshow) return this.races.mayBeShown(failed) ? failed : null;
    return failed.changes && !this.changes.isNewest(failed) ? null : failed;
  }

  /** The place of an own event is not certain. */
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
   * @returns {boolean} Whether it is certain what the hub told before that, and what after.
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
