import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { contextOf, Event, uuid } from "../src/events.js";
import { instant } from "../src/timestamps.js";
import { event, OBSERVATION, PATIENT, REPORT, STUDY } from "./fake.js";

test("CLT-26 timestamps are instants, whatever their form", () => {
  const same = [
    "2026-01-31T09:30:00Z",
    "2026-01-31T09:30:00.000Z",
    "2026-01-31T09:30:00.0000000",
    "2026-01-31t09:30:00,00z",
    "2026-01-31 09:30",
    "2026-01-31T10:30:00+01:00",
    "2026-01-31T04:00:00.00-0530",
    "2026-01-31T11:30:00+02",
  ];
  for (const timestamp of same) assert.equal(instant(timestamp), instant("2026-01-31T09:30:00.000Z"), timestamp);
  assert.equal(instant("1970-01-01T00:00:00.0000012"), 1_200_000n);
  const none = ["", "now", "2026", "2026-01-31", "2026-01-31T", "31.1.2026", "2026-01-31T09:30:00 CET", "2026-02-30T09:30Z"];
  for (const timestamp of [...none, "2026-01-31T24:00Z", "2026-01-31T09:60Z", "2026-13-01T00:00Z"]) {
    assert.equal(instant(timestamp), null, timestamp);
  }
});

test("CLT-1 an event knows its anchor and its resources", () => {
  const open = new Event(event("imagingstudy-OPEN", [STUDY, PATIENT]));
  assert.equal(open.anchor, "ImagingStudy/s1");
  assert.equal(open.resource("study")?.id, "s1");
  assert.equal(open.resource("ImagingStudy")?.id, "s1");
  assert.equal(open.resource("PATIENT")?.id, "p1");
  assert.equal(open.resource("encounter"), null);

  const select = event("DiagnosticReport-select", []);
  select.event.context = [{ key: "report", reference: { reference: "http://fhir.example/DiagnosticReport/r1" } }];
  assert.equal(new Event(select).anchor, "DiagnosticReport/r1");
  assert.equal(new Event(event("Home-open", [])).anchor, "");
  assert.equal(new Event(event("org.example.zoomed", [PATIENT])).anchor, "");
});

test("CLT-15 a study and a report are found under both their keys, whichever is asked for", () => {
  const report = { resourceType: "DiagnosticReport", id: "r1" };
  for (const [study, other] of [
    ["study", "report"],
    ["imagingstudy", "diagnosticreport"],
  ]) {
    const open = event("DiagnosticReport-open", []);
    open.event.context = [
      { key: String(other), resource: report },
      { key: String(study), resource: STUDY },
    ];
    for (const name of ["study", "imagingstudy", "ImagingStudy"]) assert.equal(new Event(open).resource(name)?.id, "s1");
    for (const name of ["report", "diagnosticreport"]) assert.equal(new Event(open).resource(name)?.id, "r1");
  }
});

test("CLT-1 an event of which little can be read is read as far as it goes", () => {
  for (const context of [
    undefined,
    null,
    "text",
    [
      null,
      1,
      {},
      { key: 1 },
      { key: "patient" },
      { key: "patient", resource: 3 },
      { key: "x", resource: { resourceType: 5, id: 6 } },
    ],
  ]) {
    const odd = event("Patient-open", []);
    odd.event.context = context;
    odd.timestamp = 12;
    assert.equal(new Event(odd).anchor, "");
    assert.equal(new Event(odd).resource("Patient"), null);
    assert.equal(new Event(odd).at, null);
  }
});

test("CLT-8 what is published has the keys of the specification", () => {
  assert.deepEqual(
    contextOf([REPORT, STUDY, PATIENT]).map(({ key }) => key),
    ["report", "study", "patient"],
  );
  assert.deepEqual(
    contextOf([OBSERVATION]).map(({ key }) => key),
    ["observation"],
  );
  assert.throws(() => contextOf([]), TypeError);
  assert.throws(() => contextOf([{ resourceType: "Patient" }]), TypeError);
});

test("ids are UUIDs, also where a page has no crypto.randomUUID", () => {
  const pattern = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
  assert.match(uuid(), pattern);
  Object.defineProperty(crypto, "randomUUID", { value: undefined, configurable: true });
  try {
    assert.match(uuid(), pattern);
    assert.notEqual(uuid(), uuid());
  } finally {
    Reflect.deleteProperty(crypto, "randomUUID");
  }
});

test("the library takes nothing that a browser has not", () => {
  const folder = new URL("../src/", import.meta.url);
  for (const file of readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".js"),
  )) {
    const code = readFileSync(new URL(file, folder), "utf8");
    for (const [, from] of code.matchAll(/^(?:import|export)\s[^;]*?from "([^"]+)"/gm))
      assert.match(from ?? "", /^\.\.?\/.+\.js$/, file);
    assert.doesNotMatch(code, /\b(?:process|Buffer|require|__dirname)\b\s*[.(]/, file);
  }
});
