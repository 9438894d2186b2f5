/** A hub within the test: its fetch, its WebSocket, and time that passes when the test says so. */

import { setImmediate } from "node:timers/promises";

import { FHIRcastClient } from "../src/index.js";

export const HUB = "http://hub.example/api/hub";
export const TOPIC = "topic-1";

/** @type {import("../src/events.js").Resource} */
export const PATIENT = { resourceType: "Patient", id: "p1" };
/** @type {import("../src/events.js").Resource} */
export const OTHER = { resourceType: "Patient", id: "p2" };
/** @type {import("../src/events.js").Resource} */
export const STUDY = { resourceType: "ImagingStudy", id: "s1" };
/** @type {import("../src/events.js").Resource} */
export const REPORT = { resourceType: "DiagnosticReport", id: "r1" };
/** @type {import("../src/events.js").Resource} */
export const OBSERVATION = { resourceType: "Observation", id: "o1" };

/** Seconds. */
const STEP = 0.1;
const MOST_STEPS = 400;

/** @typedef {{status?: number, body?: any, text?: string, headers?: Record<string, string>}} Reply */
/**
 * @typedef {{kind: string, token: string | null, form: Record<string, string>, message: any,
 *   keepalive?: boolean}} Request `keepalive`: whether the request outlives its page
 */

/** A handler that follows whatever comes. */
export function nothing() {}

/** @param {number} second @returns {string} A timestamp. */
export function at(second) {
  return `2026-01-01T10:00:${String(second).padStart(2, "0")}.000Z`;
}

/** A handler whose end the test decides. */
export function slow() {
  /** @type {{end: () => void, fail: (error: Error) => void}[]} */
  const calls = [];
  const act = () => new Promise((end, fail) => calls.push({ end: () => end(undefined), fail }));
  return { calls, act };
}

/** What the client's end of a socket is, and the hub's. */
export class FakeSocket {
  readyState = 0;
  /** @type {any} */ onmessage = null;
  /** @type {any} */ onclose = null;
  /** @type {any} */ onerror = null;
  /** What the client sent. @type {any[]} */
  sent = [];
  /** With what the client closed. @type {number | null} */
  closedWith = null;

  /** @param {string} url */
  constructor(url) {
    this.url = url;
  }

  /** @param {string} data */
  send(data) {
    this.sent.push(JSON.parse(data));
  }

  /** @param {number} [code] */
  close(code = 1005) {
    this.closedWith = code;
    this.readyState = 3;
  }

  // The hub's end

  /** @param {object} message */
  tell(message) {
    this.raw(JSON.stringify(message));
  }

  /** @param {unknown} data */
  raw(data) {
    this.onmessage?.({ data });
  }

  /** @param {number} [code] @param {string} [reason] */
  lose(code = 1006, reason = "") {
    this.readyState = 3;
    this.onerror?.({});
    this.onclose?.({ code, reason });
  }
}

export class FakeHub {
  /** @type {Request[]} */
  requests = [];
  /** @type {FakeSocket[]} */
  sockets = [];
  lease = 7200;
  /** Names in eventsSupported. */
  supported = ["Patient-open", "SyncError", "heartbeat"];
  /** What becomes of a socket that is opened. @type {(socket: FakeSocket, index: number) => void} */
  onSocket = (socket) => this.confirm(socket);
  /**
   * By kind of request: what it is answered, in order; the usual when that is used up.
   * @type {Record<string, (Reply | Error | Promise<Reply>)[]>}
   */
  answers = {};
  /** Answers that last. @type {Record<string, () => Reply | Error | Promise<Reply>>} */
  always = {};
  #endpoints = 0;

  /** What a client is given to reach it. */
  get options() {
    const hub = this;
    return {
      fetch: /** @type {typeof globalThis.fetch} */ (/** @type {any} */ (this.#fetch)),
      WebSocket: class extends FakeSocket {
        /** @param {string} url */
        constructor(url) {
          super(url);
          hub.sockets.push(this);
          const index = hub.sockets.length - 1;
          queueMicrotask(() => hub.onSocket(this, index));
        }
      },
    };
  }

  /** The socket that was opened last. */
  get socket() {
    return /** @type {FakeSocket} */ (this.sockets.at(-1));
  }

  /** @param {FakeSocket} socket @param {Record<string, any>} [other] */
  confirm(socket, other = {}) {
    socket.readyState = 1;
    const events = this.sent("subscribe").at(-1)?.form["hub.events"];
    const said = { "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": events, "hub.lease_seconds": this.lease };
    socket.tell({ ...said, ...other });
  }

  /** @param {string} kind @returns {Request[]} The requests of this kind that came. */
  sent(kind) {
    return this.requests.filter((request) => request.kind === kind);
  }

  /** @returns {string[]} What the client acknowledged on the newest socket: "id status". */
  get acknowledged() {
    return this.socket.sent.map(({ id, status }) => `${id} ${status}`);
  }

  /** @type {(url: string, init: RequestInit) => Promise<Response>} */
  #fetch = async (url, init) => {
    const request = read(String(url), init);
    this.requests.push(request);
    const prepared = this.answers[request.kind]?.shift() ?? this.always[request.kind]?.() ?? this.#usual(request);
    const hung = new Promise((_, reject) => {
      init.signal?.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")));
    });
    const reply = await Promise.race([prepared, hung]);
    if (reply instanceof Error) throw reply;
    const { status = 200, body = null, text = body === null ? "" : JSON.stringify(body), headers = {} } = reply;
    return new Response(text, { status, headers });
  };

  /** @param {Request} request @returns {Reply} */
  #usual({ kind, form }) {
    if (kind === "discovery") return { body: { eventsSupported: this.supported } };
    if (kind === "context") return { body: { "context.type": "", context: [] } };
    if (kind === "publish") return { status: 202, body: {} };
    const endpoint = form["hub.channel.endpoint"] ?? `ws://hub.example/ws/${(this.#endpoints += 1)}`;
    return { status: 202, body: { "hub.channel.endpoint": endpoint } };
  }
}

/** @returns {Promise<Reply>} A reply that never comes. */
export function never() {
  return new Promise(() => {});
}

/**
 * @param {string} name
 * @param {import("../src/events.js").Resource[]} resources
 * @param {{id?: string, timestamp?: string, version?: string, prior?: string}} [other]
 * @returns {any} An event as the hub sends it.
 */
export function event(name, resources, { id = "e1", timestamp = "2026-01-01T10:00:00.000Z", version, prior } = {}) {
  const keys = /** @type {Record<string, string>} */ ({ ImagingStudy: "study", DiagnosticReport: "report" });
  const context = resources.map((resource) => {
    const type = resource.resourceType;
    return { key: keys[type] ?? type.toLowerCase(), resource };
  });
  const versions = { "context.versionId": version, "context.priorVersionId": prior };
  return { timestamp, id, event: { "hub.topic": TOPIC, "hub.event": name, ...versions, context } };
}

/**
 * @param {string} subscriber
 * @param {string} eventId
 * @param {string} [id]
 */
export function syncErrorOf(subscriber, eventId, id = `about-${eventId}`, name = "Patient-open") {
  const system = "https://fhircast.hl7.org/events/syncerror/";
  const coding = [
    { system: `${system}eventid`, code: eventId },
    { system: `${system}eventname`, code: name },
    { system: `${system}subscribername`, code: subscriber },
  ];
  const issue = { severity: "warning", code: "processing", diagnostics: `${subscriber} refused`, details: { coding } };
  const made = event("SyncError", [], { id });
  made.event.context = [{ key: "operationoutcome", resource: { resourceType: "OperationOutcome", issue: [issue] } }];
  return made;
}

/** Let everything happen that waits for no time. */
export async function flush() {
  for (let round = 0; round < 5; round += 1) await setImmediate();
}

/**
 * A client of a fake hub. It is stopped when the test ends.
 * @param {import("node:test").TestContext} t
 * @param {import("../src/session.js").Options & {handlers?: Record<string, (event: any) => unknown>}} [options]
 */
export function setUp(t, { handlers = {}, ...options } = {}) {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: Date.UTC(2026, 0, 1, 10, 1) });
  const hub = new FakeHub();
  const client = new FHIRcastClient(HUB, TOPIC, { ...hub.options, name: "viewer", ...options });
  /** What the handlers were called with. @type {string[]} */
  const heard = [];
  for (const [name, act] of Object.entries(handlers)) {
    client.on(name, (one) => {
      heard.push(`${one.name} ${one.anchor}`.trim());
      return act(one);
    });
  }
  t.after(() => client.stop());
  /** Time passes, in small steps: a timer that is set between two steps runs late. @param {number} seconds */
  const pass = async (seconds) => {
    const steps = Math.min(Math.ceil(seconds / STEP), MOST_STEPS);
    await flush();
    for (let step = 0; step < steps; step += 1) {
      t.mock.timers.tick((seconds * 1000) / steps);
      await flush();
    }
  };
  return { hub, client, heard, pass };
}

/** @param {string} url @param {RequestInit} init @returns {Request} */
function read(url, { headers = {}, body = null, method = "GET", keepalive = false }) {
  const given = /** @type {Record<string, string>} */ (headers);
  const token = given.Authorization?.replace("Bearer ", "") ?? null;
  if (method === "GET") {
    return { kind: url.endsWith("fhircast-configuration") ? "discovery" : "context", token, form: {}, message: null };
  }
  if (given["Content-Type"]?.includes("json"))
    return { kind: "publish", token, form: {}, message: JSON.parse(String(body)) };
  const form = Object.fromEntries(new URLSearchParams(String(body)));
  return { kind: form["hub.mode"] ?? "", token, form, message: null, keepalive };
}
