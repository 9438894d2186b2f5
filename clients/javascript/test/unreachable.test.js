/** A hub that cannot be reached is explained, whether it is asked over HTTP or a WebSocket. */

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import https from "node:https";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

import { WebSocket } from "ws";

import { FHIRcastClient } from "../src/index.js";
import { knownCause, whyUnreachable } from "../src/unreachable.js";
import { event, flush, PATIENT, setUp } from "./fake.js";
import { PYTHON, until } from "./hub.js";

const CERTIFICATES = fileURLToPath(new URL("../../../tests/certificates.py", import.meta.url));
const FOLDER = mkdtempSync(path.join(tmpdir(), "certificates-"));
after(() => rmSync(FOLDER, { recursive: true }));

/** @param {string[]} how @returns {Promise<{server: https.Server, origin: string, file: string}>} A server that answers 404. */
async function serveTls(...how) {
  const folder = mkdtempSync(path.join(FOLDER, "one-"));
  execFileSync(PYTHON, [CERTIFICATES, folder, ...how]);
  const file = path.join(folder, "hub.pem");
  const options = { cert: readFileSync(file), key: readFileSync(path.join(folder, "hub.key")) };
  const server = https.createServer(options, (_, response) => response.writeHead(404).end());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, file, origin: `https://127.0.0.1:${port(server)}` };
}

/** @param {net.Server} server */
function port(server) {
  return /** @type {net.AddressInfo} */ (server.address()).port;
}

/** @param {string} origin @returns {Promise<string>} */
async function overHttp(origin) {
  const client = new FHIRcastClient(`${origin}/api/hub`, "t", { WebSocket });
  return client.fetch().then(
    () => "",
    ({ message }) => message.replace("The hub was not reached: ", ""),
  );
}

/** @param {string} origin @returns {Promise<string>} */
async function overASocket(origin) {
  const endpoint = `${origin.replace("http", "ws")}/secret`;
  const socket = new WebSocket(endpoint);
  const { error } = await new Promise((resolve) => Object.assign(socket, { onerror: resolve }));
  return knownCause(error, endpoint);
}

for (const ask of [overHttp, overASocket]) {
  test(`CLT-28 an unknown CA (${ask.name})`, async (t) => {
    const { server, origin } = await serveTls("127.0.0.1");
    t.after(() => server.close());
    assert.equal(
      await ask(origin),
      "the certificate of 127.0.0.1 is not trusted (DEPTH_ZERO_SELF_SIGNED_CERT); a hospital's own CA is trusted where NODE_EXTRA_CA_CERTS names its file",
    );
  });

  test(`CLT-28 a port without TLS, a port at which nothing listens, a name without an address (${ask.name})`, async () => {
    const server = net.createServer((socket) => socket.on("error", () => {}).end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = `127.0.0.1:${port(server)}`;
    assert.equal(await ask(`https://${address}`), `${address} does not speak TLS`);
    server.close();
    assert.equal(await ask(`http://${address}`), `nothing listens at ${address}`);
    assert.equal(
      await ask("http://no-such-host.invalid"),
      "no address is known for the name no-such-host.invalid",
    );
  });
}

test("CLT-28 a hospital's CA by the environment, and certificates that are not valid", async (t) => {
  const program = `
    import { FHIRcastClient } from ${JSON.stringify(new URL("../src/index.js", import.meta.url))};
    const client = new FHIRcastClient(process.argv[1] + "/api/hub", "t", { WebSocket: class {} });
    await client.fetch().catch(({ message }) => console.log(message));`;
  for (const [how, said] of /** @type {[string[], RegExp][]} */ ([
    [["127.0.0.1"], /^The hub answered 404$/],
    [["127.0.0.1", "--expired"], /the certificate of 127.0.0.1 is not valid \(CERT_HAS_EXPIRED\)$/],
    [["other.example"], /the certificate of 127.0.0.1 is not valid \(ERR_TLS_CERT_ALTNAME_INVALID\)$/],
  ])) {
    const { server, origin, file } = await serveTls(...how);
    t.after(() => server.close());
    const env = { ...process.env, NODE_EXTRA_CA_CERTS: file, NODE_OPTIONS: "" };
    const node = spawn(process.execPath, ["--input-type=module", "--eval", program, origin], { env });
    const printed = (await node.stdout.setEncoding("utf-8").toArray()).join("").trim();
    assert.match(printed, said);
  }
});

test("CLT-28 every try says why, also that a socket's certificate is not trusted", async (t) => {
  const warned = t.mock.method(console, "warn", () => {});
  const { server, origin } = await serveTls("127.0.0.1");
  t.after(() => server.close());
  /** @type {typeof fetch} */
  const subscribe = async (_, init) =>
    init?.method === "POST"
      ? Response.json({ "hub.channel.endpoint": `${origin.replace("http", "ws")}/secret` }, { status: 202 })
      : new Response("", { status: 404 });
  const client = new FHIRcastClient(`${origin}/api/hub`, "t", {
    WebSocket,
    fetch: subscribe,
    timings: { backoffFirst: 0.01, backoffMost: 0.02 },
  });
  client.start().catch(() => {});
  await until("two warnings", () => warned.mock.callCount() > 1);
  assert.match(client.status.why, /^The hub was not reached: the certificate of 127.0.0.1 is not trusted .* Trying again\.$/);
  const said = warned.mock.calls.map(({ arguments: [text] }) => String(text));
  assert.match(said[1] ?? "", /^fhircast-client: The hub was not reached: the certificate of 127.0.0.1 is not trusted/);
  assert.ok(!said.join("").includes("secret"));
  await client.stop();
});

test("CLT-28 what the system says else is named, and a page is sent to its console", () => {
  const coded = (/** @type {string} */ code, more = {}) => Object.assign(new Error("s3cret"), { code, ...more });
  const failed = (/** @type {unknown} */ cause) => new TypeError("fetch failed: s3cret", { cause });
  const why = (/** @type {unknown} */ cause) => whyUnreachable(failed(cause), "https://hub.example/s3cret");
  assert.equal(why(coded("ECONNRESET")), "the request failed (ECONNRESET)");
  assert.equal(why(null), "the request failed (TypeError)");
  assert.equal(why(coded("EHOSTUNREACH")), "there is no way to hub.example from this machine");
  const refused = coded("ECONNREFUSED", { address: "10.0.0.1", port: 443 });
  assert.equal(why({ cause: "x", errors: [refused, refused] }), "nothing listens at hub.example:443");
  const proxy = { address: "10.0.0.2", port: 3128 };
  assert.equal(why(coded("ECONNREFUSED", proxy)), "nothing listens at 10.0.0.2:3128", "Node goes by way of a proxy");
  assert.equal(why(coded("ENOTFOUND", { hostname: "proxy.example" })), "no address is known for the name proxy.example");
  Object.assign(globalThis, { document: {} });
  try {
    assert.equal(why(null), "the request failed, and the browser's console says why");
  } finally {
    Reflect.deleteProperty(globalThis, "document");
  }
});

const JSON_BODY = { "Content-Type": "application/json" };
const WORDS = 'the token is not for the audience "hub-7"';
const CHALLENGE = { "WWW-Authenticate": 'Bearer error="invalid_token", error_description="it expired at noon"' };
const PAGE = "<p>Åse Nordmann, log in</p>";
for (const [text, headers, words] of /** @type {[string, Record<string, string>, string][]} */ ([
  [JSON.stringify({ message: WORDS }), JSON_BODY, `: ${WORDS}`],
  [`the token is not for\nthe audience "hub-7"\n`, {}, `: ${WORDS}`],
  [JSON.stringify({ message: WORDS }), { ...JSON_BODY, ...CHALLENGE }, `: ${WORDS}`],
  ["", CHALLENGE, ": it expired at noon"],
  [PAGE, { "Content-Type": "text/html", ...CHALLENGE }, ": it expired at noon"],
  [PAGE, { "Content-Type": "text/html", "WWW-Authenticate": "Bearer" }, ""],
  [PAGE, { "Content-Type": "text/html" }, ""],
])) {
  test(`CLT-11 CLT-28 a 401 is explained in the hub's own words: ${text.trim()} ${Object.values(headers)}`, async (t) => {
    const { hub, client } = setUp(t);
    hub.answers.subscribe = [{ status: 401, text, headers }];
    const message = `The hub answered 401${words}`;
    await assert.rejects(client.start(), { name: "TokenError", message });
    assert.equal(client.status.connection, "ended");
    assert.equal(client.status.why, message);
    hub.answers.publish = [{ status: 401, text, headers }];
    await assert.rejects(client.publish("org.example.zoom", []), { name: "TokenError", message });
  });
}

for (const [text, words] of [
  ['{"message": "the anchor is missing"}', ": the anchor is missing"],
  ["the anchor is missing\n", ": the anchor is missing"],
  ['{"error": "invalid"}', ""],
]) {
  test(`SUB-24 the hub's words are shown without the JSON around them: ${text}`, async (t) => {
    const { hub, client } = setUp(t);
    hub.answers.publish = [{ status: 400, text: text ?? "" }];
    await assert.rejects(client.open(PATIENT), { status: 400, message: `The hub answered 400${words}` });
  });
}

test("CLT-28 the hub's own words are shown, and are not on the console", async (t) => {
  const warned = t.mock.method(console, "warn", () => {});
  const { hub, client, pass } = setUp(t, { handlers: { "Patient-open": () => {} } });
  hub.onSocket = (socket) => socket.tell({ "hub.mode": "denied", "hub.reason": "Åse Nordmann is locked" });
  client.start().catch(() => {});
  await flush();
  assert.equal(client.status.why, "The hub ended the subscription: Åse Nordmann is locked. Trying again.");
  hub.always.subscribe = () => ({ status: 503, text: "Åse Nordmann has too many" });
  await pass(1);
  assert.match(client.status.why, /503: Åse Nordmann has too many/);
  hub.always = {};
  hub.onSocket = (socket) => hub.confirm(socket);
  await pass(30);
  hub.socket.lose();
  await flush();
  const said = warned.mock.calls.map(({ arguments: [text] }) => String(text));
  assert.equal(said[0], "fhircast-client: The hub ended the subscription. Trying again.");
  assert.ok(said.includes("fhircast-client: The hub answered 503. Trying again."));
  assert.equal(said.at(-1), "fhircast-client: The connection to the hub was lost (1006). Trying again.");
  assert.ok(!said.join().includes("Nordmann"));
});

test("CLT-20 CLT-24 a page with status 200 is not the hub's", async (t) => {
  const { hub, client } = setUp(t);
  await client.start();
  hub.answers.publish = [{ status: 200, text: "<h1>Log in</h1>", headers: { "Content-Type": "text/html; charset=utf-8" } }];
  await assert.rejects(client.open(PATIENT), { status: 0, message: "Something else than the hub answered, with a page (200)" });
  assert.match(client.status.why, /^The others were not told of Patient-open/);
});

test("CLT-28 a denial says why", async (t) => {
  const { hub, client } = setUp(t, { handlers: { "Patient-open": () => {} } });
  await client.start();
  /** @type {string[]} */
  const whys = [];
  client.onStatus(({ why }) => whys.push(why));
  hub.socket.tell({ "hub.mode": "denied", "hub.reason": `the  session\nended ${"x".repeat(400)}` });
  await flush();
  assert.equal(whys[0], `The hub ended the subscription: the session ended ${"x".repeat(282)}. Trying again.`);
});

for (const url of /** @type {any[]} */ ([
  ...["", "hub.example.org/api/hub", "localhost:8080/api/hub", "wss://hub.example.org", "https:///api", "/api/hub"],
  ...["https://a b/", "https://%zz/", "https://hub.example.org:99999/", "https://hub.example.org/\n", "https://\ud83d.org"],
  ...[null, 7],
])) {
  test(`CLT-28 a hub.url that is none is an error at once: ${JSON.stringify(url)}`, () => {
    assert.throws(() => new FHIRcastClient(url, "t", { WebSocket }), {
      name: "TypeError",
      message: `hub.url must be a URL such as https://hub.example.org/api/hub, not ${JSON.stringify(url)}`,
    });
  });
}

test("CLT-28 a hub.url with a password is not shown", () => {
  for (const url of ["https://me:s3cret@hub.example.org/", "https://me:s3cret@h:99999/", "me:s3cret@h/api", " ws://me:s3cret@h"]) {
    const made = () => new FHIRcastClient(url, "t", { WebSocket });
    assert.throws(made, (error) => error instanceof TypeError && !error.message.includes("s3cret"));
  }
});

for (const topic of /** @type {any[]} */ ([undefined, null, "", 7])) {
  test(`CLT-28 a topic that is none is an error at once: ${topic}`, () => {
    const made = () => new FHIRcastClient("https://hub.example.org/api/hub", topic, { WebSocket });
    assert.throws(made, { name: "TypeError", message: /^hub\.topic must be a text that is not empty, not / });
  });
}

test("what is no token, no handler and no identity map is an error at once", () => {
  const url = "https://hub.example.org/api/hub";
  assert.throws(() => new FHIRcastClient(url, "t", { WebSocket, token: /** @type {any} */ (7) }), TypeError);
  const client = new FHIRcastClient(url, "t", { WebSocket });
  assert.throws(() => client.on("Patient-open", /** @type {any} */ (undefined)), /the handler of Patient-open must be a function/);
  assert.throws(() => client.on("Patient-open", () => {}, { ids: /** @type {any} */ ({}) }), /have a method find/);
});

for (const debug of [false, true]) {
  test(`CLT-30 a handler's error is printed ${debug ? "whole with debug" : "by its name only"}`, async (t) => {
    const printed = t.mock.method(console, "error", () => {});
    const error = new RangeError("Åse Nordmann has no chart");
    const fails = () => {
      throw error;
    };
    const { hub, client } = setUp(t, { debug, handlers: { "Patient-open": fails } });
    client.onStatus(fails);
    await client.start();
    hub.socket.tell(event("Patient-open", [PATIENT]));
    await flush();
    const said = printed.mock.calls.map((call) => call.arguments);
    const whole = debug ? [error] : [];
    assert.deepEqual(said.at(0), ["fhircast-client: a listener failed: RangeError", ...whole]);
    assert.ok(said.some(([text, ...rest]) => text === "fhircast-client: the handler of Patient-open failed: RangeError" && rest.length === whole.length));
  });
}
