/** Requests to the hub over HTTP (FHIRcast 3.0.0, 2.4, 2.6, 2.7 and 2.9). */

import { HubError, inOneLine, TokenError } from "./errors.js";
import { encoded, isObject } from "./events.js";
import { later, sleep } from "./timers.js";
import { Token } from "./tokens.js";
import { whyUnreachable } from "./unreachable.js";

/** @typedef {import("./timings.js").Timings} Timings */
/**
 * A message on the wire, for display or logs, without tokens and endpoints. Contains patient data.
 * @typedef {object} WireMessage
 * @property {"in" | "out"} direction
 * @property {string} kind discovery, subscribe, unsubscribe, confirmation, denial, event, acknowledgement, publish,
 *     context.
 * @property {object} body
 * @property {number | null} status Status of an HTTP answer or an acknowledgement; null for other messages.
 */
/** @typedef {(message: WireMessage) => void} Wire */
/**
 * @typedef {object} Call
 * @property {string} kind
 * @property {"GET" | "POST"} method
 * @property {string} [path]
 * @property {string} [type] Content-Type of the body.
 * @property {string} [body]
 * @property {object} [shown] The body without secrets.
 * @property {AbortSignal} [signal]
 */
/** @typedef {{status: number, ok: boolean, text: string, isHubs: boolean, isText: boolean, isPage: boolean, challenge: string, retryAfter: number}} Answer */
/**
 * A hub's configuration (2.7): its event names in lower case, and whether it declares one order for all events (CFG-4).
 * @typedef {{events: string[], ordersEvents: boolean}} Configuration
 */

const UNAUTHORIZED = 401;
const HUB_URL = /^https?:\/\/[^/?#\s][^\s\ud800-\udfff]*$/iu;
/** "Values for the "error_description" attribute MUST NOT include characters outside the set %x20-21 / %x23-5B / %x5D-7E" */
const DESCRIPTION = /\berror_description="([^"\\]*)"/i;
/** Statuses of a busy hub. */
const BUSY = new Set([429, 503]);

export class Hub {
  #url;
  #topic;
  #fetch;
  #timings;
  #wire;
  #token;
  /** @type {Configuration} */
  #configuration = { events: [], ordersEvents: false };

  /**
   * @param {object} options
   * @param {string} options.url hub.url
   * @param {string} options.topic
   * @param {import("./tokens.js").TokenSource} options.token
   * @param {typeof globalThis.fetch} options.fetch
   * @param {Timings} options.timings
   * @param {Wire} options.wire Called with each request and its answer.
   * @throws {TypeError} For an invalid hub.url or topic, and for a token that cannot be sent.
   */
  constructor({ url, topic, token, fetch, timings, wire }) {
    this.#url = checkedUrl(url).replace(/\/+$/, "");
    this.#topic = checkedTopic(topic);
    this.#fetch = fetch;
    this.#timings = timings;
    this.#wire = wire;
    this.#token = new Token(token);
  }

  /**
   * Subscribe, or renew (2.4 "Subscription Request").
   * @param {object} what
   * @param {readonly string[]} what.events
   * @param {number | null} what.lease In seconds; null: the hub decides.
   * @param {string} what.name
   * @param {string | null} what.endpoint The endpoint to renew, with a new token; null makes a new subscription.
   * @param {AbortSignal} what.signal
   * @returns {Promise<string>} The endpoint.
   * @throws {HubError} TokenError among them.
   */
  async subscribe({ events, lease, name, endpoint, signal }) {
    if (endpoint) await this.#token.fresh();
    /** @type {Record<string, string>} */
    const form = { ...this.#form("subscribe"), "hub.events": events.join(",") };
    if (lease) form["hub.lease_seconds"] = String(lease);
    if (name) form["subscriber.name"] = name;
    const answer = await this.#post("subscribe", form, endpoint, signal);
    const granted = parse(answer.text)?.["hub.channel.endpoint"];
    if (typeof granted !== "string" || !/^wss?:\/\//i.test(granted)) {
      throw new HubError(0, "The hub accepted the subscription and named no endpoint.");
    }
    return granted;
  }

  /** @param {string} endpoint @param {string} name @throws {HubError} */
  async unsubscribe(endpoint, name) {
    const form = { ...this.#form("unsubscribe"), ...(name ? { "subscriber.name": name } : {}) };
    await this.#post("unsubscribe", form, endpoint);
  }

  /**
   * Publish an event (2.6). Retries once where a busy hub asks for a short wait.
   * @param {import("./events.js").Message} message
   * @param {AbortSignal} [signal] Prevents the retry.
   * @throws {HubError}
   */
  async publish(message, signal = new AbortController().signal) {
    /** @type {Call} */
    const call = {
      kind: "publish",
      method: "POST",
      type: "application/json",
      body: encoded(message),
      shown: message,
    };
    try {
      await this.#call(call);
    } catch (error) {
      const wait = error instanceof HubError && BUSY.has(error.status) ? error.retryAfter : 0;
      if (wait === 0 || wait > this.#timings.request) throw error;
      await sleep(wait, signal);
      if (signal.aborted) throw error;
      await this.#call(call);
    }
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<Record<string, any> | null>} The hub's answer to "Get Current Context" (2.9), as received.
   * @throws {HubError}
   */
  async context(signal) {
    const path = `/${encodeURIComponent(this.#topic)}`;
    return parse((await this.#call({ kind: "context", method: "GET", path, signal })).text);
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<Configuration>} The hub's configuration, which an update of the hub may change. While the hub is
   *     away, the last one.
   */
  async configuration(signal) {
    try {
      /** @type {Call} */
      const call = { kind: "discovery", method: "GET", path: "/.well-known/fhircast-configuration", signal };
      const { ok, text } = await this.#exchange(call, null);
      const declared = ok ? parse(text) : null;
      if (!declared) return this.#configuration;
      const { eventsSupported: names, capabilities } = declared;
      const events = Array.isArray(names) ? names.map((name) => String(name).toLowerCase()) : [];
      this.#configuration = { events, ordersEvents: capabilities?.ordersEvents === true };
    } catch {
      // The hub is away.
    }
    return this.#configuration;
  }

  /** @param {string} mode */
  #form(mode) {
    return { "hub.channel.type": "websocket", "hub.mode": mode, "hub.topic": this.#topic };
  }

  /**
   * @param {string} kind
   * @param {Record<string, string>} form
   * @param {string | null} endpoint A secret, never shown.
   * @param {AbortSignal} [signal]
   */
  #post(kind, form, endpoint, signal) {
    const body = new URLSearchParams(endpoint ? { ...form, "hub.channel.endpoint": endpoint } : form).toString();
    const type = "application/x-www-form-urlencoded";
    return this.#call({ kind, method: "POST", type, body, shown: form, ...(signal ? { signal } : {}) });
  }

  /**
   * @param {Call} call
   * @returns {Promise<Answer>} An answer with a status of 2xx.
   * @throws {HubError} For any other status.
   */
  async #call(call) {
    const token = await this.#token.get();
    let answer = await this.#exchange(call, token);
    if (answer.status === UNAUTHORIZED && this.#token.changes)
      answer = await this.#exchange(call, await this.#token.instead(token));
    if (answer.status === UNAUTHORIZED) throw new TokenError(explained(answer), answer.isHubs);
    if (!answer.ok) throw new HubError(answer.status, explained(answer), answer.retryAfter, answer.isHubs);
    if (answer.isPage) {
      throw new HubError(0, `Something else than the hub answered, with a page (${answer.status})`, 0, false);
    }
    return answer;
  }

  /**
   * @param {Call} call
   * @param {string | null} token
   * @returns {Promise<Answer>}
   * @throws {HubError} With status 0 where no answer came in time.
   */
  async #exchange({ kind, method, path = "", type, body, shown = {}, signal }, token) {
    const headers = {
      ...(type ? { "Content-Type": type } : {}),
      ...(token ? { Authorization: `Bearer ${token}` } : {}),
    };
    const abort = new AbortController();
    const stop = () => abort.abort();
    const cancel = later(this.#timings.request, stop);
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop);
    this.#wire({ direction: "out", kind, body: shown, status: null });
    try {
      const response = await this.#fetch(this.#url + path, {
        method,
        headers,
        body: body ?? null,
        signal: abort.signal,
        cache: "no-store",
        credentials: "omit",
        keepalive: kind === "unsubscribe", // browsers abort other requests with their page
      });
      const text = await response.text();
      this.#wire({ direction: "in", kind, body: seen(kind, text), status: response.status });
      return {
        status: response.status,
        ok: response.ok,
        text,
        isHubs: isHubs(response, text),
        isText: isText(response),
        isPage: isPage(response),
        challenge: response.headers.get("WWW-Authenticate") ?? "",
        retryAfter: seconds(response.headers.get("Retry-After")),
      };
    } catch (error) {
      const isLate = abort.signal.aborted && !signal?.aborted;
      const why = isLate ? "no answer came in time" : whyUnreachable(error, this.#url);
      throw new HubError(0, `The hub was not reached: ${why}`);
    } finally {
      cancel();
      signal?.removeEventListener("abort", stop);
    }
  }
}

/**
 * @param {string} url
 * @returns {string} hub.url, unchanged.
 * @throws {TypeError} For a URL that is not http or https, or that contains a password.
 */
function checkedUrl(url) {
  // A relative URL would be resolved against the page, and `localhost:8080` is a URL of the scheme `localhost`.
  const found = typeof url === "string" && HUB_URL.test(url) ? parsed(url) : null;
  if (!found) {
    // A password may stand before the @.
    const shown = String(url).includes("@") ? "a text with @" : typeof url === "string" ? JSON.stringify(url) : String(url);
    throw new TypeError(`hub.url must be a URL such as https://hub.example.org/api/hub, not ${shown}`);
  }
  if (found.username || found.password) {
    throw new TypeError("hub.url must not contain a user or password: the token authenticates the client");
  }
  return url;
}

/** @param {string} url */
function parsed(url) {
  try {
    return new URL(url);
  } catch {
    return null;
  }
}

/** @param {string} topic */
function checkedTopic(topic) {
  if (typeof topic === "string" && topic) return topic;
  throw new TypeError(`hub.topic must be a text that is not empty, not ${topic === "" ? '""' : String(topic)}`);
}

/**
 * The hub's text in a refusal: the `message` of a JSON object, a plain text, or the `error_description` of the
 * challenge (RFC 6750, 3).
 * @param {Answer} answer
 */
function explained({ status, text, isText, isHubs: isOwn, challenge }) {
  const object = parse(text);
  if (!isOwn) return `The hub answered ${status}`;
  const given = object ? object.message : isText ? text : "";
  const words = inOneLine(typeof given === "string" ? given : "") || inOneLine(DESCRIPTION.exec(challenge)?.[1] ?? "");
  return `The hub answered ${status}${words && `: ${words}`}`;
}

/**
 * @param {Response} response
 * @param {string} text
 * @returns {boolean} Whether the hub itself refused: by a plain text, JSON with a `message`, or a challenge. Ingresses
 *     answer with HTML, or without a body.
 */
function isHubs({ status, headers }, text) {
  if (status === UNAUTHORIZED && headers.has("WWW-Authenticate")) return true;
  const object = parse(text);
  if (object) return typeof object.message === "string";
  return isText({ headers }) && text.trim() !== "";
}

/** @param {{headers: Headers}} response */
function isText({ headers }) {
  return /^text\/plain\b/i.test(headers.get("Content-Type") ?? "");
}

/** Whether the answer is an HTML page. Maintenance and login pages come with 200 too. @param {Response} response */
function isPage({ headers }) {
  return /^text\/html\b/i.test(headers.get("Content-Type") ?? "");
}

/** @param {string} kind @param {string} text */
function seen(kind, text) {
  return kind === "context" || kind === "discovery" ? (parse(text) ?? {}) : {};
}

/** @param {string} text @returns {Record<string, any> | null} Null for a body that is not a JSON object. */
function parse(text) {
  try {
    const value = JSON.parse(text);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

/** @param {string | null} retryAfter Seconds, or a date (RFC 9110, 10.2.3). @returns {number} */
function seconds(retryAfter) {
  if (!retryAfter) return 0;
  const found = /^\s*\d+\s*$/.test(retryAfter) ? Number(retryAfter) : (Date.parse(retryAfter) - Date.now()) / 1000;
  return Number.isFinite(found) && found > 0 ? found : 0;
}
