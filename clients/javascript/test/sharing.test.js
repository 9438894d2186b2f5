import assert from "node:assert/strict";
import { test } from "node:test";

import { event, flush, nothing, OBSERVATION, PATIENT, REPORT, setUp } from "./fake.js";
import { put, reporting, shared, updated } from "./reporting.js";

const second = { resourceType: "Observation", id: "o2" };

test("CLT-6 an update of the version known here is applied", async (t) => {
  const { hub, client, content, heard } = await reporting(t);
  assert.deepEqual(content(), []);
  hub.socket.tell(updated("v0", "v1", [put(OBSERVATION), put(second)]));
  hub.socket.tell(
    updated("v1", "v2", [
      { fullUrl: "Observation/o1", request: { method: "DELETE" } },
      put({ ...second, status: "final" }),
    ]),
  );
  await flush();
  assert.deepEqual(content(), ["Observation/o2"]);
  assert.equal(client.context?.content?.["Observation/o2"]?.status, "final");
  assert.equal(client.context?.version, "v2");
  assert.equal(hub.sent("context").length, 1);
  assert.deepEqual(heard.slice(1), [
    "DiagnosticReport-update DiagnosticReport/r1",
    "DiagnosticReport-update DiagnosticReport/r1",
  ]);
});

test("CLT-6 where an update does not fit, the content is fetched", async (t) => {
  const { hub, client, content } = await reporting(t);
  hub.answers.context = [shared("v7", [OBSERVATION, second])];
  hub.socket.tell(updated("v6", "v7", [put(second)]));
  await flush();
  assert.deepEqual(content(), ["Observation/o1", "Observation/o2"]);
  hub.answers.context = [{ status: 500 }];
  hub.socket.tell(updated("v8", "v9", [put(second)]));
  await flush();
  assert.equal(client.context?.content, null, "rather unknown than wrong");
  assert.equal(client.context?.version, "v9");
});

test("CLT-7 an update is a Bundle on the version known here, and waits for its echo", async (t) => {
  const { hub, client, content } = await reporting(t);
  let isDone = false;
  const updating = client.update([OBSERVATION]).then(() => (isDone = true));
  await flush();
  const { message } = /** @type {any} */ (hub.sent("publish")[0]);
  assert.equal(message.event["hub.event"], "DiagnosticReport-update");
  assert.equal(message.event["context.versionId"], "v0");
  const [report, patient, { key, resource: bundle }] = message.event.context;
  assert.deepEqual(report, { key: "report", reference: { reference: "DiagnosticReport/r1" } });
  assert.deepEqual(patient, { key: "patient", reference: { reference: "Patient/p1" } });
  assert.equal(key, "updates");
  assert.equal(bundle.type, "transaction");
  const url = "Observation/o1";
  assert.deepEqual(bundle.entry, [{ fullUrl: url, request: { method: "PUT", url }, resource: OBSERVATION }]);
  assert.equal(isDone, false);
  hub.socket.tell(updated("v0", "v1", bundle.entry, message.id));
  await updating;
  assert.deepEqual(content(), ["Observation/o1"]);
  assert.equal(client.context?.version, "v1");
});

test("CLT-7 an echo that does not come is waited for 2 s", async (t) => {
  const { client, pass } = await reporting(t);
  let isDone = false;
  void client.update(["Observation/o1"]).then(() => (isDone = true));
  await pass(1.8);
  assert.equal(isDone, false);
  await pass(0.5);
  assert.equal(isDone, true);
});

test("CLT-7 CLT-2 an update in a handler does not wait for that handler", async (t) => {
  const { hub, client, pass } = setUp(t, {
    handlers: {
      "DiagnosticReport-open": nothing,
      "DiagnosticReport-update": nothing,
      "org.example.measured": () => client.update([OBSERVATION]),
    },
  });
  hub.answers.context = [shared("v0", [])];
  await client.start();
  hub.socket.tell(event("DiagnosticReport-open", [REPORT], { version: "v0" }));
  await pass(1.5);
  hub.socket.tell(event("org.example.measured", [], { id: "m" }));
  await flush();
  hub.socket.tell(updated("v0", "v1", [put(OBSERVATION)], hub.sent("publish")[0]?.message.id));
  await flush();
  assert.equal(hub.acknowledged[1], "m 200");
});

test("CLT-7 changes by a function are made anew after a 409, five times at most", async (t) => {
  const { hub, client, pass } = await reporting(t);
  /** @type {string[][]} */
  const bases = [];
  const add = (/** @type {any} */ content) => {
    bases.push(Object.keys(content));
    return [second];
  };
  hub.answers.publish = [{ status: 409 }, { status: 409 }];
  hub.answers.context = [shared("v1", [OBSERVATION]), shared("v2", [OBSERVATION, second])];
  const updating = client.update(add);
  await pass(2.2);
  await updating;
  assert.deepEqual(bases, [[], ["Observation/o1"], ["Observation/o1", "Observation/o2"]]);
  assert.deepEqual(
    hub.sent("publish").map(({ message }) => message.event["context.versionId"]),
    ["v0", "v1", "v2"],
  );

  hub.always.publish = () => ({ status: 409 });
  hub.always.context = () => shared("v3", []);
  bases.length = 0;
  await assert.rejects(client.update(add, { anchor: REPORT }), { status: 409 });
  assert.equal(bases.length, 5);
  await assert.rejects(client.update([second], { anchor: "DiagnosticReport/r1" }), { status: 409 });
  assert.equal(hub.sent("publish").length, 3 + 5 + 1);
});

test("CLT-7 CLT-6 who does not subscribe to updates asks for the version before each", async (t) => {
  const { hub, client } = setUp(t);
  await client.start();
  await client.open(REPORT, PATIENT);
  hub.answers.context = [shared("v1", []), shared("v2", [])];
  await client.update([OBSERVATION]);
  await client.update([second]);
  assert.deepEqual(
    hub
      .sent("publish")
      .slice(1)
      .map(({ message }) => message.event["context.versionId"]),
    ["v1", "v2"],
  );
});

test("CLT-7 an update of what is not known, or of nothing, says so", async (t) => {
  const { hub, client } = await reporting(t);
  hub.answers.publish = [{ status: 409, text: "expected an open context" }];
  await assert.rejects(client.update([OBSERVATION], { anchor: "DiagnosticReport/r9" }), /expected an open context/);
  assert.equal(hub.sent("publish")[0]?.message.event["context.versionId"], undefined);
  await assert.rejects(client.update([/** @type {any} */ ({ resourceType: "Observation" })]), TypeError);
  await client.close(REPORT);
  await assert.rejects(client.update([OBSERVATION]), /no context is open here/);
});

test("CLT-8 a select names what is selected", async (t) => {
  const { hub, client } = await reporting(t);
  await client.select([OBSERVATION, "http://fhir.example/Observation/o2"]);
  await client.select([], { anchor: "DiagnosticReport/r1" });
  const [some, none] = hub.sent("publish").map(({ message }) => message.event);
  const about = [
    { key: "report", reference: { reference: "DiagnosticReport/r1" } },
    { key: "patient", reference: { reference: "Patient/p1" } },
  ];
  assert.equal(some["hub.event"], "DiagnosticReport-select");
  const selected = ["Observation/o1", "Observation/o2"].map((reference) => ({
    key: "select",
    reference: { reference },
  }));
  assert.deepEqual(some.context, [...about, ...selected]);
  assert.deepEqual(none.context, about);
});

test("CLT-6 fetch says what is current, and calls no handler", async (t) => {
  const { hub, client, heard, pass } = setUp(t, { handlers: { "DiagnosticReport-open": nothing } });
  await client.start();
  await pass(2);
  assert.equal(await client.fetch(), null);
  hub.answers.context = [shared("v4", [OBSERVATION])];
  const context = await client.fetch();
  assert.equal(context?.anchor, "DiagnosticReport/r1");
  assert.equal(context?.version, "v4");
  assert.deepEqual(Object.keys(context?.content ?? {}), ["Observation/o1"]);
  assert.equal(context?.resource("report")?.id, "r1");
  assert.deepEqual(heard, []);
  assert.equal(client.context, null);
  hub.answers.context = [{ status: 403 }];
  await assert.rejects(client.fetch(), { status: 403 });
});
