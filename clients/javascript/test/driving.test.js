import assert from "node:assert/strict";
import { test } from "node:test";

import { Refuse } from "../src/index.js";
import { event, flush, nothing, OTHER, PATIENT, setUp, syncErrorOf } from "./fake.js";

const later = (/** @type {{timestamp: string}} */ than) => new Date(Date.parse(than.timestamp) + 1000).toISOString();

test("CLT-12 an own open that a SyncError names is sent again, no sooner than 10 s later", async (t) => {
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": nothing } });
  await client.start();
  const own = await client.open(PATIENT);
  hub.socket.tell(syncErrorOf("chart", own.id));
  await pass(5);
  hub.socket.tell(syncErrorOf("chart", own.id, "second"));
  await pass(4.7);
  assert.equal(hub.sent("publish").length, 1);
  await pass(0.5);
  assert.equal(hub.sent("publish").length, 2);
  assert.deepEqual(hub.sent("publish")[1]?.message, own.body);
  hub.socket.tell(own.body);
  hub.socket.tell(syncErrorOf("chart", own.id, "third"));
  await pass(10.3);
  assert.equal(hub.sent("publish").length, 3);
  assert.deepEqual(client.status.behind, ["chart"]);
  await pass(12.3);
  assert.deepEqual(client.status, { connection: "connected", inSync: true, why: "", behind: [] });
  await pass(30);
  assert.equal(hub.sent("publish").length, 3);
});

test("CLT-12 nothing is sent again once something newer came, was published, or closed", async (t) => {
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": nothing } });
  await client.start();
  const first = await client.open(PATIENT);
  hub.socket.tell(syncErrorOf("chart", first.id));
  await pass(1);
  hub.socket.tell(event("Patient-open", [OTHER], { id: "newer", timestamp: later(first) }));
  await pass(30);
  const second = await client.open(PATIENT);
  hub.socket.tell(syncErrorOf("chart", second.id));
  await pass(1);
  const third = await client.open(OTHER);
  await pass(30);
  hub.socket.tell(syncErrorOf("chart", third.id));
  await pass(1);
  await client.close(OTHER);
  await pass(30);
  assert.equal(hub.sent("publish").length, 4);
  assert.deepEqual(client.status.behind, ["chart"], "that nobody says anything of it proves nothing");
});

test("CLT-12 nothing is sent again once something newer came that was refused here", async (t) => {
  const refuse = () => {
    throw new Refuse("unsaved notes");
  };
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": refuse } });
  hub.always.context = () => ({ status: 404, text: "not told" });
  await client.start();
  const own = await client.open(PATIENT);
  hub.socket.tell(syncErrorOf("chart", own.id));
  await pass(1);
  hub.socket.tell(event("Patient-open", [OTHER], { id: "newer", timestamp: later(own) }));
  await pass(30);
  assert.equal(hub.sent("publish").length, 1);
  assert.equal(client.context?.anchor, "Patient/p1");
});

test("CLT-12 CLT-4 nothing is sent again that another own open overtakes on its way", async (t) => {
  const { hub, client, pass } = setUp(t, { timings: { resend: 1 } });
  await client.start();
  const own = await client.open(PATIENT);
  hub.socket.tell(syncErrorOf("chart", own.id));
  await pass(0.5);
  let answer = (/** @type {any} */ _reply) => {};
  hub.answers.publish = [new Promise((resolve) => (answer = resolve))];
  const opening = client.open(OTHER);
  await pass(1);
  answer({ status: 202 });
  await opening;
  await pass(10);
  assert.equal(hub.sent("publish").length, 2);
});

test("CLT-12 what the hub refuses for good is not sent again, and what did not reach it is", async (t) => {
  const { hub, client, pass } = setUp(t, { timings: { resend: 1 } });
  await client.start();
  const own = await client.open(PATIENT);
  hub.answers.publish = [new TypeError("no network"), { status: 403, text: "forbidden" }];
  hub.socket.tell(syncErrorOf("chart", own.id));
  await pass(10);
  assert.equal(hub.sent("publish").length, 3);
});

for (const [reply, words] of /** @type {[any, string][]} */ ([
  [{ body: { message: "the anchor is missing" } }, "The hub answered 400: the anchor is missing"],
  [{ text: "the anchor is missing\nand more" }, "The hub answered 400: the anchor is missing and more"],
  [{ body: { error: "invalid" } }, "The hub answered 400"],
  [{ text: "" }, "The hub answered 400"],
])) {
  test(`the hub's words are shown without the JSON around them: ${JSON.stringify(reply)}`, async (t) => {
    const { hub, client } = setUp(t);
    await client.start();
    hub.answers.publish = [{ status: 400, ...reply }];
    await assert.rejects(client.open(PATIENT), { name: "HubError", message: words, status: 400 });
  });
}

for (const resend of [0, null]) {
  test(`CLT-12 with resend ${resend} nothing is sent again`, async (t) => {
    const { hub, client, pass } = setUp(t, { timings: { resend } });
    await client.start();
    const own = await client.open(PATIENT);
    hub.socket.tell(syncErrorOf("chart", own.id));
    await pass(60);
    assert.equal(hub.sent("publish").length, 1);
    assert.deepEqual(client.status.behind, ["chart"]);
    await client.open(OTHER);
    assert.equal(client.status.inSync, true);
  });
}

test("CLT-12 CLT-4 a SyncError that is faster than the answer to the open is not lost", async (t) => {
  const { hub, client, pass } = setUp(t);
  await client.start();
  let answer = (/** @type {any} */ _reply) => {};
  hub.answers.publish = [new Promise((resolve) => (answer = resolve))];
  const opening = client.open(PATIENT);
  await flush();
  hub.socket.tell(syncErrorOf("chart", hub.sent("publish")[0]?.message.id));
  await flush();
  answer({ status: 202 });
  await opening;
  await flush();
  assert.deepEqual(client.status.behind, ["chart"]);
  await pass(10.3);
  assert.equal(hub.sent("publish").length, 2);
});

test("CLT-4 own opens reach the hub in the order in which they were asked for", async (t) => {
  const { hub, client } = setUp(t);
  await client.start();
  let answer = (/** @type {any} */ _reply) => {};
  hub.answers.publish = [new Promise((resolve) => (answer = resolve))];
  const both = [client.open(PATIENT), client.open(OTHER)];
  await flush();
  assert.equal(hub.sent("publish").length, 1);
  answer({ status: 202 });
  await Promise.all(both);
  assert.equal(client.context?.anchor, "Patient/p2");
});

test("CLT-5 what is published has the given id and timestamp, or a UUID and now", async (t) => {
  const { hub, client } = setUp(t);
  const context = [{ key: "patient", resource: PATIENT }];
  await client.publish("Patient-open", context, { id: "mine", timestamp: "2026-01-01T08:00:00Z" });
  const made = await client.publish("org.example.zoomed", context);
  const [first, second] = hub.sent("publish").map(({ message }) => message);
  assert.deepEqual(first, {
    timestamp: "2026-01-01T08:00:00Z",
    id: "mine",
    event: { "hub.topic": "topic-1", "hub.event": "Patient-open", context },
  });
  assert.equal(second.timestamp, "2026-01-01T10:01:00.000Z");
  assert.match(second.id, /^[0-9a-f-]{36}$/);
  assert.equal(made.own, true);
  assert.equal(client.context?.anchor, "Patient/p1");
});
