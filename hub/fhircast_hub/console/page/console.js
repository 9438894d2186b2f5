/** The operator's console: logs in, follows the hub's stream, and shows it. Texts come into the page as text, never as markup. */

import { by, setText, show } from "./dom.js";
import {
  beginLogin,
  finishLogin,
  hasDigest,
  isLoopback,
  keepView,
  keptView,
  LoginError,
  tokenOfFragment,
} from "./login.js";
import { Stream } from "./stream.js";
import { Budgets, Issuers, age, Nodes, Overview, SessionDetail, SessionList } from "./views.js";
import { currentLanguage, setLanguage, t, translatePage } from "./words.js";

/** Milliseconds after the last key until a search begins. */
const TYPING = 300;
/** Seconds before the end of a token from which on the page asks for another one. */
const RENEWED = 30;
const NEEDED = ["time", "hub", "issuers", "nodes", "budgets", "sessions"];

const views = {
  overview: new Overview(),
  list: new SessionList((hash) => choose(hash)),
  detail: new SessionDetail(),
  issuers: new Issuers(),
  nodes: new Nodes(),
  budgets: new Budgets((user) => find(user)),
};

/** The newest parts of the stream, the seconds that the hub's clock is ahead of this machine's, and when something came. */
let [parts, ahead, cameAt] = [{}, 0, 0];
let [token, chosen, search] = ["", "", ""];
/** @type {Stream|null} */
let stream = null;
let connection = "none";
/** The hub's sentence about the connection, and the number of times that the page began to follow. */
let [sentence, follows] = ["", 0];
/** Whether the token is of the authorization server, and whether another one is asked for. */
let [byServer, isRenewing] = [false, false];
/** How to log in. @type {{login: any, hasLogin: boolean, fault: string}} */
let config = { login: null, hasLogin: false, fault: "" };
/** Why the page asks to log in: a key and its values. @type {[string, Record<string, unknown>]} */
let why = ["", {}];

begin();

async function begin() {
  translatePage();
  listen();
  setInterval(render, 1000);
  const given = tokenOfFragment();
  try {
    config = await (await fetch("/console/config", { cache: "no-store" })).json();
    token = given || (await finishLogin(config.login));
  } catch (error) {
    why = error instanceof LoginError ? [error.key, { why: error.why }] : ["login.away", {}];
  }
  ({ chosen, search } = keptView());
  by("search").value = search;
  byServer = Boolean(token && !given);
  if (token) follow();
  else askToLogIn();
}

/** Shortly before the token ends, ask the server for another one, if its own session lives. Not while somebody writes. */
function renew() {
  const { expires } = parts.time;
  const left = expires - (Date.now() / 1000 + ahead);
  if (!byServer || isRenewing || !config.login || left > RENEWED || left <= 0) return;
  if (by("ending").open || document.activeElement === by("search")) return;
  isRenewing = true;
  keepView({ chosen, search });
  beginLogin(config.login, currentLanguage(), { quiet: true }).catch(() => {}); // then the token expires
}

function listen() {
  for (const each of document.querySelectorAll("[data-language]")) {
    each.addEventListener("click", () => {
      setLanguage(each.dataset.language);
      renderLogin();
      render();
    });
  }
  by("leave").addEventListener("click", () => leave());
  by("login-begin").addEventListener("click", () => {
    keepView({ chosen, search });
    beginLogin(config.login, currentLanguage()).catch((error) => {
      why = ["login.refused", { why: error.message }];
      renderLogin();
    });
  });
  by("paste").addEventListener("submit", (event) => {
    event.preventDefault();
    token = by("token").value.trim();
    by("token").value = "";
    follow();
    by("main").focus();
  });
  let typing = 0;
  by("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      search = by("search").value.trim();
      follow();
    }, TYPING);
  });
  document.addEventListener("keydown", onKey);
  by("close").addEventListener("click", () => closeSession());
  // A page whose place was taken by another one follows again when somebody looks at it.
  const look = () => connection === "taken" && document.visibilityState === "visible" && follow();
  document.addEventListener("visibilitychange", look);
  window.addEventListener("focus", look);
  listenToEnding();
}

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || by("ending").open || by("shown").hidden) return;
  const types = event.target.matches("input:not([type=checkbox])");
  if (event.key === "/" && !types && by("shortcut").checked) {
    event.preventDefault();
    by("search").focus();
  } else if (event.key === "Escape" && chosen && !types) {
    closeSession();
  }
}

/** Search for the sessions of a user. */
function find(user) {
  search = by("search").value = user;
  follow();
  by("sessions").focus();
}

/** Choose a session: its detail comes with the stream, and gets the focus. */
function choose(hash) {
  chosen = hash;
  delete parts.session;
  follow();
  // In a wide window the session stands beside the list, whatever the scroll position.
  by("session").focus({ preventScroll: matchMedia("(min-width: 70rem)").matches });
}

function closeSession() {
  const from = by("list").querySelector(`tr[data-key="${CSS.escape(chosen)}"] button`);
  chosen = "";
  delete parts.session;
  follow();
  (from ?? by("search")).focus();
}

/** Follow the stream of what is chosen and searched. The page keeps the old parts until new ones come. */
async function follow() {
  const own = ++follows;
  await stream?.stop(); // else the old one could hold the place of the new one
  if (own !== follows || !token) return; // something else was chosen meanwhile, or the operator left
  const url = new URL("/console/stream", location.origin);
  if (chosen) url.searchParams.set("session", chosen);
  if (search) url.searchParams.set("search", search);
  stream = new Stream(url.href, token, {
    part(name, value) {
      parts[name] = value;
      cameAt = Date.now();
      if (name === "time") ahead = value.now - cameAt / 1000;
      renderSoon();
    },
    state(next, words = "") {
      if (next === "wait" && connection === "on") return; // another session or search: nothing to tell
      [connection, sentence] = [next, words];
      renderConnection();
    },
    refused(status, words) {
      leave(status === 401 ? "login.expired" : "login.scope", { why: words });
    },
  });
}

/** Forget the token and all that was shown. @param {string} [key] why @param {Record<string, unknown>} [values] */
function leave(key = "", values = {}) {
  stream?.stop();
  if (by("ending").open) by("ending").close();
  [stream, token, parts, connection] = [null, "", {}, "none"];
  if (!key) chosen = search = by("search").value = ""; // else the next login leads back to what was looked at
  views.overview.rates.add(0, {});
  why = [key, values];
  askToLogIn();
  (mayLogIn() ? by("login-begin") : isLoopback() ? by("token") : by("main")).focus();
}

function askToLogIn() {
  show(by("login"), true);
  show(by("shown"), false);
  renderLogin();
  renderConnection();
}

/** Whether the page can lead to the login. */
function mayLogIn() {
  return Boolean(config.login) && hasDigest();
}

function renderLogin() {
  const mayPaste = isLoopback();
  setText(by("login-why"), why[0] ? t(...why) : "");
  show(by("login-begin"), mayLogIn());
  show(by("paste"), mayPaste);
  setText(by("token-label"), t(mayLogIn() ? "login.or" : "login.paste"));
  const about = aboutLogin(mayPaste);
  setText(by("login-about"), t(about, about === "login.fault" ? { why: config.fault } : {}));
}

/** Which sentence says what the operator needs, or what is missing. */
function aboutLogin(mayPaste) {
  if (config.login && !hasDigest()) return "login.insecure";
  if (config.fault) return "login.fault";
  if (config.hasLogin && !config.login) return "login.away";
  return config.login || mayPaste ? "login.about" : "login.none";
}

let isQueued = false;

/** Render once for all parts that come together. */
function renderSoon() {
  if (isQueued) return;
  isQueued = true;
  queueMicrotask(() => {
    isQueued = false;
    render();
  });
}

function render() {
  renderConnection();
  if (!token || !NEEDED.every((name) => name in parts)) return;
  show(by("login"), false);
  show(by("shown"), true);
  renew();
  const now = Date.now() / 1000 + ahead;
  const { hub } = parts;
  const { eventsReceived, eventsSent } = hub;
  views.overview.rates.add(parts.time.now, { ...hub.requests, eventsReceived, eventsSent });
  views.overview.update(parts, now);
  views.list.update(parts.sessions, chosen, now);
  const session = chosen && parts.session?.hash === chosen ? parts.session : null;
  views.detail.update(chosen, session, parts.time.mayEnd, now);
  views.issuers.update(parts.issuers, now);
  views.nodes.update(parts.nodes, now);
  views.budgets.update(parts.budgets);
}

/** Say whether the page is live. The text is announced, so that it changes with the state only, but for the age. */
function renderConnection() {
  const place = by("connection");
  const old = connection === "off" && cameAt ? age((Date.now() - cameAt) / 1000) : age(0);
  const words = t(`connection.${connection}`, { age: old, why: sentence });
  if (place.dataset.state !== connection) place.dataset.state = connection;
  // While the connection is cut, the age grows without being announced each second.
  place.setAttribute("aria-live", connection === "off" && place.textContent ? "off" : "polite");
  setText(place, words);
  show(by("leave"), Boolean(token));
}

// The end of a session

function listenToEnding() {
  const dialog = by("ending");
  by("end").addEventListener("click", () => {
    const { hash, participants } = parts.session;
    setText(by("ending-about"), t("end.about", { hash, count: participants.length }));
    setText(by("ending-why"), "");
    by("reason").value = "";
    dialog.dataset.topic = parts.session.topic;
    dialog.showModal();
    by("reason").focus();
  });
  by("ending-cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => (by("end").hidden ? by("session") : by("end")).focus());
  by("ending-form").addEventListener("submit", (event) => {
    event.preventDefault();
    end(dialog.dataset.topic, by("reason").value);
  });
}

async function end(topic, reason) {
  by("ending-sure").disabled = true;
  try {
    const headers = { "Authorization": `Bearer ${token}`, "Content-Type": "application/json" };
    const body = JSON.stringify({ topic, reason });
    const answer = await fetch("/console/sessions/end", { method: "POST", headers, body, credentials: "omit" });
    if (answer.ok) by("ending").close();
    else setText(by("ending-why"), t("end.failed", { why: (await answer.json()).message }));
  } catch (error) {
    setText(by("ending-why"), t("end.failed", { why: error.message }));
  } finally {
    by("ending-sure").disabled = false;
  }
}
