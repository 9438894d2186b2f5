"""Handlers and clients at the fake hub."""

from __future__ import annotations

from typing import Any

from fhircast_client import FHIRcastClient
from fhircast_client.testing import FakeHub
from tests.clients.fakes import Heard

P1, P2 = "Patient/p1", "Patient/p2"


def viewer(hub: FakeHub, name: str = "viewer", **options: Any) -> FHIRcastClient:
    """A client that follows patients."""
    client = hub.client(name, **options)
    client.on("Patient-open", Heard())
    return client


def names(hub: FakeHub) -> list[str]:
    """Of what was distributed."""
    return [message["event"]["hub.event"] for message in hub.messages]
