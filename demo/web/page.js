/** The frame of each page: its header, and a place for problems and for the user's logout. */

import { button, element, heightAs, icon } from "./dom.js";
import { followLanguageAround, isEmbedded, tellFrames } from "./frames.js";
import { currentLanguage, setLanguage, translatePage } from "./i18n.js";
import { LoginError, forgetLogins } from "./smart.js";

/** Code, short name, whole name. */
const LANGUAGES = [
  ["en", "EN", "English"],
  ["no", "NO", "Norsk"],
];

/** The frame of a page. Its texts are rendered again when the language changes. */
export class Page {
  #t;
  #header = document.querySelector("body > header") ?? element("header");
  #place = element("div", { "class": "problem", "data-test": "problem" });
  #renderProblem = null;
  #isLeft = false;

  /** @param {(key: string, values?: object) => string} t the texts of the page */
  constructor(t) {
    this.#t = t;
    if (!this.#header.isConnected) document.body.prepend(this.#header);
    this.#header.classList.add("header");
    this.#header.after(this.#place);
    heightAs("--header", this.#header);
    this.#place.setAttribute("role", "main"); // until the page shows its own
    if (isEmbedded()) document.documentElement.classList.add("embedded");
    document.addEventListener("language", () => {
      translatePage(t);
      this.#renderProblem?.();
    });
    followLanguageAround();
    translatePage(t);
  }

  /** Whether a problem is shown. */
  get hasProblem() {
    return Boolean(this.#renderProblem);
  }

  /** The login is under way. */
  starting() {
    const text = this.#t("app.starting");
    this.#place.replaceChildren(element("p", { role: "status", class: "starting" }, icon("wait"), text));
  }

  /** @param {{title: {en: string, no: string}}} config */
  titled({ title }) {
    const show = () => {
      document.title = title[currentLanguage()];
      mountHeader(this.#header, document.title, this.#t);
    };
    document.addEventListener("language", show);
    show();
  }

  /** The page can be used. @param {import("./app.js").App} app */
  ready(app) {
    if (this.#isLeft) return;
    this.#place.replaceChildren();
    this.#place.removeAttribute("role");
    document.documentElement.dataset.ready = "yes";
    joinHeader(this.#header, app);
  }

  /**
   * The page cannot go on.
   * @param {Error|string} error
   * @param {string} [before] a sentence in front of the error's own
   */
  problem(error, before = "") {
    if (this.#isLeft) return;
    const text = error instanceof Error ? error.message : String(error);
    this.#tell(() => problemCard(this.#t, [before, text].filter(Boolean).join(" "), error));
  }

  /** The user has logged out: only the card is shown. @param {() => HTMLElement} card */
  left(card) {
    this.#isLeft = true;
    document.body.classList.add("left");
    this.#place.setAttribute("role", "main");
    this.#tell(card);
    if (!isEmbedded()) this.#place.querySelector("[tabindex]")?.focus(); // the focused element is gone
  }

  /** Removes everything but the header's title and the messages. */
  empty() {
    for (const each of [...document.body.children]) if (![this.#header, this.#place].includes(each)) each.remove();
    for (const each of this.#header.querySelectorAll(".header-sync, .header-user, wire-panel")) each.replaceChildren();
  }

  #tell(card) {
    this.#renderProblem = () => this.#place.replaceChildren(card());
    this.#renderProblem();
  }
}

function problemCard(t, text, error) {
  const relogin = error instanceof LoginError ? error.final : [401, 403].includes(error?.status);
  const again = () => {
    if (relogin) forgetLogins();
    location.replace(location.pathname);
  };
  return element(
    "div",
    { class: "alert", role: "alert" },
    icon("warn"),
    element(
      "div",
      { class: "alert-text" },
      element("strong", {}, t("app.problem")),
      element("p", { "data-test": "problem-text" }, text),
    ),
    button(t(relogin ? "app.login-again" : "app.again"), again, { kind: "primary", test: "try-again" }),
  );
}

/** Title and language, which need no login. */
function mountHeader(header, title, t) {
  if (!header.querySelector(".header-title")) header.replaceChildren(...headerParts());
  // the page may have its own h1, and there is only one
  const heading = document.querySelector("main h1") ? "p" : "h1";
  header.querySelector(".header-title").replaceChildren(icon("logo"), element(heading, { class: "title" }, title));
  const languages = header.querySelector(".languages");
  languages.setAttribute("aria-label", t("app.language"));
  languages.replaceChildren(...LANGUAGES.map((language) => languageButton(language, languages)));
}

function headerParts() {
  return [
    element("div", { class: "header-title" }),
    element("div", { class: "header-sync" }),
    element(
      "div",
      { class: "header-tools" },
      element("div", { class: "languages", role: "group" }),
      element("div", { class: "header-user" }),
    ),
  ];
}

function languageButton([code, short, whole], languages) {
  return button(short, () => switchLanguage(code, languages), {
    kind: "quiet",
    label: `${short} ${whole}`,
    pressed: currentLanguage() === code,
    test: `language-${code}`,
  });
}

function switchLanguage(code, languages) {
  setLanguage(code);
  languages.querySelector(`[data-test=language-${code}]`).focus();
  tellFrames(code);
}

/** Parts that need a login and a client: status, messages, user. */
function joinHeader(header, app) {
  const status = app.syncStatus;
  const wire = element("wire-panel");
  header.querySelector(".header-sync").replaceChildren(status);
  header.querySelector(".languages").after(wire);
  status.titled = app.titled;
  status.client = app.client;
  wire.client = app.client;
  const show = () => header.querySelector(".header-user").replaceChildren(...userParts(app));
  document.addEventListener("language", show);
  show();
}

/** The user, and the logout. An application that the record launched logs out with the record. */
function userParts({ t, user, smart, logout }) {
  const before = element("span", { class: "visually-hidden" }, `${t("app.user")}: `);
  const name = element("span", { "class": "user-name", "data-test": "user" }, icon("user"), before, user.name);
  const leave = button(t("app.logout"), () => logout.ask(), { kind: "quiet", test: "logout" });
  return [user.name && name, !smart.launched && leave].filter(Boolean);
}
