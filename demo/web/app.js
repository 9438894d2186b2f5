/**
 * The common part of every page: reads the configuration, logs in, joins the session, shows the user and the status.
 */

import { FHIRcastClient } from "/fhircast-client/index.js";
import { element } from "./dom.js";
import { fhirServer } from "./fhir.js";
import { followLogoutAround } from "./frames.js";
import { currentLanguage, merged, translator } from "./i18n.js";
import { forgetWhoLeft, leftCard, Logout, whoLeft } from "./logout.js";
import { shared } from "./messages.js";
import { Page } from "./page.js";
import { LoginError, beginLogin, finishLogin, forgetLogins, keptLogin } from "./smart.js";
import "./sync-status.js";
import "./wire-panel.js";

/** Milliseconds between two requests to a login server that does not answer. */
const AGAIN = 2000;

/**
 * @typedef {object} App
 * @property {FHIRcastClient} client
 * @property {object} config /config.json
 * @property {import("./smart.js").Smart} smart the login for FHIR
 * @property {import("./smart.js").Smart} hubSmart the login for the hub; the same object where there is one login
 * @property {ReturnType<typeof fhirServer>} fhir
 * @property {(key: string, values?: object) => string} t in the language at the time of the call
 * @property {"en"|"no"} language the current one
 * @property {{name: string, hpr: string, fhirUser: string}} user
 * @property {{patient?: string, encounter?: string}} launch
 * @property {HTMLElement & {actions: object[], unsent: object|null, isAway: boolean}} syncStatus of the header
 * @property {(name: string) => string} titled a participant's name in the current language, for applications of the
 *   demo
 * @property {(problem: Error|string) => void} problem shows a sentence, with a button to try again
 * @property {(error: Error) => void} giveUp the login has ended
 * @property {() => boolean} unsaved whether unsaved data would be lost with the page; set by pages that have such data
 * @property {Logout} logout
 */

/**
 * Log in and join. Without a login, the browser is redirected and the promise never resolves. After an error, the page
 * shows it and the promise never resolves either.
 * @param {object} options
 * @param {{en: object, no: object}} options.messages the page's own texts
 * @param {string} options.scope of the login for FHIR, and for the hub where it has no login of its own
 * @param {string} [options.hubScope] of the second login, whose token is for the hub (config.login)
 * @param {string} options.name subscriber.name
 * @param {(app: App) => unknown} [options.setUp] registers the handlers, before the client starts
 * @returns {Promise<App>} once the page is set up. The client connects in the background
 */
export async function startApp({ messages, scope, hubScope = "", name, setUp }) {
  const t = translator(merged(shared, messages));
  const page = new Page(t);
  try {
    page.starting();
    const config = await settings(t);
    page.titled(config);
    const left = !new URLSearchParams(location.search).has("launch") && whoLeft();
    if (left) {
      page.left(() => leftCard(t, left));
      followLogoutAround(config.apps.ehr, async () => {});
      return new Promise(() => {});
    }
    const { smart, hubSmart } = await loggedIn(config, scope, hubScope, t);
    const app = appOf({ config, smart, hubSmart, t, name, page });
    app.logout = new Logout(app, page);
    // its user may have logged out since
    addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
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

/** Both logins, one after the other: each redirects the page. */
async function loggedIn(config, scope, hubScope, t) {
  const query = new URLSearchParams(location.search);
  const [launch, server] = [query.get("launch"), query.get("iss")];
  if (launch) {
    // a launch from another site would send the login to its own server
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
    // of the record: the login server takes no other user without a question
    loginHint: query.get("login_hint"),
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
  const giveUp = (error) => {
    if (app.logout.hasBegun) return app.logout.giveUp();
    page.problem(error);
    app.client.stop(); // it cannot follow any more
  };
  const token = hubToken(hubSmart, giveUp);
  const app = {
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
    problem: (problem) => page.problem(problem),
    giveUp,
    syncStatus: element("sync-status"),
    unsaved: () => false,
  };
  return app;
}

/** The client's token function. `giveUp` is called when a login has ended. */
function hubToken(hubSmart, giveUp) {
  let asked = false;
  return async () => {
    const isAgain = asked;
    asked = true; // called again: the last token was refused, or a new lease needs a longer one
    try {
      return await (isAgain ? hubSmart.freshToken() : hubSmart.accessToken());
    } catch (error) {
      if (error.final) giveUp(error);
      throw error;
    }
  };
}

/** The client connects in the background: a page whose hub is away is still usable. */
async function join(app, page) {
  addEventListener("pagehide", (event) => event.persisted || app.client.stop());
  askWhenConnected(app);
  try {
    await app.client.start();
    await app.client.run();
  } catch (error) {
    if (!page.hasProblem) page.problem(error, app.t("app.hub-refused"));
  }
}

/**
 * A page that was away may have missed the logout. The login server knows, and `Logout` asks it. Until that server has
 * answered, the page does not show "in step".
 */
function askWhenConnected({ client, smart, syncStatus, giveUp }) {
  let before = "";
  let turn = 0;
  const ask = async (own) => {
    syncStatus.isAsking = true;
    try {
      if (await smart.namesSession()) {
        if (own === turn) syncStatus.isAsking = false;
        return;
      }
    } catch (error) {
      if (error.final) return giveUp(error);
    }
    setTimeout(() => own === turn && ask(own), AGAIN);
  };
  client.onStatus(({ connection }) => {
    if (connection === "connected" && before !== connection) ask(++turn);
    before = connection;
  });
}
