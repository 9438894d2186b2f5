/** README.md: its example says what the page says. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

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
