/**
 * What a client publishes reaches the others, or the client says that it did not; and nothing is published without end.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Refuse } from "../src/index.js";
import { event, flush, nothing, OTHER, PATIENT, setUp } from "./fake.js";

/** What an ingress answers while the hub restarts. @type {import("./fake.js").Reply[]} */
const INGRESS = [
  { status: 404, text: "<html>default backend</html>", headers: { "Content-Type": "text/html" } },
  { status: 403 },
  { status: 405, text: '{"code": 405}', headers: { "Content-Type": "application/json" } },
  { status: 404, text: "404 page not found" },
  { status: 502, text: "<html>bad gateway</html>", headers: { "Content-Type": "text/html" } },
];
const BACK = { body: { "context.type": "", context: [] } };

/** A client that follows patients. @param {import("node:test").TestContext} t @param {any} [options] */
async function follower(t, options = {}) {
  const all = setUp(t, { handlers: { "Patient-open": nothing }, ...options });
  all.hub.always.context = () => ({ status: 404, text: "not told" });
  await all.client.start();
  await all.pass(1.5);
  return all;
}

for (const answer of INGRESS) {
  test(`CLT-20 a publication that fails (${answer.status} ${answer.text ?? ""}) is out of step at once, and is tried again`, async (t) => {
    const { hub, client, heard, pass } = await follower(t);
    await client.open(PATIENT);
    hub.answers.publish = [answer, answer];
    await assert.rejects(client.open(OTHER), { status: answer.status });
    assert.equal(client.status.inSync, false);
    assert.match(client.status.why, /^The others were not told of Patient-open: the hub answered \d+/);
    await pass(5);
    assert.equal(client.status.inSync, true);
    assert.equal(client.context?.anchor, "Patient/p2");
    assert.deepEqual(heard, ["Patient-open Patient/p2"], "its handler shows it, whatever the application did meanwhile");
    const ids = hub.sent("publish").map(({ message }) => message.id);
    assert.deepEqual([ids.length, new Set(ids).size], [4, 2]);
  });
}

test("CLT-20 a publication that the hub refuses is not tried again", async (t) => {
  const { hub, client, pass } = await follower(t);
  hub.answers.publish = [{ status: 403, text: "no scope" }];
  await assert.rejects(client.open(OTHER), /no scope/);
  assert.equal(client.status.inSync, true);
  await pass(60);
  assert.equal(hub.sent("publish").length, 1);
});

test("CLT-20 what overtakes it is shown, and it is not tried again", async (t) => {
  const { hub, client, heard, pass } = await follower(t);
  hub.answers.publish = [{ status: 502 }];
  await assert.rejects(client.open(OTHER));
  hub.socket.tell(event("Patient-open", [PATIENT], { timestamp: new Date(Date.now() - 5000).toISOString() }));
  await flush();
  assert.deepEqual(heard, ["Patient-open Patient/p1"]);
  assert.equal(client.status.inSync, true);
  await pass(60);
  assert.equal(hub.sent("publish").length, 1);
});

test("CLT-20 an open of the same is the same event", async (t) => {
  const { hub, client } = await follower(t, { timings: { backoffFirst: 60 } });
  hub.answers.publish = [{ status: 502 }];
  await assert.rejects(client.open(OTHER));
  await client.open(OTHER);
  const [first, second] = hub.sent("publish").map(({ message }) => message.id);
  assert.equal(first, second);
  assert.equal(client.status.inSync, true);
});

test("CLT-19 what everybody shows is not opened again, and an equal open calls no handler", async (t) => {
  const { hub, client, heard } = await follower(t);
  const first = await client.open(PATIENT);
  assert.equal((await client.open(PATIENT)).id, first.id);
  assert.equal(hub.sent("publish").length, 1);
  const timestamp = new Date(Date.now() + 1000).toISOString();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "equal", timestamp }));
  await flush();
  assert.deepEqual([heard, hub.acknowledged], [[], ["equal 200"]]);
});

test("CLT-19 what a handler is shown is not opened by it, and the log says so once", async (t) => {
  const logged = t.mock.method(console, "warn", nothing);
  const { hub, client } = setUp(t, {
    handlers: { "Patient-open": async (/** @type {any} */ one) => void (await client.open(one.resource("patient"))) },
  });
  await client.start();
  for (const resource of [PATIENT, OTHER]) {
    const timestamp = new Date(Date.now() + hub.acknowledged.length).toISOString();
    hub.socket.tell(event("Patient-open", [resource], { id: resource.id ?? "", timestamp }));
    await flush();
  }
  assert.equal(client.context?.anchor, "Patient/p2");
  assert.equal(hub.sent("publish").length, 0);
  assert.deepEqual(
    logged.mock.calls.map(({ arguments: said }) => said[0]),
    ["fhircast-client: the handler of Patient-open publishes the event that it was called with"],
  );
});

test("CLT-21 a message that cannot be read is not passed over", async (t) => {
  const { hub, client, pass } = await follower(t);
  await client.open(PATIENT);
  hub.answers.context = [BACK];
  hub.socket.raw('{"timestamp": "2026-01-01T00:00:00Z", "id": "e1", "event": {"hub.event": "Patient-open", ');
  await flush();
  assert.deepEqual(hub.socket.sent.at(-1), { id: "e1", status: 500 });
  await pass(1);
  assert.equal(client.context, null, "the hub was asked");
  assert.equal(client.status.inSync, true);
  hub.socket.raw(new Uint8Array([1]));
  await flush();
  assert.match(client.status.why, /could not be read|does not tell/);
});

test("CLT-21 an open that names nothing is not passed over", async (t) => {
  const { hub, client } = await follower(t);
  hub.socket.tell(event("Patient-open", [], { id: "e1" }));
  await flush();
  assert.deepEqual(hub.acknowledged, ["e1 500"]);
  assert.equal(client.status.inSync, false);
});

test("CLT-23 text that cannot be encoded is cleaned", async (t) => {
  const half = "unsaved \ud83d notes";
  const { hub, client } = setUp(t, {
    handlers: {
      "Patient-open": () => {
        throw new Refuse(half);
      },
    },
  });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await flush();
  assert.equal(hub.socket.sent.at(-1).reason, "unsaved \ufffd notes");
  await client.publish("org.example.note", [{ key: "text", text: half }]);
  assert.equal(hub.sent("publish").at(-1)?.message.event.context[0].text, "unsaved \ufffd notes");
});

for (const answer of INGRESS) {
  test(`CLT-24 an ingress that answers ${answer.status} ${answer.text ?? ""} ends no client`, async (t) => {
    const { hub, client, pass } = await follower(t);
    /** @type {string[]} */
    const seen = [];
    client.onStatus(({ why }) => seen.push(why));
    hub.answers.subscribe = [answer, answer];
    hub.socket.tell({ "hub.mode": "denied", "hub.topic": "topic-1" });
    await pass(10);
    assert.equal(client.status.connection, "connected");
    assert.doesNotMatch(seen.join("\n"), /</);
  });
}

test("CLT-24 the hub itself ends a client, and a wrong URL does at once", async (t) => {
  const { hub, client, pass } = await follower(t);
  hub.answers.subscribe = [{ status: 403, text: "no scope for this session" }];
  hub.socket.tell({ "hub.mode": "denied", "hub.topic": "topic-1" });
  await pass(5);
  assert.equal(client.status.connection, "ended");
  assert.match(client.status.why, /no scope for this session/);
});

test("CLT-24 a wrong URL ends a client at once", async (t) => {
  const { hub, client } = setUp(t);
  hub.answers.subscribe = [/** @type {any} */ (INGRESS[0])];
  await assert.rejects(client.start(), { status: 404 });
});

test("CLT-25 an own open that is not told back is asked for after two pings", async (t) => {
  const { hub, client, pass } = await follower(t);
  await client.open(PATIENT);
  await pass(29);
  assert.equal(client.status.inSync, true);
  await pass(2);
  assert.equal(client.status.inSync, false);
  assert.equal(hub.sent("context").length, 2);
});

test("CLT-20 however often it is clicked, it is sent again by one", async (t) => {
  const { hub, client, pass } = await follower(t, { timings: { backoffFirst: 10, backoffMost: 10 } });
  hub.always.publish = () => ({ status: 502 });
  for (let click = 0; click < 5; click += 1) await assert.rejects(client.open(OTHER));
  await pass(60);
  const sent = hub.sent("publish").length;
  assert.ok(sent >= 5 + 5 && sent <= 5 + 12, `${sent}`);
});

test("CLT-20 CLT-14 nothing is posted after stop", async (t) => {
  const { hub, client, pass } = await follower(t);
  hub.answers.publish = [{ status: 503, headers: { "Retry-After": "4" } }];
  const opening = assert.rejects(client.open(OTHER), { status: 503 });
  await pass(1);
  await client.stop();
  await pass(10);
  await opening;
  assert.equal(hub.sent("publish").length, 1);
});

test("CLT-19 deep resources end no client", async (t) => {
  /** @type {any} */
  let deep = {};
  for (let depth = 0; depth < 6000; depth += 1) deep = { x: deep };
  const { hub, heard, client } = await follower(t);
  const message = JSON.stringify(event("Patient-open", [/** @type {any} */ ({ ...PATIENT, x: 12 })], { id: "id" }));
  const text = `${'{"x":'.repeat(6000)}{}${"}".repeat(6000)}`;
  for (const id of ["a", "b"]) hub.socket.raw(message.replace('"id"', `"${id}"`).replace("12", text));
  await flush();
  hub.socket.tell(event("Patient-open", [OTHER], { id: "c", timestamp: new Date(Date.now() + 1000).toISOString() }));
  await flush();
  assert.equal(heard.at(-1), "Patient-open Patient/p2");
  assert.equal(client.context?.anchor, "Patient/p2");
});

test("CLT-24 what the hub declares is asked at each subscription", async (t) => {
  const { hub, client, pass } = setUp(t);
  hub.always.discovery = () => /** @type {any} */ (INGRESS[4]);
  await client.start();
  assert.doesNotMatch(hub.sent("subscribe").at(-1)?.form["hub.events"] ?? "", /heartbeat/);
  delete hub.always.discovery;
  hub.socket.tell({ "hub.mode": "denied", "hub.topic": "topic-1" });
  await pass(2);
  assert.match(hub.sent("subscribe").at(-1)?.form["hub.events"] ?? "", /heartbeat/);
});

test("CLT-25 a socket that takes nothing is lost, and one that takes it late is not", async (t) => {
  const { hub, client, pass } = await follower(t);
  const socket = /** @type {any} */ (hub.socket);
  const send = socket.send.bind(socket);
  let isStuck = false;
  socket.bufferedAmount = 0;
  socket.send = (/** @type {string} */ text) => {
    send(text);
    socket.bufferedAmount += text.length;
    if (!isStuck) queueMicrotask(() => (socket.bufferedAmount = 0));
  };
  for (let number = 0; number < 5; number += 1) {
    socket.tell(event("UserHibernate", [], { id: `h${number}` }));
    await pass(11);
  }
  assert.equal(hub.socket, socket);
  isStuck = true;
  socket.tell(event("UserHibernate", [], { id: "last" }));
  await pass(40);
  assert.notEqual(hub.socket, socket);
  assert.equal(socket.closedWith, 4000);
  assert.equal(client.status.connection, "connected");
});
