/** SyncErrors (FHIRcast 3.0.0, 3.2.1): which subscriber did not follow which event, and why. No I/O. */

import { isObject, makeEvent } from "./events.js";

/** @typedef {import("./events.js").Event} Event */
/**
 * Consequences of a SyncError: own opens to resend, and ids of events that this client is not subscribed to.
 * @typedef {{resend: Event[], unsubscribed: string[]}} Reported
 */
/**
 * @typedef {object} SyncError What one says.
 * @property {string} id Id of the event.
 * @property {string} name Name of the event.
 * @property {string} subscriber The subscriber that did not follow.
 * @property {string} why The reason, for users.
 */

const SYSTEM = "https://fhircast.hl7.org/events/syncerror/";
const UNNAMED = "unnamed";

/**
 * @param {string} topic
 * @param {Event} about The event, which was answered with 202 and is not followed.
 * @param {string} subscriber
 * @param {string} reason
 * @returns {Event} As in "Operation outcome for Subscriber generated sync-errors" (3.2.1).
 */
export function makeSyncError(topic, about, subscriber, reason) {
  const named = subscriber || UNNAMED;
  const codes = { eventid: about.id, eventname: about.name, subscribername: named, subscriber: named };
  const coding = Object.entries(codes).map(([system, code]) => ({ system: SYSTEM + system, code }));
  const diagnostics = `${named} did not follow ${about.name}: ${reason}`;
  const issue = { severity: "warning", code: "processing", diagnostics, details: { coding } };
  const resource = { resourceType: "OperationOutcome", issue: [issue] };
  return makeEvent(topic, "SyncError", [{ key: "operationoutcome", resource }]);
}

/**
 * @param {Event} event A SyncError.
 * @returns {SyncError[]} Its issues, as far as they can be read.
 */
export function readSyncErrors(event) {
  const issues = event.resource("operationoutcome")?.issue;
  return Array.isArray(issues) ? issues.filter(isObject).map(read) : [];
}

/** @param {Record<string, any>} issue @returns {SyncError} */
function read(issue) {
  const codes = codesOf(issue);
  const subscriber = codes.get("subscribername") ?? codes.get("subscriber") ?? UNNAMED;
  const name = codes.get("eventname") ?? "";
  const { diagnostics } = issue;
  const why = typeof diagnostics === "string" && diagnostics ? diagnostics : `${subscriber} did not follow ${name}`.trim();
  return { id: codes.get("eventid") ?? "", name, subscriber, why };
}

/** @param {Record<string, any>} issue @returns {Map<string, string>} Its codings, by the last part of their system. */
function codesOf(issue) {
  const coding = issue.details?.coding;
  /** @type {Map<string, string>} */
  const codes = new Map();
  for (const { system, code } of Array.isArray(coding) ? coding.filter(isObject) : []) {
    if (typeof system !== "string" || typeof code !== "string" || !code || !system.startsWith(SYSTEM)) continue;
    const part = system.slice(SYSTEM.length);
    if (!codes.has(part)) codes.set(part, code);
  }
  return codes;
}
