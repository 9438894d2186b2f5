/** One HTTP question to a server of the hospital, whose answer is JSON. */

/** An answer about one patient or study is smaller. */
const MOST_BYTES = 8 * 1024 * 1024;

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
 * @returns {Promise<{status: number, answer: any, warning: string}>} The status, what the JSON says (null where there is
 *   no JSON), and the text of the Warning headers.
 * @throws {Unanswered} For an answer without end.
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
      throw new Unanswered(`more than ${MOST_BYTES} bytes`);
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
