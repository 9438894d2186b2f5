/** The FHIRcast client library: what an application needs. It runs in browsers as it is, and in Node. */

export { FHIRcastClient } from "./client.js";
export { Context } from "./contexts.js";
export { HubError, Refuse, TokenError } from "./errors.js";
export { Event } from "./events.js";
export * from "./identity/index.js";
export { TIMINGS } from "./timing.js";
