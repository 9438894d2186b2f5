/** What was shared under a fullUrl: it is named by that, here as in every other application. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Event } from "../src/events.js";
import { changed, fullUrlIn, readCurrent } from "../src/update-bundle.js";
import { flush, OBSERVATION, REPORT } from "./fake.js";
import { put, reporting, updated } from "./reporting.js";

const second = { resourceType: "Observation", id: "o2" };
const third = { resourceType: "Observation", id: "o3" };
const O1 = "Observation/o1";
const UUID = "urn:uuid:1";
/** Where update requests go, as in the specification's example: it names no resource. */
const NOWHERE = "http://example.org/hub/topic/fhir";

/** @param {string} fullUrl @param {any} [resource] */
const under = (fullUrl, resource = OBSERVATION) => ({ fullUrl, ...put(resource) });
/** @param {any} fullUrl @param {any} [url] */
const gone = (fullUrl, url = NOWHERE) => ({ fullUrl, request: { method: "DELETE", url } });
/** @param {any} before @param {...any} entries The update that has them. */
const after = (before, ...entries) => changed(before, new Event(updated("v1", "v2", entries)));
/** @param {...any} updates What is shared after an update with each. */
const all = (...updates) => updates.reduce((content, entry) => after(content, entry), {});
/** @param {any} content @returns {Record<string, string>} */
const shown = (content) => Object.fromEntries(Object.keys(content).map((ref) => [ref, fullUrlIn(content, ref)]));

/** @param {any} sent What was posted. @returns {any[]} What an update asks for, without the resources. */
const asked = (sent) =>
  sent.message.event.context.at(-1).resource.entry.map((/** @type {any} */ { fullUrl, request }) => [
    request.method,
    fullUrl,
    request.url,
  ]);

test("CLT-16 what was shared under a fullUrl is deleted by that", () => {
  for (const url of [NOWHERE, undefined, null, "", 7, O1, `${O1}/_history/2`]) {
    const content = all(under(UUID), put(second), gone(UUID, url));
    assert.deepEqual(shown(content), { "Observation/o2": "Observation/o2" }, String(url));
  }
});

test("CLT-16 what ends in a Type/id names that", () => {
  const ends = [O1, `https://ehr.example/fhir/${O1}`, `urn:${O1}`, `${O1}/_history/2`];
  const deletes = [
    ...ends.map((url) => gone(url)),
    ...ends.flatMap((url) => ["urn:uuid:another", "", undefined, 7].map((other) => gone(other, url))),
  ];
  for (const entry of deletes) {
    const content = all(under(UUID), put(second), entry);
    assert.deepEqual(Object.keys(content), ["Observation/o2"], JSON.stringify(entry));
    assert.equal(fullUrlIn(content, O1), O1, "it has none any more");
  }
});

test("CLT-16 what names nothing deletes nothing", () => {
  for (const entry of [gone("urn:uuid:2"), gone(""), gone(undefined), gone(undefined, UUID), gone(["x"], {})]) {
    assert.deepEqual(shown(all(under(UUID), entry)), { [O1]: UUID }, JSON.stringify(entry));
  }
});

test("CLT-16 a fullUrl names what has it now", () => {
  const replaced = all(under(UUID), under("urn:uuid:2"), under(UUID, second));
  assert.deepEqual(shown(replaced), { [O1]: "urn:uuid:2", "Observation/o2": UUID });
  assert.deepEqual(Object.keys(after(replaced, gone(UUID))), [O1]);
  assert.deepEqual(all(under(UUID), put(OBSERVATION), under(""), gone(UUID)), {});
  assert.deepEqual(all(under(UUID), gone(O1), under(UUID, second), gone(UUID)), {});
  const inOne = after(all(under(UUID)), under("urn:uuid:2"), under(UUID, second), gone("urn:uuid:3", O1));
  assert.deepEqual(shown(inOne), { "Observation/o2": UUID });
});

test("CLT-16 the content before an update is not changed, and shows no fullUrls", () => {
  const before = all(under(UUID));
  assert.deepEqual(after(before, gone(UUID)), {});
  assert.deepEqual(shown(after(before, under("urn:uuid:2"))), { [O1]: "urn:uuid:2" });
  assert.deepEqual(shown(before), { [O1]: UUID });
  assert.deepEqual(before, { [O1]: OBSERVATION });
});

test("CLT-16 the fullUrls of the answer to what is current are known", () => {
  const entry = [under(UUID), put(second), under("", third), { fullUrl: "urn:uuid:4" }];
  const bundle = { resourceType: "Bundle", entry };
  const context = [{ key: "report", resource: REPORT }, { key: "content", resource: bundle }];
  const { content } = readCurrent({ "context.type": "DiagnosticReport", context }, "topic");
  const refs = { "Observation/o2": "Observation/o2", "Observation/o3": "Observation/o3" };
  assert.deepEqual(shown(content), { [O1]: UUID, ...refs });
  assert.deepEqual(shown(after(content, gone(UUID))), refs);
});

test("CLT-16 CLT-7 what is changed keeps its fullUrl", async (t) => {
  const { hub, client, content } = await reporting(t);
  hub.socket.tell(updated("v0", "v1", [under(UUID), put(second)]));
  await flush();
  let version = 1;
  const update = async (/** @type {any} */ changes) => {
    const updating = client.update(changes);
    await flush();
    const sent = /** @type {any} */ (hub.sent("publish").at(-1));
    const { entry } = sent.message.event.context.at(-1).resource;
    hub.socket.tell(updated(`v${version}`, `v${version + 1}`, entry, sent.message.id));
    version += 1;
    await updating;
    return asked(sent);
  };
  assert.deepEqual(await update([{ ...OBSERVATION, status: "final" }, second, third]), [
    ["PUT", UUID, O1],
    ["PUT", "Observation/o2", "Observation/o2"],
    ["PUT", "Observation/o3", "Observation/o3"],
  ]);
  const firstTwo = (/** @type {any} */ shared) => Object.keys(shared).slice(0, 2);
  assert.deepEqual(await update(firstTwo), [
    ["DELETE", UUID, O1],
    ["DELETE", "Observation/o2", "Observation/o2"],
  ]);
  assert.deepEqual(content(), ["Observation/o3"]);
  assert.deepEqual(await update([OBSERVATION]), [["PUT", O1, O1]]);
  assert.deepEqual(await update([`https://ehr.example/fhir/${O1}/_history/7`]), [["DELETE", O1, O1]]);
});

test("CLT-16 CLT-6 who fetches the content knows the fullUrls", async (t) => {
  const { hub, client } = await reporting(t);
  const bundle = { resourceType: "Bundle", entry: [under(UUID)] };
  const context = [{ key: "report", resource: REPORT }, { key: "content", resource: bundle }];
  hub.answers.context = [{ body: { "context.type": "DiagnosticReport", "context.versionId": "v7", context } }];
  hub.socket.tell(updated("v6", "v7", [put(second)]));
  await flush();
  void client.update([O1]);
  await flush();
  assert.deepEqual(asked(hub.sent("publish").at(-1)), [["DELETE", UUID, O1]]);
});
