/** What is open and what is current, from the events that were followed and published here. No I/O, no clock. */

import { applied, Context } from "./context.js";
import { referenceTo } from "./events.js";

/** @typedef {import("./context.js").Content} Content */
/** @typedef {import("./events.js").Event} Event */
/**
 * What an incoming event is: "new" to be followed; "known" is what the application shows already, or has gone beyond by
 * itself; "old" has an older timestamp than what made the current context.
 * @typedef {"new" | "known" | "old"} Verdict
 */

/** Open contexts that are kept, as many as the hub keeps; of those that nobody closes the oldest goes. */
const MOST_CONTEXTS = 64;
/** In milliseconds. */
const DAY = 86_400_000n;
const NANOSECONDS = 1_000_000n;
/** Ids of events that are remembered. */
const MOST_IDS = 256;

/** The state of one client. */
export class State {
  /** The names of the events that the hub confirmed. @type {readonly string[]} */
  granted = Object.freeze([]);
  /** By anchor, in the order in which they were opened. @type {Map<string, Context>} */
  contexts = new Map();
  /** The anchor of what is current; "" when nothing is. */
  current = "";
  /**
   * The instant of the open (or Home-open) that made the current context; null after its close.
   * @type {bigint | null}
   */
  #made = null;
  /** The newest timestamp of a change that came or was published here, as an instant. @type {bigint | null} */
  newest = null;
  /** Own publications in order, to whether the hub has accepted them. @type {Map<string, boolean>} */
  #own = new Map();
  /** The own change that was accepted last. @type {Event | null} */
  #last = null;
  /** Changes that were followed or published, to their instants. @type {Map<string, bigint | null>} */
  #done = new Map();
  /** Updates that the content has. @type {Map<string, true>} */
  #applied = new Map();

  /** Opens that were handed to handlers or published, by id. @type {Map<string, true>} */
  #handed = new Map();
  /** The last of them. */
  #lastHanded = "";
  /** Whether one was since the last connection was made. */
  #moved = false;

  /** @returns {Context | null} What is current. */
  get context() {
    return this.contexts.get(this.current) ?? null;
  }

  /** Of the own changes the last one that was accepted: what is followed while it changes has been overtaken. */
  get last() {
    return this.#last;
  }

  /** @param {string} name Of an event. @returns {boolean} Whether it is subscribed to. */
  isGranted(name) {
    return this.granted.some((one) => one.toLowerCase() === name.toLowerCase());
  }

  /** @param {string} id @returns {boolean} Whether this client published that event. */
  isOwn(id) {
    return this.#own.has(id);
  }

  /**
   * @param {string} id Of an event.
   * @returns {boolean} Whether it was followed, and something newer after it.
   */
  isPast(id) {
    const then = this.#done.get(id);
    return then != null && this.#made !== null && then < this.#made;
  }

  /** @param {string} id @returns {bigint | null} The instant of a change that was followed or published here. */
  instantOf(id) {
    return this.#done.get(id) ?? null;
  }

  /** A change came, or was published and accepted. @param {Event} event */
  heard({ instant }) {
    // A clock that is wrong by more than a day is nobody's to follow.
    const isSane = instant !== null && instant < (BigInt(Date.now()) + DAY) * NANOSECONDS;
    if (isSane && (this.newest === null || instant > this.newest)) this.newest = instant;
  }

  /** A connection was made: the hub tells again what is open. */
  joined() {
    this.#moved = false;
  }

  /** The application is to follow a change, or has published it. @param {Event} event */
  handed({ kind, id }) {
    if (kind !== "open" && kind !== "home") return;
    remember(this.#handed, id, true);
    this.#lastHanded = id;
    this.#moved = true;
  }

  /** @param {Event} event @returns {Verdict} */
  judge(event) {
    if (!event.changes) return event.own ? "known" : "new";
    if (this.#shows(event) || this.#beyond(event) || this.#implied(event)) return "known";
    if (this.#leftBehind(event)) return "old";
    // "Subscribers SHALL ignore messages with older timestamps than the message that established the current context"
    // (2.5)
    const { instant } = event;
    return instant !== null && this.#made !== null && instant < this.#made ? "old" : "new";
  }

  /**
   * Take in that the application follows a change.
   * @param {Event} event With an anchor, or Home-open.
   * @param {Event | null} last What `last` was when its handler was called.
   */
  follow(event, last) {
    const newer = this.#last;
    if (last === newer) {
      this.#change(event);
    } else if (newer?.anchor !== event.anchor) {
      // Meanwhile the application has published something else, and shows that.
      if (event.kind === "close") this.contexts.delete(event.anchor);
      if (event.kind === "open" && newer?.kind === "open") this.#insertBefore(newer.anchor, event);
    }
  }

  /** What is published from here on has this id; the hub has not answered yet. @param {Event} event */
  publishing(event) {
    remember(this.#own, event.id, this.#own.get(event.id) ?? false);
  }

  /**
   * The hub has accepted an own change: "the context the application shows" is what it published.
   * @param {Event} event
   */
  published(event) {
    remember(this.#own, event.id, true);
    if (!event.changes) return;
    this.heard(event);
    this.handed(event);
    this.#last = event;
    this.#change(event);
  }

  /**
   * Take in a change that is not new: the version of an open that was followed before or is an own one, and that
   * something is closed which is not current.
   * @param {Event} event
   * @param {Verdict} verdict
   */
  passed(event, verdict) {
    if (verdict === "old" && event.kind === "close" && event.anchor !== this.current)
      this.contexts.delete(event.anchor);
    const context = this.contexts.get(event.anchor);
    if (context?.event.id === event.id && event.version && event.version !== context.version) {
      this.#replace(new Context(context.event, event.version, null));
    }
  }

  /**
   * @param {Event} event An update.
   * @returns {boolean} Whether its content is known now; else it must be asked for.
   */
  updated(event) {
    const context = this.contexts.get(event.anchor);
    if (!context) return true;
    if (context.content && (event.version === context.version || this.#applied.has(event.id))) return true;
    // "Maintain the current context.versionId of the anchor context" (2.10)
    const fits = context.content && event.priorVersion !== null && event.priorVersion === context.version;
    this.#replace(new Context(context.event, event.version, fits ? applied(context.content ?? {}, event) : null));
    if (fits) remember(this.#applied, event.id, true);
    return Boolean(fits);
  }

  /**
   * Take in what the hub said is shared.
   * @param {string} anchor
   * @param {string | null} version
   * @param {Content | null} content
   */
  shared(anchor, version, content) {
    const context = this.contexts.get(anchor);
    if (context) this.#replace(new Context(context.event, version, content));
  }

  /** @param {Event} event @returns {boolean} Whether it is what the application shows. */
  #shows(event) {
    if (event.kind === "open") {
      const isShown = this.context?.event.id === event.id;
      const isGone = !this.#moved || !this.contexts.has(event.anchor);
      return isShown || (!event.own && this.#done.has(event.id) && isGone);
    }
    const gone = event.kind === "home" ? this.current === "" : !this.contexts.has(event.anchor);
    return gone && this.#done.has(event.id);
  }

  /**
   * Of each type the hub tells the newest open that is not closed, also one that everybody has left for another type: who
   * knows it has left it too. Only when something that was missed was followed since is what comes after that newer.
   * @param {Event} event
   * @returns {boolean} Whether it is an open that was followed or refused here, and another came after it.
   */
  #leftBehind({ kind, id }) {
    return kind === "open" && !this.#moved && this.#handed.has(id) && this.#lastHanded !== id;
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether the application has published something else since it published this.
   */
  #beyond(event) {
    return event.own && this.#own.get(event.id) === true && this.#last !== null && this.#last.id !== event.id;
  }

  /**
   * @param {Event} event
   * @returns {boolean} Whether the hub derived it ("Hub Generated open Events", 2.5) from what the application shows
   *     already.
   */
  #implied(event) {
    const { context } = this;
    return (
      event.kind === "open" &&
      context !== null &&
      context.event.instant !== null &&
      context.event.instant === event.instant &&
      context.anchor !== event.anchor &&
      context.event.context.some((item) => referenceTo(item.resource) === event.anchor)
    );
  }

  /** @param {Event} event */
  #change(event) {
    remember(this.#done, event.id, event.instant);
    if (event.kind === "open" && event.anchor) {
      this.contexts.delete(event.anchor);
      this.contexts.set(event.anchor, new Context(event, event.version, null));
      this.current = event.anchor;
      this.#made = event.instant;
      this.#forget();
    } else if (event.kind === "close") {
      this.contexts.delete(event.anchor);
      if (this.current === event.anchor) this.#empty(null);
    } else if (event.kind === "home") {
      this.#empty(event.instant);
    }
  }

  /** @param {bigint | null} made */
  #empty(made) {
    this.current = "";
    this.#made = made;
  }

  /** @param {string} anchor @param {Event} event An open that was followed while this anchor was opened here. */
  #insertBefore(anchor, event) {
    remember(this.#done, event.id, event.instant);
    const newer = this.contexts.get(anchor);
    this.contexts.delete(anchor);
    this.contexts.set(event.anchor, new Context(event, event.version, null));
    if (newer) this.contexts.set(anchor, newer);
    this.#forget();
  }

  /** @param {Context} context */
  #replace(context) {
    this.contexts.set(context.anchor, context);
  }

  #forget() {
    for (const anchor of this.contexts.keys()) {
      if (this.contexts.size <= MOST_CONTEXTS) return;
      if (anchor !== this.current) this.contexts.delete(anchor);
    }
  }
}

/**
 * @template T
 * @param {Map<string, T>} map
 * @param {string} id
 * @param {T} value
 */
function remember(map, id, value) {
  map.delete(id);
  map.set(id, value);
  if (map.size > MOST_IDS) map.delete(/** @type {string} */ (map.keys().next().value));
}
