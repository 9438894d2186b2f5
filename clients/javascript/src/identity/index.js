/** Local ids: whom an event names, as the application itself knows him or her. See clients/identity.md. */

export { FhirSearch } from "./fhir.js";
export { Local } from "./local.js";
export { IdentityMap } from "./map.js";
export { PixManager } from "./pix.js";
export { QidoRs } from "./qido.js";
export { LookupFailed, Mismatch, NoMatch, SeveralMatches } from "./refusals.js";
export { LogicalId, StudyUid, System, TypeCode } from "./rules.js";
export { Table } from "./table.js";
