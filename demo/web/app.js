/**
 * What every page of the demo does: read its settings, log in, join the session, show who and whether it is in step.
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
import "./sync.js";
import "./wire.js";

/** Milliseconds between two questions to a login server that gives no answer. */
const AGAIN = 2000;

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
 * @property {(error: Error) => void} giveUp the login has ended
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
    addEventListener("pageshow", ({ persisted }) => persisted && location.reload()); // its user may have left since
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

/** The client's token function. `giveUp` hears of a login that has ended. */
function hubToken(hubSmart, giveUp) {
  let asked = false;
  return async () => {
    const isAgain = asked;
    asked = true; // asked again, the token before was refused or is to outlive a new lease
    try {
      return await (isAgain ? hubSmart.freshToken() : hubSmart.accessToken());
    } catch (error) {
      if (error.final) giveUp(error);
      throw error;
    }
  };
}

/** The client connects in the background: a page whose hub is away is still a page. */
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
 * A page that was away may have missed the logout. The login server knows of it, and `Logout` hears. Until that server has
 * answered, the page does not say "in step".
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
