import assert from "node:assert/strict";
import { test } from "node:test";

import { Refuse } from "../src/index.js";
import { at, event, flush, never, nothing, OTHER, PATIENT, setUp, slow, STUDY } from "./fake.js";

test("CLT-2 acknowledges by what the handler does", async (t) => {
  const outcomes = [
    nothing,
    () => Promise.reject(new Refuse("unsaved notes")),
    () => {
      throw new TypeError("oops");
    },
  ];
  const { hub, client } = setUp(t, { handlers: { "Patient-open": () => outcomes.shift()?.() } });
  await client.start();
  for (const [index, id] of ["a", "b", "c"].entries()) {
    hub.socket.tell(event("Patient-open", [{ ...PATIENT, id }], { id, timestamp: at(index) }));
  }
  hub.socket.tell(event("Encounter-open", [{ resourceType: "Encounter", id: "n1" }], { id: "d", timestamp: at(4) }));
  await flush();
  assert.deepEqual(hub.socket.sent, [
    { id: "a", status: 200 },
    { id: "b", status: 409, reason: "unsaved notes" },
    { id: "c", status: 500 },
    { id: "d", status: 200 },
  ]);
});

test("CLT-2 a handler that takes long is answered for with 202, and then nothing more when it follows", async (t) => {
  const { calls, act } = slow();
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": act } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await pass(1.9);
  assert.deepEqual(hub.acknowledged, []);
  await pass(0.2);
  assert.deepEqual(hub.acknowledged, ["e1 202"]);
  calls[0]?.end();
  await pass(20);
  assert.deepEqual(hub.acknowledged, ["e1 202"]);
  assert.equal(hub.sent("publish").length, 0);
  assert.equal(client.context?.anchor, "Patient/p1");
});

for (const [error, why] of /** @type {[Error, string][]} */ ([
  [new Refuse("no such patient here"), "viewer did not follow Patient-open: no such patient here"],
  [new TypeError("internals"), "viewer did not follow Patient-open: it failed (TypeError)"],
])) {
  test(`CLT-2 CLT-13 what fails after 202 is told by a SyncError (${error.name})`, async (t) => {
    const { calls, act } = slow();
    const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": act } });
    await client.start();
    hub.socket.tell(event("Patient-open", [PATIENT]));
    await pass(3);
    calls[0]?.fail(error);
    await flush();
    const { message } = /** @type {any} */ (hub.sent("publish")[0]);
    assert.equal(message.event["hub.event"], "SyncError");
    const [issue] = message.event.context[0].resource.issue;
    assert.equal(issue.diagnostics, why);
    assert.equal(issue.severity, "warning");
    assert.deepEqual(issue.details.coding.map((/** @type {any} */ { code }) => code).slice(0, 3), [
      "e1",
      "Patient-open",
      "viewer",
    ]);
    assert.equal(client.status.inSync, false);
    hub.socket.tell(message);
    await flush();
    assert.deepEqual(client.status.behind, [], "its own SyncError is about nobody else");
    await pass(20);
    assert.equal(hub.sent("publish").length, 1);
  });
}

test("CLT-2 CLT-13 what is not done in 10 s is told by a SyncError, and is followed when it is done", async (t) => {
  const { calls, act } = slow();
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": act } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await pass(9.8);
  assert.equal(hub.sent("publish").length, 0);
  await pass(0.4);
  assert.equal(hub.sent("publish").length, 1);
  assert.match(client.status.why, /Patient-open: it was not done within 10 s/);
  calls[0]?.end();
  await flush();
  assert.equal(client.status.inSync, true);
  assert.equal(client.context?.anchor, "Patient/p1");
  hub.socket.tell(hub.sent("publish")[0]?.message);
  await flush();
  assert.deepEqual(client.status.behind, [], "its own SyncError is about nobody else");
});

test("CLT-2 what was told to be late is not told again when it fails", async (t) => {
  const { calls, act } = slow();
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": act } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await pass(11);
  calls[0]?.fail(new Refuse("no such patient here"));
  await flush();
  assert.equal(hub.sent("publish").length, 1);
  assert.match(client.status.why, /no such patient here/);
});

test("CLT-2 nothing is told of what an own open has overtaken", async (t) => {
  const { calls, act } = slow();
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": act } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a", timestamp: "2026-01-01T08:59:58Z" }));
  hub.socket.tell(event("Patient-open", [OTHER], { id: "b", timestamp: "2026-01-01T08:59:59Z" }));
  await flush();
  await client.open(STUDY);
  await pass(11);
  assert.deepEqual(hub.acknowledged, ["a 202", "b 202"]);
  calls[0]?.fail(new Refuse("too late"));
  await flush();
  assert.deepEqual(
    hub.sent("publish").map(({ message }) => message.event["hub.event"]),
    ["ImagingStudy-open"],
  );
  assert.equal(client.status.inSync, true);
  assert.equal(client.context?.anchor, "ImagingStudy/s1");
});

test("CLT-14 CLT-2 after stop no handler is called and nothing is told", async (t) => {
  const { calls, act } = slow();
  const { hub, client, heard, pass } = setUp(t, { handlers: { "Patient-open": act, "Patient-update": nothing } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a", version: "v1" }));
  hub.socket.tell(event("Patient-open", [OTHER], { id: "b" }));
  await flush();
  const catching = client.catchUp();
  await client.stop();
  await pass(5);
  calls[0]?.end();
  await pass(20);
  assert.equal(await catching, false);
  assert.equal(heard.length, 1);
  assert.equal(hub.requests.at(-1)?.kind, "unsubscribe");
  assert.equal(client.status.why, "Stopped");
});

test("CLT-2 of updates and selects no SyncError is sent, and they leave the status alone", async (t) => {
  const { calls, act } = slow();
  const { hub, client, pass } = setUp(t, { handlers: { "DiagnosticReport-select": act } });
  await client.start();
  hub.socket.tell(event("DiagnosticReport-select", []));
  await pass(11);
  calls[0]?.fail(new Refuse("nothing to show"));
  await flush();
  assert.deepEqual(hub.acknowledged, ["e1 202"]);
  assert.equal(hub.sent("publish").length, 0);
  assert.equal(client.status.inSync, true);
});

test("CLT-2 handlers run one after the other, in order, and who waits is acknowledged in time", async (t) => {
  const { calls, act } = slow();
  const { hub, client, heard, pass } = setUp(t, { handlers: { "Patient-open": act } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a", timestamp: at(1) }));
  hub.socket.tell(event("Patient-open", [OTHER], { id: "b", timestamp: at(2) }));
  await pass(2.1);
  assert.deepEqual(heard, ["Patient-open Patient/p1"]);
  assert.deepEqual(hub.acknowledged, ["a 202", "b 202"]);
  calls[0]?.end();
  await flush();
  assert.deepEqual(heard, ["Patient-open Patient/p1", "Patient-open Patient/p2"]);
  calls[1]?.end();
  await flush();
  assert.equal(client.context?.anchor, "Patient/p2");
});

test("CLT-2 a handler that never returns does not fill the memory", async (t) => {
  const { hub, client } = setUp(t, { handlers: { "Patient-open": () => never() } });
  await client.start();
  for (let index = 0; index < 300; index += 1) hub.socket.tell(event("Patient-open", [PATIENT], { id: `e${index}` }));
  await flush();
  assert.equal(hub.acknowledged.length, 300 - 1 - 256);
  assert.ok(hub.acknowledged.every((one) => one.endsWith(" 503")));
  assert.match(client.status.why, /too many events wait/);
});

test("CLT-2 ids are found before the handler, and refuse for it", async (t) => {
  const { hub, client } = setUp(t);
  /** @type {any[]} */
  const found = [];
  const ids = {
    find: async (/** @type {any} */ one) => {
      if (one.anchor === "Patient/p2") throw new Refuse("unknown here");
      return { id: 17 };
    },
  };
  client.on("Patient-open", (one) => found.push(one.local), { ids });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a" }));
  hub.socket.tell(event("Patient-open", [OTHER], { id: "b" }));
  await flush();
  assert.deepEqual(found, [{ id: 17 }]);
  assert.deepEqual(hub.acknowledged, ["a 200", "b 409"]);
});

test("CLT-2 an acknowledgement goes to the socket on which the event came, or nowhere", async (t) => {
  const { calls, act } = slow();
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": act } });
  await client.start();
  const [first] = hub.sockets;
  first?.tell(event("Patient-open", [PATIENT]));
  first?.lose();
  await pass(0.6);
  calls[0]?.end();
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await flush();
  assert.deepEqual(first?.sent, []);
  assert.deepEqual(hub.acknowledged, ["e1 200"], "told again by the new socket, it is followed already");
  assert.equal(calls.length, 1);
});

test("CLT-2 what goes over the wire can be listened to, without token and endpoint", async (t) => {
  const { hub, client, pass } = setUp(t, { token: "secret-token", handlers: { "Patient-open": nothing } });
  /** @type {any[]} */
  const messages = [];
  client.onWire((message) => messages.push(message));
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await pass(2);
  await client.open(OTHER);
  hub.socket.tell({ "hub.mode": "denied", "hub.topic": "topic-1" });
  await pass(1);
  await client.stop();
  const kinds = messages.map(({ direction, kind, status }) => `${direction} ${kind} ${status}`);
  for (const kind of [
    "out discovery null",
    "in discovery 200",
    "out subscribe null",
    "in subscribe 202",
    "in confirmation null",
    "in event null",
    "out acknowledgement 200",
    "out publish null",
    "in publish 202",
    "in denial null",
    "out unsubscribe null",
    "in unsubscribe 202",
  ]) {
    assert.ok(kinds.includes(kind), kind);
  }
  assert.doesNotMatch(JSON.stringify(messages), /secret-token|ws:\/\//);
});
