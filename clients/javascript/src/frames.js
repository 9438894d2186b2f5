/** Frames that are not events: confirmations, denials, heartbeats (FHIRcast 3.0.0, 2.4; STU2). No I/O. */

import { inOneLine } from "./errors.js";
import { isObject } from "./events.js";

/** @typedef {import("./events.js").Event} Event */
/**
 * A confirmed subscription: the granted events, and the lease in seconds, null where the hub does not tell.
 * @typedef {{events: string[], leaseSeconds: number | null}} Confirmation
 */

/** The id of the event. Ids of resources come later in the frame, within "event". */
const ID = /"id"\s*:\s*"([^"\\\x00-\x1f]+)"/;
const DENIALS = new Set(["denied", "unsubscribe"]);

/** @param {unknown} message @returns {Confirmation | null} Null for any other message. */
export function readConfirmation(message) {
  if (!isObject(message) || "event" in message || DENIALS.has(message["hub.mode"])) return null;
  const { "hub.mode": mode, "hub.events": given } = message;
  if (mode !== "subscribe" && ("hub.mode" in message || !("hub.topic" in message))) return null;
  const names = typeof given === "string" ? given.split(",") : Array.isArray(given) ? given : [];
  const events = names.filter((name) => typeof name === "string" && name.trim()).map((name) => name.trim());
  return { events, leaseSeconds: seconds(message["hub.lease_seconds"]) };
}

/** @param {unknown} message @returns {message is Record<string, any>} Whether the message ends the subscription. */
export function isDenial(message) {
  return isObject(message) && DENIALS.has(message["hub.mode"]);
}

/**
 * @param {Record<string, any>} message A denial.
 * @returns {string} The hub's reason for ending the subscription; "" where it gives none: `hub.reason` is "OPTIONAL"
 *     (2.4).
 */
export function denialReason({ "hub.reason": reason }) {
  return typeof reason === "string" ? inOneLine(reason) : "";
}

/**
 * @param {Event} event A heartbeat.
 * @returns {number | null} Seconds until the next heartbeat, null where the heartbeat does not tell.
 */
export function heartbeatPeriod(event) {
  return seconds(event.context.find((item) => item.key === "period")?.decimal);
}

/** @param {string} frame Not valid JSON. @returns {string} The id of its event; "" where there is none. */
export function idIn(frame) {
  return ID.exec(frame.split('"event"', 1)[0] ?? "")?.[1] ?? "";
}

/** @param {unknown} value */
function seconds(value) {
  if ((typeof value !== "number" && typeof value !== "string") || value === "") return null;
  const found = Number(value);
  return found > 0 && found < Infinity ? found : null;
}
