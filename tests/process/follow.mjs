/** A JavaScript client in a process of its own: `node follow.mjs URL TOPIC TOKEN`. Its status and what it shows are JSON lines. */

import { FHIRcastClient } from "../../clients/javascript/src/index.js";

const [url, topic, token] = process.argv.slice(2);

/** The endpoint is the hub's; the way there is the ingress's. */
class ThroughIngress extends WebSocket {
  constructor(endpoint) {
    super(Object.assign(new URL(endpoint), { host: new URL(url).host }));
  }
}

const say = (what) => console.log(JSON.stringify(what));
const timings = { backoffFirst: 0.05, backoffMost: 0.2, settle: 0.1 };
const client = new FHIRcastClient(url, topic, { token, name: "javascript", WebSocket: ThroughIngress, timings });
client.on("Patient-open", ({ anchor }) => say({ shows: anchor }));
client.onStatus((status) => say(status));
client.run().catch(({ message }) => say({ ended: message }));
