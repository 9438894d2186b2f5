/** The FHIRcast client library. Runs in browsers without a build, and in Node. */

export { FHIRcastClient } from "./client.js";
export { Context } from "./contexts.js";
export { HubError, isRefusal, Refuse, TokenError } from "./errors.js";
export { Event } from "./events.js";
export { TIMINGS } from "./timings.js";

/** @typedef {import("./client.js").Options} Options */
/** @typedef {import("./events.js").Item} Item */
/** @typedef {import("./events.js").Resource} Resource */
/** @typedef {import("./hub.js").WireMessage} WireMessage */
/**
 * @template [Found=unknown]
 * @typedef {import("./events.js").Ids<Found>} Ids
 */
/** @typedef {import("./status.js").Status} Status */
/** @typedef {import("./timings.js").Timings} Timings */
/** @typedef {import("./tokens.js").TokenSource} TokenSource */
