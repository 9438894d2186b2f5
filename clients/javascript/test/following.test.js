import assert from "node:assert/strict";
import { test } from "node:test";

import { at, event, flush, nothing, OTHER, PATIENT, setUp, STUDY } from "./fake.js";

test("CLT-26 an older open or close is acknowledged and not followed", async (t) => {
  const { hub, client, heard } = setUp(t, { handlers: { "Patient-open": nothing, "Patient-close": nothing } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a", timestamp: "2026-01-01T10:00:00.0000005Z" }));
  hub.socket.tell(event("Patient-open", [OTHER], { id: "b", timestamp: "2026-01-01T11:00:00.0000003+01:00" }));
  hub.socket.tell(event("Patient-close", [PATIENT], { id: "c", timestamp: "2026-01-01T10:00:00" }));
  await flush();
  assert.deepEqual(heard, ["Patient-open Patient/p1"]);
  assert.deepEqual(hub.acknowledged, ["a 200", "b 200", "c 200"]);
  assert.equal(client.context?.anchor, "Patient/p1");
  hub.socket.tell(event("Patient-open", [OTHER], { id: "d", timestamp: "2026-01-01T10:00:00.0000005" }));
  await flush();
  assert.equal(client.context?.anchor, "Patient/p2", "as old is not older");
});

test("CLT-4 the echo of an own event does not call the handler", async (t) => {
  const { hub, client, heard } = setUp(t, { handlers: { "Patient-open": nothing, "Patient-close": nothing } });
  await client.start();
  const opened = await client.open(PATIENT);
  assert.equal(client.context?.anchor, "Patient/p1");
  const { message } = /** @type {any} */ (hub.sent("publish")[0]);
  assert.deepEqual(message, opened.body);
  message.event["context.versionId"] = "v1";
  hub.socket.tell(message);
  await flush();
  assert.equal(client.context?.version, "v1");
  await client.close(PATIENT);
  hub.socket.tell(hub.sent("publish")[1]?.message);
  await flush();
  assert.equal(client.context, null);
  assert.deepEqual(heard, []);
  assert.equal(hub.acknowledged.length, 2);
});

test("CLT-4 the echo of an own event that is shown no more calls the handler, unless it is older", async (t) => {
  const { hub, client, heard } = setUp(t, { handlers: { "Patient-open": nothing } });
  await client.start();
  const own = await client.open(PATIENT);
  const later = new Date(Date.parse(own.timestamp) + 1).toISOString();
  hub.socket.tell(event("Patient-open", [OTHER], { id: "b", timestamp: own.timestamp }));
  hub.socket.tell(own.body);
  hub.socket.tell(event("Patient-open", [OTHER], { id: "c", timestamp: later }));
  hub.socket.tell(own.body);
  await flush();
  assert.deepEqual(heard, ["Patient-open Patient/p2", "Patient-open Patient/p1", "Patient-open Patient/p2"]);
  assert.equal(client.context?.anchor, "Patient/p2");
});

test("CLT-4 echoes that come late do not turn back what was published since", async (t) => {
  const { hub, client, heard } = setUp(t, { handlers: { "Patient-open": nothing, "Patient-close": nothing } });
  await client.start();
  const events = [await client.open(PATIENT), await client.close(PATIENT), await client.open(OTHER)];
  for (const { body } of events) hub.socket.tell(body);
  await flush();
  assert.deepEqual(heard, []);
  assert.equal(client.context?.anchor, "Patient/p2");
});

test("CLT-4 while an own open is on its way, what comes waits for its answer", async (t) => {
  const { hub, client, heard, pass } = setUp(t, { handlers: { "Patient-open": nothing } });
  await client.start();
  let answer = (/** @type {any} */ _reply) => {};
  hub.answers.publish = [new Promise((resolve) => (answer = resolve))];
  const opening = client.open(PATIENT);
  await flush();
  const own = hub.sent("publish")[0]?.message;
  hub.socket.tell(event("Patient-open", [OTHER], { id: "old", timestamp: "2026-01-01T08:59:59Z" }));
  hub.socket.tell(own);
  await pass(2.1);
  assert.deepEqual(heard, []);
  assert.deepEqual(hub.acknowledged, ["old 202", `${own.id} 202`]);
  answer({ status: 202 });
  await opening;
  await flush();
  assert.deepEqual(heard, []);
  assert.equal(client.context?.anchor, "Patient/p1");
});

test("CLT-4 an own open that the hub refuses leaves what comes to be followed", async (t) => {
  const { hub, client, heard } = setUp(t, { handlers: { "Patient-open": nothing } });
  await client.start();
  hub.answers.publish = [{ status: 403, text: "insufficient_scope" }];
  const opening = assert.rejects(client.open(PATIENT), { status: 403 });
  hub.socket.tell(event("Patient-open", [OTHER]));
  await opening;
  await flush();
  assert.deepEqual(heard, ["Patient-open Patient/p2"]);
  assert.equal(client.context?.anchor, "Patient/p2");
});

test("CLT-4 an own open that was accepted though nobody heard so is followed as anybody's", async (t) => {
  const { hub, client, heard } = setUp(t, { handlers: { "Patient-open": nothing } });
  await client.start();
  hub.answers.publish = [new TypeError("cut")];
  await assert.rejects(client.open(PATIENT), { status: 0 });
  assert.equal(client.context, null);
  hub.socket.tell(hub.sent("publish")[0]?.message);
  await flush();
  assert.deepEqual(heard, ["Patient-open Patient/p1"]);
});

test("CLT-4 a handler may publish; what it opened is what is shown", async (t) => {
  const { hub, client } = setUp(t, { handlers: { "Patient-open": () => client.open(STUDY, PATIENT) } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { timestamp: "2026-01-01T09:00:00Z" }));
  await flush();
  assert.equal(client.context?.anchor, "ImagingStudy/s1");
  assert.deepEqual([...client.contexts.keys()], ["Patient/p1", "ImagingStudy/s1"]);
  assert.deepEqual(hub.acknowledged, ["e1 200"]);
});

test("CLT-4 what the hub derives from an own open says nothing new", async (t) => {
  const { hub, client, heard } = setUp(t, { handlers: { "Patient-open": nothing, "ImagingStudy-open": nothing } });
  await client.start();
  const own = await client.open(STUDY, PATIENT);
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "derived", timestamp: own.timestamp }));
  hub.socket.tell(own.body);
  await flush();
  assert.deepEqual(heard, []);
  assert.equal(client.context?.anchor, "ImagingStudy/s1");
});

test("CLT-5 what is current: the newest open, until its close or Home-open", async (t) => {
  const { hub, client } = setUp(t, { handlers: { "Patient-open": nothing, "ImagingStudy-open": nothing } });
  await client.start();
  const told = async (/** @type {any} */ message) => {
    hub.socket.tell(message);
    await flush();
    return [client.context?.anchor ?? null, [...client.contexts.keys()]];
  };
  assert.deepEqual(await told(event("Patient-open", [PATIENT], { id: "a", timestamp: at(1) })), [
    "Patient/p1",
    ["Patient/p1"],
  ]);
  const both = ["Patient/p1", "ImagingStudy/s1"];
  assert.deepEqual(await told(event("ImagingStudy-open", [STUDY], { id: "b", timestamp: at(2) })), [
    "ImagingStudy/s1",
    both,
  ]);
  assert.equal(client.context?.resource("study")?.id, "s1");
  assert.deepEqual(await told(event("Home-open", [], { id: "c", timestamp: at(3) })), [null, both]);
  assert.deepEqual(
    await told(event("Patient-open", [OTHER], { id: "d", timestamp: at(2) })),
    ["Patient/p2", [...both, "Patient/p2"]],
    "nothing is current that it could be older than",
  );
  const three = [...both, "Patient/p2"];
  assert.deepEqual(await told(event("Patient-open", [OTHER], { id: "e", timestamp: at(4) })), ["Patient/p2", three]);
  assert.deepEqual(await told(event("Patient-close", [PATIENT], { id: "f", timestamp: at(5) })), [
    "Patient/p2",
    three.slice(1),
  ]);
  assert.deepEqual(await told(event("Patient-close", [OTHER], { id: "g", timestamp: at(6) })), [
    null,
    ["ImagingStudy/s1"],
  ]);
  assert.deepEqual(
    await told(event("Patient-open", [OTHER], { id: "e", timestamp: at(4) })),
    [null, ["ImagingStudy/s1"]],
    "closed",
  );
});

test("CLT-5 contexts that nobody closes do not fill the memory", async (t) => {
  const { hub, client } = setUp(t, { handlers: { "Patient-open": nothing } });
  await client.start();
  for (let index = 0; index < 70; index += 1) {
    hub.socket.tell(event("Patient-open", [{ resourceType: "Patient", id: `${index}` }], { id: `e${index}` }));
    await flush();
  }
  assert.equal(client.contexts.size, 64);
  assert.equal(client.context?.anchor, "Patient/69");
});

test("CLT-5 a hub that does not tell what is open is asked once, 1 s after the confirmation", async (t) => {
  const { hub, client, heard, pass } = setUp(t, { handlers: { "Patient-open": nothing } });
  hub.always.context = () => ({
    body: { "context.type": "Patient", "context.versionId": "v1", context: [{ key: "patient", resource: PATIENT }] },
  });
  await client.start();
  await pass(0.8);
  assert.equal(hub.sent("context").length, 0);
  await pass(0.4);
  assert.deepEqual(heard, ["Patient-open Patient/p1"]);
  assert.equal(client.context?.version, "v1");
  await pass(100);
  assert.equal(hub.sent("context").length, 1);
  hub.socket.tell(event("Patient-open", [OTHER], { timestamp: "2020-01-01T00:00:00Z" }));
  await flush();
  assert.equal(client.context?.anchor, "Patient/p2", "nobody said how old the first was");
});

test("CLT-5 a hub that tells is not asked, and an answer that is none changes nothing", async (t) => {
  const { hub, client, heard, pass } = setUp(t, { handlers: { "Patient-open": nothing } });
  hub.onSocket = (socket) => {
    hub.confirm(socket);
    socket.tell(event("Patient-open", [PATIENT]));
  };
  await client.start();
  await pass(2);
  assert.deepEqual(heard, ["Patient-open Patient/p1"]);
  assert.equal(hub.sent("context").length, 0);
  hub.onSocket = (socket) => hub.confirm(socket);
  for (const answer of [{ text: "<html>" }, { body: [] }, { status: 501 }, { body: { context: [] } }]) {
    hub.always.context = () => answer;
    hub.socket.lose();
    await pass(6);
    assert.equal(client.context?.anchor, "Patient/p1");
    assert.match(client.status.why, /the hub does not tell what is open/, JSON.stringify(answer));
  }
});

test("CLT-5 an answer that was overtaken by an own open changes nothing", async (t) => {
  const { hub, client, heard, pass } = setUp(t, { handlers: { "Patient-open": nothing, "Patient-close": nothing } });
  await client.start();
  await client.open(PATIENT);
  await pass(2);
  assert.equal(client.context?.anchor, "Patient/p1");
  let answer = (/** @type {any} */ _reply) => {};
  hub.answers.context = [new Promise((resolve) => (answer = resolve))];
  hub.socket.lose();
  await pass(2);
  await client.open(OTHER);
  answer({ body: { "context.type": "", context: [] } });
  await pass(1);
  assert.deepEqual(heard, []);
  assert.equal(client.context?.anchor, "Patient/p2");
});

test("CLT-5 CLT-9 what was closed while the connection was lost is closed, also where nobody tells", async (t) => {
  const { hub, client, heard, pass } = setUp(t, { handlers: { "Patient-open": nothing, "Patient-close": nothing } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await pass(2);
  hub.socket.lose();
  await pass(0.6);
  assert.equal(client.status.connection, "connected");
  assert.equal(client.status.inSync, false, "what is open now is not known yet");
  await pass(1.2);
  assert.deepEqual(heard, ["Patient-open Patient/p1", "Patient-close Patient/p1"]);
  assert.equal(client.context, null);
  assert.equal(client.status.inSync, true);
});

for (const [version, closed] of /** @type {[string, string[]][]} */ ([
  ["0", ["ImagingStudy-close ImagingStudy/s1", "Patient-close Patient/p1"]],
  ["v7", ["ImagingStudy-close ImagingStudy/s1"]],
])) {
  test(`CLT-5 CLT-9 nothing is current, at version ${version} of the hub: ${closed.length} closed`, async (t) => {
    const names = ["Patient-open", "ImagingStudy-open", "Patient-close", "ImagingStudy-close"];
    const { hub, client, heard, pass } = setUp(t, {
      handlers: Object.fromEntries(names.map((name) => [name, nothing])),
    });
    await client.start();
    hub.socket.tell(event("Patient-open", [PATIENT]));
    hub.socket.tell(event("ImagingStudy-open", [STUDY, PATIENT], { id: "e2" }));
    await pass(2);
    hub.always.context = () => ({ body: { "context.type": "", "context.versionId": version, context: [] } });
    hub.socket.lose();
    await pass(2);
    assert.deepEqual(heard.slice(2), closed);
    assert.equal(client.context, null);
    assert.deepEqual([...client.contexts.keys()], version === "0" ? [] : ["Patient/p1"]);
    assert.equal(client.status.inSync, true);
  });
}

test("CLT-9 what is told again after a connection was lost does not call the handlers again", async (t) => {
  const { hub, client, heard, pass } = setUp(t, {
    handlers: { "Patient-open": nothing, "ImagingStudy-open": nothing },
  });
  const open = [
    event("Patient-open", [PATIENT], { id: "a" }),
    event("ImagingStudy-open", [STUDY, PATIENT], { id: "b" }),
  ];
  hub.onSocket = (socket) => {
    hub.confirm(socket);
    for (const one of open) socket.tell(one);
  };
  await client.start();
  await pass(2);
  hub.socket.lose();
  await pass(2);
  assert.deepEqual(heard, ["Patient-open Patient/p1", "ImagingStudy-open ImagingStudy/s1"]);
  assert.equal(client.context?.anchor, "ImagingStudy/s1");
  assert.equal(client.status.inSync, true);
});

test("CLT-9 frames that are none, events of others, and events before the confirmation", async (t) => {
  const { hub, client, heard } = setUp(t, { handlers: { "Patient-open": nothing } });
  hub.onSocket = (socket) => {
    socket.readyState = 1;
    for (const frame of [
      "",
      "{",
      "null",
      "[1]",
      '"text"',
      "{}",
      new ArrayBuffer(2),
      '{"id":1,"event":{}}',
      '{"id":"x","event":null}',
    ]) {
      socket.raw(frame);
    }
    const foreign = event("Patient-open", [OTHER], { id: "foreign" });
    foreign.event["hub.topic"] = "another topic";
    socket.tell(foreign);
    socket.tell(event("Patient-open", [PATIENT]));
    hub.confirm(socket);
  };
  await client.start();
  await flush();
  assert.deepEqual(heard, ["Patient-open Patient/p1"]);
  assert.deepEqual(hub.acknowledged, ["x 500", "e1 200"]);
});

test("CLT-26 CLT-5 an older close of what is not current calls no handler, and closes it", async (t) => {
  const { hub, client, heard } = setUp(t, { handlers: { "Patient-open": nothing, "Patient-close": nothing } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a", timestamp: at(1) }));
  hub.socket.tell(event("Patient-open", [OTHER], { id: "b", timestamp: at(3) }));
  hub.socket.tell(event("Patient-close", [PATIENT], { id: "c", timestamp: at(2) }));
  await flush();
  assert.deepEqual([...client.contexts.keys()], ["Patient/p2"]);
  assert.equal(heard.length, 2);
});

for (const missed of [false, true]) {
  test(`CLT-5 CLT-9 told again after a cut, the last is what is shown: ${missed ? "with" : "without"} one missed`, async (t) => {
    const opens = ["Patient-open", "ImagingStudy-open", "DiagnosticReport-open", "Encounter-open"];
    const { hub, client, heard, pass } = setUp(t, {
      handlers: Object.fromEntries(opens.map((name) => [name, nothing])),
    });
    await client.start();
    const left = event("ImagingStudy-open", [STUDY], { id: "left", timestamp: at(1) });
    const shown = event("Patient-open", [PATIENT], { id: "shown", timestamp: at(2) });
    const report = { resourceType: "DiagnosticReport", id: "r1" };
    hub.socket.tell(left);
    hub.socket.tell(shown);
    hub.socket.tell(event("DiagnosticReport-open", [report], { id: "report", timestamp: at(3) }));
    hub.socket.tell(event("DiagnosticReport-close", [report], { id: "closed", timestamp: at(4) }));
    await flush();
    heard.length = 0;
    hub.socket.lose();
    await pass(2);
    hub.socket.tell(left);
    const encounter = { resourceType: "Encounter", id: "e1" };
    if (missed) hub.socket.tell(event("Encounter-open", [encounter], { id: "missed", timestamp: at(1) }));
    hub.socket.tell(shown);
    await flush();
    assert.deepEqual(heard, missed ? ["Encounter-open Encounter/e1", "Patient-open Patient/p1"] : []);
    await client.stop();
  });
}
