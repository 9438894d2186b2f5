"""Tries the fake hub of an installed fhircast-client, with an installed fhircast-hub: an event comes, and is acknowledged."""

from __future__ import annotations

import asyncio

from fhircast_client import Event
from fhircast_client.testing import FakeHub


async def main() -> None:
    shown: list[str] = []
    async with FakeHub() as hub:
        client = hub.client("Viewer")

        @client.on("Patient-open")
        async def show(event: Event) -> None:
            shown.append((event.resource("patient") or {})["id"])

        async with client:
            event = await hub.publish("Patient-open", {"resourceType": "Patient", "id": "p1"})
            acknowledgement = await hub.acknowledged(event)
            assert acknowledgement.status == 200, acknowledgement
    assert shown == ["p1"], shown


asyncio.run(main())
