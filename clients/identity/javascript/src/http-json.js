/** HTTP requests to servers of the hospital, with JSON answers. */

/** No answer about one patient or study is larger. */
const MOST_BYTES = 8 * 1024 * 1024;

/** A server gave no usable answer. The message contains no patient data. */
export class UnusableAnswer extends Error {
  name = "UnusableAnswer";
}

/**
 * GET `address`. Redirects are not followed: identifiers go only to the configured server.
 * @param {typeof globalThis.fetch} http
 * @param {string} address
 * @param {[string, string][]} parameters
 * @param {string} accept
 * @param {AbortSignal} [signal] Cancels the request.
 * @returns {Promise<{status: number, answer: any, warning: string}>} The status, the JSON (null where the answer is not
 *   JSON), and the text of the Warning headers.
 * @throws {UnusableAnswer} For an answer that is too large.
 */
export async function ask(http, address, parameters, accept, signal) {
  const query = parameters.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join("&");
  const headers = { Accept: accept };
  const response = await http(`${address}?${query}`, { headers, redirect: "manual", signal: signal ?? null });
  const content = await textOf(response);
  const { status } = response;
  return { status, answer: json(content), warning: response.headers.get("Warning") ?? "" };
}

/** @param {Response} response */
async function textOf(response) {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let [content, size] = ["", 0];
  for (let part = await reader?.read(); reader && part && !part.done; part = await reader.read()) {
    size += part.value.length;
    content += decoder.decode(part.value, { stream: true });
    if (size > MOST_BYTES) {
      await reader.cancel();
      throw new UnusableAnswer(`more than ${MOST_BYTES} bytes`);
    }
  }
  return content + decoder.decode();
}

/** @param {string} content */
function json(content) {
  try {
    return JSON.parse(content);
  } catch {
    return null;
  }
}

/**
 * @param {string} system
 * @param {string} value
 * @returns {string} A search token `system|value`. An empty system means an identifier without a system.
 */
export function token(system, value) {
  return `${escaped(system)}|${escaped(value)}`;
}

/**
 * @param {string} part
 * @returns {string} A part of a search parameter, escaped as in FHIR search.
 */
export function escaped(part) {
  return part.replace(/[\\|,$]/g, "\\$&");
}

/**
 * The browser's fetch must be called as a method of the global object.
 * @returns {typeof globalThis.fetch}
 */
export function usualFetch() {
  return globalThis.fetch.bind(globalThis);
}

/** @param {string} base */
export function trimmed(base) {
  return base.trim().replace(/\/+$/, "");
}
