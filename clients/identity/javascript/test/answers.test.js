/** Local ids: what servers may answer that leads to another patient, shared by the Python and the JavaScript library. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { FhirSearch, IdentityMap, PixManager, QidoRs, System } from "../src/index.js";
import { CASES, MRN, patient, refusal, rule } from "./cases.js";

const BASE = "https://fhir.example/fhir";
/** @type {Record<string, any>} */
const OPTIONS = { id_system: "idSystem", target_system: "targetSystem" };
/** @type {Record<string, any>} */
const RESOLVERS = { fhir: FhirSearch, pix: PixManager, qido: QidoRs };

for (const given of CASES.servers) {
  test(`${given.proves.join(" ")} ${given.name}`, async () => {
    const [[kind, written] = ["", {}]] = Object.entries(given.ask);
    const options = Object.fromEntries(Object.entries(written).map(([name, value]) => [OPTIONS[name], value]));
    const { status, headers = {}, body } = given.answer;
    const http = async () => new Response(JSON.stringify(body), { status, headers });
    const rules = Object.entries(given.rules).map(([type, ofType]) => [type, ofType.map(rule)]);
    const ids = new IdentityMap(Object.fromEntries(rules), [new RESOLVERS[kind](BASE, http, options)]);
    const found = ids.findResource(given.resource, given.patient);
    if (given.local) assert.equal((await found).id, given.local);
    else await assert.rejects(found, refusal(given.refused, given.reason));
  });
}

test("IDM-2 IDM-4 an answer without end is none", async () => {
  let sent = 0;
  const pull = (/** @type {ReadableStreamDefaultController} */ controller) => {
    sent += 1;
    controller.enqueue(new Uint8Array(1 << 20).fill(0x20));
  };
  const http = async () => new Response(new ReadableStream({ pull }));
  const ids = new IdentityMap({ Patient: [new System(MRN)] }, [new FhirSearch(BASE, http)]);
  await assert.rejects(ids.findResource(patient()), refusal("LookupFailed"));
  assert.ok(sent < 20);
});
