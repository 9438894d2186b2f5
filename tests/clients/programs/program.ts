/** What applications do with both packages. Each line under `@ts-expect-error` is a mistake that the types must find. */

import { FHIRcastClient, HubError, isRefusal, Refuse, TIMINGS, TokenError } from "fhircast-client";
import type { Context, Event, Ids, Options, Resource, Status, TokenSource, WireMessage } from "fhircast-client";
import { FakeHub } from "fhircast-client/testing";
import { FhirSearch, IdentityMap, Local, Mismatch, StudyUid, System, Table } from "fhircast-identity";
import type { Lookup } from "fhircast-identity";
import WebSocket from "ws";

const token: TokenSource = async () => "token";
const options: Options = { token, name: "Viewer", WebSocket, timings: { backoffMost: TIMINGS.backoffMost / 2 }, debug: true };
const client = new FHIRcastClient("https://hub.example.org/api/hub", "topic", options);

const elsewhere: Lookup = async ({ value }, signal) => (signal.aborted ? [] : [{ type: "Patient", id: value }]);
const ids = new IdentityMap({ Patient: [new System("urn:oid:1")], ImagingStudy: [new StudyUid()] }, [
  new Table(new Map()),
  new FhirSearch("https://fhir.example.org", fetch, { idSystem: "urn:oid:2" }),
  elsewhere,
]);
const fits: Ids = ids;

client
  .on("Patient-open", async (event: Event) => {
    const patient: Resource | null = event.resource("patient");
    if (!patient) throw new Refuse("no patient");
    const local: Local = event.local;
    const study: Local = await ids.findResource(event.resource("study"), patient);
    console.log(study.id);
    console.log(patient.resourceType, patient.id, local.id, event.anchor, event.at);
  }, { ids: fits })
  .on("Patient-close", ({ anchor }) => client.context?.anchor === anchor);
const remove: () => void = client.onStatus(({ connection, inSync, why, behind }: Status) => {
  const ended: boolean = connection === "ended";
  console.log(ended, inSync, why.length, behind.join());
});
client.onWire(({ direction, kind, body, status }: WireMessage) => console.log(direction, kind, body, status));

try {
  await client.start();
  const event: Event = await client.open({ resourceType: "Patient", id: "p1" });
  await client.update((content) => Object.values(content).slice(0, 1), { anchor: "Patient/p1" });
  await client.update(["Observation/o1", { resourceType: "Observation", id: "o2" }]);
  await client.select([]);
  const context: Context | null = await client.fetch();
  const followed: boolean = await client.catchUp();
  console.log(event.id, context?.version, context?.content, client.contexts.size, followed);
  await client.open(...(await ids.publishable("Patient", "local-17")));
  for (const resource of await ids.publishable("Patient", "local-17")) await client.close(resource);
} catch (error) {
  if (error instanceof TokenError) console.log("log in again");
  else if (error instanceof HubError) console.log(error.status, error.isFinal);
  else if (error instanceof Mismatch) console.log(error.differing.join());
  else if (isRefusal(error)) console.log("refused");
} finally {
  remove();
  await client.stop();
}

export async function tested(): Promise<number> {
  const hub = new FakeHub({ version: "STU2" });
  const viewer: FHIRcastClient = hub.client("Viewer", { heartbeat: false });
  await viewer.start();
  const event = await hub.publish("Patient-open", { resourceType: "Patient", id: "p1" });
  const { status } = await hub.acknowledged(event);
  hub.cut("Viewer", { silently: true });
  hub.stop();
  return status;
}

// @ts-expect-error a topic is missing
new FHIRcastClient("https://hub.example.org/api/hub");
// @ts-expect-error no such option
new FHIRcastClient("https://hub.example.org/api/hub", "topic", { tokens: "t" });
// @ts-expect-error a resource has a type
await client.open({ id: "p1" });
// @ts-expect-error no such member
console.log(client.status.inStep);
// @ts-expect-error a handler is a function
client.on("Patient-open", "show");
// @ts-expect-error rules are objects
new IdentityMap({ Patient: ["MR"] }, []);
