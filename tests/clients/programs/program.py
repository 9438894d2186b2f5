"""What applications do with both packages: arguments hub.url, hub.topic and a token. program.ts does the same, and prints the same.

Each line with an `ignore` is a mistake that the types must find.
"""

import asyncio
import json
import ssl
import sys

import httpx

from fhircast_client import Context, Event, FHIRcastClient, HubError, Refuse, Status, Timings, TokenError, WireMessage
from fhircast_client.testing import Acknowledgement, FakeHub
from fhircast_identity import FhirSearch, IdentityMap, Local, Mismatch, Query, StudyUid, System, Table

HUB_URL, TOPIC, ACCESS_TOKEN = sys.argv[1:]
NIN = "urn:oid:2.999.1"


def say(*values: object) -> None:
    """A line of JSON, as program.ts prints it."""
    print(json.dumps(values, ensure_ascii=False, separators=(",", ":")))


async def get_token() -> str:
    return ACCESS_TOKEN


async def elsewhere(query: Query) -> list[Local]:
    return [Local(query.type, query.value)]


ids = IdentityMap(
    {"Patient": [System(NIN)], "ImagingStudy": [StudyUid()]},
    [Table({(NIN, "13057000001"): {"local_id": "local-17", "family": "Østby"}}), elsewhere],
)


async def show_study(event: Event) -> None:
    study: Local = await ids.find_resource(event.resource("study"), event.resource("patient"))
    say(study.id)


async def main() -> None:
    client = FHIRcastClient(
        HUB_URL,
        TOPIC,
        token=get_token,
        name="Viewer",
        timings=Timings(backoff_most=10),
        tls=ssl.create_default_context(),
    )
    ehr = FHIRcastClient(HUB_URL, TOPIC, token=get_token, name="EHR")
    shown, closed = asyncio.Event(), asyncio.Event()
    search = FhirSearch("https://fhir.example.org", httpx.AsyncClient())
    say(search.name)

    @client.on("Patient-open", ids=ids)
    async def show(event: Event) -> None:
        patient = event.resource("patient")
        if patient is None:
            raise Refuse("no patient")
        local: Local = event.local
        say("opened", event.anchor, local.id, patient["name"][0]["family"], event.at is not None)
        shown.set()

    @client.on("Patient-close")
    def close(event: Event) -> None:
        say("closed", event.anchor, event.local)
        closed.set()

    client.on("ImagingStudy-open", show_study)
    statuses: list[Status] = []
    client.on_status(statuses.append)
    kinds = set()

    @client.on_wire
    def log(message: WireMessage) -> None:
        kinds.add(f"{message.direction} {message.kind} {message.status} {bool(message.body)}".lower())

    try:
        await client.start()
        event: Event = await ehr.open(*await ids.publishable("Patient", "local-17"))
        await shown.wait()
        await ehr.update(lambda content: [*content.values(), {"resourceType": "Observation", "id": "o1"}], event.anchor)
        await ehr.update(["Observation/o1", {"resourceType": "Observation", "id": "o2"}])
        await ehr.select(["Observation/o2"])
        context: Context | None = await client.fetch()
        followed: bool = await client.catch_up()
        say(",".join(context.content or {}) if context else "", len(client.contexts), followed)
        await ehr.close(*await ids.publishable("Patient", "local-17"))
        await closed.wait()
        await client.open({"resourceType": "Patient", "id": "p1"})
        assert client.context
        say(client.status.connection, client.status.in_sync, client.context.anchor)
        await client.publish("Patient-open", [])
    except TokenError:
        say("log in again")
    except HubError as error:
        say(error.status, error.is_final)
    except Mismatch as error:
        say(*error.differing)
    finally:
        await asyncio.gather(client.stop(), ehr.stop())
    ended = statuses[-1]
    say(ended.connection, ended.in_sync, ended.why, *ended.behind)
    say("in confirmation none true" in kinds, "out acknowledgement 200 true" in kinds)
    say(await tested())


async def tested() -> int:
    async with FakeHub("STU2") as hub:
        viewer = hub.client("Viewer", heartbeat=False)

        @viewer.on("Patient-open")
        def refuse(event: Event) -> None:
            raise Refuse("unsaved notes")

        async with viewer:
            event = await hub.publish("Patient-open", {"resourceType": "Patient", "id": "p1"})
            answer: Acknowledgement = await hub.acknowledged(event)
            hub.cut("Viewer", silently=True)
        return answer.status


async def mistakes(client: FHIRcastClient) -> None:
    FHIRcastClient("https://hub.example.org/api/hub")  # type: ignore[call-arg]
    FHIRcastClient("https://hub.example.org/api/hub", "topic", tokens="t")  # type: ignore[call-arg]
    await client.open("Patient/p1")  # type: ignore[arg-type]
    print(client.status.in_step)  # type: ignore[attr-defined]
    client.on("Patient-open", "show")  # type: ignore[call-overload]
    IdentityMap({"Patient": ["MR"]}, [])  # type: ignore[list-item]


asyncio.run(main())
