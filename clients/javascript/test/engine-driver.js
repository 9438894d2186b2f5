/**
 * Plays a sequence of clients/following.json to the engine, without a hub: what is around the engine is as simple as can be
 * here. Its twin is tests/clients/engine_driver.py.
 */

import { Engine } from "../src/engine.js";
import { anchorKey, Event, makeEvent } from "../src/events.js";
import { saysTheSame } from "../src/following.js";
import { readCurrent } from "../src/update-bundle.js";
import { makeSyncError } from "../src/sync-errors.js";
import { instant } from "../src/timestamps.js";

const TOPIC = "topic";
/** From here on a status says that the hub may answer later. */
const FAILED = 500;
/** Seconds in sequences count from here, in milliseconds of the epoch. */
const START = Date.UTC(2026, 10, 22, 10);
/** The own clock, in those seconds, where a sequence does not say: long after all that happens. */
const CLOCK = 3600;
/** When a SyncError is sent, where a sequence does not say. */
const SYNC_ERROR = 50;
const TYPES = /** @type {Record<string, string>} */ ({
  p: "Patient",
  s: "ImagingStudy",
  r: "DiagnosticReport",
  e: "Encounter",
  o: "Observation",
});
/** What is handled where a sequence does not say. */
const HANDLED = [
  ...["Patient-open", "ImagingStudy-open", "DiagnosticReport-open", "DiagnosticReport-update"],
  ...["Patient-close", "ImagingStudy-close", "DiagnosticReport-close", "Home-open", "UserLogout"],
];

/** @typedef {Record<string, any>} Step */
/**
 * An event on its way to its handler.
 * @typedef {object} Delivery
 * @property {Event} event
 * @property {string} mode What the handler does: ok, refuse, fail, or slow until a step ends it.
 * @property {() => boolean} applies
 * @property {boolean} queried
 * @property {boolean} retry
 * @property {() => void} done
 */

/** One client, as a sequence has it. */
export class Driver {
  engine;
  #handled;
  #granted;
  #clock;
  /** @type {Map<string, Event>} */
  #events = new Map();
  /** @type {Delivery[]} */
  #waiting = [];
  /** @type {Delivery | null} */
  #busy = null;
  /** @type {Set<string>} */
  #onTheirWay = new Set();
  /** @type {Record<string, any>} */
  #said = {};

  /** @param {Step} sequence */
  constructor(sequence) {
    const names = sequence.handled ?? HANDLED;
    this.#handled = new Set(names.map((/** @type {string} */ name) => name.toLowerCase()));
    this.engine = new Engine("me", this.#handled);
    this.#granted = sequence.granted ?? [...names, "SyncError"];
    this.#clock = sequence.clock ?? CLOCK;
  }

  /** @param {Step} step @returns {Step} All that can be seen after it. */
  step(step) {
    this.#said = { verdicts: [], handlers: [] };
    const [verb = "", given] = Object.entries(step)[0] ?? [];
    const act = this.#steps[verb];
    if (!act) throw new Error(`expected a step, got ${verb}`);
    act(given, step);
    this.#pump();
    return { ...this.#said, ...this.#seen() };
  }

  #seen() {
    const { engine } = this;
    const { status } = engine.sync;
    const shown = engine.following.contexts.current;
    const contexts = [...engine.contexts];
    return {
      current: engine.current?.anchor ?? null,
      by: shown ? this.#id(shown) : null,
      open: contexts.map(([anchor]) => anchor),
      connection: status.connection,
      in_step: status.inSync,
      why: status.why,
      behind: [...status.behind],
      unsent: engine.unsent.newest?.id ?? null,
      to_catch_up: engine.toCatchUp ? this.#id(engine.toCatchUp) : null,
      told: engine.doubt.isAnswered,
      asks_again: engine.doubt.mustAskAgain,
      must_ask: engine.doubt.mustAsk,
      shared: Object.fromEntries(
        contexts.map(([anchor, one]) => [anchor, [one.version, one.content && Object.keys(one.content).sort()]]),
      ),
    };
  }

  /** The id of an event of the sequence; those of what the hub told when it was asked are made up. @param {Event} event */
  #id({ id }) {
    return this.#events.has(id) ? id : "told";
  }

  /** @type {Record<string, (given: any, step: Step) => void>} */
  #steps = {
    "clock is": (seconds) => {
      this.#clock = seconds;
    },
    connected: (ordered, { granted }) => this.engine.connected(granted ?? this.#granted, ordered),
    settles: () => this.engine.content.replayEnded(),
    lost: (why) => this.engine.disconnected(why),
    ended: (why) => {
      this.engine.ended(why);
      this.#waiting = [];
    },
    unread: () => this.engine.unreadable(),
    comes: (text, step) => {
      const event = this.#event(text, step, this.engine.isOwn(step.id));
      this.engine.received(event);
      this.#wait(event, step.handler);
    },
    ends: (mode, { again }) => {
      const delivery = this.#busy;
      this.#busy = null;
      if (delivery) this.#end(delivery, mode, again);
    },
    // The handler takes too long, and goes on.
    "gives up": () => {
      const { event } = this.#busy ?? {};
      if (event && this.engine.verdict(event) === "follow")
        this.engine.refused(event, "it was not done within 10 s", { isOver: false });
    },
    // Whom the event is about was found out, before its handler is called.
    found: () => {
      const delivery = this.#busy;
      if (!delivery || this.#onTheirWay.size > 0 || this.#verdict(delivery) === "follow") return;
      this.#busy = null;
      this.engine.overtaken();
      delivery.done();
    },
    "sync error": (subscriber, step) => {
      const about = this.#events.get(step.about) ?? this.#event(step.event ?? "Patient-open p9", { id: step.about });
      const made = makeSyncError(TOPIC, about, subscriber, "unsaved notes").body;
      const timestamp = /** @type {string} */ (timestampOf(step.at === undefined ? SYNC_ERROR : step.at));
      const event = new Event({ ...made, id: step.id, timestamp });
      this.engine.received(event);
      const { resend, unsubscribed } = this.engine.syncError(event);
      Object.assign(this.#said, { resend: resend.map(({ id }) => id), unsubscribed });
    },
    // The application opens something: posted unless everybody shows that already.
    opens: (text, step) => {
      const event = this.#event(text, step, true, false);
      const unsent = this.engine.unsent.newest;
      this.#said.shown_again = this.engine.races.isEchoedByHandler(event);
      if (this.engine.alreadyShown(event)) this.#said.posted = null;
      else this.#post(unsent && saysTheSame(unsent, event) ? unsent : event);
    },
    sends: (text, step) => this.#post(this.#event(text, step, true, false)),
    accepted: (id) => {
      if (this.#onTheirWay.delete(id)) this.engine.accepted(this.#known(id), this.#now);
    },
    refused: (id) => this.#notSent(id, true),
    fails: (id) => this.#notSent(id, false),
    // It was tried again, and accepted.
    late: (id, { handler }) => {
      const event = this.#events.get(id);
      if (!event || !this.engine.unsent.isRetried(event) || this.engine.unsent.mustWait(event) || this.#onTheirWay.size > 0) return;
      this.engine.acceptedLate(event);
      this.#wait(event, handler);
    },
    // It is time to send an own open again.
    again: (id) => {
      const event = this.#events.get(id);
      const wanted = event !== undefined && this.engine.changes.isNewest(event);
      if (event && wanted) this.engine.resending.sent(event);
      else if (event) this.engine.resending.ended(event);
      this.#said.again = wanted;
    },
    // A while has passed since it was sent again.
    quiet: (id) => {
      const event = this.#events.get(id);
      if (!event || this.engine.resending.isDue(event)) return;
      this.engine.resending.ended(event);
      this.engine.sync.assumeRecovered(id);
    },
    // The hub is asked what is open: an open, null for nothing, or the status with which it refuses.
    asks: (answer, step) => {
      if (typeof answer === "number") this.engine.doubt.unanswered(answer < FAILED);
      else this.#ask(answer, step);
    },
    "catches up": (mode) => {
      const event = this.engine.toCatchUp;
      if (event) this.#wait(event, mode, { applies: () => this.engine.toCatchUp === event, retry: true });
    },
  };

  /** @param {string | null} answer @param {Step} step */
  #ask(answer, step) {
    const { count: asked } = this.engine.changes;
    const { moment } = this.engine.content;
    const { event, version, content } = readCurrent(currentOf(answer, step), TOPIC);
    if (event) this.engine.content.fetched(event.anchor, version, content, moment);
    const differences = this.engine.differences(event, version);
    let toSettle = differences.length;
    const done = () => {
      toSettle -= 1;
      if (toSettle <= 0) this.#said.settled = this.engine.contextChecked(event, asked, differences.length > 0);
    };
    const applies = () => this.engine.changes.count === asked;
    if (differences.length === 0) done();
    for (const opened of differences) {
      const handed = event ? opened : this.#close(opened);
      this.#wait(handed, step.handler, { applies, done, queried: event !== null, retry: true });
    }
  }

  /** @param {Event} opened @returns {Event} The close that nobody told. */
  #close({ anchor, context }) {
    const timestamp = timestampOf(this.#clock);
    return makeEvent(TOPIC, `${anchor.split("/", 1)[0]}-close`, context, { timestamp, own: false });
  }

  /** @param {Event} event */
  #post(event) {
    this.#said.posted = event.id;
    this.#events.set(event.id, event);
    this.engine.sending(event);
    this.#onTheirWay.add(event.id);
  }

  /** @param {string} id @param {boolean} isFinal */
  #notSent(id, isFinal) {
    const event = this.#events.get(id);
    if (!event || !(this.#onTheirWay.has(id) || this.engine.unsent.isRetried(event))) return;
    this.#onTheirWay.delete(id);
    this.engine.publishFailed(event, isFinal ? "the hub answered 400" : "the hub answered 502", isFinal);
  }

  // One event after the other has its turn, while no handler runs and no own change is on its way

  /** @param {Event} event @param {string} [mode] @param {Partial<Delivery>} [other] */
  #wait(event, mode = "ok", other = {}) {
    this.#waiting.push({ event, mode, applies: () => true, queried: false, retry: false, done: () => {}, ...other });
  }

  #pump() {
    while (this.#waiting.length > 0 && !this.#busy && !this.#isChanging) {
      const delivery = /** @type {Delivery} */ (this.#waiting.shift());
      const { anchor, name } = delivery.event;
      if (!delivery.applies() || this.#verdict(delivery) !== "follow") {
        delivery.done();
      } else if (!this.#handled.has(name.toLowerCase())) {
        this.#end(delivery, "ok");
      } else {
        this.#said.handlers.push(`${name} ${anchor}`.trim());
        if (delivery.mode === "slow") this.#busy = delivery;
        else this.#end(delivery, delivery.mode);
      }
    }
  }

  get #isChanging() {
    return [...this.#onTheirWay].some((id) => this.#known(id).changes);
  }

  /** @param {Delivery} delivery */
  #verdict({ event, retry }) {
    const verdict = this.engine.beginTurn(event, this.#now, retry);
    this.#said.verdicts.push(`${this.#id(event)} ${verdict}`);
    return verdict;
  }

  /** @param {Delivery} delivery @param {string} mode @param {string} [again] What the handler does with what is handed again. */
  #end({ event, queried, done }, mode, again = "ok") {
    const opened =
      mode === "ok"
        ? this.engine.followed(event, this.#now, queried)
        : this.engine.refused(event, "unsaved notes", { shows: mode === "fail" });
    if (opened) this.#wait(opened, again, { applies: () => this.engine.races.mayBeShown(opened), retry: true });
    done();
  }

  get #now() {
    return instant(/** @type {string} */ (timestampOf(this.#clock))) ?? 0n;
  }

  /** @param {string} id */
  #known(id) {
    return /** @type {Event} */ (this.#events.get(id));
  }

  /** @param {string} text @param {Step} step @param {boolean} [own] @param {boolean} [keep] */
  #event(text, step, own = false, keep = true) {
    const [name = "", ...things] = text.split(" ");
    const inner = {
      "hub.topic": TOPIC,
      "hub.event": name,
      ...("version" in step ? { "context.versionId": step.version } : {}),
      ...("prior" in step ? { "context.priorVersionId": step.prior } : {}),
      context: contextOf(name, things),
    };
    const timestamp = /** @type {string} */ (timestampOf(step.at === undefined ? 0 : step.at));
    const event = new Event({ timestamp, id: step.id, event: inner }, own);
    if (keep && !this.#events.has(event.id)) this.#events.set(event.id, event);
    return event;
  }
}

/**
 * @param {string} name
 * @param {string[]} things
 * @returns {any[]} The context of "Patient-open p1", or of "DiagnosticReport-update r1 +o1 -o2"; "p1*" is p1 with something
 *     else in it.
 */
function contextOf(name, things) {
  if (!/-update$/i.test(name)) {
    return things.map(resourceOf).map((resource) => ({ key: anchorKey(resource.resourceType), resource }));
  }
  const [about = "", ...changes] = things;
  const entry = changes.map((change) => {
    const url = referenceOf(change.slice(1));
    if (change.startsWith("-")) return { request: { method: "DELETE", url } };
    return { request: { method: "PUT", url }, resource: resourceOf(change.slice(1)) };
  });
  const key = anchorKey(TYPES[about[0] ?? ""] ?? "");
  const bundle = { resourceType: "Bundle", type: "transaction", entry };
  return [
    { key, reference: { reference: referenceOf(about) } },
    { key: "updates", resource: bundle },
  ];
}

/** @param {string} thing */
function resourceOf(thing) {
  const other = thing.endsWith("*") ? { active: true } : {};
  return { resourceType: TYPES[thing[0] ?? ""] ?? "", id: thing.replace(/\*$/, ""), ...other };
}

/** @param {string} thing */
function referenceOf(thing) {
  return `${TYPES[thing[0] ?? ""]}/${thing}`;
}

/** @param {string | null} answer @param {Step} step What the hub answers when it is asked what is open. */
function currentOf(answer, step) {
  const version = "version" in step ? { "context.versionId": step.version } : {};
  if (answer === null) return { "context.type": "", ...version, context: [] };
  const [name = "", ...things] = answer.split(" ");
  const context = contextOf(name, things);
  if (step.content) {
    const entry = step.content.map((/** @type {string} */ thing) => ({ resource: resourceOf(thing) }));
    context.push({ key: "content", resource: { resourceType: "Bundle", entry } });
  }
  return { "context.type": name.split("-", 1)[0], ...version, context };
}

/** @param {number | string | null} at */
function timestampOf(at) {
  return typeof at === "number" ? new Date(START + at * 1000).toISOString().replace(".000Z", "Z") : at;
}
