/** Local ids: the cases that the Python and the JavaScript library share. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { IdentityMap, Refusal, Table } from "../src/index.js";
import { query } from "../src/local.js";
import { spellings } from "../src/family-names.js";
import { inForce } from "../src/rules.js";
import { camel, CASES, refusal, rule, tables } from "./cases.js";

// Where UTC is the local time, a time without a zone would be right by accident.
process.env.TZ = "Asia/Tokyo";

/**
 * @param {any} resource
 * @returns {string[]} What of a resource no refusal may tell.
 */
function values(resource) {
  if (Array.isArray(resource)) return resource.flatMap(values);
  if (resource && typeof resource === "object") {
    return Object.entries(resource).flatMap(([name, value]) => (name === "resourceType" ? [] : values(value)));
  }
  return typeof resource === "string" && /\d/.test(resource) ? [resource] : [];
}

/** @param {any} given */
function found(given) {
  const rules = Object.entries(given.rules).map(([type, ofType]) => [type, ofType.map(rule)]);
  const ids = new IdentityMap(Object.fromEntries(rules), tables());
  if (given.event) return ids.find(given.event);
  return ids.findResource(given.resource, given.patient, { url: given.url });
}

for (const given of CASES.cases) {
  test(`${given.proves.join(" ")} ${given.name}`, async () => {
    if (given.local) {
      assert.equal((await found(given)).id, given.local);
      return;
    }
    await assert.rejects(found(given), (/** @type {any} */ error) => {
      assert.ok(error instanceof Refusal);
      assert.equal(error.name, given.refused);
      assert.equal(error.message, given.reason);
      assert.deepEqual(values(given.resource).filter((value) => error.message.includes(value)), []);
      return true;
    });
  });
}

for (const [one, other, same] of CASES.names) {
  test(`IDM-3 ${one} and ${other} are ${same ? "spellings of one name" : "different names"}`, () => {
    assert.equal([...spellings(one)].some((form) => spellings(other).has(form)), same);
  });
}

for (const [item, expected] of CASES.in_force.items) {
  test(`IDM-1 ${JSON.stringify(item)} ${expected ? "still counts" : "counts no more"}`, () => {
    assert.equal(inForce(item, new Date(CASES.in_force.now)), expected);
  });
}

test("IDM-3 a name from outside has not endlessly many spellings", () => {
  assert.ok(spellings("å".repeat(10_000)).size <= 64);
  assert.deepEqual(spellings("å".repeat(1000)), spellings("Å".repeat(1000)));
});

for (const given of CASES.rows) {
  test(`IDM-2 a table from rows: ${given.name}`, async () => {
    const { columns = {}, identifiers = {}, ...options } = given.options ?? {};
    options.columns = camel(columns);
    const rules = Object.entries(identifiers).map(([column, named]) => [column, rule(named)]);
    options.identifiers = Object.fromEntries(rules);
    if (given.error) {
      const says = (/** @type {any} */ error) => error instanceof RangeError && error.message.includes(given.error);
      assert.throws(() => Table.fromRows(given.rows, options), says);
      return;
    }
    const table = Table.fromRows(given.rows, options);
    for (const { value, system, codes, ids, families } of given.asks) {
      const answer = await table.find(query("Patient", value, system, codes));
      assert.deepEqual(answer.map((local) => local.id), ids);
      if (families) assert.deepEqual(answer.map((local) => local.family), families);
    }
  });
}

for (const given of CASES.publishable) {
  test(`${given.proves.join(" ")} publishing: ${given.name}`, async () => {
    const resources = new IdentityMap({}, tables()).publishable(given.type, given.id);
    if (given.resources) assert.deepEqual(await resources, given.resources);
    else await assert.rejects(resources, refusal(given.refused, given.reason));
  });
}

test("IDM-2 a record that cannot be read", () => {
  for (const record of [{ localId: "" }, { localId: "1", birthDate: "13.05.1970" }, { localId: "1", surname: "X" }]) {
    assert.throws(() => new Table({ 4438001: record }), RangeError);
  }
});
