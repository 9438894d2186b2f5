/** What is shared, where the hub's answers, echoes and what others do overtake each other; and whose clock is ahead. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { deferred } from "../src/timers.js";
import { event, flush, nothing, OBSERVATION, OTHER, PATIENT, REPORT, setUp, slow } from "./fake.js";
import { put, reporting, shared, updated } from "./reporting.js";

const second = { resourceType: "Observation", id: "o2" };

test("CLT-6 an answer that an update overtook changes nothing", async (t) => {
  const { hub, client, content, pass } = await reporting(t);
  const late = deferred();
  hub.answers.publish = [{ status: 409 }];
  hub.answers.context = [/** @type {any} */ (late.promise)];
  /** @type {string[][]} */
  const bases = [];
  const updating = client.update((known) => {
    bases.push(Object.keys(known));
    return [second];
  });
  await flush();
  hub.socket.tell(updated("v0", "v1", [put(OBSERVATION)]));
  await flush();
  late.resolve(shared("v0", []));
  await pass(2.2);
  await updating;
  assert.deepEqual(content(), ["Observation/o1"]);
  assert.deepEqual(bases, [[], ["Observation/o1"]]);
  assert.deepEqual(
    hub.sent("publish").map(({ message }) => message.event["context.versionId"]),
    ["v0", "v1"],
  );
});

test("CLT-6 CLT-4 own updates come back while a handler takes its time, and their content is kept", async (t) => {
  const { calls, act } = slow();
  const handlers = {
    "DiagnosticReport-open": nothing,
    "DiagnosticReport-update": nothing,
    "org.example.busy": act,
  };
  const { hub, client } = setUp(t, { handlers });
  hub.answers.context = [shared("v0", [])];
  await client.start();
  hub.socket.tell(event("DiagnosticReport-open", [REPORT], { version: "v0" }));
  await flush();
  hub.socket.tell(event("org.example.busy", [], { id: "b" }));
  for (const [number, resource] of [OBSERVATION, second].entries()) {
    const updating = client.update([resource]);
    await flush();
    const { message } = /** @type {any} */ (hub.sent("publish")[number]);
    hub.socket.tell(updated(`v${number}`, `v${number + 1}`, [put(resource)], message.id));
    await updating;
  }
  hub.always.context = () => ({ status: 404 });
  calls[0]?.end();
  await flush();
  assert.equal(client.context?.version, "v2");
  assert.deepEqual(Object.keys(client.context?.content ?? {}), ["Observation/o1", "Observation/o2"]);
});

test("CLT-7 an update of what is open and not current waits for what it missed", async (t) => {
  const { hub, client, pass } = await reporting(t);
  const timestamp = "2026-01-01T10:00:01.000Z";
  const other = { resourceType: "DiagnosticReport", id: "r9" };
  hub.always.context = () => shared("w0", [], other);
  hub.socket.tell(event("DiagnosticReport-open", [other], { id: "e9", version: "w0", timestamp }));
  await flush();
  assert.equal(client.context?.anchor, "DiagnosticReport/r9");
  hub.answers.publish = [{ status: 409 }, { status: 202 }];
  /** @type {string[][]} */
  const bases = [];
  const add = (/** @type {any} */ content) => {
    bases.push(Object.keys(content));
    return [second];
  };
  const updating = client.update(add, { anchor: REPORT });
  await pass(0.5);
  hub.socket.tell(updated("v0", "v1", [put(OBSERVATION)]));
  await flush();
  const { message } = /** @type {any} */ (hub.sent("publish")[1]);
  hub.socket.tell(updated("v1", "v2", [put(second)], message.id));
  await updating;
  assert.deepEqual(bases, [[], ["Observation/o1"]]);
  assert.equal(client.contexts.get("DiagnosticReport/r1")?.version, "v2");
  hub.always.publish = () => ({ status: 409 });
  const failed = assert.rejects(client.update(add, { anchor: REPORT }), { status: 409 });
  await pass(9);
  await failed;
});

test("CLT-7 updates at the same time are made one after the other", async (t) => {
  const { hub, client, content } = await reporting(t);
  const all = Promise.all([client.update([OBSERVATION]), client.update([second])]);
  for (const number of [0, 1]) {
    await flush();
    assert.equal(hub.sent("publish").length, number + 1);
    const { message } = /** @type {any} */ (hub.sent("publish")[number]);
    const { resource } = message.event.context.at(-1).resource.entry[0];
    hub.socket.tell(updated(`v${number}`, `v${number + 1}`, [put(resource)], message.id));
  }
  await all;
  assert.deepEqual(content(), ["Observation/o1", "Observation/o2"]);
});

test("CLT-7 an update that fails holds up no other", async (t) => {
  const { hub, client, pass } = await reporting(t);
  hub.answers.publish = [{ status: 403 }];
  const failed = assert.rejects(client.update([OBSERVATION]), { status: 403 });
  const next = client.update([second]);
  await failed;
  await pass(2.2);
  await next;
  assert.equal(hub.sent("publish").length, 2);
});

test("CLT-7 a function may change what it is given", async (t) => {
  const { hub, client } = await reporting(t);
  hub.socket.tell(updated("v0", "v1", [put({ ...OBSERVATION, status: "preliminary" })]));
  await flush();
  hub.answers.publish = [{ status: 403 }];
  const finish = (/** @type {any} */ content) => {
    content["Observation/o1"].status = "final";
    return Object.values(content);
  };
  await assert.rejects(client.update(finish), { status: 403 });
  assert.equal(client.context?.content?.["Observation/o1"]?.status, "preliminary");
});

test("CLT-5 CLT-12 what was published does not change with the application", async (t) => {
  const { hub, client } = setUp(t);
  const resource = { ...PATIENT, name: [{ family: "Haas" }] };
  await client.start();
  await client.open(resource);
  resource.id = "p2";
  resource.name.pop();
  assert.deepEqual(client.context?.resource("patient"), { ...PATIENT, name: [{ family: "Haas" }] });
  assert.equal(hub.sent("publish").length, 1);
});

test("CLT-26 an open is newer than what the user saw, though another clock is ahead", async (t) => {
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": nothing } });
  await client.start();
  await pass(1.5);
  const ahead = new Date(Date.now() + 3_600_000).toISOString();
  hub.socket.tell(event("Patient-open", [OTHER], { timestamp: ahead }));
  await flush();
  const own = await client.open(PATIENT);
  assert.equal(Date.parse(own.timestamp), Date.parse(ahead) + 1);
  assert.equal(hub.sent("publish")[0]?.message.timestamp, own.timestamp);
  const given = await client.publish("Patient-open", own.context, { timestamp: "2026-01-01T00:00:00Z" });
  assert.equal(given.timestamp, "2026-01-01T00:00:00Z");
});

test("CLT-26 a clock that is days ahead is not followed", async (t) => {
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": nothing } });
  await client.start();
  await pass(1.5);
  hub.socket.tell(event("Patient-open", [OTHER], { timestamp: "2099-01-01T00:00:00Z" }));
  await flush();
  assert.equal(Date.parse((await client.open(PATIENT)).timestamp), Date.now());
});

test("CLT-26 an open that waits for its turn is newer than what comes meanwhile", async (t) => {
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": nothing } });
  await client.start();
  await pass(1.5);
  const answer = deferred();
  hub.answers.publish = [/** @type {any} */ (answer.promise)];
  const first = client.open(PATIENT);
  const next = client.open(OTHER);
  const ahead = new Date(Date.now() + 60_000).toISOString();
  hub.socket.tell(event("Patient-open", [{ resourceType: "Patient", id: "p3" }], { timestamp: ahead }));
  answer.resolve({ status: 202 });
  await first;
  assert.ok(Date.parse((await next).timestamp) > Date.parse(ahead));
});

/** A client whose ids are found when the test says so. @param {import("node:test").TestContext} t */
async function slowlyFinding(t) {
  const { hub, client, pass } = setUp(t);
  const { calls, act } = slow();
  /** @type {string[]} */
  const heard = [];
  client.on("Patient-open", (one) => void heard.push(one.anchor), { ids: { find: act } });
  await client.start();
  await pass(1.5);
  return { hub, client, heard, calls };
}

test("CLT-26 IDM-4 whom an own open overtook while it was found out who it is, is not shown", async (t) => {
  const { hub, client, heard, calls } = await slowlyFinding(t);
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "theirs", timestamp: new Date().toISOString() }));
  await flush();
  await client.open(OTHER);
  calls[0]?.end();
  await flush();
  assert.deepEqual(heard, []);
  assert.equal(client.context?.anchor, "Patient/p2");
  assert.deepEqual(hub.acknowledged, ["theirs 200"]);
  assert.equal(client.status.inSync, true);
});

test("CLT-26 what is closed here meanwhile takes nobody else's place", async (t) => {
  const { hub, client, heard, calls } = await slowlyFinding(t);
  await client.open(OTHER);
  hub.socket.tell(event("Patient-open", [PATIENT], { timestamp: new Date(Date.now() + 1000).toISOString() }));
  await flush();
  await client.close(OTHER);
  calls[0]?.end();
  await flush();
  assert.deepEqual(heard, ["Patient/p1"]);
  assert.equal(client.context?.anchor, "Patient/p1");
});

test("CLT-32 an own open is shown again where a slow handler showed something older after it", async (t) => {
  /** @type {string[]} */
  const screen = [];
  const { calls, act } = slow();
  const show = async (/** @type {any} */ { anchor }) => {
    if (anchor === "Patient/p1") await act();
    screen.push(anchor);
  };
  const { hub, client } = setUp(t, { handlers: { "Patient-open": show } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await flush();
  await client.open(OTHER);
  screen.push("Patient/p2");
  calls[0]?.end();
  await flush();
  assert.deepEqual(screen, ["Patient/p2", "Patient/p1", "Patient/p2"]);
  assert.deepEqual([client.status.inSync, client.context?.anchor], [true, "Patient/p2"]);
});

test("CLT-32 handlers that open each other's patients make no storm", async (t) => {
  /** @type {string[]} */
  const shown = [];
  const { hub, client, pass } = setUp(t);
  client.on("Patient-open", async ({ anchor, own }) => {
    shown.push(`${anchor} ${own}`);
    await client.open(anchor === "Patient/p1" ? OTHER : PATIENT);
  });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await pass(2);
  assert.deepEqual(shown, ["Patient/p1 false", "Patient/p2 true", "Patient/p1 true", "Patient/p2 true"]);
  assert.equal(hub.sent("publish").length, 4);
  assert.match(client.status.why, /was shown here after the newer/);
});

test("CLT-32 what a handler itself opens is handed to it once more", async (t) => {
  /** @type {string[]} */
  const shown = [];
  const { hub, client, pass } = setUp(t);
  client.on("Patient-open", async ({ anchor, own }) => {
    shown.push(`${anchor} ${own}`);
    if (anchor === "Patient/p1") await client.open(OTHER);
  });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await pass(2);
  assert.deepEqual(shown, ["Patient/p1 false", "Patient/p2 true"]);
  assert.equal(client.status.inSync, true);
});
