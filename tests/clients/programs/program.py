"""What applications do with both packages. Each line with an `ignore` is a mistake that the types must find."""

import asyncio
import ssl

import httpx

from fhircast_client import Context, Event, FHIRcastClient, HubError, Refuse, Status, Timings, TokenError, WireMessage
from fhircast_client.testing import Acknowledgement, FakeHub
from fhircast_identity import FhirSearch, IdentityMap, Local, Mismatch, Query, StudyUid, System, Table


async def get_token() -> str:
    return "token"


async def elsewhere(query: Query) -> list[Local]:
    return [Local(query.type, query.value)]


async def main() -> None:
    client = FHIRcastClient(
        "https://hub.example.org/api/hub",
        "topic",
        token=get_token,
        name="Chart",
        timings=Timings(backoff_most=10),
        tls=ssl.create_default_context(),
    )
    ids = IdentityMap(
        {"Patient": [System("urn:oid:1")], "ImagingStudy": [StudyUid()]},
        [Table({}), FhirSearch("https://fhir.example.org", httpx.AsyncClient()), elsewhere],
    )

    @client.on("Patient-open", ids=ids)
    async def show(event: Event) -> None:
        patient = event.resource("patient")
        if patient is None:
            raise Refuse("no patient")
        local: Local = event.local
        study: Local = await ids.find_resource(event.resource("study"), patient)
        print(study.id)
        print(patient["id"], local.id, event.anchor, event.at)

    client.on("Patient-close", lambda event: None)

    @client.on_status
    def tell(status: Status) -> None:
        print(status.connection, status.in_sync, status.why, ", ".join(status.behind))

    @client.on_wire
    def log(message: WireMessage) -> None:
        print(message.direction, message.kind, message.status)

    try:
        async with client:
            event: Event = await client.open({"resourceType": "Patient", "id": "p1"})
            await client.update(lambda content: list(content.values())[:1], "Patient/p1")
            await client.update(["Observation/o1", {"resourceType": "Observation", "id": "o2"}])
            await client.select([])
            context: Context | None = await client.fetch()
            followed: bool = await client.catch_up()
            print(event.id, context, client.contexts, followed)
            await client.close(*await ids.publishable("Patient", "local-17"))
    except TokenError:
        print("log in again")
    except HubError as error:
        print(error.status, error.is_final)
    except Mismatch as error:
        print(error.differing)


async def tested() -> int:
    async with FakeHub("STU2") as hub, hub.client("Viewer", heartbeat=False):
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
