/** HTTP answers of a fake hub: those that a test has queued, else its own. */

import { HubError } from "./errors.js";
import { isObject } from "./events.js";

/** @typedef {"subscribe" | "unsubscribe" | "publish" | "context" | "configuration"} Kind Of a request. */
/**
 * An answer instead of the hub's own. An ingress would answer with `text/html`.
 * @typedef {{status: number, body?: string, retryAfter?: number, contentType?: string}} Answer
 */
/** @typedef {{status: number, body: string, headers: Record<string, string>}} Sent */

const KINDS = ["subscribe", "unsubscribe", "publish", "context", "configuration"];
const JSON_TYPE = { "Content-Type": "application/json" };

export class FakeAnswers {
  /** @type {Map<string, Answer[]>} */
  #given = new Map();

  /** Give these answers to the next requests of a kind. @param {Kind} kind @param {Answer[]} answers @throws {TypeError} */
  give(kind, answers) {
    if (!KINDS.includes(kind)) throw new TypeError(`the kind of request must be one of ${KINDS.join(", ")}, not ${kind}`);
    if (!answers.every(isObject)) throw new TypeError("answers must be objects such as { status: 503 }");
    this.#given.set(kind, [...(this.#given.get(kind) ?? []), ...answers]);
  }

  /**
   * @param {string} kind
   * @param {() => [number, object]} handle The hub's own status and body. A HubError is a refusal.
   * @returns {Sent}
   */
  next(kind, handle) {
    const given = this.#given.get(kind)?.shift();
    if (given) {
      const { status, body = "", retryAfter, contentType = "text/plain" } = given;
      /** @type {Record<string, string>} */
      const wait = retryAfter === undefined ? {} : { "Retry-After": `${retryAfter}` };
      return { status, body, headers: { "Content-Type": contentType, ...wait } };
    }
    try {
      const [status, found] = handle();
      return { status, body: JSON.stringify(found), headers: JSON_TYPE };
    } catch (error) {
      if (!(error instanceof HubError)) throw error;
      return { status: error.status, body: JSON.stringify({ message: error.message }), headers: JSON_TYPE };
    }
  }
}

/**
 * @param {string} url
 * @param {string} method
 * @param {string} type
 * @param {string} body
 * @returns {{kind: string, sent: any}} The kind of a request, and its body.
 */
export function requested(url, method, type, body) {
  if (method === "GET")
    return { kind: url.endsWith("fhircast-configuration") ? "configuration" : "context", sent: {} };
  if (type.includes("json")) return { kind: "publish", sent: JSON.parse(body) };
  const sent = Object.fromEntries(new URLSearchParams(body));
  return { kind: sent["hub.mode"] ?? "", sent };
}

/** @param {string[]} events @param {string} name @returns {boolean} Whether the event is one of the kinds. */
export function isNamed(events, name) {
  return events.some((one) => one.toLowerCase() === name.toLowerCase());
}
