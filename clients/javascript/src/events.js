/** Events (FHIRcast 3.0.0, 2.3 and 2.5): reading, making, and the names in them. No I/O. */

import { instant, timestampNow } from "./timestamps.js";

/**
 * A FHIR resource, as JSON.
 * @typedef {{resourceType: string, id?: string, [member: string]: any}} Resource
 */
/**
 * An item of an event's context.
 * @typedef {{key: string, resource?: Resource, reference?: {reference: string}, [member: string]: any}} Item
 */
/**
 * @typedef {{"hub.topic": string, "hub.event": string, context: Item[], [member: string]: any}} Body
 */
/**
 * An event as it goes over the wire.
 * @typedef {{timestamp: string, id: string, event: Body}} Message
 */
/** @typedef {"open" | "close" | "update" | "select" | "home" | "syncerror" | "heartbeat" | "other"} Kind */
/**
 * Finds `event.local`, as the `IdentityMap` does. Refuses by throwing a refusal.
 * @template [Found=unknown]
 * @typedef {{find: (event: Event) => Found | Promise<Found>}} Ids
 */

/**
 * Keys of a context item that differ from the lower-case type: "due to legacy reasons" (2.3).
 * @type {Record<string, string>}
 */
const ANCHOR_KEYS = { imagingstudy: "study", diagnosticreport: "report" };
/** "EventName ::= FHIRresource '-' ( 'open' | 'close' | 'update' | 'select' )" (2.3). */
const RESOURCE_EVENT = /^([a-z]+)-(open|close|update|select)$/i;
/** The Type/id at the end of a URL, also of a versioned one. */
const NAMED = /(?:^|[/:])([A-Z][A-Za-z]*\/[^/?#\s]+?)(?:\/_history\/[^/?#\s]+)?$/;
const HALVES = /\p{Surrogate}/gu;
const VERSION_4 = 0x40;
const VARIANT = 0x80;

/**
 * An event that was received from the hub, or is published here.
 * @template [Found=unknown] The result of the handler's `ids`: `Local` for an `IdentityMap`.
 */
export class Event {
  /**
   * The result of the handler's `ids`; null without `ids`.
   * @type {Found}
   */
  local = /** @type {any} */ (null);

  /**
   * @param {Message} body The whole message.
   * @param {boolean} [own] Whether this client published the event.
   */
  constructor(body, own = false) {
    this.body = body;
    this.own = own;
    this.id = body.id;
    /** As sent. */
    this.name = body.event["hub.event"];
    /** As sent; "" where it is missing. */
    this.timestamp = typeof body.timestamp === "string" ? body.timestamp : "";
    this.topic = text(body.event["hub.topic"]) ?? "";
    /** @type {Item[]} */
    this.context = items(body.event.context);
    this.version = text(body.event["context.versionId"]);
    this.priorVersion = text(body.event["context.priorVersionId"]);
    /** The anchor, "Patient/p1"; "" where the event has none. */
    this.anchor = anchorOf(this.name, this.context);
  }

  /** @returns {Kind} */
  get kind() {
    return kindOf(this.name);
  }

  /** Whether the event makes a context current: an open, or Home-open. */
  get opens() {
    return this.kind === "open" || this.kind === "home";
  }

  /** Whether the event may change the current context. */
  get changes() {
    return this.opens || this.kind === "close";
  }

  /** Whether the event is retried while the hub cannot be reached: a change of context, or a logout. */
  get announces() {
    return this.changes || ["userlogout", "userhibernate"].includes(this.name.toLowerCase());
  }

  /**
   * Whether a SyncError tells the other applications when the event is not followed: "SyncError is not used when a
   * Subscriber responds to an *-update or *-select event" (3.2.1).
   */
  get matters() {
    return this.changes || this.kind === "other";
  }

  /** The timestamp as an instant, null where it cannot be read. */
  get at() {
    return instant(this.timestamp);
  }

  /**
   * Studies and reports have two keys, which are the same here: `study` and `imagingstudy`, `report` and
   * `diagnosticreport`.
   *
   * @param {string} keyOrType A key ("study") or a resource type ("ImagingStudy"), in any case.
   * @returns {Resource | null} The first resource in the context under that key, else of that type.
   */
  resource(keyOrType) {
    return itemOf(this.context, namesOf(keyOrType.toLowerCase()))?.resource ?? null;
  }
}

/**
 * @param {any} message A frame of the socket, as JSON.
 * @returns {message is Message} Whether the message is an event.
 */
export function isEvent(message) {
  const event = message.event;
  return text(message.id) !== null && isObject(event) && text(event["hub.event"]) !== null;
}

/**
 * @param {string} name
 * @returns {Kind} "Hubs and Subscribers SHALL be case insensitive for event-names" (2.4).
 */
export function kindOf(name) {
  const known = name.toLowerCase();
  if (known === "home-open") return "home";
  if (known === "syncerror" || known === "heartbeat") return known;
  return /** @type {Kind} */ (RESOURCE_EVENT.exec(known)?.[2] ?? "other");
}

/**
 * @param {string} type A resource type.
 * @returns {string} The key of the context item that holds an anchor of this type.
 */
export function anchorKey(type) {
  const known = type.toLowerCase();
  return Object.hasOwn(ANCHOR_KEYS, known) ? String(ANCHOR_KEYS[known]) : known;
}

/**
 * @param {string} name A key or a type, in lower case.
 * @returns {string[]} The name and its synonyms.
 */
function namesOf(name) {
  const pair = Object.entries(ANCHOR_KEYS).find((each) => each.includes(name));
  return pair ?? [name];
}

/**
 * @param {string} topic
 * @param {string} name
 * @param {Item[]} context
 * @param {{id?: string | null, timestamp?: string | null, version?: string | null, own?: boolean}} [options]
 * @returns {Event} An event to publish. Defaults: a new UUID as id, now as timestamp. Its context is a copy: later
 *     changes of the application's resources must not change the event.
 */
export function makeEvent(topic, name, context, { id, timestamp, version, own = true } = {}) {
  const inner = {
    "hub.topic": topic,
    "hub.event": name,
    ...(version ? { "context.versionId": version } : {}),
    context: copied(context),
  };
  return new Event({ timestamp: timestamp || timestampNow(), id: id || uuid(), event: inner }, own);
}

/**
 * @template T
 * @param {T} json
 * @returns {T} A deep copy.
 */
export function copied(json) {
  return JSON.parse(JSON.stringify(json));
}

/** @param {object} message @returns {string} JSON. Invalid characters, such as half an emoji, are replaced. */
export function encoded(message) {
  return JSON.stringify(message, (_, value) => (typeof value === "string" ? value.replace(HALVES, "\ufffd") : value));
}

/**
 * @param {Resource[]} resources The first is the anchor.
 * @returns {Item[]} "Context change events SHALL include the resource the context change relates to" (2.3).
 * @throws {TypeError} Without a resource, or for a resource without type or id.
 */
export function contextOf(resources) {
  if (resources.length === 0) throw new TypeError("a resource is required");
  return resources.map((resource) => {
    if (!referenceTo(resource)) throw new TypeError("a resource lacks resourceType or id");
    return { key: anchorKey(resource.resourceType), resource };
  });
}

/**
 * @param {unknown} url A reference, or a URL that ends in one.
 * @returns {string} "Observation/o1"; "" for other URLs.
 */
export function referenceIn(url) {
  return typeof url === "string" ? (NAMED.exec(url)?.[1] ?? "") : "";
}

/**
 * @param {any} resource
 * @returns {string} "Patient/p1"; "" for a resource without type or id.
 */
export function referenceTo(resource) {
  return text(resource?.resourceType) && text(resource.id) ? `${resource.resourceType}/${resource.id}` : "";
}

/**
 * @param {any} item A context item.
 * @returns {string} "Patient/p1", the resource or reference in the item; "" for neither.
 */
export function named(item) {
  const { resource, reference: to } = item;
  return (isObject(resource) && referenceTo(resource)) || referenceIn(isObject(to) ? to.reference : to);
}

/**
 * @param {Resource | string} one
 * @returns {string}
 * @throws {TypeError} For a value without a reference.
 */
export function reference(one) {
  const found = typeof one === "string" ? referenceIn(one) : referenceTo(one);
  if (!found)
    throw new TypeError('a change is a resource with resourceType and id, or a reference such as "Observation/o1"');
  return found;
}

/**
 * @param {unknown} one
 * @param {unknown} other
 * @returns {boolean} Whether two values are the same JSON. The order of members does not matter.
 */
export function sameJson(one, other) {
  const pairs = [[one, other]];
  for (let pair = pairs.pop(); pair; pair = pairs.pop()) {
    /** @type {any} */
    const [left, right] = pair;
    const areLists = Array.isArray(left) && Array.isArray(right);
    const areObjects = isObject(left) && isObject(right);
    if (!areLists && !areObjects) {
      if (left !== right) return false;
      continue;
    }
    const names = Object.keys(left);
    if (names.length !== Object.keys(right).length || !names.every((name) => Object.hasOwn(right, name))) return false;
    for (const name of names) pairs.push([/** @type {any} */ (left)[name], /** @type {any} */ (right)[name]]);
  }
  return true;
}

/** @returns {string} A random UUID (version 4). Works also in pages without https. */
export function uuid() {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | VERSION_4;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | VARIANT;
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

/**
 * @param {string} name
 * @param {Item[]} context
 */
function anchorOf(name, context) {
  const type = RESOURCE_EVENT.exec(name)?.[1]?.toLowerCase();
  if (!type || kindOf(name) === "home") return "";
  const keys = [anchorKey(type), type];
  const item = context.find((one) => keys.includes(lower(one.key))) ?? itemOf(context, [type]);
  return item ? named(item) : "";
}

/**
 * @param {Item[]} context
 * @param {string[]} names In lower case.
 * @returns {Item | undefined} The first item with a resource under one of these keys, else of one of these types.
 */
function itemOf(context, names) {
  const items = context.filter((item) => isObject(item.resource));
  return (
    items.find((item) => names.includes(lower(item.key))) ??
    items.find((item) => names.includes(lower(item.resource?.resourceType)))
  );
}

/** @param {unknown} value @returns {string} */
function lower(value) {
  return typeof value === "string" ? value.toLowerCase() : "";
}

/**
 * @param {unknown} context
 * @returns {Item[]} The items that can be read.
 */
function items(context) {
  return Array.isArray(context) ? context.filter(isObject).map((item) => /** @type {Item} */ (item)) : [];
}

/** @param {unknown} value @returns {string | null} A text that is not empty; null for any other value. */
export function text(value) {
  return typeof value === "string" && value ? value : null;
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, any>}
 */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
