/** Local ids: the application's own ids of the patients and studies in events. See README.md. */

export { FhirSearch } from "./fhir.js";
export { Local } from "./local.js";
export { IdentityMap } from "./map.js";
export { PixManager } from "./pix.js";
export { QidoRs } from "./qido.js";
export { LookupFailed, Mismatch, NoMatch, Refusal, SeveralMatches } from "./refusals.js";
export { LogicalId, StudyUid, System, TypeCode } from "./rules.js";
export { Table } from "./table.js";

/** @typedef {import("./local.js").LocalFields} LocalFields */
/** @typedef {import("./local.js").Query} Query */
/** @typedef {import("./map.js").Lookup} Lookup */
/** @typedef {import("./map.js").Options} Options */
/** @typedef {import("./map.js").Resolver} Resolver */
/** @typedef {import("./rules.js").Rule} Rule */
