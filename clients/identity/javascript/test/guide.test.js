/** README.md: its example says what the page says. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { IdentityMap, System, Table } from "../src/index.js";
import { patient, refusal } from "./cases.js";

test("the example runs", () => {
  const page = readFileSync(new URL("../README.md", import.meta.url), "utf-8");
  const [, example = ""] = /^```js\n([^]*?)^```/m.exec(page) ?? [];
  const cwd = fileURLToPath(new URL("..", import.meta.url));
  const done = spawnSync(process.execPath, ["--input-type=module", "--eval", example], { cwd, encoding: "utf-8" });
  assert.deepEqual(done.stdout.trim().split("\n"), [
    "local-17",
    "Birth date differs between the patient that was sent and the patient found here.",
    "[ { system: 'urn:oid:2.16.578.1.12.4.1.4.1', value: '13057000001' } ]",
  ], done.stderr);
});

test("the rows of the page make a table", async () => {
  const page = readFileSync(new URL("../README.md", import.meta.url), "utf-8");
  const [, rows = ""] = /^```json\n([^]*?)^```/m.exec(page) ?? [];
  const [, call = ""] = /Table\.fromRows\(rows, (.*?)\);/.exec(page) ?? [];
  const read = new Function("Table", "System", "rows", `return Table.fromRows(rows, ${call});`);
  const ids = new IdentityMap({ Patient: [new System("urn:oid:2.999.19.5")] }, [read(Table, System, JSON.parse(rows))]);
  assert.equal((await ids.findResource(patient("4438001", "urn:oid:2.999.19.5"))).id, "local-17");
});

test("IDM-1 IDM-2 IDM-4 what are no rules or resolvers is an error at once, and what is not sent is refused", async () => {
  for (const rules of /** @type {any[]} */ (["MR", new System("urn:oid:1"), ["MR"], []])) {
    assert.throws(() => new IdentityMap({ Patient: rules }, []), /the rules for Patient must be a list/);
  }
  assert.throws(() => new IdentityMap({}, /** @type {any} */ ([7])), /must be a function or have a method find/);
  await assert.rejects(new IdentityMap({}, []).findResource(null), refusal("NoMatch", /has no patient or study to look up/));
});
