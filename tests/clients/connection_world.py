"""A client that follows patients, and its connections."""

from __future__ import annotations

from typing import Any

from fhircast_client import FHIRcastClient
from fhircast_client.testing import FakeHub
from tests.clients.fakes import FAST, Heard, Wire, until


async def back_again(client: FHIRcastClient) -> None:
    """Wait until a lost connection is back."""
    await until(lambda: client.status.connection == "connected", lambda: client.status)


def viewer(hub: FakeHub, **options: Any) -> tuple[FHIRcastClient, Heard, Wire]:
    """A client that follows patients."""
    client = hub.client("viewer", **{"timings": FAST, **options})
    heard = Heard()
    client.on("Patient-open", heard)
    return client, heard, Wire(client)
