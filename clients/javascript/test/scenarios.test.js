import { readFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";

import { startHub } from "./hub.js";
import { fakePlace, realPlace, Run } from "./scenarios.js";

const {
  hub: settings,
  resources,
  scenarios,
} = JSON.parse(readFileSync(new URL("../../scenarios.json", import.meta.url), "utf8"));

describe("scenarios at the real hub", { concurrency: 8 }, () => {
  /** @type {Awaited<ReturnType<typeof startHub>>} */
  let hub;
  before(async () => {
    hub = await startHub(settings);
  });
  after(() => hub?.stop());
  for (const { name, proves, steps, stu3 } of scenarios) {
    if (stu3) it(`${proves.join(" ")} ${name}`, () => new Run(realPlace(hub), resources).run(steps));
  }
});

for (const version of /** @type {const} */ (["STU3", "STU2"])) {
  describe(`scenarios at the fake hub in the manner of ${version}`, { concurrency: 8 }, () => {
    for (const { name, proves, steps, ...plays } of scenarios) {
      const run = () => new Run(fakePlace(version), resources).run(steps);
      if (plays[version.toLowerCase()]) it(`${proves.join(" ")} ${name}`, run);
    }
  });
}
