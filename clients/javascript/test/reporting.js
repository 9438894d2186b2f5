/** A report that is shared: what the hub says of it, and a client that follows it. */

import { event, nothing, PATIENT, REPORT, setUp } from "./fake.js";

/** What GET answers. @param {string} version @param {any[]} resources @param {any} [report] That is current. */
export function shared(version, resources, report = REPORT) {
  const bundle = { resourceType: "Bundle", type: "collection", entry: resources.map((resource) => ({ resource })) };
  const context = [
    { key: "report", resource: report },
    { key: "content", resource: bundle },
  ];
  return { body: { "context.type": "DiagnosticReport", "context.versionId": version, context } };
}

/**
 * An update as the hub sends it.
 * @param {string} prior
 * @param {string} version
 * @param {any[]} entry
 * @param {string} [id]
 */
export function updated(prior, version, entry, id = version) {
  const message = event("DiagnosticReport-update", [], { id, version, prior });
  const bundle = { resourceType: "Bundle", type: "transaction", entry };
  message.event.context = [
    { key: "report", reference: { reference: "DiagnosticReport/r1" } },
    { key: "updates", resource: bundle },
  ];
  return message;
}

export const put = (/** @type {any} */ resource) => ({ request: { method: "PUT" }, resource });
/** A client that follows a report at version v0 with nothing in it. @param {import("node:test").TestContext} t */
export async function reporting(t) {
  const handlers = { "DiagnosticReport-open": nothing, "DiagnosticReport-update": nothing };
  const all = setUp(t, { handlers });
  all.hub.answers.context = [shared("v0", [])];
  await all.client.start();
  all.hub.socket.tell(event("DiagnosticReport-open", [REPORT, PATIENT], { version: "v0" }));
  await all.pass(1.5);
  const content = () => Object.keys(all.client.context?.content ?? { unknown: true });
  return { ...all, content };
}
