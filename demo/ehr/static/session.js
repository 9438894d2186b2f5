/** Who takes part in the session and is in step, as the hub says it. */

import { element, icon } from "/shared/dom.js";

const EVERY = 3000;
/** Milliseconds after an event in which the others have acknowledged it, mostly. */
const SOON = 400;

/** How the hub's words for a state are shown. The event that was refused stands behind the word. */
const STATES = [
  { begins: "in sync", key: "in-step", icon: "check", badge: "badge-ok", follows: true },
  { begins: "does not acknowledge", key: "in-step", icon: "check", badge: "badge-ok", follows: true },
  { begins: "refused", key: "refused", icon: "refused", badge: "badge-warn" },
  { begins: "silent", key: "silent", icon: "wait", badge: "badge-warn" },
  { begins: "lost", key: "lost", icon: "off", badge: "badge-bad" },
  { begins: "not connected yet", key: "joining", icon: "wait", badge: "", follows: true },
];

/** @param {string} state @returns {typeof STATES[number]} what is not known counts as not connected yet */
export function stateOf(state) {
  return STATES.find((each) => state.startsWith(each.begins)) ?? STATES.at(-1);
}

/** Asks the hub, again and again. Tells of each answer by the event "change". */
export class Participants extends EventTarget {
  /** As the hub lists them; null while it does not answer. @type {{name: string, state: string}[] | null} */
  all = [];
  /** Whether the last question reached no hub. */
  away = false;
  /** When the question was put that `all` is the answer to, in milliseconds of performance.now(). */
  asked = 0;
  #app;
  #timer = 0;

  /** @param {import("/shared/app.js").App} app */
  constructor(app) {
    super();
    this.#app = app;
    const { "hub.url": hubUrl, "hub.topic": topic } = app.smart.context;
    this.url = `${new URL(hubUrl).origin}/sessions/${encodeURIComponent(topic)}/participants`;
    app.client.onWire(({ kind }) => kind !== "discovery" && this.#plan(SOON));
    document.addEventListener("visibilitychange", () => document.hidden || this.#plan(0));
  }

  /** The first question; the others follow. */
  start() {
    this.#plan(0);
  }

  #plan(after) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), after);
  }

  async #ask() {
    const asked = performance.now();
    try {
      const headers = { Authorization: `Bearer ${await this.#app.smart.accessToken()}` };
      const answer = await fetch(this.url, { headers, cache: "no-store" }).catch(() => null);
      this.away = !answer;
      this.all = answer?.ok ? await answer.json() : null;
    } catch {
      this.all = null;
    }
    this.asked = asked;
    this.dispatchEvent(new Event("change"));
    this.#plan(EVERY);
  }
}

/** Shows the strip. */
export function showParticipants(app, participants) {
  const [list, none] = ["participants", "participants-none"].map((name) =>
    document.querySelector(`[data-test=${name}]`),
  );
  let shown = "";
  const render = () => {
    const all = [...(participants.all ?? [])].sort((a, b) => a.name.localeCompare(b.name));
    const nobody = participants.all ? "session.none" : participants.away ? "session.away" : "session.untold";
    const said = all.length ? "" : app.t(nobody);
    if (none.textContent !== said) none.textContent = said;
    const now = JSON.stringify([app.language, all.map(({ name, state }) => [name, state])]);
    if (now === shown) return;
    shown = now;
    list.replaceChildren(...all.map((one) => participant(one, app)));
  };
  participants.addEventListener("change", render);
  document.addEventListener("language", render);
  render();
}

function participant({ name, state }, app) {
  const how = stateOf(state);
  return element(
    "li",
    { "class": "participant", "data-test": "participant", "data-name": name, "data-state": how.key },
    element("span", {}, app.titled(name) || app.t("session.unnamed")),
    element("span", { class: `badge ${how.badge}` }, icon(how.icon), app.t(`session.${how.key}`)),
  );
}
