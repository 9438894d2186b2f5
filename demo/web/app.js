/**
 * What every page of the demo does: read its settings, log in, join the session, show who and whether it is in step.
 */

import { FHIRcastClient } from "/fhircast-client/index.js";
import { button, element, heightAs, icon } from "./dom.js";
import { fhirServer } from "./fhir.js";
import { followLanguageAround, isEmbedded, tellFrames } from "./frames.js";
import { currentLanguage, merged, setLanguage, translatePage, translator } from "./i18n.js";
import { forgetWhoLeft, leftCard, Logout, whoLeft } from "./logout.js";
import { shared } from "./messages.js";
import { LoginError, beginLogin, finishLogin, forgetLogins, keptLogin } from "./smart.js";
import "./sync.js";
import "./wire.js";

/**
 * @typedef {object} App
 * @property {FHIRcastClient} client
 * @property {object} config /config.json
 * @property {import("./smart.js").Smart} smart the login for FHIR
 * @property {import("./smart.js").Smart} hubSmart the login for the hub; the same where there is but one
 * @property {ReturnType<typeof fhirServer>} fhir
 * @property {(key: string, values?: object) => string} t in the language that is shown when it is called
 * @property {"en"|"no"} language what is shown now
 * @property {{name: string, hpr: string, fhirUser: string}} user
 * @property {{patient?: string, encounter?: string}} launch
 * @property {HTMLElement & {actions: object[], untold: object|null, isAway: boolean}} syncStatus of the header
 * @property {(name: string) => string} titled a participant's name in the language that is shown, where it is of the demo
 * @property {(problem: Error|string) => void} problem shows a sentence, with a button to try again
 * @property {() => boolean} unsaved whether anything would be lost with the page; a page that has such sets it
 * @property {Logout} logout
 */

/**
 * Log in and join. Without a login the browser is sent away, and the promise never resolves; where something is wrong
 * the page says so, and it never resolves either.
 * @param {object} options
 * @param {{en: object, no: object}} options.messages the page's own texts
 * @param {string} options.scope of the login for FHIR, and for the hub where there is no other
 * @param {string} [options.hubScope] of the second login, whose token is for the hub (config.login)
 * @param {string} options.name subscriber name that the other participants see
 * @param {(app: App) => unknown} [options.setUp] registers the handlers, before the client starts
 * @returns {Promise<App>} once the page is set up; the client then goes on connecting by itself
 */
export async function startApp({ messages, scope, hubScope = "", name, setUp }) {
  const t = translator(merged(shared, messages));
  const page = pageOf(t);
  try {
    page.starting();
    const config = await settings(t);
    page.titled(config);
    const left = !new URLSearchParams(location.search).has("launch") && whoLeft();
    if (left) {
      page.left(() => leftCard(t, left));
      return new Promise(() => {});
    }
    const { smart, hubSmart } = await loggedIn(config, scope, hubScope, t);
    const app = appOf({ config, smart, hubSmart, t, name, page });
    app.logout = new Logout(app, page);
    await setUp?.(app);
    page.ready(app);
    join(app, page);
    return app;
  } catch (error) {
    page.problem(error);
    return new Promise(() => {});
  }
}

async function settings(t) {
  const answer = await fetch("/config.json").catch(() => null);
  if (!answer?.ok) throw new LoginError(t("app.no-config"), false);
  return answer.json();
}

/** Both logins, one after the other: each leaves the page and comes back to it. */
async function loggedIn(config, scope, hubScope, t) {
  const query = new URLSearchParams(location.search);
  const [launch, server] = [query.get("launch"), query.get("iss")];
  if (launch) {
    // a launch from elsewhere would send the login to a server of its choosing
    if (![config.fhir, config.issuer].includes(server)) throw new LoginError(t("login.foreign", { server }));
    forgetLogins();
    forgetWhoLeft();
  } else {
    await finishLogin();
  }
  const first = {
    key: config.clientId,
    server: server ?? config.issuer,
    clientId: config.clientId,
    scope,
    aud: config.fhir,
    launch,
  };
  const smart = keptLogin(first.key) ?? (await beginLogin(first));
  if (!smart.context["hub.topic"]) throw new LoginError(t("app.no-session"));
  if (!hubScope) return { smart, hubSmart: smart };
  const clientId = `${config.clientId}-login`;
  const loginHint = smart.context.hpr_number;
  const second = { key: clientId, server: config.login, clientId, scope: hubScope, aud: config.fhir, loginHint };
  return { smart, hubSmart: keptLogin(clientId) ?? (await beginLogin(second)) };
}

/** @returns {App} */
function appOf({ config, smart, hubSmart, t, name, page }) {
  const { context } = smart;
  let asked = false;
  const token = async () => {
    const isAgain = asked;
    asked = true; // asked again, the token before was refused or is to outlive a new lease
    try {
      return await (isAgain ? hubSmart.freshToken() : hubSmart.accessToken());
    } catch (error) {
      if (error.final) page.problem(error); // the client goes on trying, which will not help
      throw error;
    }
  };
  return {
    config,
    smart,
    hubSmart,
    t,
    get language() {
      return currentLanguage();
    },
    client: new FHIRcastClient(context["hub.url"], context["hub.topic"], { token, name }),
    fhir: fhirServer(config.fhir, smart),
    user: { name: context.name ?? "", hpr: context.hpr_number ?? "", fhirUser: context.fhirUser ?? "" },
    launch: { patient: context.patient, encounter: context.encounter },
    titled: (name) => config.titles.find(({ en }) => en === name)?.[currentLanguage()] ?? name,
    problem: page.problem,
    syncStatus: element("sync-status"),
    unsaved: () => false,
  };
}

/** The client connects in the background: a page whose hub is away is still a page. */
async function join(app, page) {
  addEventListener("pagehide", (event) => event.persisted || app.client.stop());
  askAfterReturns(app);
  try {
    await app.client.start();
    await app.client.run();
  } catch (error) {
    if (!page.hasProblem()) page.problem(error, app.t("app.hub-refused"));
  }
}

/** Whoever was away may have missed the logout. The login server knows of it, and `Logout` hears. */
function askAfterReturns({ client, smart }) {
  let before = "";
  let wasHere = false;
  client.onStatus(({ connection }) => {
    if (connection === before) return;
    if (connection === "connected" && wasHere) smart.freshToken().catch(() => {});
    wasHere ||= connection === "connected";
    before = connection;
  });
}

/** The page's frame: header, and the place where problems are told. */
function pageOf(t) {
  const header = document.querySelector("body > header") ?? element("header");
  const place = element("div", { "class": "problem", "data-test": "problem" });
  let told = null;
  let isLeft = false;
  if (!header.isConnected) document.body.prepend(header);
  header.classList.add("header");
  header.after(place);
  heightAs("--header", header);
  place.setAttribute("role", "main"); // until the page's own is shown
  if (isEmbedded()) document.documentElement.classList.add("embedded");
  document.addEventListener("language", () => {
    translatePage(t);
    told?.();
  });
  followLanguageAround();
  translatePage(t);

  const problem = (error, before = "") => {
    if (isLeft) return;
    const text = error instanceof Error ? error.message : String(error);
    told = () => place.replaceChildren(problemCard(t, [before, text].filter(Boolean).join(" "), error));
    told();
  };
  return {
    problem,
    hasProblem: () => Boolean(told),
    starting: () =>
      place.replaceChildren(element("p", { role: "status", class: "starting" }, icon("wait"), t("app.starting"))),
    titled(config) {
      const show = () => {
        const title = config.title[currentLanguage()];
        document.title = title;
        mountHeader(header, title, t);
      };
      document.addEventListener("language", show);
      show();
    },
    left(card) {
      isLeft = true;
      document.body.classList.add("left");
      place.setAttribute("role", "main");
      told = () => place.replaceChildren(card());
      told();
    },
    empty() {
      for (const each of [...document.body.children]) if (each !== header && each !== place) each.remove();
      for (const each of header.querySelectorAll(".header-sync, .header-user, wire-panel")) each.replaceChildren();
    },
    ready(app) {
      if (isLeft) return;
      place.replaceChildren();
      place.removeAttribute("role");
      document.documentElement.dataset.ready = "yes";
      joinHeader(header, app);
    },
  };
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
  const parts = header.querySelector(".header-title")
    ? null
    : [
        element("div", { class: "header-title" }),
        element("div", { class: "header-sync" }),
        element(
          "div",
          { class: "header-tools" },
          element("div", { class: "languages", role: "group" }),
          element("div", { class: "header-user" }),
        ),
      ];
  if (parts) header.replaceChildren(...parts);
  // the page may have a heading of its own; there is but one h1
  const heading = document.querySelector("main h1") ? "p" : "h1";
  header.querySelector(".header-title").replaceChildren(icon("logo"), element(heading, { class: "title" }, title));
  const languages = header.querySelector(".languages");
  languages.setAttribute("aria-label", t("app.language"));
  languages.replaceChildren(
    ...[
      ["en", "EN", "English"],
      ["no", "NO", "Norsk"],
    ].map(([code, short, whole]) =>
      button(short, () => switchLanguage(code, languages), {
        kind: "quiet",
        label: `${short} ${whole}`,
        pressed: currentLanguage() === code,
        test: `language-${code}`,
      }),
    ),
  );
}

function switchLanguage(code, languages) {
  setLanguage(code);
  languages.querySelector(`[data-test=language-${code}]`).focus();
  tellFrames(code);
}

/** What needs a login and a client: in step or not, the messages, the user. */
function joinHeader(header, app) {
  const status = app.syncStatus;
  const wire = element("wire-panel");
  header.querySelector(".header-sync").replaceChildren(status);
  header.querySelector(".languages").after(wire);
  status.titled = app.titled;
  status.client = app.client;
  wire.client = app.client;
  const user = header.querySelector(".header-user");
  const show = () => {
    const name =
      app.user.name &&
      element(
        "span",
        { "class": "user-name", "data-test": "user" },
        icon("user"),
        element("span", { class: "visually-hidden" }, `${app.t("app.user")}: `),
        app.user.name,
      );
    user.replaceChildren(
      ...[
        name,
        !app.smart.launched && button(app.t("app.logout"), () => app.logout.ask(), { kind: "quiet", test: "logout" }),
      ].filter(Boolean),
    );
  };
  document.addEventListener("language", show);
  show();
}
