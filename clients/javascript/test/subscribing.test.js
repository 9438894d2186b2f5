import assert from "node:assert/strict";
import { test } from "node:test";

import { FHIRcastClient, HubError } from "../src/index.js";
import { event, flush, HUB, nothing, PATIENT, setUp, TOPIC } from "./fake.js";

test("CLT-1 subscribes to what has a handler, the closes of the opens, SyncError and heartbeat", async (t) => {
  const { hub, client } = setUp(t, {
    handlers: { "patient-open": nothing, "org.example.zoomed": nothing, "Home-open": nothing },
  });
  assert.deepEqual(client.events, []);
  await client.start();
  const { form, token } = /** @type {any} */ (hub.sent("subscribe")[0]);
  assert.equal(form["hub.events"], "patient-close,SyncError,patient-open,org.example.zoomed,Home-open,heartbeat");
  assert.equal(form["subscriber.name"], "viewer");
  assert.equal(form["hub.channel.type"], "websocket");
  assert.equal(form["hub.topic"], TOPIC);
  assert.equal(token, null);
});

test("CLT-1 asks for no heartbeat of a hub that does not declare it, or when none is wanted", async (t) => {
  const { hub, client } = setUp(t);
  hub.supported = ["Patient-open"];
  await client.start();
  assert.equal(hub.sent("subscribe")[0]?.form["hub.events"], "SyncError");
  const other = new FHIRcastClient(HUB, TOPIC, { ...hub.options, heartbeat: false });
  hub.supported = ["heartbeat"];
  await other.start();
  assert.equal(hub.sent("subscribe")[1]?.form["hub.events"], "SyncError");
  await other.stop();
});

test("CLT-1 events are what the hub confirmed, and names match in any case", async (t) => {
  const { hub, client, heard } = setUp(t, { handlers: { "Patient-open": nothing } });
  hub.onSocket = (socket) => hub.confirm(socket, { "hub.events": "Patient-open, SyncError" });
  await client.start();
  assert.deepEqual(client.events, ["Patient-open", "SyncError"]);
  hub.socket.tell(event("PATIENT-OPEN", [PATIENT]));
  await flush();
  assert.deepEqual(heard, ["PATIENT-OPEN Patient/p1"]);
  assert.throws(() => client.on("Patient-close", nothing), /before the client starts/);
});

test("CLT-1 an event has one handler", (t) => {
  const { client } = setUp(t, { handlers: { "Patient-open": nothing } });
  assert.throws(() => client.on("patient-OPEN", nothing), /has a handler already/);
});

test("CLT-9 a lost socket is replaced on the same endpoint", async (t) => {
  const { hub, client, pass } = setUp(t);
  await client.start();
  hub.socket.lose();
  assert.equal(client.status.connection, "connecting");
  assert.equal(client.status.inSync, false);
  assert.match(client.status.why, /lost/);
  await pass(0.6);
  assert.equal(hub.sockets.length, 2);
  assert.equal(hub.sockets[1]?.url, hub.sockets[0]?.url);
  assert.equal(hub.sent("subscribe").length, 1);
  assert.equal(client.status.connection, "connected");
});

test("CLT-9 an endpoint that does not answer is replaced by a new subscription", async (t) => {
  const { hub, client, pass } = setUp(t);
  await client.start();
  const [first] = hub.sockets;
  hub.onSocket = (socket) => (socket.url === first?.url ? socket.lose() : hub.confirm(socket));
  first?.lose();
  await pass(0.6);
  assert.equal(hub.sent("subscribe").length, 2);
  assert.equal(hub.sent("subscribe")[1]?.form["hub.channel.endpoint"], undefined);
  assert.notEqual(hub.socket.url, first?.url);
  assert.equal(client.status.connection, "connected");
});

test("CLT-9 an endpoint that somebody took over, or that was denied, is not used again", async (t) => {
  const { hub, client, pass } = setUp(t);
  await client.start();
  hub.socket.lose(1008);
  await pass(0.6);
  assert.equal(hub.sent("subscribe").length, 2);
  hub.socket.tell({
    "hub.mode": "denied",
    "hub.topic": TOPIC,
    "hub.events": "SyncError",
    "hub.reason": "the lease has ended",
  });
  assert.match(client.status.why, /the lease has ended/);
  await pass(1.1);
  assert.equal(hub.sent("subscribe").length, 3);
  assert.equal(new Set(hub.sockets.map(({ url }) => url)).size, 3);
  assert.equal(client.status.connection, "connected");
});

test("CLT-9 who sent more than the hub waits for comes back to the same endpoint, after a pause", async (t) => {
  const warned = t.mock.method(console, "warn", () => {});
  const { hub, client, pass } = setUp(t);
  await client.start();
  hub.socket.lose(1008, "more frames came than acknowledge what was sent");
  const why = "The hub closed the connection: more frames came than acknowledge what was sent. Trying again.";
  assert.equal(client.status.why, why);
  await pass(0.1);
  assert.equal(hub.sockets.length, 1);
  await pass(0.5);
  assert.equal(hub.sockets.length, 2);
  assert.equal(hub.sockets[1]?.url, hub.sockets[0]?.url);
  assert.equal(hub.sent("subscribe").length, 1);
  assert.deepEqual(warned.mock.calls.map((call) => call.arguments), [[`fhircast-client: ${why}`]]);
});

for (const [reason, why] of [
  ["", "Another connection took the subscription over. Trying again."],
  ["another socket took over this endpoint", "Another connection took the subscription over. Trying again."],
  ["Åse  is not\nwelcome", "The hub closed the connection (1008): Åse is not welcome. Trying again."],
]) {
  test(`CLT-9 any other 1008 costs the endpoint, and its reason is shown: ${JSON.stringify(reason)}`, async (t) => {
    const warned = t.mock.method(console, "warn", () => {});
    const { hub, client, pass } = setUp(t);
    await client.start();
    hub.socket.lose(1008, reason);
    assert.equal(client.status.why, why);
    await pass(0.6);
    assert.equal(hub.sent("subscribe").length, 2);
    assert.notEqual(hub.sockets[1]?.url, hub.sockets[0]?.url);
    assert.doesNotMatch(String(warned.mock.calls[0]?.arguments), /Åse/);
  });
}

test("CLT-28 what the hub says when it closes is shown", async (t) => {
  const { hub, client } = setUp(t);
  await client.start();
  hub.socket.lose(1001, "the hub is stopping");
  assert.equal(client.status.why, "The connection to the hub was lost (1001): the hub is stopping. Trying again.");
});

test("CLT-11 a handshake that a busy hub refuses costs the endpoint only once the hub grants another", async (t) => {
  const { hub, client, pass } = setUp(t);
  await client.start();
  const url = hub.sockets[0]?.url;
  hub.onSocket = (socket) => socket.lose();
  hub.answers.subscribe = [{ status: 429, headers: { "Retry-After": "20" } }];
  hub.socket.lose();
  await pass(19);
  assert.equal(hub.sent("subscribe").length, 2);
  assert.equal(hub.sockets.length, 2);
  hub.onSocket = (socket) => hub.confirm(socket);
  await pass(3);
  assert.equal(hub.socket.url, url);
  assert.equal(hub.sent("subscribe").length, 2);
  assert.equal(client.status.connection, "connected");
});

test("CLT-9 tries are further and further apart, and 30 s at most", async (t) => {
  const { hub, client, pass } = setUp(t);
  await client.start();
  hub.always.subscribe = () => new TypeError("no network");
  hub.onSocket = (socket) => socket.lose();
  hub.socket.lose();
  const tries = () => hub.sockets.length - 1;
  await pass(30);
  const soon = tries();
  assert.ok(soon >= 5 && soon <= 8, `${soon} tries in the first 30 s`);
  await pass(300);
  const then = tries() - soon;
  assert.ok(then >= 9 && then <= 21, `${then} tries in the 300 s after that`);
  delete hub.always.subscribe;
  hub.onSocket = (socket) => hub.confirm(socket);
  await pass(31);
  assert.equal(client.status.connection, "connected");
});

test("CLT-9 a hub that confirms and closes at once is not asked without end", async (t) => {
  const { hub, client, pass } = setUp(t);
  hub.onSocket = (socket) => {
    hub.confirm(socket);
    socket.lose();
  };
  await client.start();
  await pass(30);
  assert.ok(hub.sockets.length <= 9, `${hub.sockets.length} sockets in 30 s`);
});

test("CLT-9 connections that break after a second are tried further and further apart", async (t) => {
  const { hub, client, pass } = setUp(t);
  hub.onSocket = (socket) => {
    hub.confirm(socket);
    setTimeout(() => socket.lose(), 1000);
  };
  await client.start();
  await pass(40);
  assert.ok(hub.sockets.length <= 10, `${hub.sockets.length} sockets in 40 s`);
});

test("CLT-9 a try that waits is made at once when the network is back or the page is seen again", async (t) => {
  const page = new EventTarget();
  for (const name of /** @type {const} */ (["addEventListener", "removeEventListener"])) {
    Object.assign(globalThis, { [name]: page[name].bind(page) });
    t.after(() => Reflect.deleteProperty(globalThis, name));
  }
  const { hub, client, pass } = setUp(t, { timings: { backoffFirst: 20 } });
  await client.start();
  for (const name of ["online", "visibilitychange"]) {
    hub.socket.lose();
    await pass(0.1);
    assert.equal(client.status.connection, "connecting");
    page.dispatchEvent(new globalThis.Event(name));
    await flush();
    assert.equal(client.status.connection, "connected", name);
  }
  await client.stop();
  page.dispatchEvent(new globalThis.Event("online"));
});

for (const status of [400, 403]) {
  test(`CLT-9 the hub says never: ${status}`, async (t) => {
    const { hub, client, pass } = setUp(t);
    await client.start();
    const over = assert.rejects(client.run(), (error) => error instanceof HubError && error.status === status);
    hub.always.subscribe = () => ({ status, text: "not you\n" });
    hub.socket.lose(1008);
    await pass(1);
    await over;
    assert.equal(client.status.connection, "ended");
    assert.match(client.status.why, /not you/);
    const { length } = hub.requests;
    await pass(100);
    assert.equal(hub.requests.length, length);
  });
}

test("CLT-9 start keeps trying while the hub is away, and raises when it says never", async (t) => {
  const { hub, client, pass } = setUp(t);
  hub.answers.subscribe = [
    new TypeError("no network"),
    { status: 500, text: "oh" },
    { status: 202, text: "<html>" },
    { status: 202, body: { "hub.channel.endpoint": "https://hub.example/elsewhere" } },
    { status: 403 },
  ];
  /** @type {number[]} */
  const failed = [];
  void client.start().catch(({ status }) => failed.push(status));
  await flush();
  assert.match(client.status.why, /not reached: the request failed \(TypeError\)/);
  await pass(0.6);
  assert.match(client.status.why, /500: oh/);
  await pass(1.1);
  assert.match(client.status.why, /named no endpoint/);
  await pass(2.1);
  assert.match(client.status.why, /named no endpoint/);
  assert.deepEqual(failed, []);
  await pass(4.1);
  assert.deepEqual(failed, [403]);
});

test("CLT-9 three heartbeats missed count as lost", async (t) => {
  const { hub, client, pass } = setUp(t);
  await client.start();
  await pass(600);
  assert.equal(hub.sockets.length, 1, "before the first heartbeat its period is not known");
  const beat = event("heartbeat", [], { id: "h1" });
  beat.event.context = [{ key: "period", decimal: "30" }];
  hub.socket.tell(beat);
  await pass(89);
  hub.socket.tell(beat);
  await pass(89);
  assert.equal(hub.sockets.length, 1);
  await pass(18);
  assert.equal(hub.sockets.length, 2);
  assert.notEqual(hub.sockets[0]?.closedWith, 1000, "the hub must not take it for a farewell");
  assert.equal(client.status.connection, "connected");
});

test("CLT-9 a socket that never confirms is given up", async (t) => {
  const { hub, client, pass } = setUp(t);
  hub.onSocket = (socket, index) => {
    if (index > 0) hub.confirm(socket);
  };
  const started = client.start();
  await pass(12);
  await started;
  assert.equal(hub.sockets.length, 2);
});

test("a client without a WebSocket says so", () => {
  const { WebSocket } = globalThis;
  Object.assign(globalThis, { WebSocket: undefined });
  try {
    assert.throws(() => new FHIRcastClient(HUB, TOPIC), /There is no WebSocket here/);
  } finally {
    Object.assign(globalThis, { WebSocket });
  }
});
