/** The fake hub that applications test against. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Refuse } from "../src/index.js";
import { FakeSocket } from "../src/fake-sockets.js";
import { FakeHub } from "../src/testing.js";
import { OBSERVATION, OTHER, PATIENT, REPORT } from "./fake.js";

/** @param {import("node:test").TestContext} t @param {ConstructorParameters<typeof FakeHub>[0]} [options] */
function hubOf(t, options) {
  const hub = new FakeHub(options);
  t.after(() => hub.stop());
  return hub;
}

test("CLT-27 an application is tested against the fake hub", async (t) => {
  const hub = hubOf(t);
  const client = hub.client("viewer");
  /** @type {string[]} */
  const heard = [];
  client.on("Patient-open", ({ anchor }) => void heard.push(anchor));
  await client.start();
  const event = await hub.publish("Patient-open", PATIENT);
  assert.deepEqual(await hub.acknowledged(event), {
    client: "viewer",
    eventId: event.id,
    event: "Patient-open",
    status: 200,
    reason: "",
  });
  assert.deepEqual(heard, ["Patient/p1"]);
  assert.deepEqual(hub.subscribed("viewer"), ["Patient-close", "SyncError", "Patient-open", "heartbeat"]);
  assert.equal((await client.fetch())?.anchor, "Patient/p1");
  await client.stop();
  assert.deepEqual(hub.subscribed("viewer"), []);
});

test("CLT-27 the fake hub tells who did not follow, and content by versions", async (t) => {
  const hub = hubOf(t);
  const [chart, ehr] = [hub.client("chart"), hub.client("ehr")];
  chart.on("Patient-open", () => {
    throw new Refuse("unsaved notes");
  });
  ehr.on("DiagnosticReport-update", () => {});
  await Promise.all([chart.start(), ehr.start()]);
  const event = await ehr.open(PATIENT);
  assert.equal((await hub.acknowledged(event, "chart")).status, 409);
  await until(() => ehr.status.behind.length > 0);
  assert.deepEqual(ehr.status.behind, ["chart"]);
  await ehr.open(REPORT);
  await ehr.update([OBSERVATION]);
  assert.deepEqual(Object.keys((await ehr.fetch())?.content ?? {}), ["Observation/o1"]);
  await Promise.all([chart.stop(), ehr.stop()]);
});

test("CLT-27 SYN-3 only who was told an event refuses it, and once, as at a hub", async (t) => {
  /** @type {FakeSocket[]} */
  const sockets = [];
  const { send } = FakeSocket.prototype;
  t.mock.method(FakeSocket.prototype, "send", /** @this {FakeSocket} @param {string} text */ function (text) {
    sockets.push(this);
    send.call(this, text);
  });
  const hub = hubOf(t);
  const client = hub.client("viewer", { heartbeat: false });
  t.after(() => client.stop());
  client.on("Patient-open", () => {});
  await client.start();
  const [patient, report] = [await hub.publish("Patient-open", PATIENT), await hub.publish("DiagnosticReport-open", REPORT)];
  await hub.acknowledged(patient);
  const refuse = (/** @type {string} */ id) => sockets[0]?.send(JSON.stringify({ id, status: 409, reason: "no" }));
  for (const id of [report.id, patient.id, patient.id]) refuse(id);
  const about = hub.messages.filter(({ event }) => event["hub.event"] === "SyncError");
  assert.equal(about.length, 1);
  assert.ok(JSON.stringify(about).includes(patient.id));
});

test("CLT-27 who waits for an acknowledgement of what nobody is subscribed to is told so", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const hub = hubOf(t);
  const client = hub.client("viewer");
  t.after(() => client.stop());
  client.on("Patient-open", () => {});
  await client.start();
  const waits = async (/** @type {string} */ name, /** @type {import("../src/index.js").Resource} */ resource) => {
    hub.loseNext(1);
    const acknowledged = hub.acknowledged(await hub.publish(name, resource));
    t.mock.timers.tick(15_000);
    return acknowledged;
  };
  await assert.rejects(waits("DiagnosticReport-open", REPORT), { message: /within 15 s, and nobody is subscribed to it$/ });
  await assert.rejects(waits("patient-OPEN", PATIENT), { message: /within 15 s$/ });
});

test("CLT-27 what is lost and cut at the fake hub is caught up with", async (t) => {
  const hub = hubOf(t);
  const client = hub.client("viewer", { timings: { backoffFirst: 0.01, backoffMost: 0.05, settle: 0.05 } });
  client.on("Patient-open", () => {});
  await client.start();
  hub.cut("viewer");
  await hub.publish("Patient-open", PATIENT);
  assert.equal(client.context, null);
  hub.restore("viewer");
  await until(() => client.context?.anchor === "Patient/p1");
  hub.loseNext(1);
  await hub.publish("Patient-open", OTHER);
  hub.disconnect();
  await until(() => client.context?.anchor === "Patient/p2");
  hub.answerNext("publish", { status: 403, body: "no scope" });
  await assert.rejects(client.open(PATIENT), { status: 403 });
  hub.deny("viewer", "the session has ended");
  await until(() => client.status.connection === "connecting");
  await client.stop();
});

/** @param {() => boolean} isSo */
async function until(isSo) {
  for (const end = Date.now() + 15_000; !isSo(); await new Promise((resolve) => setTimeout(resolve, 5))) {
    if (Date.now() > end) throw new Error(`expected that ${isSo}`);
  }
}

test("CLT-27 mistakes of a test are errors at once", () => {
  assert.throws(() => new FakeHub(/** @type {any} */ ("STU2")), /version must be STU2 or STU3, not "STU2"/);
  assert.throws(() => new FakeHub(/** @type {any} */ ({ version: "STU9" })), /not "STU9"/);
  const hub = new FakeHub();
  assert.throws(() => hub.answerNext(/** @type {any} */ ("foo"), { status: 503 }), /the kind of request must be one of subscribe,/);
  assert.throws(() => hub.answerNext("publish", /** @type {any} */ (503)), /answers must be objects such as/);
  assert.throws(() => hub.cut("Nobody"), /no client of this hub is called Nobody/);
});
