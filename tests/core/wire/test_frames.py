"""The hub writes confirmations, denials, derived events and timestamps."""

from __future__ import annotations

import json
import uuid

import pytest

from fhircast_hub.core.wire.event import parse_event
from fhircast_hub.core.wire.frames import confirmation, denial, derived_id, event_frame
from fhircast_hub.core.wire.timestamps import rfc3339
from tests.core.world import NOON, body, patient, spec


@pytest.mark.req("SUB-3")
def test_a_confirmation_has_exactly_four_members() -> None:
    """As in the specification."""
    of = json.loads(spec("confirmation"))
    made = confirmation(of["hub.topic"], ("Patient-open", "Patient-close"), of["hub.lease_seconds"])
    assert json.loads(made) == of


@pytest.mark.req("LEA-4", "UNS-6")
def test_a_denial_is_as_specified() -> None:
    """hub.mode denied, topic, events and reason."""
    of = json.loads(spec("denial"))
    assert json.loads(denial(of["hub.topic"], ("Patient-open", "Patient-close"), of["hub.reason"])) == of


@pytest.mark.req("DER-7", "DER-11")
def test_the_id_of_a_derived_open_is_made_of_source_and_name() -> None:
    """A UUIDv5: the same on every node, another for every source and name."""
    ids = [derived_id(source, name) for source in ("a", "b") for name in ("Patient-open", "Encounter-open")]
    assert len(set(ids)) == 4
    assert all(uuid.UUID(id_).version == 5 for id_ in ids)
    assert derived_id("a", "Patient-open") == ids[0]


@pytest.mark.req("DER-7")
def test_a_made_event_is_an_event() -> None:
    """What the hub makes has the form that it asks of others, whatever is in it."""
    made = event_frame('a "topic" ☃', "Patient-open", "1", rfc3339(NOON), body([patient("p1")]))
    event = parse_event(made)
    assert (event.topic, event.ref, event.timestamp) == ('a "topic" ☃', "patient/p1", "2023-04-01T12:00:00.000Z")


@pytest.mark.req("DER-7")
@pytest.mark.parametrize(
    ("now", "text"),
    [
        (NOON + 0.25, "2023-04-01T12:00:00.250Z"),
        (0, "1970-01-01T00:00:00.000Z"),
        (4102444799.999, "2099-12-31T23:59:59.999Z"),
    ],
)
def test_the_hubs_timestamps_are_rfc_3339_in_utc(now: float, text: str) -> None:
    """With milliseconds and Z."""
    assert rfc3339(now) == text
