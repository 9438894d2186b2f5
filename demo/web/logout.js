/** Logout, which ends the session in every window: how it is published and followed, and what is shown afterwards. */

import { confirmed } from "./dialog.js";
import { button, element, icon } from "./dom.js";
import { followLogoutAround, isEmbedded, logOutFrames } from "./frames.js";
import { hubWords } from "./hub-words.js";
import { ENDING, endLogins } from "./smart.js";

/** The key under which the window remembers the user who has logged out, until the next login. */
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
 * @property {string} name of the user who has logged out
 * @property {boolean} [session] whether it is only known that the session has ended
 * @property {boolean} lost whether unsaved data was lost here
 * @property {string} unsent why the others do not know; "" where they do
 * @property {boolean} [trying] whether the client retries
 * @property {boolean} open whether the login server may take the next user for this one
 */

/** @returns {Left|null} the user who has logged out in this window, if no user has logged in since */
export function whoLeft() {
  return JSON.parse(sessionStorage.getItem(LEFT) ?? "null");
}

/** A user begins. */
export function forgetWhoLeft() {
  sessionStorage.removeItem(LEFT);
}

/** Ways in which the user of a page logs out: in this page, in another one, or at the login server. */
export class Logout {
  #app;
  #page;
  #client;
  /** @type {Left|null} */
  #left = null;
  #ended = null;
  #isEnding = false;
  /** Whether the hub refused the token. */
  #isRefused = false;
  #warn = (event) => event.preventDefault();

  /**
   * @param {import("./app.js").App} app
   * @param {{left(card: () => HTMLElement): void, empty(): void}} page shows only the card, and removes everything else
   */
  constructor(app, page) {
    this.#app = app;
    this.#page = page;
    this.#client = app.client;
    app.client.on(LOGOUT, () => this.follow());
    // its handler may wait for others, such as that of a study that loads slowly
    app.client.onWire(({ kind, body }) => kind === "event" && isLogout(body) && this.follow());
    // after a logout here, only the hub tells that the others know
    const follow = (how) => this.#left || this.follow(how);
    document.addEventListener("logged-out", () => follow());
    document.addEventListener("session-ended", () => follow({ session: true }));
    followLogoutAround(app.config.apps.ehr, () => {
      follow();
      return this.#ended;
    });
    addEventListener("beforeunload", (event) => this.#left || (app.unsaved() && event.preventDefault()));
  }

  /** Asks the user first: other applications cannot refuse, and unsaved data is lost. */
  async ask() {
    const { t, user, unsaved } = this.#app;
    const texts = [t("logout.all", { name: user.name }), t(unsaved() ? "logout.unsaved" : "logout.lost")];
    const [title, yes, no] = ["title", "yes", "no"].map((part) => t(`logout.${part}`));
    if ((await confirmed({ title, texts, yes, no, test: "logout-sure" })) && !this.#left) await this.#leave();
  }

  /**
   * "Upon receiving a UserLogout event, the Subscriber SHOULD logout the user or respond with a SyncError" (3.2.2).
   * Otherwise the page would show patients to the next user. An own event comes back here once the hub has it.
   * @param {{session?: boolean}} [how]
   */
  follow(how = {}) {
    if (!this.#left) this.#begin({ unsent: "", ...how });
    this.#end(); // not awaited: the hub waits for the acknowledgement
  }

  /** Whether the user is logging out, or has logged out. */
  get hasBegun() {
    return Boolean(this.#left);
  }

  /** There will be no new token. The client retries as long as the hub accepts the last one. */
  giveUp() {
    if (this.#left.trying && this.#isRefused) this.#tellUnsent(false);
  }

  async #leave() {
    this.#begin({ unsent: this.#app.t("hub.silent") });
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

  /** Hides everything. The login ends even where the hub is away. */
  #begin(how) {
    const { t, user, unsaved } = this.#app;
    this.#left = { name: user.name, lost: unsaved(), open: true, ...how };
    const own = endLogins(this.#app.smart, this.#app.hubSmart).then((all) => (this.#left.open = !all));
    this.#ended = Promise.all([own, logOutFrames(ENDING)]);
    this.#remember();
    this.#page.left(() => leavingCard(t));
  }

  /** The page loads again, so that no data of the former user stays in its memory. */
  async #end() {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#left.unsent = "";
    removeEventListener("beforeunload", this.#warn);
    await this.#ended;
    this.#remember();
    await new Promise((over) => setTimeout(over, FAREWELL));
    this.#page.empty(); // a frame in it must not ask whether to stay
    await this.#client.stop();
    location.replace(location.pathname);
  }

  /** The client retries. Until then, the card says that the others do not know. */
  async #stayUntilTold(error) {
    if (this.#isEnding) return; // the answer was lost, but the echo came
    this.#left.unsent = hubWords(error.message);
    await this.#ended;
    this.#page.empty();
    this.#remember();
    if (this.#left.unsent) this.#tellUnsent(!error.isRefusal);
  }

  #tellUnsent(trying) {
    this.#left.trying = trying;
    if (!trying) removeEventListener("beforeunload", this.#warn);
    this.#page.left(() => leftCard(this.#app.t, this.#left));
  }

  #remember() {
    for (const name of Object.keys(sessionStorage)) if (!KEPT.includes(name)) sessionStorage.removeItem(name);
    // a reload stops the retries
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
 * The user who has logged out, and information for the next user.
 * @param {(key: string, values?: object) => string} t
 * @param {Left} left
 */
export function leftCard(t, left) {
  const says = [
    t("left.text"),
    left.lost && t("left.lost"),
    left.unsent && t(left.trying ? "left.trying" : "left.unsent", { why: left.unsent }),
    left.open && t("left.open", left),
  ];
  const again = () => {
    forgetWhoLeft();
    location.replace(location.pathname);
  };
  const title = left.session ? t("left.session") : t("left.title", { name: left.name || t("left.somebody") });
  const isAlert = left.unsent || left.open;
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
    // a login here would stop the client's retries, and the others would never be told
    !isEmbedded() && !left.trying && button(t("left.in"), again, { kind: "primary", test: "log-in" }),
  );
}
