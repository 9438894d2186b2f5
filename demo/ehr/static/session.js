/** The participants of the session and their state, from the hub. */

import { element, icon, place } from "/shared/dom.js";

const EVERY = 3000;
/** Milliseconds that the hub has to answer. */
const PATIENCE = 2000;
/** Milliseconds after an event in which most applications have acknowledged it. */
const SOON = 400;

/** How the hub's words for a state are shown. After "refused" follows the event. */
const STATES = [
  { begins: "in sync", key: "in-step", icon: "check", badge: "badge-ok", follows: true },
  { begins: "does not acknowledge", key: "in-step", icon: "check", badge: "badge-ok", follows: true },
  { begins: "connected", key: "connected", icon: "check", badge: "badge-ok", follows: true },
  { begins: "refused", key: "refused", icon: "refused", badge: "badge-warn" },
  { begins: "silent", key: "silent", icon: "wait", badge: "badge-warn" },
  { begins: "left", key: "left", icon: "off", badge: "" },
  { begins: "lost", key: "lost", icon: "off", badge: "badge-bad" },
  { begins: "not connected yet", key: "joining", icon: "wait", badge: "", follows: true },
];

/** A participant whose state the hub does not tell now. */
const UNKNOWN = { key: "unknown", icon: "question", badge: "" };

/** @param {string} state @returns {typeof STATES[number]} unknown states count as not connected yet */
export function stateOf(state) {
  return STATES.find((each) => state.startsWith(each.begins)) ?? STATES.at(-1);
}

/** Asks the hub at intervals. Each answer is an event "change". */
export class Participants extends EventTarget {
  /** In the order of the hub's list. @type {{name: string, state: string}[]} */
  all = [];
  /**
   * Whether the list is current. "waiting": not asked yet; "away": the hub does not answer, or this page is not
   * connected; "unlisted": the hub does not tell.
   * @type {"waiting" | "known" | "away" | "unlisted"}
   */
  state = "waiting";
  /** The time of the request whose answer is `all`, in milliseconds of performance.now(). */
  asked = 0;
  #app;
  #timer = 0;
  /** The time of the last request that was answered, in any way. */
  #answered = 0;

  /** @param {import("/shared/app.js").App} app */
  constructor(app) {
    super();
    this.#app = app;
    const { "hub.url": hubUrl, "hub.topic": topic } = app.smart.context;
    this.url = `${new URL(hubUrl).origin}/sessions/${encodeURIComponent(topic)}/participants`;
    app.client.onWire(({ kind }) => kind !== "discovery" && this.#plan(SOON));
    app.client.onStatus(() => this.#isConnected || this.#turned("away"));
    document.addEventListener("visibilitychange", () => document.hidden || this.#plan(0));
  }

  get #isConnected() {
    return this.#app.client.status.connection === "connected";
  }

  #plan(after) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), after);
  }

  /** The hub tells only participants: while this page is none, it does not ask. */
  async #ask() {
    if (!this.#isConnected) return;
    const asked = performance.now();
    const [state, all] = await this.#answer();
    if (asked < this.#answered) return; // a later request was answered before
    this.#answered = asked;
    if (all) Object.assign(this, { all, asked });
    this.#turned(this.#isConnected ? state : "away");
    this.#plan(EVERY);
  }

  /** @returns {Promise<["known" | "away" | "unlisted", object[]?]>} */
  async #answer() {
    try {
      const headers = { Authorization: `Bearer ${await this.#app.smart.accessToken()}` };
      const signal = AbortSignal.timeout(PATIENCE);
      const answer = await fetch(this.url, { headers, signal, cache: "no-store" }).catch(() => null);
      if (!answer) return ["away"];
      return answer.ok ? ["known", await answer.json()] : ["unlisted", []];
    } catch {
      return ["unlisted", []];
    }
  }

  #turned(state) {
    if (state === "away" && this.state === "waiting") return; // it is about to connect
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }
}

/** The text beside the list, or in its place. */
const SAID = { away: "session.away", unsent: "session.unlisted" };

/** Shows the strip. While the hub is away, no participant is shown as in sync. */
export function showParticipants(app, participants) {
  const [list, none] = ["participants", "participants-none"].map(place);
  let shown = "";
  const render = () => {
    const isKnown = participants.state === "known";
    const all = [...participants.all]
      .sort((a, b) => a.name.localeCompare(b.name))
      .map(({ name, state }) => ({ name, how: isKnown ? stateOf(state) : UNKNOWN }));
    const key = SAID[participants.state] ?? (isKnown && !all.length && "session.none");
    const said = key ? app.t(key) : "";
    if (none.textContent !== said) none.textContent = said;
    app.syncStatus.isAway = participants.state === "away";
    const now = JSON.stringify([app.language, all]);
    if (now === shown) return;
    shown = now;
    list.replaceChildren(...all.map((one) => participant(one, app)));
  };
  participants.addEventListener("change", render);
  document.addEventListener("language", render);
  render();
}

function participant({ name, how }, app) {
  return element(
    "li",
    { "class": "participant", "data-test": "participant", "data-name": name, "data-state": how.key },
    element("span", {}, app.titled(name) || app.t("session.unnamed")),
    element("span", { class: `badge ${how.badge}` }, icon(how.icon), app.t(`session.${how.key}`)),
  );
}
