/** Login by authorization code with PKCE (RFC 7636), as a public client. The token is kept in the memory of the page. */

const [PENDING, VIEW] = ["console.login", "console.view"];

/** The login failed. `key` names the words, `why` is the server's. */
export class LoginError extends Error {
  /** @param {string} key @param {string} [why] */
  constructor(key, why = "") {
    super(why || key);
    this.key = key;
    this.why = why;
  }
}

/** Keep what is looked at over a login: no token, and for one login only. @param {{chosen: string, search: string}} view */
export function keepView(view) {
  sessionStorage.setItem(VIEW, JSON.stringify(view));
}

/** What was looked at before the login. @returns {{chosen: string, search: string}} */
export function keptView() {
  const kept = JSON.parse(sessionStorage.getItem(VIEW) ?? "null");
  sessionStorage.removeItem(VIEW);
  return { chosen: "", search: "", ...kept };
}

/** Whether a token may be pasted here: the page comes from this machine. */
export function isLoopback() {
  return ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
}

/** Whether this browser can make the challenge of PKCE here: over https and on this machine only. */
export function hasDigest() {
  return Boolean(globalThis.crypto?.subtle);
}

/** The token of the address bar's fragment, as `fhircast-hub dev` prints it. The fragment is removed. @returns {string} */
export function tokenOfFragment() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  if (!fragment.has("token")) return "";
  history.replaceState(null, "", location.pathname);
  return isLoopback() ? fragment.get("token") : "";
}

/**
 * Go to the login page. The promise never resolves.
 * @param {{authorizationEndpoint: string, tokenEndpoint: string, clientId: string, scope: string, resource: string, issuer: string, namesItself: boolean}} server
 * @param {string} language @param {{quiet?: boolean}} [how] quiet: the server is to show nothing, and answers whether its
 *   own session lives (OpenID Connect Core 1.0, 3.1.2.1)
 */
export async function beginLogin(server, language, { quiet = false } = {}) {
  const [state, verifier, redirectUri] = [random(), random(), location.origin + location.pathname];
  sessionStorage.setItem(PENDING, JSON.stringify({ state, verifier, redirectUri, server, quiet }));
  const to = new URL(server.authorizationEndpoint);
  const query = {
    response_type: "code",
    client_id: server.clientId,
    redirect_uri: redirectUri,
    scope: server.scope,
    aud: server.resource,
    resource: server.resource,
    state,
    code_challenge: await challenge(verifier),
    code_challenge_method: "S256",
    ui_locales: language,
    ...(quiet ? { prompt: "none" } : {}),
  };
  for (const [name, value] of Object.entries(query)) to.searchParams.set(name, value);
  location.assign(to);
  return new Promise(() => {});
}

/**
 * Read the answer of the login page from the address bar, and get the token. Throws LoginError.
 * @param {{tokenEndpoint: string}|null} present how to log in now: the answer must be for the same token endpoint
 * @returns {Promise<string>} the token; "": the address bar has no answer
 */
export async function finishLogin(present) {
  const query = new URLSearchParams(location.search);
  if (!query.has("code") && !query.has("error")) return "";
  history.replaceState(null, "", location.pathname);
  const pending = JSON.parse(sessionStorage.getItem(PENDING) ?? "null");
  sessionStorage.removeItem(PENDING);
  if (!pending || pending.state !== query.get("state") || !isFrom(pending.server, query.get("iss"))) {
    throw new LoginError("login.foreign");
  }
  if (query.has("error") && pending.quiet) throw new LoginError("login.expired");
  if (query.has("error")) {
    throw new LoginError("login.refused", query.get("error_description") ?? query.get("error"));
  }
  if (present?.tokenEndpoint !== pending.server.tokenEndpoint) throw new LoginError("login.foreign");
  return exchange(pending, query.get("code"));
}

/** "clients MUST reject authorization responses without the iss parameter" of servers that support it (RFC 9207, 2.4). */
function isFrom(server, issuer) {
  return issuer === null ? !server.namesItself : issuer === server.issuer;
}

async function exchange({ server, verifier, redirectUri }, code) {
  const body = new URLSearchParams({
    grant_type: "authorization_code",
    code,
    redirect_uri: redirectUri,
    client_id: server.clientId,
    code_verifier: verifier,
    resource: server.resource,
  });
  let answer;
  try {
    const response = await fetch(server.tokenEndpoint, { method: "POST", body, credentials: "omit", redirect: "error" });
    answer = await response.json();
  } catch (error) {
    throw new LoginError("login.refused", error.message);
  }
  if (typeof answer.access_token !== "string") {
    throw new LoginError("login.refused", answer.error_description ?? answer.error ?? "");
  }
  return answer.access_token;
}

/** 256 random bits. */
function random() {
  return base64url(crypto.getRandomValues(new Uint8Array(32)));
}

async function challenge(verifier) {
  return base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
}

/** @param {Uint8Array} bytes */
function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}
