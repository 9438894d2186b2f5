/** The engine without a hub: what it must make of the sequences that both libraries share, clients/following.json. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Driver } from "./engine-driver.js";

const { sequences } = JSON.parse(readFileSync(new URL("../../following.json", import.meta.url), "utf8"));

for (const sequence of sequences) {
  test(`${sequence.proves.join(" ")} ${sequence.name}`, () => {
    const driver = new Driver(sequence);
    for (const step of sequence.steps) {
      const seen = driver.step(step);
      for (const [name, expected] of Object.entries(step.is ?? {})) {
        assert.deepEqual(seen[name], expected, `${name} after ${JSON.stringify(step)}`);
      }
    }
  });
}
