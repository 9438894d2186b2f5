/**
 * What applications do with both packages: arguments hub.url, hub.topic and a token. program.py does the same, and prints the
 * same. Each line under `@ts-expect-error` is a mistake that the types must find.
 */

import { FHIRcastClient, HubError, isRefusal, Refuse, TIMINGS, TokenError } from "fhircast-client";
import type { Context, Event, Ids, Options, Resource, Status, TokenSource, WireMessage } from "fhircast-client";
import { FakeHub } from "fhircast-client/testing";
import { FhirSearch, IdentityMap, Local, Mismatch, StudyUid, System, Table } from "fhircast-identity";
import type { Lookup, Resolver } from "fhircast-identity";
import WebSocket from "ws";

const [hubUrl = "", topic = "", accessToken = ""] = process.argv.slice(2);
const token: TokenSource = async () => accessToken;
const options: Options = { token, name: "Viewer", WebSocket, timings: { backoffMost: TIMINGS.backoffMost / 2 }, debug: true };
const client = new FHIRcastClient(hubUrl, topic, options);
const ehr = new FHIRcastClient(hubUrl, topic, { token, name: "EHR", WebSocket });

const NIN = "urn:oid:2.999.1";
const elsewhere: Lookup = async ({ type, value }, signal) => (signal.aborted ? [] : [{ type, id: value }]);
const search: Resolver = new FhirSearch("https://fhir.example.org", fetch, { idSystem: "urn:oid:2.999.2" });
const ids = new IdentityMap({ Patient: [new System(NIN)], ImagingStudy: [new StudyUid()] }, [
  new Table(new Map([[[NIN, "13057000001"], { localId: "local-17", family: "Østby" }]])),
  elsewhere,
]);
const fits: Ids<Local> = ids;
const heard = new Map<string, () => void>();
const shown = new Promise<void>((resolve) => heard.set("opened", resolve));
const closed = new Promise<void>((resolve) => heard.set("closed", resolve));
say(search.name);

client
  .on("Patient-open", async (event) => {
    const patient: Resource | null = event.resource("patient");
    if (!patient) throw new Refuse("no patient");
    say("opened", event.anchor, event.local.id, patient.name[0].family, event.at !== null);
    heard.get("opened")?.();
  }, { ids: fits })
  .on("Patient-close", ({ anchor, local }: Event) => {
    say("closed", anchor, local);
    heard.get("closed")?.();
  })
  .on("ImagingStudy-open", showStudy);
const statuses: Status[] = [];
const remove: () => void = client.onStatus((status) => statuses.push(status));
const kinds = new Set<string>();
client.onWire(({ direction, kind, body, status }: WireMessage) => kinds.add(`${direction} ${kind} ${status} ${Boolean(body)}`));

/** A line of JSON, as program.py prints it. */
function say(...values: unknown[]): void {
  console.log(JSON.stringify(values));
}

async function showStudy(event: Event): Promise<void> {
  const study: Local = await ids.findResource(event.resource("study"), event.resource("patient"));
  say(study.id);
}

try {
  await client.start();
  const event: Event = await ehr.open(...(await ids.publishable("Patient", "local-17")));
  await shown;
  await ehr.update((content) => [...Object.values(content), { resourceType: "Observation", id: "o1" }], { anchor: event.anchor });
  await ehr.update(["Observation/o1", { resourceType: "Observation", id: "o2" }]);
  await ehr.select(["Observation/o2"]);
  const context: Context | null = await client.fetch();
  const followed: boolean = await client.catchUp();
  say(Object.keys(context?.content ?? {}).join(), client.contexts.size, followed);
  for (const resource of await ids.publishable("Patient", "local-17")) await ehr.close(resource);
  await closed;
  await client.open({ resourceType: "Patient", id: "p1" });
  say(client.status.connection, client.status.inSync, client.context?.anchor);
  await client.publish("Patient-open", []);
} catch (error) {
  if (error instanceof TokenError) say("log in again");
  else if (error instanceof HubError) say(error.status, error.isFinal);
  else if (error instanceof Mismatch) say(...error.differing);
  else if (isRefusal(error)) say("refused");
  else throw error;
} finally {
  await Promise.all([client.stop(), ehr.stop()]);
  remove();
}
const ended = statuses.at(-1);
if (ended) say(ended.connection, ended.inSync, ended.why, ...ended.behind);
say(kinds.has("in confirmation null true"), kinds.has("out acknowledgement 200 true"));
say(await tested());

async function tested(): Promise<number> {
  const hub = new FakeHub({ version: "STU2" });
  const viewer: FHIRcastClient = hub.client("Viewer", { heartbeat: false });
  viewer.on("Patient-open", () => {
    throw new Refuse("unsaved notes");
  });
  await viewer.start();
  const event = await hub.publish("Patient-open", { resourceType: "Patient", id: "p1" });
  const { status } = await hub.acknowledged(event);
  hub.cut("Viewer", { silently: true });
  hub.stop();
  await viewer.stop();
  return status;
}

export async function mistakes(): Promise<void> {
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
  // @ts-expect-error nobody looks for a local id here
  client.on("ImagingStudy-open", (event) => console.log(event.local.id));
  // @ts-expect-error it is a Local, and no text
  client.on("ImagingStudy-open", (event) => event.local.startsWith("l"), { ids });
  // @ts-expect-error rules are objects
  new IdentityMap({ Patient: ["MR"] }, []);
  // @ts-expect-error a record has a localId
  new Table({ 13057000001: { id: "local-17" } });
}
