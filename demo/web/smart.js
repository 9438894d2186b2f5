/**
 * Login by SMART App Launch 2.2: a public client with PKCE, launched by the EHR or standalone.
 *
 * Tokens are kept in memory and in sessionStorage, which ends with the window, so that a reload needs no new login.
 */

import { currentLanguage, htmlLanguage, translator } from "./i18n.js";
import { shared } from "./messages.js";

const t = translator(shared);
/** Seconds that a token must be valid for, which is enough for a request. */
const REMAINING = 60;
const PENDING = "smart.pending.";
const KEPT = "smart.kept.";
const ASK = "smart.logged-out";
/** The reason of a server of this demo for not renewing a token. */
const LEFT = "the user has logged out";
/** Milliseconds that a login server has to end a login. */
export const ENDING = 3000;

/** The login failed. `message` is a sentence for the user; `final`: only a new login helps. */
export class LoginError extends Error {
  /** @param {string} message @param {boolean} [final] */
  constructor(message, final = true) {
    super(message);
    this.name = "LoginError";
    this.final = final;
  }
}

/**
 * @typedef {object} Login
 * @property {string} key for the storage of its tokens
 * @property {string} server FHIR base or issuer: the URL before /.well-known/
 * @property {string} clientId
 * @property {string} scope
 * @property {string} aud FHIR base of the token
 * @property {string} [launch] the launch id of an EHR launch
 * @property {string} [loginHint]
 */

/**
 * Redirect to the login page: the promise never resolves. Throws LoginError without a login page.
 * @param {Login} login
 * @returns {Promise<never>}
 */
export async function beginLogin(login) {
  const found = await discovered(login.server);
  const [state, nonce, verifier] = [random(), random(), random()];
  const redirectUri = `${location.origin}/index.html`;
  const { key, clientId } = login;
  const pending = {
    key,
    clientId,
    issuer: found.issuer,
    saysIssuer: found.authorization_response_iss_parameter_supported === true,
    tokens: found.token_endpoint,
    ending: found.end_session_endpoint,
    nonce,
    verifier,
    redirectUri,
    launched: Boolean(login.launch),
  };
  sessionStorage.setItem(PENDING + state, JSON.stringify(pending));
  const query = authorizationRequest(login, { state, nonce, redirectUri, proof: await challenge(verifier) });
  location.assign(`${found.authorization_endpoint}?${query}`);
  return new Promise(() => {});
}

/** The authorization request of SMART App Launch 2.2. @returns {URLSearchParams} */
function authorizationRequest({ clientId, scope, aud, launch, loginHint }, { state, nonce, redirectUri, proof }) {
  const query = new URLSearchParams({
    response_type: "code",
    client_id: clientId,
    redirect_uri: redirectUri,
    scope,
    state,
    nonce,
    aud,
    code_challenge: proof,
    code_challenge_method: "S256",
    ui_locales: htmlLanguage(currentLanguage()).slice(0, 2),
  });
  if (launch) query.set("launch", launch);
  if (loginHint) query.set("login_hint", loginHint);
  // a launch names its user, and the login server accepts no other one
  if (!launch && sessionStorage.getItem(ASK)) query.set("prompt", "login");
  return query;
}

/**
 * Read the answer of a login from the address bar: the query is removed, and the tokens are kept. Throws LoginError.
 */
export async function finishLogin() {
  const query = new URLSearchParams(location.search);
  const state = query.get("state");
  if (!state || !(query.has("code") || query.has("error"))) return;
  history.replaceState(null, "", location.pathname);
  const pending = JSON.parse(sessionStorage.getItem(PENDING + state) ?? "null");
  sessionStorage.removeItem(PENDING + state);
  if (!pending || !isFrom(pending, query.get("iss"))) throw new LoginError(t("login.unknown"));
  if (query.has("error")) {
    throw new LoginError(t("login.refused", { why: query.get("error_description") ?? query.get("error") }));
  }
  const answer = await tokens(pending, {
    grant_type: "authorization_code",
    code: query.get("code"),
    redirect_uri: pending.redirectUri,
    code_verifier: pending.verifier,
  });
  const claims = claimsOf(answer.id_token);
  if (answer.id_token && claims.nonce !== pending.nonce) throw new LoginError(t("login.unknown"));
  sessionStorage.removeItem(ASK);
  // the HPR number, which names the user at the second login, is only in the access token
  keep(kept({ ...pending, claims: { ...claimsOf(answer.access_token), ...claims } }, answer));
}

/**
 * With two login servers, an answer must come from the one that was asked: "clients MUST reject authorization responses
 * without the iss parameter from authorization servers which do support the parameter" (RFC 9207, 2.4).
 * @param {{issuer: string, saysIssuer: boolean}} pending
 * @param {string|null} iss
 */
function isFrom({ issuer, saysIssuer }, iss) {
  return iss === null ? !saysIssuer : iss === issuer;
}

/** Forget all tokens of this window. */
export function forgetLogins() {
  for (const name of Object.keys(sessionStorage)) {
    if (name.startsWith(KEPT) || name.startsWith(PENDING)) sessionStorage.removeItem(name);
  }
}

/**
 * Log the user out of this window, and of all applications in this browser.
 * @param {...Smart} logins
 * @returns {Promise<boolean>} whether their servers have ended the logins. If not, this window's next login asks for
 *   the user, even if the server remembers one.
 */
export async function endLogins(...logins) {
  forgetLogins();
  sessionStorage.setItem(ASK, "yes"); // the page may be gone before the servers answer
  const ended = await Promise.all([...new Set(logins)].map((login) => login.end()));
  if (ended.every(Boolean)) sessionStorage.removeItem(ASK);
  return ended.every(Boolean);
}

/** @param {string} key @returns {Smart|null} the login with this key */
export function keptLogin(key) {
  const kept = JSON.parse(sessionStorage.getItem(KEPT + key) ?? "null");
  return kept && new Smart(kept);
}

/** A login: its token, which is renewed as needed, and the parameters beside it. */
export class Smart {
  #kept;
  #renewing = null;
  /** Whether the last answer contained a session. */
  #namesSession = false;

  constructor(kept) {
    this.#kept = kept;
  }

  /** Parameters beside the token (patient, encounter, "hub.url", "hub.topic", ...) and the claims of the id token. */
  get context() {
    return { ...this.#kept.claims, ...this.#kept.context };
  }

  /** Whether the EHR launched this application. */
  get launched() {
    return this.#kept.launched;
  }

  /** The granted scopes. */
  get scopes() {
    return (this.#kept.context.scope ?? "").split(" ");
  }

  /** @returns {Promise<string>} a token that is valid for another minute. Throws LoginError. */
  async accessToken() {
    const remaining = (this.#kept.expiresAt - Date.now()) / 1000;
    return remaining > REMAINING ? this.#kept.accessToken : this.freshToken();
  }

  /** @returns {Promise<string>} a new token. Concurrent callers get the same one. Throws LoginError. */
  freshToken() {
    this.#renewing ??= this.#renew().finally(() => (this.#renewing = null));
    return this.#renewing;
  }

  /**
   * Asks the server now: the answer to an earlier request may be older than a logout.
   * @returns {Promise<boolean>} whether the answer contains the user's session. Throws LoginError.
   */
  async namesSession() {
    await this.#renewing?.catch(() => {});
    await this.freshToken();
    return this.#namesSession;
  }

  /** @returns {Promise<boolean>} whether the server has ended this login (OpenID Connect RP-Initiated Logout 1.0) */
  async end() {
    const { ending, clientId, idToken } = this.#kept;
    const body = new URLSearchParams({ client_id: clientId, id_token_hint: idToken });
    const options = { method: "POST", body, keepalive: true, signal: AbortSignal.timeout(ENDING) };
    try {
      const answer = await fetch(ending, options);
      await answer.text(); // otherwise the browser aborts the request with the page
      return answer.ok;
    } catch {
      return false;
    }
  }

  async #renew() {
    if (!this.#kept.refreshToken) throw new LoginError(t("login.ended"));
    const answer = await tokens(this.#kept, { grant_type: "refresh_token", refresh_token: this.#kept.refreshToken });
    const topic = this.context["hub.topic"];
    this.#kept = kept(this.#kept, answer);
    this.#namesSession = "hub.topic" in answer;
    // the session of this page has ended, usually by a logout that this page missed
    if (this.context["hub.topic"] !== topic) document.dispatchEvent(new Event("session-ended"));
    // keep no data of a user who has logged out meanwhile
    if (sessionStorage.getItem(KEPT + this.#kept.key)) keep(this.#kept);
    return this.#kept.accessToken;
  }
}

function keep(login) {
  sessionStorage.setItem(KEPT + login.key, JSON.stringify(login));
}

function kept(before, answer) {
  const {
    access_token: accessToken,
    refresh_token: refreshToken,
    id_token: idToken,
    expires_in: seconds,
    ...context
  } = answer;
  const { key, clientId, tokens: endpoint, ending, launched, claims } = before;
  return {
    key,
    clientId,
    tokens: endpoint,
    ending,
    launched,
    claims,
    accessToken,
    idToken: idToken ?? before.idToken,
    refreshToken: refreshToken ?? before.refreshToken,
    expiresAt: Date.now() + (seconds ?? 300) * 1000,
    context: { ...before.context, ...context },
  };
}

async function discovered(server) {
  let answer;
  try {
    answer = await fetch(`${server}/.well-known/smart-configuration`, { headers: { Accept: "application/json" } });
  } catch {
    throw new LoginError(t("login.away", { server }), false);
  }
  if (!answer.ok) throw new LoginError(t("login.discovery", { server, status: answer.status }), false);
  return answer.json();
}

async function tokens({ tokens: endpoint, clientId }, form) {
  let answer;
  try {
    answer = await fetch(endpoint, { method: "POST", body: new URLSearchParams({ client_id: clientId, ...form }) });
  } catch {
    throw new LoginError(t("login.away", { server: new URL(endpoint).origin }), false);
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  const why = body.error_description ?? body.error ?? String(answer.status);
  if (why === LEFT) document.dispatchEvent(new Event("logged-out"));
  if (form.grant_type === "refresh_token" && body.error === "invalid_grant") throw new LoginError(t("login.ended"));
  throw new LoginError(t("login.token", { why }), answer.status < 500);
}

/**
 * The token came directly from the token endpoint, so its signature need not be verified (OpenID Connect Core 3.1.3.7).
 */
function claimsOf(token) {
  try {
    const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (char) => char.charCodeAt(0))));
  } catch {
    return {}; // no token, or an opaque one
  }
}

function random() {
  return base64url(crypto.getRandomValues(new Uint8Array(32)));
}

async function challenge(verifier) {
  return base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
}

function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}
