import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { FHIRcastClient } from "../src/index.js";
import { OTHER, PATIENT } from "./fake.js";
import { Network, startHub, until } from "./hub.js";

/** Seconds. */
const BACKOFF_MOST = 4;
const BACK = 60;

describe("a network that is cut", { concurrency: true }, () => {
  /** @type {Awaited<ReturnType<typeof startHub>>} */
  let hub;
  before(async () => {
    hub = await startHub({ RECONNECT_GRACE: 1, HEARTBEAT_SECONDS: 1 });
  });
  after(() => hub?.stop());

  /**
   * A viewer whose network is cut while somebody opens another patient.
   * @param {{seconds: number, silently?: boolean, leaseSeconds?: number | null}} how
   */
  async function cut({ seconds, silently = false, leaseSeconds = null }) {
    const topic = randomUUID();
    const networks = [await Network.start(hub.port), await Network.start(hub.port)];
    const [viewer, ehr] = networks.map(({ hubUrl, WebSocket }, index) => {
      const options = {
        token: hub.token,
        WebSocket,
        name: `app ${index}`,
        leaseSeconds,
        timings: { backoffMost: BACKOFF_MOST },
      };
      return new FHIRcastClient(hubUrl, topic, options);
    });
    assert.ok(viewer && ehr && networks[0]);
    viewer.on("Patient-open", () => {});
    let expected = "Patient/p1";
    let beats = 0;
    viewer.onWire(({ kind, body }) => {
      if (kind === "event" && JSON.stringify(body).includes('"heartbeat"')) beats += 1;
    });
    /** @type {string[]} */
    const lies = [];
    try {
      await Promise.all([viewer.start(), ehr.start()]);
      await ehr.open(PATIENT);
      await until("the first patient", () => viewer.context?.anchor === expected);
      viewer.onStatus(
        ({ inSync }) => inSync && viewer.context?.anchor !== expected && lies.push(viewer.context?.anchor ?? ""),
      );
      await until("a heartbeat", () => beats > 0);
      networks[0].cut({ silently });
      await ehr.open(OTHER);
      expected = "Patient/p2";
      const noticed = until("a status that says so", () => !viewer.status.inSync);
      await Promise.all([noticed, sleep(seconds * 1000)]);
      networks[0].restore();
      await until(
        "the other patient, in sync",
        () => viewer.status.inSync && viewer.context?.anchor === expected,
        BACK,
      );
      assert.deepEqual(lies, []);
    } finally {
      await Promise.all([viewer.stop(), ehr.stop()]);
      for (const network of networks) network.stop();
    }
  }

  it("CLT-9 CLT-13 for a second", () => cut({ seconds: 1 }));
  it("CLT-9 CLT-13 for half a minute", () => cut({ seconds: 30 }));
  it("CLT-9 CLT-13 for half a minute, so that nothing says so but the missing heartbeats", () =>
    cut({ seconds: 30, silently: true }));
  it("CLT-9 CLT-10 CLT-13 past the lease", () => cut({ seconds: 6, leaseSeconds: 3 }));
  it("CLT-9 CLT-10 CLT-13 past the lease, silently", () => cut({ seconds: 6, silently: true, leaseSeconds: 3 }));
});
