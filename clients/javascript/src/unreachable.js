/** Why a hub cannot be reached, in words: its certificate, its name, its port, or the network between. */

import { nameOf } from "./errors.js";

/** Node's error codes for a certificate of an unknown CA. */
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
 * @param {unknown} error The error of `fetch`. Its text is not repeated: it may contain secrets.
 * @param {string} url
 * @returns {string} A description, without the path of the URL: an endpoint is a secret.
 */
export function whyUnreachable(error, url) {
  const known = knownCause(error, url);
  if (known) return known;
  // Browsers do not tell pages why, to protect the user's network.
  if ("document" in globalThis) return "the request failed, and the browser's console says why";
  return `the request failed (${codesOf(causes(error))[0] ?? nameOf(error)})`;
}

/**
 * @param {unknown} error The error of `fetch` or a WebSocket.
 * @param {string} url
 * @returns {string} The certificate, the name, the port or the network as the reason; "" for another error.
 */
export function knownCause(error, url) {
  const found = causes(error);
  if (codesOf(found).length === 0) return "";
  const { hostname, port, protocol } = new URL(url);
  return inWords(found, hostname, port || (PORTS[protocol] ?? "80"));
}

/** @param {any[]} found The causes. @param {string} host @param {string} port @returns {string} */
function inWords(found, host, port) {
  const by = (/** @type {(code: string) => boolean} */ matches) => found.find(({ code }) => matches(String(code ?? "")));
  const address = `${host}:${port}`;
  const unknown = by((code) => UNKNOWN_CA.has(code));
  if (unknown) return `the certificate of ${host} is not trusted (${unknown.code}); ${HOW_TO_TRUST}`;
  const invalid = by((code) => INVALID.test(code));
  if (invalid) return `the certificate of ${host} is not valid (${invalid.code})`;
  if (by((code) => NO_TLS.has(code))) return `${address} does not speak TLS`;
  // With a proxy, Node's error names the proxy.
  const unnamed = by((code) => NO_NAME.has(code));
  if (unnamed) return `no address is known for the name ${unnamed.hostname ?? host}`;
  const refused = by((code) => code === "ECONNREFUSED");
  const isOther = refused?.port && String(refused.port) !== port;
  if (refused) return `nothing listens at ${isOther ? `${refused.address}:${refused.port}` : address}`;
  return by((code) => NO_WAY.has(code)) ? `there is no way to ${host} from this machine` : "";
}

/** @param {any[]} found @returns {string[]} */
function codesOf(found) {
  return found.map(({ code }) => code).filter((code) => typeof code === "string");
}

/** @param {unknown} error @returns {any[]} The error and all its causes. */
function causes(error) {
  /** @type {any[]} */
  const waiting = [error];
  const found = new Set();
  while (waiting.length > 0) {
    const next = waiting.shift();
    if (typeof next !== "object" || next === null || found.has(next)) continue;
    found.add(next);
    waiting.push(next.cause, ...(Array.isArray(next.errors) ? next.errors : []));
  }
  return [...found];
}
