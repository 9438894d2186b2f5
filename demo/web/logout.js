/** Logging out, which ends the session in every window: how it is told and followed, and what is seen afterwards. */

import { confirmed } from "./dialog.js";
import { button, element, icon } from "./dom.js";
import { followLogoutAround, isEmbedded, logOutFrames } from "./frames.js";
import { hubWords } from "./hub-words.js";
import { ENDING, endLogins } from "./smart.js";

/** Under this name the window remembers who has left, until somebody logs in. */
const LEFT = "logged-out";
const KEPT = ["language", "smart.logged-out"];
const LOGOUT = "UserLogout";
const UNAUTHORIZED = 401;
const REASONS = "http://fhircast.hl7.org/CodeSystem/fhircast-codesystem";
const PROFILE = "http://fhircast.hl7.org/StructureDefinition/fhircast-logout";
/** Milliseconds for the acknowledgement, and for the hub's denial of all subscriptions. */
const FAREWELL = 100;

/**
 * @typedef {object} Left
 * @property {string} name who has logged out
 * @property {boolean} [session] whether all that is known is that the session has ended
 * @property {boolean} lost whether something was not saved here
 * @property {string} untold why the others do not know; "" where they do
 * @property {boolean} [trying] whether they are told again
 * @property {boolean} open whether the login server may take the next user for this one
 */

/** @returns {Left|null} who has logged out in this window, if nobody has logged in since */
export function whoLeft() {
  return JSON.parse(sessionStorage.getItem(LEFT) ?? "null");
}

/** Somebody begins. */
export function forgetWhoLeft() {
  sessionStorage.removeItem(LEFT);
}

/** How the user of a page leaves: by this page, by another one, or by the login server's word. */
export class Logout {
  #app;
  #page;
  #client;
  /** @type {Left|null} */
  #left = null;
  #ended = null;
  #isEnding = false;
  /** Whether the hub did not take the token. */
  #isRefused = false;
  #warn = (event) => event.preventDefault();

  /**
   * @param {import("./app.js").App} app
   * @param {{left(card: () => HTMLElement): void, empty(): void}} page shows the card alone; and throws all else away
   */
  constructor(app, page) {
    this.#app = app;
    this.#page = page;
    this.#client = app.client;
    app.client.on(LOGOUT, () => this.follow());
    // its handler may have to wait for others, such as that of a study which is long in coming
    app.client.onWire(({ kind, body }) => kind === "event" && isLogout(body) && this.follow());
    // of a logout that has begun here, only the hub says that the others know
    const follow = (how) => this.#left || this.follow(how);
    document.addEventListener("logged-out", () => follow());
    document.addEventListener("session-ended", () => follow({ session: true }));
    followLogoutAround(app.config.apps.ehr, () => {
      follow();
      return this.#ended;
    });
    addEventListener("beforeunload", (event) => this.#left || (app.unsaved() && event.preventDefault()));
  }

  /** The user is asked first: nobody can refuse, and what is not saved is lost. */
  async ask() {
    const { t, user, unsaved } = this.#app;
    const texts = [t("logout.all", { name: user.name }), t(unsaved() ? "logout.unsaved" : "logout.lost")];
    const [title, yes, no] = ["title", "yes", "no"].map((part) => t(`logout.${part}`));
    if ((await confirmed({ title, texts, yes, no, test: "logout-sure" })) && !this.#left) await this.#leave();
  }

  /**
   * "Upon receiving a UserLogout event, the Subscriber SHOULD logout the user or respond with a SyncError" (3.2.2).
   * A page that stayed would show patients to whoever comes next. An own event comes here once the hub has it at last.
   * @param {{session?: boolean}} [how]
   */
  follow(how = {}) {
    if (!this.#left) this.#begin({ untold: "", ...how });
    this.#end(); // not awaited: the hub waits for the acknowledgement
  }

  /** Whether the user is about to leave, or has left. */
  get hasBegun() {
    return Boolean(this.#left);
  }

  /** No new token is to be had. The client tells the others as long as the hub takes the last one. */
  giveUp() {
    if (this.#left.trying && this.#isRefused) this.#tellUntold(false);
  }

  async #leave() {
    this.#begin({ untold: this.#app.t("hub.silent") });
    this.#client.onWire(({ kind, status }) => {
      if (kind === "publish") this.#isRefused = status === UNAUTHORIZED;
    });
    addEventListener("beforeunload", this.#warn);
    const failure = await this.#client.publish(LOGOUT, context()).then(
      () => null,
      (error) => error,
    );
    await (failure ? this.#stayUntilTold(failure) : this.#end());
  }

  /** Nothing is to be seen from now on. The login ends even where the hub is away. */
  #begin(how) {
    const { t, user, unsaved } = this.#app;
    this.#left = { name: user.name, lost: unsaved(), open: true, ...how };
    const own = endLogins(this.#app.smart, this.#app.hubSmart).then((all) => (this.#left.open = !all));
    this.#ended = Promise.all([own, logOutFrames(ENDING)]);
    this.#remember();
    this.#page.left(() => leavingCard(t));
  }

  /** The page begins anew, so that nothing of the former user is left in its memory. */
  async #end() {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#left.untold = "";
    removeEventListener("beforeunload", this.#warn);
    await this.#ended;
    this.#remember();
    await new Promise((over) => setTimeout(over, FAREWELL));
    this.#page.empty(); // a frame in it must not ask whether to stay
    await this.#client.stop();
    location.replace(location.pathname);
  }

  /** The client tells the others again and again; meanwhile nobody may think that they know. */
  async #stayUntilTold(error) {
    if (this.#isEnding) return; // the answer was lost, and the hub has told the event back
    this.#left.untold = hubWords(error.message);
    await this.#ended;
    this.#page.empty();
    this.#remember();
    if (this.#left.untold) this.#tellUntold(!error.isRefusal);
  }

  #tellUntold(trying) {
    this.#left.trying = trying;
    if (!trying) removeEventListener("beforeunload", this.#warn);
    this.#page.left(() => leftCard(this.#app.t, this.#left));
  }

  #remember() {
    for (const name of Object.keys(sessionStorage)) if (!KEPT.includes(name)) sessionStorage.removeItem(name);
    // whoever reloads stops the trying
    sessionStorage.setItem(LEFT, JSON.stringify({ ...this.#left, trying: false }));
  }
}

function isLogout(message) {
  return message.event["hub.event"].toLowerCase() === LOGOUT.toLowerCase();
}

/** "The context SHOULD contain a Parameters resource according to the following profile Logout Context" (3.2.2). */
function context() {
  const parameter = [{ name: "code", valueCoding: { system: REASONS, code: "user-initiated" } }];
  return [{ key: "parameters", resource: { resourceType: "Parameters", meta: { profile: [PROFILE] }, parameter } }];
}

function leavingCard(t) {
  return element("p", { role: "status", class: "starting" }, icon("wait"), t("logout.leaving"));
}

/**
 * Who has left, and what the next user must know.
 * @param {(key: string, values?: object) => string} t
 * @param {Left} left
 */
export function leftCard(t, left) {
  const says = [
    t("left.text"),
    left.lost && t("left.lost"),
    left.untold && t(left.trying ? "left.trying" : "left.untold", { why: left.untold }),
    left.open && t("left.open", left),
  ];
  const again = () => {
    forgetWhoLeft();
    location.replace(location.pathname);
  };
  const title = left.session ? t("left.session") : t("left.title", { name: left.name || t("left.somebody") });
  const isAlert = left.untold || left.open;
  return element(
    "div",
    { "class": isAlert ? "alert" : "card left-card", "role": isAlert ? "alert" : "status", "data-test": "logged-out" },
    icon(isAlert ? "warn" : "user"),
    element(
      "div",
      { class: "alert-text" },
      element("h2", { "data-test": "who-left", "tabindex": "-1" }, title),
      ...says.filter(Boolean).map((text) => element("p", {}, text)),
    ),
    // a login here would end the client's tries, and the others would never be told
    !isEmbedded() && !left.trying && button(t("left.in"), again, { kind: "primary", test: "log-in" }),
  );
}
