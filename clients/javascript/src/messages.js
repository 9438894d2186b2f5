/** Messages that a client makes (FHIRcast 3.0.0, 2.6, 2.10 and 3). No I/O. */

import { fullUrlIn, namedBy } from "./context.js";
import { anchorKey, reference, referenceTo } from "./events.js";

/** @typedef {import("./context.js").Content} Content */
/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./events.js").Item} Item */
/** @typedef {import("./events.js").Message} Message */
/** @typedef {import("./events.js").Resource} Resource */

const SYSTEM = "https://fhircast.hl7.org/events/syncerror/";
const UNNAMED = "unnamed";
const VERSION_4 = 0x40;
const VARIANT = 0x80;

/**
 * @param {string} topic
 * @param {string} name
 * @param {Item[]} context
 * @param {{id?: string | null, timestamp?: string | null, version?: string}} [options]
 * @returns {Message} Its context is a copy: what the application changes later must not change what was sent.
 */
export function makeMessage(topic, name, context, { id, timestamp, version } = {}) {
  return {
    timestamp: timestamp ?? new Date().toISOString(),
    id: id ?? uuid(),
    event: {
      "hub.topic": topic,
      "hub.event": name,
      ...(version ? { "context.versionId": version } : {}),
      context: copied(context),
    },
  };
}

/**
 * @template T
 * @param {T} json
 * @returns {T} The same with nothing in common.
 */
export function copied(json) {
  return JSON.parse(JSON.stringify(json));
}

/**
 * @param {Resource[]} resources The first is the anchor.
 * @returns {Item[]} "Context change events SHALL include the resource the context change relates to" (2.3).
 * @throws {TypeError} When there is none, or one without type or id.
 */
export function contextOf(resources) {
  if (resources.length === 0) throw new TypeError("expected a resource to open or close, got none");
  return resources.map((resource) => {
    if (!referenceTo(resource)) throw new TypeError("expected resources with resourceType and id, got another");
    return { key: anchorKey(resource.resourceType), resource };
  });
}

/**
 * @param {string} anchor "DiagnosticReport/r1"
 * @param {(Resource | string)[]} changes Resources are put, references deleted.
 * @param {Resource | null} patient Whom the anchor is about, if that is known.
 * @param {Content | null} [content] What is shared already, as far as that is known: what has a fullUrl keeps it, so that
 *     those who go by it change the same.
 * @returns {Item[]} The context of an update: "one and only one Bundle SHALL be present" (2.10).
 */
export function updateContext(anchor, changes, patient, content = null) {
  const entry = changes.map((change) => {
    const url = (typeof change === "string" && namedBy(change)) || reference(change);
    const fullUrl = fullUrlIn(content, url);
    return typeof change === "string"
      ? { fullUrl, request: { method: "DELETE", url } }
      : { fullUrl, request: { method: "PUT", url }, resource: change };
  });
  const bundle = { resourceType: "Bundle", id: uuid(), type: "transaction", entry };
  return [...about(anchor, patient), { key: "updates", resource: bundle }];
}

/**
 * @param {string} anchor
 * @param {(Resource | string)[]} selected Resources or references; none clears the selection.
 * @param {Resource | null} patient Whom the anchor is about, if that is known.
 * @returns {Item[]} The context of a select (3.6.4).
 */
export function selectContext(anchor, selected, patient) {
  return [
    ...about(anchor, patient),
    ...selected.map((one) => ({ key: "select", reference: { reference: reference(one) } })),
  ];
}

/**
 * @param {string} topic
 * @param {Event} event That was not followed.
 * @param {string} name Who did not follow.
 * @param {string} why
 * @returns {Message} A SyncError, as "Operation outcome for Subscriber generated sync-errors" has it (3.2.1).
 */
export function syncError(topic, event, name, why) {
  const who = name || UNNAMED;
  const codes = { eventid: event.id, eventname: event.name, subscribername: who, subscriber: who };
  const coding = Object.entries(codes).map(([system, code]) => ({ system: SYSTEM + system, code }));
  const diagnostics = `${who} did not follow ${event.name}: ${why}`;
  const issue = { severity: "warning", code: "processing", diagnostics, details: { coding } };
  return makeMessage(topic, "SyncError", [
    { key: "operationoutcome", resource: { resourceType: "OperationOutcome", issue: [issue] } },
  ]);
}

/**
 * @typedef {object} Report What a SyncError says.
 * @property {string} subscriber Who did not follow.
 * @property {string} id Of the event.
 * @property {string} name Of the event.
 * @property {string} why For people.
 */
/**
 * @param {Event} event A SyncError.
 * @returns {Report[]}
 */
export function reportsIn(event) {
  const issues = event.resource("operationoutcome")?.issue;
  return (Array.isArray(issues) ? issues : []).map((issue) => {
    const coding = issue?.details?.coding;
    /** @type {Record<string, string>} */
    const codes = {};
    for (const { system, code } of Array.isArray(coding) ? coding.filter(Boolean) : []) {
      if (typeof system === "string" && typeof code === "string") codes[system.replace(SYSTEM, "")] ??= code;
    }
    return {
      subscriber: codes.subscribername || codes.subscriber || UNNAMED,
      id: codes.eventid ?? "",
      name: codes.eventname ?? "",
      why: typeof issue?.diagnostics === "string" ? issue.diagnostics : "",
    };
  });
}

/** @returns {string} A random UUID (version 4), also where the page did not come by https. */
export function uuid() {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | VERSION_4;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | VARIANT;
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

/** @param {string} anchor @param {Resource | null} patient @returns {Item[]} */
function about(anchor, patient) {
  const [type = ""] = anchor.split("/");
  const item = { key: anchorKey(type), reference: { reference: anchor } };
  const whom = referenceTo(patient);
  return whom && whom !== anchor ? [item, { key: "patient", reference: { reference: whom } }] : [item];
}
