/** Local ids found over HTTP: a FHIR server and a PIX manager, and their faults. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { FhirSearch, IdentityMap, LogicalId, PixManager } from "../src/index.js";
import { QidoRs, StudyUid, System, Table } from "../src/index.js";
import { query } from "../src/local.js";
import { MRN, NIN, patient, refusal, study } from "./cases.js";
import { Hospital, outcome } from "./hospital.js";
import { freePort } from "../../../javascript/test/ports.js";

const RULES = { Patient: [new System(MRN, "number")], ImagingStudy: [new StudyUid()] };
const OWN = "urn:oid:2.999.1";

/** @param {any[]} resolvers */
function mapOf(...resolvers) {
  return new IdentityMap(RULES, resolvers);
}

/**
 * @param {string} system
 * @param {string} value
 */
function identifier(system, value) {
  return { name: "targetIdentifier", valueIdentifier: { system, value } };
}

/** @param {string} reference */
function target(reference) {
  return { name: "targetId", valueReference: { reference } };
}

test("IDM-2 IDM-3 FHIR search", async (context) => {
  const server = await Hospital.open(context);
  const ids = mapOf(new FhirSearch(`${server.base}/`));
  server.resources = [
    patient(undefined, { id: "17", name: [{ family: "Østby" }], birthDate: "1970-05-13" }),
    patient("4438002", { id: "18" }),
  ];
  const local = await ids.findResource(patient(undefined, { name: [{ family: "OESTBY" }] }));
  assert.equal(local.id, "17");
  assert.equal(local.source, "the FHIR server");
  assert.deepEqual(server.asked, [{ path: "/fhir/Patient", parameters: [["identifier", `${MRN}|4438001`]] }]);
  const another = patient(undefined, { birthDate: "1971" });
  await assert.rejects(ids.findResource(another), refusal("Mismatch", /^Birth date differs/));
  await assert.rejects(ids.findResource(patient("4438003")), refusal("NoMatch"));
});

for (const value of ["a|b", "a,b", "a$b", "a\\b", "a&b=c+d e%20", "ø"]) {
  test(`IDM-2 a value reaches the server as it is: ${value}`, async (context) => {
    const server = await Hospital.open(context);
    server.resources = [patient(value, { id: "17" })];
    assert.equal((await mapOf(new FhirSearch(server.base)).findResource(patient(value))).id, "17");
  });
}

test("IDM-2 IDM-4 FHIR search with two matches", async (context) => {
  const server = await Hospital.open(context);
  server.resources = [patient(undefined, { id: "17" }), patient(undefined, { id: "18" })];
  await assert.rejects(mapOf(new FhirSearch(server.base)).findResource(patient()), refusal("SeveralMatches"));
});

test("IDM-2 IDM-4 what does not carry the identifier is no match", async (context) => {
  const server = await Hospital.open(context);
  const ids = mapOf(new FhirSearch(server.base));
  server.resources = [patient("AB", { id: "17" })];
  await assert.rejects(ids.findResource(patient("ab")), refusal("NoMatch"));
  server.instead = [200, { resourceType: "Bundle", entry: [{ resource: patient("4438002", { id: "18" }) }] }];
  await assert.rejects(ids.findResource(patient()), refusal("NoMatch"));
});

test("IDM-2 only matches count", async (context) => {
  const server = await Hospital.open(context);
  const warning = { resourceType: "OperationOutcome", issue: [{ severity: "warning" }] };
  const entry = [
    { resource: patient(undefined, { id: "17" }), search: { mode: "match" } },
    { resource: patient(undefined, { id: "18" }), search: { mode: "include" } },
    { resource: warning, search: { mode: "outcome" } },
  ];
  server.instead = [200, { resourceType: "Bundle", entry }];
  assert.equal((await mapOf(new FhirSearch(server.base)).findResource(patient())).id, "17");
});

test("IDM-2 IDM-4 a page of many is no answer", async (context) => {
  const server = await Hospital.open(context);
  server.resources = [patient(undefined, { id: "17" })];
  server.more = { link: [{ relation: "next", url: `${server.base}?page=2` }] };
  await assert.rejects(mapOf(new FhirSearch(server.base)).findResource(patient()), refusal("LookupFailed"));
});

test("IDM-2 the local id may be an identifier", async (context) => {
  const server = await Hospital.open(context);
  const search = new FhirSearch(server.base, undefined, { idSystem: OWN });
  const old = { system: OWN, value: "local-16", use: "old" };
  const all = [{ system: MRN, value: "4438001" }, old, { system: OWN, value: "local-17" }];
  server.resources = [patient(undefined, { id: "17", identifier: all })];
  assert.equal((await mapOf(search).findResource(patient())).id, "local-17");
  assert.equal((await mapOf(search).publishable("Patient", "local-17"))[0]?.id, "17");
  server.resources = [patient(undefined, { id: "17" })];
  await assert.rejects(mapOf(search).findResource(patient()), refusal("LookupFailed"));
});

test("IDM-1 IDM-2 a logical id is asked for on its server only", async (context) => {
  const server = await Hospital.open(context);
  server.resources = [patient(undefined, { id: "17" })];
  const rules = { Patient: [new LogicalId(server.base), new LogicalId("https://other.example/fhir")] };
  const ids = new IdentityMap(rules, [new FhirSearch(server.base)]);
  const resource = { resourceType: "Patient", id: "17" };
  assert.equal((await ids.findResource(resource, null, { url: `${server.base}/Patient/17` })).id, "17");
  const elsewhere = ids.findResource(resource, null, { url: "https://other.example/fhir/Patient/17" });
  await assert.rejects(elsewhere, refusal("NoMatch"));
  assert.deepEqual(server.asked, [{ path: "/fhir/Patient", parameters: [["_id", "17"]] }]);
  server.instead = [200, { resourceType: "Bundle", entry: [{ resource }] }];
  const next = ids.findResource({ resourceType: "Patient", id: "18" }, null, { url: `${server.base}/Patient/18` });
  await assert.rejects(next, refusal("NoMatch"));
});

for (const stored of ["urn:oid:1.2.3", "1.2.3"]) {
  test(`IDM-2 IDM-3 a study is checked against its subject: ${stored}`, async (context) => {
    const server = await Hospital.open(context);
    const ids = mapOf(new FhirSearch(server.base));
    const identifiers = [{ system: "urn:dicom:uid", value: stored }];
    const here = study("", { id: "st7", identifier: identifiers, subject: { reference: "Patient/17" } });
    server.resources = [here, patient(undefined, { id: "17", gender: "male" })];
    assert.equal((await ids.findResource(study("1.2.3"), { resourceType: "Patient", gender: "male" })).id, "st7");
    const another = ids.findResource(study("1.2.3"), { resourceType: "Patient", gender: "female" });
    await assert.rejects(another, refusal("Mismatch", /^Gender differs .* the patient of the study found here\.$/));
  });
}

const TIMEOUT = { resource: outcome("timeout"), search: { mode: "outcome" } };
/** @type {[number, any][]} */
const FAULTS = [
  [500, outcome("exception")],
  [503, "busy"],
  [404, "<html>no such page</html>"],
  [401, outcome("login")],
  [302, ""],
  [200, "<html>please log in</html>"],
  [200, '{"resourceType": "Bundle", "entry": ['],
  [200, "[]"],
  [200, { resourceType: "Patient", id: "17" }],
];

for (const fault of [...FAULTS, [200, { resourceType: "Bundle", entry: [TIMEOUT] }]]) {
  test(`IDM-2 IDM-4 a FHIR server that fails does not say nobody: ${JSON.stringify(fault)}`, async (context) => {
    const server = await Hospital.open(context);
    const ids = mapOf(new FhirSearch(server.base), new Table({ 4438001: "somebody else" }));
    server.instead = /** @type {[number, any]} */ (fault);
    const reason = "The patient could not be looked up: the FHIR server gave no usable answer. Try again later.";
    await assert.rejects(ids.findResource(patient()), refusal("LookupFailed", reason));
    server.instead = null;
    server.resources = [patient(undefined, { id: "17" })];
    assert.equal((await ids.findResource(patient())).id, "17");
  });
}

for (const fault of [...FAULTS, [403, outcome("code-invalid")], [400, outcome("invalid")]]) {
  test(`IDM-2 IDM-4 a PIX manager that fails does not say nobody: ${JSON.stringify(fault)}`, async (context) => {
    const server = await Hospital.open(context);
    const ids = mapOf(new PixManager(server.base, undefined, { targetSystem: OWN }));
    server.instead = /** @type {[number, any]} */ (fault);
    const failed = refusal("LookupFailed", /the patient index gave no usable answer/);
    await assert.rejects(ids.findResource(patient()), failed);
    server.instead = null;
    server.links = { [`${MRN}|4438001`]: [identifier(OWN, "17")] };
    assert.equal((await ids.findResource(patient())).id, "17");
  });
}

for (const fault of [[500, ""], [200, "garbage"], [200, { "00100010": {} }], [404, ""]]) {
  test(`IDM-2 IDM-4 an archive that fails is not one that has no study: ${JSON.stringify(fault)}`, async (context) => {
    const server = await Hospital.open(context);
    const ids = mapOf(new QidoRs(server.base));
    server.instead = /** @type {[number, any]} */ (fault);
    const failed = refusal("LookupFailed", /^The study could not be looked up: the image archive gave/);
    await assert.rejects(ids.findResource(study("1.2.3")), failed);
    server.instead = [204, ""];
    await assert.rejects(ids.findResource(study("1.2.4")), refusal("NoMatch"));
    server.instead = [200, []];
    await assert.rejects(ids.findResource(study("1.2.5")), refusal("NoMatch"));
  });
}

test("IDM-2 an archive is asked for UIDs and its own accession numbers", async (context) => {
  const server = await Hospital.open(context);
  server.instead = [200, [{ "0020000D": { Value: ["1.2.3"] }, "00080050": { Value: ["ACC1"] } }]];
  const own = new QidoRs(server.base, undefined, { accessionSystem: OWN });
  for (const asked of [
    query("ImagingStudy", "ACC1", "urn:other", ["ACSN"]),
    query("ImagingStudy", "ACC1", OWN, ["FILL"]),
    query("ImagingStudy", "ACC1", OWN),
    query("Patient", "1.2.3", "urn:dicom:uid"),
  ]) {
    assert.deepEqual(await own.find(asked), []);
  }
  assert.deepEqual(server.asked, []);
  const [found] = await own.find(query("ImagingStudy", "ACC1", OWN, ["FILL", "ACSN"]));
  assert.equal(found?.id, "1.2.3");
});

test("IDM-2 IDM-4 a server that says nothing", async (context) => {
  const server = await Hospital.open(context);
  server.silent = true;
  const ids = new IdentityMap(RULES, [new FhirSearch(server.base)], { askSeconds: 0.5 });
  await assert.rejects(ids.findResource(patient()), refusal("LookupFailed"));
});

test("IDM-2 IDM-4 a server that is not there", async () => {
  const ids = mapOf(new FhirSearch(`http://127.0.0.1:${await freePort()}/fhir`));
  await assert.rejects(ids.findResource(patient()), refusal("LookupFailed"));
});

test("IDM-2 PIX", async (context) => {
  const server = await Hospital.open(context);
  const ids = mapOf(new PixManager(server.base, undefined, { targetSystem: OWN }));
  const old = { name: "targetIdentifier", valueIdentifier: { system: OWN, value: "16", use: "old" } };
  const all = [identifier("urn:else", "9"), old, identifier(OWN, "17"), target("https://x/Patient/1")];
  server.links = { [`${MRN}|4438001`]: all };
  assert.equal((await ids.findResource(patient())).id, "17");
  const parameters = [["sourceIdentifier", `${MRN}|4438001`], ["targetSystem", OWN]];
  assert.deepEqual(server.asked, [{ path: "/fhir/Patient/$ihe-pix", parameters }]);
});

for (const answer of [[404, outcome("not-found")], [400, outcome("code-invalid")]]) {
  test(`IDM-2 IDM-4 PIX that does not know: ${answer[0]}`, async (context) => {
    const server = await Hospital.open(context);
    server.instead = /** @type {[number, any]} */ (answer);
    const manager = new PixManager(server.base, undefined, { targetSystem: OWN });
    await assert.rejects(mapOf(manager).findResource(patient()), refusal("NoMatch"));
    assert.equal((await mapOf(manager, new Table({ 4438001: "17" })).findResource(patient())).id, "17");
  });
}

test("IDM-2 IDM-4 PIX with nobody and with several in the target system", async (context) => {
  const server = await Hospital.open(context);
  const ids = mapOf(new PixManager(server.base, undefined, { targetSystem: OWN }));
  server.links[`${MRN}|1`] = [identifier("urn:else", "9")];
  server.links[`${MRN}|2`] = [identifier(OWN, "17"), identifier(OWN, "18")];
  await assert.rejects(ids.findResource(patient("1")), refusal("NoMatch"));
  await assert.rejects(ids.findResource(patient("2")), refusal("SeveralMatches"));
});

test("IDM-2 PIX that names a Patient resource", async (context) => {
  const server = await Hospital.open(context);
  const own = "https://own.example/fhir";
  server.links[`${MRN}|4438001`] = [target("https://other.example/fhir/Patient/1"), target(`${own}/Patient/17`)];
  server.links[`${MRN}|4438002`] = [target("Patient/18")];
  const named = mapOf(new PixManager(server.base, undefined, { targetSystem: own }));
  assert.equal((await named.findResource(patient())).id, "17");
  const any = mapOf(new PixManager(server.base));
  assert.equal((await any.findResource(patient("4438002"))).id, "18");
  await assert.rejects(any.findResource(patient()), refusal("SeveralMatches"));
});

test("IDM-2 PIX asked with an identifier of its own target", async (context) => {
  const server = await Hospital.open(context);
  server.links[`${MRN}|4438001`] = [identifier(NIN, "13057000001")];
  const ids = mapOf(new PixManager(server.base, undefined, { targetSystem: MRN }));
  assert.equal((await ids.findResource(patient())).id, "4438001");
  await assert.rejects(ids.findResource(patient("4438002")), refusal("NoMatch"));
});

test("IDM-2 PIX is not asked for studies nor without a system", async (context) => {
  const server = await Hospital.open(context);
  const manager = new PixManager(server.base);
  assert.deepEqual(await manager.find(query("ImagingStudy", "1.2.3", "urn:dicom:uid")), []);
  assert.deepEqual(await manager.find(query("Patient", "4438001")), []);
  assert.deepEqual(server.asked, []);
});

test("IDM-5 publishing with the identifiers of all", async (context) => {
  const server = await Hospital.open(context);
  const secret = { name: [{ family: "Østby" }], telecom: [{ value: "secret" }] };
  server.resources = [patient(undefined, { id: "17", ...secret })];
  server.links[`${OWN}|17`] = [identifier(NIN, "13057000001"), identifier(MRN, "4438001")];
  const ids = mapOf(new FhirSearch(server.base), new PixManager(server.base, undefined, { targetSystem: OWN }));
  /** @type {any[]} */
  const [resource] = await ids.publishable("Patient", "17");
  assert.deepEqual(Object.keys(resource).sort(), ["id", "identifier", "name", "resourceType"]);
  assert.equal(resource.id, "17");
  assert.deepEqual(resource.identifier, [
    { system: MRN, value: "4438001" },
    { system: OWN, value: "17" },
    { system: NIN, value: "13057000001" },
  ]);
  server.instead = [500, ""];
  await assert.rejects(ids.publishable("Patient", "17"), refusal("LookupFailed"));
});

test("IDM-5 publishing a study of the FHIR server", async (context) => {
  const server = await Hospital.open(context);
  const here = study("1.2.3", { id: "st7", subject: { reference: "Patient/17" }, status: "available" });
  server.resources = [here, patient(undefined, { id: "17" })];
  const resources = await mapOf(new FhirSearch(server.base)).publishable("ImagingStudy", "st7");
  assert.deepEqual(resources, [here, patient(undefined, { id: "17" })]);
});
