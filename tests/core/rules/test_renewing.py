"""A renewal replaces the events, the lease and the name of a subscription."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_hub.core.errors import (
    InsufficientScope,
    NotFound,
)
from tests.core.world import NOON, OPENS, TOPIC, World, encounter, item, patient, study, token

PATIENT = "Patient-open,Patient-close"


def confirmed(world: World, subscription_id: str) -> dict[str, Any]:
    """The newest confirmation on its socket."""
    return next(frame for frame in reversed(world.read(subscription_id)) if frame.get("hub.mode") == "subscribe")


@pytest.mark.req("SUB-20", "LEA-3", "SUB-31")
def test_a_renewal_replaces_events_and_lease() -> None:
    """The socket stays, and a new confirmation comes on it."""
    world = World()
    world.join("chart", PATIENT, lease=60)
    world.wait(30)
    world.renew("chart", "ImagingStudy-open", by=token(expires=NOON + 9999), lease=600)
    assert world.read("chart") == [
        {"hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "ImagingStudy-open", "hub.lease_seconds": 600}
    ]
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"))
    world.wait(599)
    assert world.news("chart") == ["ImagingStudy-open s1"]
    assert world.closed == {}
    world.wait(2)
    assert world.news("chart") == ["denied"]


@pytest.mark.req("SUB-20", "SUB-31")
def test_a_renewal_tells_what_is_current_for_added_names_only() -> None:
    """Opens that were sent before are not sent again."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), encounter("e1"))
    world.join("chart", "Patient-open")
    world.renew("chart", "Patient-open,Encounter-open,ImagingStudy-open")
    assert world.news("chart") == ["subscribe", "ImagingStudy-open s1"]
    world.renew("chart", "Patient-open,ImagingStudy-open,Home-open")
    assert world.news("chart") == ["subscribe"]


@pytest.mark.req("SUB-20", "DER-3")
@pytest.mark.parametrize("opened", ["derived", "stored"])
def test_after_a_renewal_nothing_known_is_derived_again(opened: str) -> None:
    """Opens from before the renewal and from the renewal both count."""
    world = World()
    world.join("chart", "Patient-open")
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), encounter("e1"))
    world.renew("chart", "Patient-open,Encounter-open")
    world.news("chart")
    world.publish("DiagnosticReport-open", item("report", "DiagnosticReport", "r1"), patient("p1"), encounter("e1"))
    assert world.news("chart") == []


@pytest.mark.req("SUB-20")
@pytest.mark.parametrize(("given", "kept"), [(None, "old"), ("new", "new")])
def test_a_renewal_replaces_the_name_if_one_is_given(given: str | None, kept: str) -> None:
    """Without one, the old name stays."""
    world = World()
    world.join("chart", PATIENT, name="old")
    world.renew("chart", PATIENT, name=given)
    assert world.session is not None
    assert world.session.subscriptions["chart"].name == kept


@pytest.mark.req("SUB-20", "SUB-32")
def test_a_renewal_without_readable_event_changes_nothing() -> None:
    """403, and the old events and lease stay."""
    world = World()
    world.join("chart", "Patient-open", lease=60)
    before = world.session
    with pytest.raises(InsufficientScope):
        world.renew("chart", "ImagingStudy-open", by=token(read=["Patient-open"]), lease=600)
    assert world.session is before
    world.publish("Patient-open", patient("p1"))
    world.wait(61)
    assert world.news("chart") == ["Patient-open p1", "denied"]


@pytest.mark.req("SUB-20")
def test_a_renewal_grants_what_the_new_token_may_read() -> None:
    """A subset, as when subscribing."""
    world = World()
    world.join("chart", OPENS)
    world.renew("chart", OPENS, by=token(read=["Patient-open"]))
    assert confirmed(world, "chart")["hub.events"] == "Patient-open"


@pytest.mark.req("SUB-20", "SUB-23", "SUB-31")
def test_a_renewal_while_absent_is_confirmed_on_coming_back() -> None:
    """Nothing is sent to nobody."""
    world = World()
    world.join("chart", "Patient-open", lease=60)
    world.disconnect("chart")
    world.renew("chart", "ImagingStudy-open", lease=600)
    world.wait(300)
    world.connect("chart")
    first = world.read("chart")[0]
    assert (first["hub.events"], first["hub.lease_seconds"]) == ("ImagingStudy-open", 300)


@pytest.mark.req("SUB-21")
@pytest.mark.parametrize("subscription_id", ["never", "unsubscribed", "expired"])
def test_an_endpoint_that_is_not_live_cannot_be_renewed(subscription_id: str) -> None:
    """404 for one that never was, was ended or has run out."""
    world = World()
    world.join("chart", PATIENT)
    world.join("unsubscribed", PATIENT)
    world.join("expired", PATIENT, lease=5)
    world.unsubscribe("unsubscribed")
    world.wait(6)
    before = world.session
    with pytest.raises(NotFound):
        world.renew(subscription_id, PATIENT)
    assert world.session is before


@pytest.mark.req("SUB-21")
def test_another_users_endpoint_cannot_be_renewed() -> None:
    """404, though that user's token names the topic; and the endpoint comes before the topic's owner."""
    world = World()
    world.join("chart", PATIENT, by=token("ann"))
    for other in (token("bob", topics=[TOPIC]), token("bob"), token(None, client="server", system=True)):
        with pytest.raises(NotFound):
            world.renew("chart", PATIENT, by=other)
    with pytest.raises(NotFound):
        World().renew("chart", PATIENT)
