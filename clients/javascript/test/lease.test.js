import assert from "node:assert/strict";
import { test } from "node:test";

import { FHIRcastClient, TokenError } from "../src/index.js";
import { FakeHub, flush, HUB, never, OTHER, PATIENT, setUp, TOPIC } from "./fake.js";

test("CLT-10 renews before a fifth of the lease is left, on the same endpoint, with a fresh token", async (t) => {
  let asked = 0;
  const { hub, client, pass } = setUp(t, { token: () => `token-${(asked += 1)}`, leaseSeconds: 100 });
  hub.lease = 100;
  await client.start();
  const endpoint = hub.socket.url;
  await pass(60);
  assert.equal(hub.sent("subscribe").length, 1);
  await pass(19);
  const renewal = hub.sent("subscribe")[1];
  assert.equal(renewal?.form["hub.channel.endpoint"], endpoint);
  assert.equal(renewal?.form["hub.lease_seconds"], "100");
  assert.equal(renewal?.token, "token-2");
  await pass(80);
  assert.equal(hub.sent("subscribe").length, 3, "without another confirmation the lease is as long as the last");
  assert.equal(hub.sockets.length, 1);
});

test("CLT-10 of a long lease 60 s and more are left, and none is too long for a timer", async (t) => {
  const { hub, client, pass } = setUp(t);
  await client.start();
  await pass(7100);
  assert.equal(hub.sent("subscribe").length, 1);
  await pass(40);
  assert.equal(hub.sent("subscribe").length, 2);
  hub.confirm(hub.socket, { "hub.lease_seconds": 1e9 });
  await pass(3600);
  assert.equal(hub.sent("subscribe").length, 2);
});

test("CLT-10 a renewal that fails is tried again, and one that is refused ends in a new subscription", async (t) => {
  const { hub, client, pass } = setUp(t);
  hub.lease = 100;
  await client.start();
  hub.answers.subscribe = [new TypeError("no network"), { status: 503 }, { status: 404, text: "no such endpoint" }];
  await pass(75.2);
  assert.equal(hub.sent("subscribe").length, 2);
  assert.equal(client.status.connection, "connected");
  await pass(5);
  assert.equal(hub.sent("subscribe").length, 5);
  assert.equal(hub.sent("subscribe")[4]?.form["hub.channel.endpoint"], undefined);
  assert.equal(hub.sockets.length, 2);
  assert.equal(client.status.connection, "connected");
});

test("CLT-10 a lease that ends unrenewed is a lost connection, though the socket says nothing", async (t) => {
  const { hub, client, pass } = setUp(t);
  hub.lease = 40;
  await client.start();
  hub.always.subscribe = () => never();
  hub.onSocket = () => {};
  await pass(60);
  assert.equal(client.status.connection, "connecting");
  assert.equal(client.status.inSync, false);
});

test("CLT-10 a renewal that is refused lets the lease last, and then subscribes anew", async (t) => {
  const { hub, client, pass } = setUp(t);
  hub.lease = 100;
  await client.start();
  hub.always.subscribe = () => ({ status: 403, text: "not your session" });
  await pass(90);
  assert.equal(hub.sent("subscribe").length, 2);
  assert.equal(client.status.inSync, true);
  hub.always = {};
  await pass(11);
  assert.equal(hub.sent("subscribe")[2]?.form["hub.channel.endpoint"], undefined);
  assert.deepEqual([hub.sockets.length, client.status.inSync], [2, true]);
});

test("CLT-9 CLT-10 after a lease that was not renewed, the new endpoint is tried again like any other", async (t) => {
  const { hub, client, pass } = setUp(t);
  hub.lease = 10;
  await client.start();
  hub.answers.subscribe = [{ status: 403, text: "not your session" }];
  hub.onSocket = (socket) => socket.lose();
  await pass(12);
  const [, second, third] = hub.sockets.map(({ url }) => url);
  assert.deepEqual([second, third], ["ws://hub.example/ws/2", "ws://hub.example/ws/2"]);
});

for (const how of ["at once", "later"]) {
  test(`CLT-10 CLT-9 a renewal that is answered ${how} after its socket was lost changes nothing`, async (t) => {
    const { hub, client, pass } = setUp(t);
    hub.lease = 100;
    await client.start();
    let answer = (/** @type {any} */ _reply) => {};
    hub.answers.subscribe = [new Promise((resolve) => (answer = resolve))];
    await pass(76);
    const reply = { status: 202, body: { "hub.channel.endpoint": "ws://hub.example/ws/elsewhere" } };
    if (how === "at once") answer(reply);
    hub.socket.lose();
    if (how === "later") await pass(0.6);
    answer(reply);
    await pass(10);
    assert.equal(new Set(hub.sockets.map(({ url }) => url)).size, 1);
    assert.equal(hub.sockets.length, 2);
    assert.equal(client.status.connection, "connected");
  });
}

test("CLT-10 a subscription that the hub moves at its renewal is followed there", async (t) => {
  const { hub, client, pass } = setUp(t);
  hub.lease = 100;
  await client.start();
  hub.answers.subscribe = [{ status: 202, body: { "hub.channel.endpoint": "ws://hub.example/ws/moved" } }];
  await pass(78);
  assert.equal(hub.socket.url, "ws://hub.example/ws/moved");
  assert.equal(client.status.connection, "connected");
});

test("CLT-11 401 asks for a new token once", async (t) => {
  const tokens = ["old", "new"];
  const { hub, client } = setUp(t, { token: async () => tokens.shift() ?? "none" });
  hub.answers.subscribe = [{ status: 401 }];
  await client.start();
  assert.deepEqual(
    hub.sent("subscribe").map(({ token }) => token),
    ["old", "new"],
  );
  hub.answers.publish = [{ status: 401 }, { status: 401 }];
  await assert.rejects(client.open(PATIENT), TokenError);
  assert.deepEqual(
    hub.sent("publish").map(({ token }) => token),
    ["new", "none"],
  );
});

test("CLT-11 requests that are refused at once ask for one new token", async (t) => {
  let asked = 0;
  const { hub, client } = setUp(t, { token: async () => `token-${(asked += 1)}` });
  await client.start();
  let answer = (/** @type {any} */ _reply) => {};
  hub.answers.publish = [{ status: 401 }, { status: 401 }, new Promise((resolve) => (answer = resolve))];
  const published = ["org.example.a", "org.example.b", "org.example.c"].map((name) => client.publish(name, []));
  await Promise.all(published.slice(0, 2));
  answer({ status: 401 });
  await published[2];
  assert.equal(asked, 2);
});

test("CLT-11 a second 401 is final, and the first with a token that cannot change", async (t) => {
  for (const token of [() => "same", "fixed", null]) {
    const hub = new FakeHub();
    hub.always.subscribe = () => ({ status: 401 });
    const client = new FHIRcastClient(HUB, TOPIC, { ...hub.options, token });
    await assert.rejects(client.start(), (error) => error instanceof TokenError && error.status === 401);
    assert.equal(hub.sent("subscribe").length, typeof token === "function" ? 2 : 1);
    assert.equal(client.status.connection, "ended");
    t.diagnostic(client.status.why);
  }
});

test("CLT-11 a token function that fails is asked again, until it says that there will be none", async (t) => {
  const faults = [new Error("secret-of-the-function"), new TokenError("signed out")];
  const { client, pass } = setUp(t, {
    token: () => {
      throw faults.shift();
    },
  });
  const started = assert.rejects(client.start(), { name: "TokenError", message: "signed out" });
  await flush();
  assert.match(client.status.why, /There is no access token/);
  assert.doesNotMatch(client.status.why, /secret/);
  await pass(1);
  await started;
});

for (const status of [429, 503]) {
  test(`CLT-11 ${status} waits as Retry-After says`, async (t) => {
    const { hub, client, pass } = setUp(t);
    hub.answers.subscribe = [{ status, headers: { "Retry-After": "20" } }];
    const started = client.start();
    await pass(19.5);
    assert.equal(hub.sent("subscribe").length, 1);
    await pass(1);
    await started;
    hub.answers.publish = [{ status, headers: { "Retry-After": "3" } }];
    const opened = client.open(PATIENT);
    await pass(2.5);
    assert.equal(hub.sent("publish").length, 1);
    await pass(1);
    await opened;
    assert.equal(hub.sent("publish").length, 2);
    hub.answers.publish = [{ status, headers: { "Retry-After": "60" } }];
    await assert.rejects(client.open(OTHER), { status, retryAfter: 60 });
  });
}

test("CLT-11 a token that no header can hold is refused, and not shown", async (t) => {
  assert.throws(
    () => new FHIRcastClient(HUB, TOPIC, { token: "secret\n1", WebSocket: /** @type {any} */ (never) }),
    (error) => error instanceof TypeError && !/secret/.test(error.message),
  );
  const { client } = setUp(t, { token: () => "secret\n2" });
  client.start().catch(() => {});
  await flush();
  assert.match(client.status.why, /There is no access token/);
  assert.doesNotMatch(client.status.why, /secret/);
});
