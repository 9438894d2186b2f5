/** `<sync-status>`: whether this page shows the session's context, in words, with an icon. */

import { button, element, icon } from "./dom.js";
import { hubWords } from "./hub-words.js";
import { translator } from "./i18n.js";
import { shared } from "./messages.js";

const t = translator(shared);
/** The client's sentence for an event that this page itself did not follow: worse than any other subscriber. */
const OWN = /^This application \w[\w ]*? follow (\S+): (.*)$/s;
/** The client's sentence for an own event that the others do not know of. The client retries it. */
const UNSENT = /^The others were not told of (\S+): (.*)$/s;

/**
 * The text of a status.
 * @param {{connection: string, inSync: boolean, why: string, behind: string[]}} status
 * @param {(name: string) => string} [titled] a participant's name here
 * @param {object} [page] state of the page itself
 * @param {{event: string, why: string} | null} [page.unsent] the event that the others were not told of
 * @param {boolean} [page.isAway] whether the hub does not answer
 * @param {boolean} [page.isAsking] whether the login server has not answered yet if the user is still logged in
 * @param {(reason: string) => string} [page.reworded] why the page did not follow, in the user's language; "" where the
 *   page has no text for it, and the wire's text is quoted
 * @returns {{state: "ok"|"busy"|"warn"|"bad", icon: string, word: string, why: string}} `why` is "" without a reason
 */
export function inWords(status, titled = (name) => name, page = {}) {
  const { unsent = null, isAway = false, isAsking = false, reworded } = page;
  if (status.connection === "connecting") {
    return { state: "busy", icon: "wait", word: t("sync.connecting"), why: t("sync.connecting-why") };
  }
  if (status.connection === "ended")
    return { state: "bad", icon: "off", word: t("sync.ended"), why: status.why || t("sync.ended-why") };
  const [, event, why] = UNSENT.exec(status.why) ?? [null, unsent?.event, unsent?.why];
  if (event) return outOfStep("sync.unsent", event, hubWords(why));
  const isOwn = OWN.exec(status.why);
  if (isOwn) return outOfStep("sync.own", isOwn[1], reworded?.(isOwn[2]) || t("sync.wire", { reason: isOwn[2] }));
  if (isAway) return { state: "busy", icon: "question", word: t("sync.away"), why: t("sync.away-why") };
  if (isAsking) return { state: "busy", icon: "wait", word: t("sync.checking"), why: t("sync.asking-why") };
  if (status.behind?.length) {
    return {
      state: "warn",
      icon: "warn",
      word: t("sync.behind"),
      why: t("sync.behind-why", { names: status.behind.map(titled).join(", ") }),
    };
  }
  if (!status.inSync) return { state: "busy", icon: "wait", word: t("sync.checking"), why: status.why };
  return { state: "ok", icon: "check", word: t("sync.ok"), why: "" };
}

function outOfStep(key, event, reason) {
  return { state: "bad", icon: "warn", word: t("sync.out"), why: t(key, { event, reason }) };
}

/**
 * `.client` is the FHIRcastClient. `.actions` are buttons that are shown while this page itself is out of sync:
 * [{label: () => string, run, test?}].
 */
class SyncStatus extends HTMLElement {
  /** A participant's name here. @type {((name: string) => string) | undefined} */
  titled = undefined;
  #client = null;
  #page = { unsent: null, isAway: false, isAsking: false, reworded: undefined };
  #remove = () => {};
  #actions = [];
  // both live regions exist from the start: screen readers ignore text that arrives together with its region
  #said = element("span", { role: "status", class: "sync-word" });
  #alarm = element("span", { "role": "alert", "class": "sync-why", "data-test": "sync-why" });
  #buttons = element("span", { class: "sync-actions" });
  #render = () => this.#show();

  connectedCallback() {
    this.dataset.test ??= "sync-status";
    this.replaceChildren(this.#said, this.#alarm, this.#buttons);
    document.addEventListener("language", this.#render);
    this.#show();
  }

  disconnectedCallback() {
    document.removeEventListener("language", this.#render);
  }

  set client(client) {
    this.#remove();
    this.#client = client;
    const remove = client.onStatus(this.#render);
    if (typeof remove === "function") this.#remove = remove;
    this.#show();
  }

  /** @param {{event: string, why: string} | null} unsent the same as of inWords */
  set unsent(unsent) {
    this.#page.unsent = unsent;
    this.#show();
  }

  /** @param {boolean} isAway the same as of inWords */
  set isAway(isAway) {
    if (isAway === this.#page.isAway) return;
    this.#page.isAway = isAway;
    this.#show();
  }

  /** @param {boolean} isAsking the same as of inWords */
  set isAsking(isAsking) {
    this.#page.isAsking = isAsking;
    this.#show();
  }

  /** @param {(reason: string) => string} reworded the same as of inWords */
  set reworded(reworded) {
    this.#page.reworded = reworded;
    this.#show();
  }

  set actions(actions) {
    this.#actions = actions;
    this.#show();
  }

  #show() {
    if (!this.isConnected || !this.#client) return;
    const said = inWords(this.#client.status, this.titled, this.#page);
    this.dataset.state = said.state;
    this.dataset.connection = this.#client.status.connection;
    if (this.#said.textContent !== said.word)
      this.#said.replaceChildren(icon(said.icon), element("span", {}, said.word));
    if (this.#alarm.textContent !== said.why) this.#alarm.textContent = said.why;
    this.#showActions(said.state === "bad" ? this.#actions : []);
  }

  /** The keyboard focus stays at the button. */
  #showActions(actions) {
    const held = this.#buttons.contains(document.activeElement) ? document.activeElement.dataset.test : "";
    this.#buttons.replaceChildren(
      ...actions.map((each) => button(each.label(), each.run, { test: each.test ?? "sync-action" })),
    );
    if (held) this.#buttons.querySelector(`[data-test="${held}"]`)?.focus();
  }
}

customElements.define("sync-status", SyncStatus);
