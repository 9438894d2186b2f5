/** Plays sequences to the engine, one on each line of the input; a line of the output says what was seen after each step. */

import { createInterface } from "node:readline";

import { Driver } from "./engine-driver.js";

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(played(JSON.parse(line)))}\n`);
}

/** @param {Record<string, any>} sequence */
function played(sequence) {
  try {
    const driver = new Driver(sequence);
    return { seen: sequence.steps.map((/** @type {any} */ step) => driver.step(step)) };
  } catch (error) {
    return { error: error instanceof Error ? error.stack : String(error) };
  }
}
