/** Why a hub cannot be reached, in words: its certificate, its name, its port, or what stands between. */

import { said } from "./errors.js";

/** What Node says of a certificate that leads to a CA which it does not know. */
const UNKNOWN_CA = new Set([
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
]);
const NO_NAME = new Set(["ENOTFOUND", "EAI_AGAIN", "EAI_NONAME", "EAI_NODATA"]);
const NO_WAY = new Set(["EHOSTUNREACH", "ENETUNREACH"]);
const NO_TLS = new Set(["ERR_SSL_WRONG_VERSION_NUMBER", "ERR_SSL_HTTP_REQUEST", "EPROTO"]);
const INVALID = /^(CERT_|ERR_TLS_CERT|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE)/;
const HOW_TO_TRUST = "a hospital's own CA is trusted where NODE_EXTRA_CA_CERTS names its file";
/** @type {Record<string, string>} */
const PORTS = { "https:": "443", "wss:": "443" };

/**
 * @param {unknown} error What `fetch` raised.
 * @param {string} url
 * @returns {string} What it says of the URL, in words without the URL's path: an endpoint is a secret.
 */
export function whyUnreachable(error, url) {
  const known = knownCause(error, url);
  if (known) return known;
  // A page is told nothing, lest it explore the network behind its user.
  const more = "document" in globalThis ? "the browser's console says more" : codesOf(error)[0];
  return more ? `${said(error)} (${more})` : said(error);
}

/**
 * @param {unknown} error What `fetch` or a WebSocket raised.
 * @param {string} url
 * @returns {string} Its certificate, its name, its port or the way there; "" where the error says none of these.
 */
export function knownCause(error, url) {
  const codes = codesOf(error);
  if (codes.length === 0) return "";
  const { hostname: host, port, protocol } = new URL(url);
  const address = `${host}:${port || (PORTS[protocol] ?? "80")}`;
  const found = (/** @type {(code: string) => boolean} */ matches) => codes.find(matches);
  const unknown = found((code) => UNKNOWN_CA.has(code));
  if (unknown) return `the certificate of ${host} is not trusted (${unknown}); ${HOW_TO_TRUST}`;
  const invalid = found((code) => INVALID.test(code));
  if (invalid) return `the certificate of ${host} is not valid (${invalid})`;
  if (found((code) => NO_TLS.has(code))) return `${address} does not speak TLS`;
  if (found((code) => NO_NAME.has(code))) return `no address is known for the name ${host}`;
  if (found((code) => code === "ECONNREFUSED")) return `nothing listens at ${address}`;
  if (found((code) => NO_WAY.has(code))) return `there is no way to ${host} from this machine`;
  return "";
}

/** @param {unknown} error @returns {string[]} */
function codesOf(error) {
  return [...causes(error)].map((cause) => cause.code).filter((code) => typeof code === "string");
}

/** @param {unknown} error @returns {Generator<any>} The error, and all that led to it. */
function* causes(error) {
  const waiting = [error];
  const seen = new Set();
  for (let next = waiting.shift(); next instanceof Object && !seen.has(next); next = waiting.shift()) {
    seen.add(next);
    yield next;
    const { cause, errors } = /** @type {any} */ (next);
    waiting.push(...(cause ? [cause] : []), ...(Array.isArray(errors) ? errors : []));
  }
}
