import { readFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";

import { startHub } from "./hub.js";
import { Run } from "./scenarios.js";

const {
  hub: settings,
  resources,
  scenarios,
} = JSON.parse(readFileSync(new URL("../../scenarios.json", import.meta.url), "utf8"));

describe("scenarios", { concurrency: 8 }, () => {
  /** @type {Awaited<ReturnType<typeof startHub>>} */
  let hub;
  before(async () => {
    hub = await startHub(settings);
  });
  after(() => hub?.stop());
  for (const { name, proves, steps, stu3 } of scenarios) {
    if (!stu3) continue;
    it(`${proves.join(" ")} ${name}`, () => new Run(hub, resources).run(steps));
  }
});
