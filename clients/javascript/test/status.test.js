import assert from "node:assert/strict";
import { test } from "node:test";

import { Refuse } from "../src/index.js";
import { at, event, flush, nothing, OTHER, PATIENT, setUp, slow, syncErrorOf } from "./fake.js";

test("CLT-13 out of sync after a refusal, in sync by an open that is not older", async (t) => {
  let refused = true;
  const { hub, client } = setUp(t, {
    handlers: {
      "Patient-open": () => {
        if (refused) throw new Refuse("unsaved notes");
      },
    },
  });
  await client.start();
  assert.deepEqual(client.status, { connection: "connected", inSync: true, why: "", behind: [] });
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a", timestamp: at(5) }));
  await flush();
  assert.equal(client.status.inSync, false);
  assert.equal(client.status.why, "This application did not follow Patient-open: unsaved notes");
  refused = false;
  hub.socket.tell(event("Patient-open", [OTHER], { id: "b", timestamp: at(4) }));
  await flush();
  assert.equal(client.context?.anchor, "Patient/p2");
  assert.equal(client.status.inSync, false, "older than what was refused");
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a", timestamp: at(5) }));
  await flush();
  assert.equal(client.context?.anchor, "Patient/p1", "what was refused is handed to the handler when it is sent again");
  assert.equal(client.status.inSync, true);
});

test("CLT-13 out of sync after a SyncError about somebody else, until an open after it is followed", async (t) => {
  const { hub, client } = setUp(t, { handlers: { "Patient-open": nothing } });
  /** @type {string[]} */
  const statuses = [];
  const remove = client.onStatus(({ inSync, behind }) => statuses.push(`${inSync} ${behind}`));
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a", timestamp: at(1) }));
  hub.socket.tell(syncErrorOf("chart", "a"));
  await flush();
  assert.equal(client.status.why, "chart refused");
  hub.socket.tell(event("Patient-open", [OTHER], { id: "b", timestamp: at(2) }));
  await flush();
  hub.socket.tell(syncErrorOf("chart", "a", "again"));
  await flush();
  assert.deepEqual(statuses, ["false ", "true ", "false chart", "true "], "everybody has left what it is about");
  remove();
  hub.socket.tell(syncErrorOf("chart", "b"));
  hub.socket.tell(syncErrorOf("worklist", "b"));
  await flush();
  assert.deepEqual(client.status.behind, ["chart", "worklist"]);
  assert.equal(statuses.length, 4);
});

test("CLT-13 a SyncError about what came while a handler was slow is not undone when it ends", async (t) => {
  const { calls, act } = slow();
  const { hub, client } = setUp(t, { handlers: { "Patient-open": act } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await flush();
  hub.socket.tell(syncErrorOf("chart", "e1"));
  calls[0]?.end();
  await flush();
  assert.deepEqual(client.status.behind, ["chart"]);
});

test("CLT-13 CLT-2 neither listeners that throw nor odd SyncErrors stop anything", async (t) => {
  const logged = t.mock.method(console, "error", nothing);
  const { hub, client, heard } = setUp(t, { handlers: { "Patient-open": nothing } });
  client.onStatus(() => {
    throw new Error("Nygård");
  });
  client.onWire(() => {
    throw new TypeError("Nygård");
  });
  await client.start();
  for (const issue of [undefined, 3, [null], [{ details: { coding: [null, {}, { system: 1, code: 2 }] } }]]) {
    const odd = syncErrorOf("x", "y");
    odd.event.context[0].resource.issue = issue;
    hub.socket.tell(odd);
  }
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "last" }));
  await flush();
  assert.deepEqual(heard, ["Patient-open Patient/p1"]);
  assert.ok(logged.mock.callCount() > 0);
  assert.doesNotMatch(logged.mock.calls.map(({ arguments: said }) => said.join(" ")).join("\n"), /Nyg|Patient|p1/);
});

test("CLT-14 CLT-13 catchUp hands what was refused to its handler again", async (t) => {
  let refused = true;
  const { hub, client, heard } = setUp(t, {
    handlers: {
      "Patient-open": () => {
        if (refused) throw new Refuse("unsaved notes");
      },
    },
  });
  await client.start();
  assert.equal(await client.catchUp(), false);
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await flush();
  assert.equal(await client.catchUp(), false);
  refused = false;
  assert.equal(await client.catchUp(), true);
  assert.equal(heard.length, 3);
  assert.equal(client.context?.anchor, "Patient/p1");
  assert.equal(client.status.inSync, true);
  assert.deepEqual(hub.acknowledged, ["e1 409"]);
});

test("CLT-14 catchUp leaves alone what something newer came after", async (t) => {
  const { hub, client, heard } = setUp(t, {
    handlers: {
      "Patient-open": () => {
        throw new Refuse("unsaved notes");
      },
    },
  });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a", timestamp: at(1) }));
  hub.socket.tell(event("Patient-close", [PATIENT], { id: "b", timestamp: at(2) }));
  await flush();
  assert.equal(await client.catchUp(), false);
  assert.equal(heard.length, 1);
  assert.equal(client.status.inSync, false);
});

test("CLT-14 catchUp leaves alone what was closed, though the close is older", async (t) => {
  const { hub, client, heard } = setUp(t, {
    handlers: {
      "Patient-open": () => {
        throw new Refuse("unsaved notes");
      },
    },
  });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a", timestamp: at(2) }));
  hub.socket.tell(event("Patient-close", [PATIENT], { id: "b", timestamp: at(1) }));
  await flush();
  assert.equal(await client.catchUp(), false);
  assert.equal(heard.length, 1);
});

test("CLT-14 catchUp says that it did not follow what something newer overtook while it waited", async (t) => {
  const { calls, act } = slow();
  let refused = true;
  const open = () => {
    if (refused) throw new Refuse("unsaved notes");
  };
  const { hub, client } = setUp(t, { handlers: { "Patient-open": open, "org.example.zoomed": act } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a", timestamp: at(1) }));
  hub.socket.tell(event("org.example.zoomed", [], { id: "b" }));
  await flush();
  refused = false;
  hub.socket.tell(event("Patient-open", [OTHER], { id: "c", timestamp: at(2) }));
  const catching = client.catchUp();
  calls[0]?.end();
  assert.equal(await catching, false);
  await flush();
  assert.equal(client.context?.anchor, "Patient/p2");
});

test("CLT-13 a SyncError about an event that is not subscribed to counts until none has come for a while", async (t) => {
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": nothing } });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "a", timestamp: at(1) }));
  for (const again of ["1", "2", "3"]) {
    hub.socket.tell(syncErrorOf("viewer", "study", again, "ImagingStudy-open"));
    hub.socket.tell(syncErrorOf("chart", "a", `chart ${again}`));
    await flush();
    assert.deepEqual(client.status.behind, ["viewer", "chart"]);
    await pass(20);
  }
  assert.deepEqual(client.status.behind, ["viewer", "chart"]);
  await pass(6);
  assert.deepEqual(client.status.behind, ["chart"], "the end of what is subscribed to is seen");
  hub.socket.tell(syncErrorOf("viewer", "study", "4", "ImagingStudy-open"));
  await flush();
  await client.stop();
});

test("CLT-5 CLT-9 the hub is asked what is open once the handlers have ended", async (t) => {
  const { calls, act } = slow();
  const handlers = { "Patient-open": act, "Patient-close": nothing };
  const { hub, client, heard, pass } = setUp(t, { handlers });
  await client.start();
  hub.socket.tell(event("Patient-open", [PATIENT], { id: "e1", timestamp: at(1) }));
  await pass(2);
  hub.socket.lose();
  await pass(20);
  const asked = hub.sent("context").length;
  assert.equal(client.status.inSync, false);
  calls[0]?.end();
  await pass(20);
  assert.equal(hub.sent("context").length > asked, true);
  assert.deepEqual(heard, ["Patient-open Patient/p1", "Patient-close Patient/p1"]);
  assert.equal(client.context, null);
  assert.deepEqual(client.status, { connection: "connected", inSync: true, why: "", behind: [] });
});

test("CLT-13 CLT-2 the status is told before the hub is", async (t) => {
  const { hub, client } = setUp(t, { handlers: { "Patient-open": () => Promise.reject(new Refuse("busy")) } });
  /** @type {string[]} */
  const order = [];
  await client.start();
  client.onStatus(({ inSync }) => order.push(`in step ${inSync}`));
  client.onWire(({ kind }) => kind === "acknowledgement" && order.push(kind));
  hub.socket.tell(event("Patient-open", [PATIENT]));
  await flush();
  assert.deepEqual(order, ["in step false", "acknowledgement"]);
});
