/** A logout waits for nobody: nothing of the user who leaves may stay on a screen (FHIRcast 3.0.0, 3.2.2). */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Refuse } from "../src/index.js";
import { at, event, flush, OTHER, PATIENT, setUp, slow, STUDY } from "./fake.js";

const LOGOUT = event("UserLogout", [], { id: "out", timestamp: at(5) });

/**
 * A viewer that fetches a study, and a patient waits.
 * @param {import("node:test").TestContext} t
 * @param {() => unknown} [leave] What its handler of logouts does.
 */
async function busy(t, leave = () => {}) {
  const { calls, act } = slow();
  const handlers = { "ImagingStudy-open": act, "Patient-open": () => {}, "UserLogout": leave };
  const there = setUp(t, { handlers });
  await there.client.start();
  there.hub.socket.tell(event("ImagingStudy-open", [STUDY, PATIENT], { id: "s", timestamp: at(1) }));
  await flush();
  there.hub.socket.tell(event("Patient-open", [OTHER], { id: "p2", timestamp: at(2) }));
  await flush();
  const end = async () => {
    calls[0]?.end();
    await flush();
  };
  return { ...there, end, heard: () => there.heard.slice(1) };
}

test("CLT-33 its handler is called at once, and what waited is not shown", async (t) => {
  const { hub, client, heard, end } = await busy(t);
  hub.socket.tell(LOGOUT);
  await flush();
  assert.deepEqual(heard(), ["UserLogout"]);
  assert.deepEqual(hub.acknowledged, ["p2 200", "out 200"]);
  assert.match(client.status.why, /has logged out/);
  await end();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "p1", timestamp: at(6) }));
  await flush();
  assert.deepEqual(heard(), ["UserLogout", "Patient-open Patient/p1"]);
  assert.equal(client.status.inSync, true);
});

test("CLT-33 what comes after it waits until it is handled", async (t) => {
  const leaving = slow();
  const { hub, heard, end } = await busy(t, leaving.act);
  hub.socket.tell(LOGOUT);
  await flush();
  await end();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "p1", timestamp: at(6) }));
  await flush();
  assert.deepEqual(heard(), ["UserLogout"]);
  leaving.calls[0]?.end();
  await flush();
  assert.deepEqual(heard(), ["UserLogout", "Patient-open Patient/p1"]);
});

test("CLT-33 who does not log out is shown what waited", async (t) => {
  const { hub, client, heard, end, pass } = await busy(t, () => {
    throw new Refuse("unsaved notes");
  });
  hub.always.context = () => ({
    body: { "context.type": "Patient", "context.versionId": "v1", context: [{ key: "patient", resource: OTHER }] },
  });
  hub.socket.tell(LOGOUT);
  await flush();
  assert.deepEqual(hub.acknowledged, ["p2 200", "out 409"]);
  assert.equal(client.status.inSync, false);
  await end();
  await pass(2);
  assert.deepEqual(heard(), ["UserLogout", "Patient-open Patient/p2"]);
});

test("CLT-33 it waits for no publication, and what waits for one is not shown", async (t) => {
  const { hub, client, heard, pass } = setUp(t, { handlers: { "Patient-open": () => {}, "UserLogout": () => {} } });
  await client.start();
  await pass(1.5);
  let answer = (/** @type {any} */ _reply) => {};
  hub.answers.publish = [new Promise((resolve) => (answer = resolve))];
  const opening = client.open(PATIENT);
  await flush();
  hub.socket.tell(event("Patient-open", [OTHER], { id: "p2", timestamp: "2026-01-01T10:01:30Z" }));
  await flush();
  hub.socket.tell(LOGOUT);
  await flush();
  assert.deepEqual(hub.acknowledged, ["p2 200", "out 200"]);
  answer({ status: 202 });
  await opening;
  await flush();
  assert.deepEqual(heard, ["UserLogout"]);
});
