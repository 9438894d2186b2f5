/** Events: read from a message, and what there is to know of them (FHIRcast 3.0.0, 2.3 "Events" and 2.5). No I/O. */

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
 * Keys of a context item that differ from the lower-case type: "due to legacy reasons" (2.3).
 * @type {Record<string, string>}
 */
const ANCHOR_KEYS = { imagingstudy: "study", diagnosticreport: "report" };
const RESOURCE_EVENT = /^([a-z]+)-(open|close|update|select)$/i;
const IN_REFERENCE = /(?:^|[/:])([A-Za-z]+)\/([^/?#]+)$/;
const TIMESTAMP =
  /^(\d{4})-?(\d\d)-?(\d\d)(?:[T ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?)?(Z|([+-])(\d\d)(?::?(\d\d))?)?)?$/i;
const NANOSECONDS = 1_000_000n;
const DECIMALS = 9;

/** An event that came from the hub, or goes to it. */
export class Event {
  /**
   * What the `IdentityMap` (or whatever else was given as `ids`) found for it, else null.
   * @type {any}
   */
  local = null;

  /**
   * @param {Message} body The whole message.
   * @param {boolean} [own] Whether this client published it.
   */
  constructor(body, own = false) {
    this.body = body;
    this.own = own;
    this.id = body.id;
    /** As sent. */
    this.name = body.event["hub.event"];
    /** As sent; "" where the hub did not say. */
    this.timestamp = typeof body.timestamp === "string" ? body.timestamp : "";
    this.topic = body.event["hub.topic"];
    /** @type {Item[]} */
    this.context = items(body.event.context);
    this.version = text(body.event["context.versionId"]);
    this.priorVersion = text(body.event["context.priorVersionId"]);
    /** What was opened, closed, updated: "Patient/p1"; "" where the event has none. */
    this.anchor = anchorOf(this.name, this.context);
  }

  /** @returns {Kind} */
  get kind() {
    return kindOf(this.name);
  }

  /** Whether it changes what is current. */
  get changes() {
    return this.kind === "open" || this.kind === "close" || this.kind === "home";
  }

  /** Whether others are told when it is not followed: "SyncError is not used [for] *-update or *-select" (3.2.1). */
  get matters() {
    return this.changes || this.kind === "other";
  }

  /** When it happened, in nanoseconds of the epoch; null where that cannot be read. */
  get instant() {
    return instant(this.timestamp);
  }

  /**
   * Of a study and a report both keys count, whichever is asked for: `study` and `imagingstudy`, `report` and
   * `diagnosticreport`.
   *
   * @param {string} keyOrType A key ("study") or a resource type ("ImagingStudy"), in any case.
   * @returns {Resource | null} The first resource in the context under that key, else of that type.
   */
  resource(keyOrType) {
    const names = namesOf(keyOrType.toLowerCase());
    const found =
      this.context.find((item) => names.includes(item.key.toLowerCase()) && isObject(item.resource)) ??
      this.context.find((item) => names.includes(typeOf(item.resource)));
    return found?.resource ?? null;
  }
}

/**
 * @param {any} message What came over the socket, as JSON.
 * @returns {message is Message} Whether it can be taken for an event.
 */
export function isEvent(message) {
  const event = message.event;
  return typeof message.id === "string" && isObject(event) && typeof event["hub.event"] === "string";
}

/**
 * @param {string} name
 * @returns {Kind} "Hubs and Subscribers SHALL be case insensitive for event-names" (2.4).
 */
export function kindOf(name) {
  const lower = name.toLowerCase();
  if (lower === "home-open") return "home";
  if (lower === "syncerror" || lower === "heartbeat") return lower;
  return /** @type {Kind} */ (RESOURCE_EVENT.exec(lower)?.[2] ?? "other");
}

/**
 * @param {string} type A resource type.
 * @returns {string} The key of the context item that holds an anchor of this type.
 */
export function anchorKey(type) {
  const lower = type.toLowerCase();
  return Object.hasOwn(ANCHOR_KEYS, lower) ? String(ANCHOR_KEYS[lower]) : lower;
}

/**
 * @param {string} name A key or a type, in lower case.
 * @returns {string[]} Itself, and how else the same is called.
 */
function namesOf(name) {
  const pair = Object.entries(ANCHOR_KEYS).find((each) => each.includes(name));
  return pair ?? [name];
}

/**
 * @param {string} timestamp ISO 8601; without a zone it is UTC, as the specification asks for.
 * @returns {bigint | null} Nanoseconds of the epoch; null where it cannot be read.
 */
export function instant(timestamp) {
  const found = TIMESTAMP.exec(timestamp);
  if (!found) return null;
  const [, year, month, day, hour = 0, minute = 0, second = 0, fraction = "", , sign, hours = 0, minutes = 0] = found;
  const offset = (sign === "-" ? -1 : 1) * (Number(hours) * 60 + Number(minutes));
  const utc = Date.UTC(
    Number(year),
    Number(month) - 1,
    Number(day),
    Number(hour),
    Number(minute) - offset,
    Number(second),
  );
  return BigInt(utc) * NANOSECONDS + BigInt(fraction.slice(0, DECIMALS).padEnd(DECIMALS, "0"));
}

/**
 * @param {string} url A reference, or a URL that ends in one.
 * @returns {string} Its last two segments, "Patient/p1"; "" where there are none.
 */
export function referenceIn(url) {
  const found = IN_REFERENCE.exec(url);
  return found ? `${found[1]}/${found[2]}` : "";
}

/**
 * @param {any} resource
 * @returns {string} "Patient/p1"; "" where it has no type or id.
 */
export function referenceTo(resource) {
  return typeof resource?.resourceType === "string" && typeof resource.id === "string" && resource.id
    ? `${resource.resourceType}/${resource.id}`
    : "";
}

/**
 * @param {Resource | string} one
 * @returns {string}
 * @throws {TypeError} When it names nothing.
 */
export function reference(one) {
  const found = typeof one === "string" ? referenceIn(one) : referenceTo(one);
  if (!found)
    throw new TypeError('expected a resource with resourceType and id, or a reference such as "Observation/o1"');
  return found;
}

/**
 * @param {string} name
 * @param {Item[]} context
 */
function anchorOf(name, context) {
  const type = RESOURCE_EVENT.exec(name)?.[1]?.toLowerCase();
  if (!type || kindOf(name) === "home") return "";
  const item =
    context.find((one) => [anchorKey(type), type].includes(one.key.toLowerCase())) ??
    context.find((one) => typeOf(one.resource) === type);
  return referenceTo(item?.resource) || referenceIn(text(item?.reference?.reference) ?? "");
}

/** @param {any} resource @returns {string} Its type in lower case; "" where it has none. */
function typeOf(resource) {
  return text(resource?.resourceType)?.toLowerCase() ?? "";
}

/**
 * @param {unknown} context
 * @returns {Item[]} What of it can be read.
 */
function items(context) {
  return Array.isArray(context) ? context.filter((item) => isObject(item) && typeof item.key === "string") : [];
}

/** @param {unknown} value */
function text(value) {
  return typeof value === "string" && value ? value : null;
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, any>}
 */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
