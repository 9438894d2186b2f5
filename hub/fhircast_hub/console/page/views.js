/** The sections of the page. Each is made once, and updated in place from the parts of the stream. */

import { by, child, duration, make, number, setBadge, setFacts, setText, setTime, show, size, Table } from "./dom.js";
import { t } from "./words.js";

const KINDS = { "in sync": "ok", "refused": "bad", "silent": "warn", "lost": "bad" };
/** Seconds over which rates are counted. */
const SPAN = 10;

/** @param {{state: string, refused?: string}} item */
function stateWords(item) {
  return item.refused ? t("state.refused.event", { event: item.refused }) : t(`state.${item.state}`);
}

/** A column of text. @param {string} head @param {(item: any) => unknown} value @param {Partial<import("./dom.js").Column>} [more] */
function text(head, value, more = {}) {
  return { head, fill: (cell, item) => setText(cell, String(value(item) ?? "")), ...more };
}

/** Rates from counts that only grow: the growth over the last seconds. */
export class Rates {
  #samples = [];

  /** @param {number} now epoch seconds @param {Record<string, number>} counts */
  add(now, counts) {
    const last = this.#samples.at(-1);
    const began = last && Object.keys(last.counts).some((name) => (counts[name] ?? 0) < last.counts[name]);
    if (began || (last && now < last.now)) this.#samples = []; // another process
    if (last?.now !== now) this.#samples.push({ now, counts });
    while (this.#samples.length > 2 && now - this.#samples[0].now > SPAN) this.#samples.shift();
  }

  /** Growth a second. @param {string} name */
  of(name) {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (!first || last.now === first.now) return 0;
    return ((last.counts[name] ?? 0) - (first.counts[name] ?? 0)) / (last.now - first.now);
  }
}

/** The overview. */
export class Overview {
  rates = new Rates();
  #routes = new Table(
    by("routes"),
    [
      text("route", (route) => route.name, { leads: true }),
      text("rate", (route) => number(this.rates.of(route.name), 1), { slim: true }),
      text("total", (route) => number(route.total), { slim: true }),
    ],
    (route) => route.name,
  );

  /** @param {Record<string, any>} parts @param {number} now */
  update({ hub }, now) {
    const words = hub.worker ? t("whose.worker", hub.worker) : hub.node ? t("whose.node", hub) : "";
    setText(by("whose"), words);
    show(by("whose"), Boolean(words));
    const plain = (value) => (node) => setText(node, String(value));
    const share = t("fact.of", { used: size(hub.bytes), most: size(hub.maxBytes) });
    const events = [this.rates.of("eventsReceived"), this.rates.of("eventsSent")].map((rate) => number(rate, 1));
    setFacts(by("facts"), [
      ["fact.version", plain(hub.version)],
      ["fact.url", plain(hub.url)],
      ...(hub.node ? [["fact.node", plain(hub.node)]] : []),
      ["fact.started", (node) => setTime(node, hub.startedAt, now)],
      ["fact.sockets", plain(number(hub.sockets))],
      ["fact.queued", plain(t("fact.queued.value", { messages: number(hub.queuedMessages), bytes: size(hub.queuedBytes) }))],
      ["fact.posts", plain(number(hub.queuedPosts))],
      ["fact.sessions", plain(number(hub.sessions))],
      ["fact.subscriptions", plain(number(hub.subscriptions))],
      ["fact.bytes", plain(share)],
      ["fact.events", plain(events.join(" / "))],
      ["fact.refusals", plain(number(hub.refusals))],
      ["fact.unanswered", plain(number(hub.unanswered))],
      ["fact.slow", plain(number(hub.slowReadersClosed))],
      ["fact.audit", plain(number(hub.auditLost))],
      ["fact.streams", plain(number(hub.streams))],
    ]);
    this.#routes.update(Object.entries(hub.requests).sort().map(([name, total]) => ({ name, total })));
  }
}

/** The list of sessions. `choose` is called with the hash of the session that the reader chooses. */
export class SessionList {
  #now = 0;
  #chosen = "";
  #table;

  /** @param {(hash: string) => void} choose */
  constructor(choose) {
    const columns = [
      { head: "session", leads: true, fill: (cell, item) => this.#button(cell, item, choose) },
      { head: "states", fill: setStates },
      text("last.event", (item) => item.lastEvent?.name ?? "–"),
      { head: "used", fill: (cell, item) => setTime(cell, item.lastUsedAt, this.#now) },
    ];
    this.#table = new Table(by("list"), columns, (item) => item.hash, { holds: true });
    by("list").addEventListener("keydown", (event) => this.#move(event));
  }

  /** @param {any} part @param {string} chosen a hash @param {number} now */
  update(part, chosen, now) {
    [this.#now, this.#chosen] = [now, chosen];
    if (part.unavailable) {
      setText(by("count"), t(part.late ? "late" : "unavailable"));
      return;
    }
    const [shown, count] = [part.rows.length, part.total];
    const key = shown < count ? "count.more" : count === 1 ? "count.one" : count ? "count" : "count.none";
    setText(by("count"), t(key, { shown: number(shown), count: number(count) }));
    this.#table.update(part.rows);
    this.#table.empty.hidden = true; // the count says so
  }

  #button(cell, item, choose) {
    let button = cell.querySelector("button");
    if (!button) {
      button = cell.appendChild(make("button", "hash"));
      button.type = "button";
      button.addEventListener("click", () => choose(item.hash));
    }
    setText(button, item.hash);
    setText(child(cell, "span", "topic"), item.topic);
    const isChosen = item.hash === this.#chosen;
    if (!isChosen) button.removeAttribute("aria-current");
    else if (!button.hasAttribute("aria-current")) button.setAttribute("aria-current", "true");
    cell.parentElement.classList.toggle("chosen", isChosen);
  }

  /** Up and down, first and last, among the sessions. */
  #move(event) {
    const buttons = [...by("list").querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    buttons[Math.min(Math.max(to, 0), buttons.length - 1)].focus();
  }
}

function setStates(cell, item) {
  const states = Object.entries(item.states ?? {}).sort();
  const words = states.map(([state, count]) => [state, `${number(count)} ${t(`state.${state}`)}`]);
  if (!item.subscribers) words.push(["", t("state.nobody")]);
  else if (!words.length) words.push(["", t("subscribers", { count: number(item.subscribers) })]);
  const places = cell.children;
  while (places.length > words.length) cell.lastChild.remove();
  words.forEach(([state, shown], index) => setBadge(places[index] ?? cell.appendChild(make("span")), shown, KINDS[state] ?? "plain"));
}

/** One session. */
export class SessionDetail {
  #now = 0;
  #participants = new Table(
    by("participants"),
    [
      { head: "participant", leads: true, fill: setParticipant },
      { head: "channel", whole: true, fill: setChannel },
      { head: "state", fill: (cell, item) => setBadge(cell, stateWords(item), KINDS[item.state] ?? "plain") },
      { head: "since", fill: (cell, item) => setTime(cell, item.since, this.#now) },
      { head: "acknowledged", fill: (cell, item) => setTime(cell, item.acknowledgedAt, this.#now) },
      text("waiting", waitingWords, { slim: true }),
    ],
    (item) => item.id,
  );
  #problems = new Table(
    by("problems"),
    [
      { head: "time", fill: (cell, item) => setTime(cell, item.at, this.#now) },
      text("words", (item) => item.words),
      text("told", (item) => number(item.told), { slim: true }),
    ],
    (item) => `${item.at} ${item.words} ${item.place}`,
  );
  #events = new Table(
    by("events"),
    [
      { head: "time", fill: (cell, item) => setTime(cell, item.at, this.#now) },
      text("event", (item) => item.name, { leads: true }),
      text("sender", (item) => item.sender ?? t("sender.elsewhere")),
      text("told", (item) => number(item.told), { slim: true }),
    ],
    (item) => `${item.at} ${item.name} ${item.place}`,
  );

  /** @param {string} chosen a hash; "": none @param {any} part null: not here yet @param {boolean} mayEnd @param {number} now */
  update(chosen, part, mayEnd, now) {
    this.#now = now;
    show(by("none"), !chosen);
    show(by("detail"), Boolean(part));
    if (!part) return;
    const isThere = Boolean(part.topic);
    setText(by("session-title"), t("session.name", { hash: part.hash }));
    setText(by("over"), part.gone ? t("session.gone") : part.unavailable ? t(part.late ? "late" : "unavailable") : "");
    show(by("over"), !isThere);
    show(by("end"), mayEnd && isThere);
    if (!isThere) return;
    setFacts(by("session-facts"), [
      ["topic", (node) => setText(node, part.topic)],
      ["user", (node) => setText(node, part.user || t("users.none"))],
      ["used", (node) => setTime(node, part.lastUsedAt, now)],
      ["contexts", (node) => setText(node, number(part.openContexts))],
    ]);
    this.#participants.update(part.participants);
    this.#problems.update(placed(part.problems));
    this.#events.update(placed(part.events));
  }
}

/** Each with its place among those of the same time, counted from the oldest, so that equal rows differ. */
function placed(items) {
  const seen = new Map();
  const found = [];
  for (const item of [...items].reverse()) {
    const place = seen.get(item.at) ?? 0;
    seen.set(item.at, place + 1);
    found.unshift({ ...item, place });
  }
  return found;
}

function setParticipant(cell, item) {
  setText(child(cell, "span", "name"), item.name || t("unnamed"));
  setText(child(cell, "span", "client"), item.client);
}

function setChannel(cell, item) {
  setText(child(cell, "span", "name"), item.channel);
  setText(child(cell, "span", "client"), item.node);
}

function waitingWords({ waiting }) {
  if (!waiting) return "–";
  return waiting.messages ? t("fact.queued.value", { messages: number(waiting.messages), bytes: size(waiting.bytes) }) : "0";
}

/** The issuers. */
export class Issuers {
  #now = 0;
  #table = new Table(
    by("issuer-list"),
    [
      text("issuer", (item) => item.issuer, { leads: true }),
      text("keys", (item) => (item.keysMissing ? t("keys.missing") : number(item.keys)), { slim: true }),
      { head: "keys.age", fill: (cell, item) => setTime(cell, item.keysAt, this.#now) },
      text("asked", (item) => number(item.requests), { slim: true }),
      text("failures", (item) => number(item.failures), { slim: true }),
      { head: "failure", fill: (cell, item) => this.#failure(cell, item) },
    ],
    (item) => item.issuer,
  );

  /** @param {any} part @param {number} now */
  update(part, now) {
    this.#now = now;
    this.#table.update(part.issuers);
  }

  #failure(cell, item) {
    setText(child(cell, "span", "name"), item.failure || "–");
    const time = child(cell, "span", "when");
    show(time, Boolean(item.failure));
    if (item.failure) setTime(time, item.failedAt, this.#now);
  }
}

/** The nodes. */
export class Nodes {
  #now = 0;
  #own = "";
  #table = new Table(
    by("node-list"),
    [
      text("node", (item) => (item.name === this.#own ? t("node.this", item) : item.name), { leads: true }),
      text("release", (item) => item.release),
      { head: "fact.started", fill: (cell, item) => setTime(cell, item.startedAt, this.#now) },
      { head: "seen", fill: (cell, item) => this.#seen(cell, item) },
      text("sessions", (item) => number(item.sessions), { slim: true }),
      text("fact.sockets", (item) => (item.sockets === null ? "–" : number(item.sockets))),
    ],
    (item) => item.name,
  );

  /** @param {any} part @param {number} now */
  update(part, now) {
    [this.#now, this.#own] = [now, part.own];
    setText(by("nodes-hint"), t(part.unavailable ? "unavailable" : part.nodes.length ? "nodes.hint" : "nodes.one"));
    this.#table.update(part.nodes);
    this.#table.empty.hidden = true; // the hint says so
  }

  #seen(cell, item) {
    setTime(child(cell, "span", "when"), item.seenAt, this.#now);
    const dead = child(cell, "span", "dead");
    show(dead, item.dead);
    if (item.dead) setBadge(dead, t("node.dead"), "bad");
  }
}

/** Rates and budgets. */
export class Budgets {
  #busy;
  #largest;

  /** @param {(user: string) => void} search called with the user whose sessions the reader wants to see */
  constructor(search) {
    const user = { head: "user", leads: true, fill: (cell, item) => setUser(cell, item, search) };
    const who = [user, text("realm", (item) => item.realm)];
    this.#busy = new Table(by("busy"), [...who, text("used.part", usedWords)], (item) => item.user);
    const [sessions, bytes] = [(item) => number(item.sessions), (item) => size(item.bytes)];
    const columns = [...who, text("sessions", sessions, { slim: true }), text("bytes", bytes)];
    this.#largest = new Table(by("largest"), columns, (item) => item.user);
  }

  /** @param {any} part */
  update(part) {
    const rate = (most, count) => (most ? t("budget.near", { most: number(most), count: number(count) }) : t("budget.unlimited"));
    const plain = (value) => (node) => setText(node, value);
    setFacts(by("budget-facts"), [
      ["budget.token", plain(rate(part.perToken, part.tokensNear))],
      ["budget.address", plain(rate(part.perAddress, part.addressesNear))],
      ["budget.bytes", plain(size(part.maxBytes))],
      ["budget.topics", plain(number(part.maxTopics))],
      ["budget.subscriptions", plain(number(part.maxSubscriptions))],
    ]);
    this.#busy.update(part.users);
    this.#largest.update(part.largest);
  }
}

/** A user: a button where a search finds the user's sessions. @param {(user: string) => void} search */
function setUser(cell, item, search) {
  if (!item.isFound) {
    setText(cell, item.user);
    return;
  }
  let button = cell.querySelector("button");
  if (!button) {
    button = cell.appendChild(make("button", "hash"));
    button.type = "button";
    button.addEventListener("click", () => search(item.user));
  }
  setText(button, item.user);
  const label = t("user.search", { user: item.user });
  if (button.getAttribute("aria-label") !== label) button.setAttribute("aria-label", label);
}

function usedWords(item) {
  const parts = Object.entries(item.used).sort(([, one], [, other]) => other - one);
  return parts.map(([name, part]) => t(`budget.name.${name}`, { part: `${number(100 * part)} %` })).join(", ");
}

/** How old something is, in words. @param {number} seconds */
export function age(seconds) {
  return duration(seconds);
}
