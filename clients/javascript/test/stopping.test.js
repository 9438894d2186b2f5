import assert from "node:assert/strict";
import { test } from "node:test";

import { event, flush, never, PATIENT, setUp } from "./fake.js";

test("CLT-14 stop unsubscribes and closes with 1000", async (t) => {
  const { hub, client, pass } = setUp(t);
  await client.start();
  const run = client.run();
  await client.stop();
  await run;
  assert.equal(hub.sent("unsubscribe")[0]?.form["hub.channel.endpoint"], hub.socket.url);
  assert.equal(hub.socket.closedWith, 1000);
  assert.deepEqual(client.status, { connection: "ended", inSync: false, why: "Stopped", behind: [] });
  const { length } = hub.requests;
  await pass(100);
  assert.equal(hub.requests.length, length);
  await client.stop();
});

test("CLT-14 the request to unsubscribe outlives a page, and no other request does", async (t) => {
  const { hub, client } = setUp(t);
  await client.start();
  await client.stop();
  const kept = hub.requests.filter(({ keepalive }) => keepalive).map(({ kind }) => kind);
  assert.deepEqual(kept, ["unsubscribe"]);
});

test("CLT-14 stop ends at any moment: before start, while it asks, while it waits", async (t) => {
  const before = setUp(t);
  await before.client.stop();
  assert.equal(before.hub.requests.length, 0);
  await assert.rejects(before.client.start(), /the client was stopped: make a new one/);

  t.mock.timers.reset();
  const asking = setUp(t);
  asking.hub.always.subscribe = () => never();
  const started = assert.rejects(asking.client.start(), /Stopped/);
  await flush();
  await asking.client.stop();
  await started;

  t.mock.timers.reset();
  const waiting = setUp(t);
  await waiting.client.start();
  const { length } = waiting.hub.sockets;
  waiting.hub.socket.lose();
  await flush();
  await waiting.client.stop();
  await waiting.pass(100);
  assert.equal(waiting.hub.sockets.length, length);
  assert.equal(waiting.hub.sent("unsubscribe").length, 1);
  await assert.rejects(waiting.client.start(), /the client was stopped: make a new one/);
});

test("CLT-14 stop does not wait for a token function that never answers, nor fails with the hub", async (t) => {
  const { client } = setUp(t, { token: () => new Promise(() => {}) });
  const started = assert.rejects(client.start());
  await flush();
  await client.stop();
  await started;

  t.mock.timers.reset();
  const other = setUp(t);
  await other.client.start();
  other.hub.answers.unsubscribe = [new TypeError("no network")];
  await other.client.stop();
  assert.equal(other.hub.socket.closedWith, 1000);
});

test("CLT-14 stop in a handler does not wait for that handler", async (t) => {
  const { hub, client } = setUp(t, { handlers: { "Patient-open": () => client.stop() } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT]));
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "e2" }));
  await client.run();
  await flush();
  assert.equal(client.status.connection, "ended");
  assert.deepEqual(hub.acknowledged, []);
});
