/** One HTTP question to a server of the hospital, whose answer is JSON. */

/** A server's answer is none. The message holds nothing of the patient. */
export class Unanswered extends Error {
  name = "Unanswered";
}

/**
 * GET `address`. Redirects are not followed: an identifier is not handed on to whom nobody named.
 * @param {typeof globalThis.fetch} http
 * @param {string} address
 * @param {[string, string][]} parameters
 * @param {string} accept
 * @param {AbortSignal} [signal] Ends the question.
 * @returns {Promise<{status: number, answer: any}>} The status, and what the JSON says; null where there is no JSON.
 */
export async function ask(http, address, parameters, accept, signal) {
  const query = parameters.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join("&");
  const headers = { Accept: accept };
  const response = await http(`${address}?${query}`, { headers, redirect: "manual", signal: signal ?? null });
  const content = await response.text();
  try {
    return { status: response.status, answer: JSON.parse(content) };
  } catch {
    return { status: response.status, answer: null };
  }
}

/**
 * @param {string} system
 * @param {string} value
 * @returns {string} A search token `system|value`; without a system, one that says there is none.
 */
export function token(system, value) {
  return `${escaped(system)}|${escaped(value)}`;
}

/**
 * @param {string} part
 * @returns {string} A part of a search parameter, with the escapes of FHIR search.
 */
export function escaped(part) {
  return part.replace(/[\\|,$]/g, "\\$&");
}

/**
 * The browser's fetch must be called on its own object.
 * @returns {typeof globalThis.fetch}
 */
export function usualFetch() {
  return globalThis.fetch.bind(globalThis);
}

/** @param {string} base */
export function trimmed(base) {
  return base.trim().replace(/\/+$/, "");
}
