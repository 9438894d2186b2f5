"""A subscription is confirmed on its first connection. A new subscription replaces disconnected ones of its application."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_hub.core.errors import (
    HubError,
    InsufficientScope,
    NotFound,
)
from fhircast_hub.core.state.commands import Connected, Renew
from tests.core.world import OPENS, TOPIC, World, patient, token

PATIENT = "Patient-open,Patient-close"


def confirmed(world: World, subscription_id: str) -> dict[str, Any]:
    """The newest confirmation on its socket."""
    return next(frame for frame in reversed(world.read(subscription_id)) if frame.get("hub.mode") == "subscribe")


@pytest.mark.req("SUB-3")
def test_the_first_frame_is_the_confirmation() -> None:
    """The confirmation has mode, topic, granted events and the remaining whole seconds. Then current opens follow."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.subscribe("chart", PATIENT, lease=3600)
    world.wait(10.5)
    world.connect("chart")
    first, second = world.read("chart")
    assert first == {
        "hub.mode": "subscribe",
        "hub.topic": TOPIC,
        "hub.events": PATIENT,
        "hub.lease_seconds": 3589,
    }
    assert isinstance(first["hub.lease_seconds"], int)
    assert second["event"]["hub.event"] == "Patient-open"


@pytest.mark.req("SUB-3")
def test_at_least_one_second_remains() -> None:
    """Somebody who connects in the last moment is not told zero."""
    world = World()
    world.subscribe("chart", PATIENT, lease=30)
    world.wait(29.5)
    world.connect("chart")
    assert confirmed(world, "chart")["hub.lease_seconds"] == 1


@pytest.mark.req("SUB-18", "SUB-3")
def test_the_subscribers_spelling_is_confirmed() -> None:
    """Each name once; and events come whatever their spelling."""
    world = World()
    world.subscribe("chart", "patient-OPEN, ,PATIENT-open,home-OPEN,SomethingElse,")
    world.connect("chart")
    assert confirmed(world, "chart")["hub.events"] == "patient-OPEN,home-OPEN,SomethingElse"
    world.publish("PATIENT-open", patient("p1"))
    assert world.news("chart") == ["PATIENT-open p1"]


@pytest.mark.req("AUT-4")
def test_the_granted_subset_is_confirmed() -> None:
    """Events that the token may not read are left out silently."""
    world = World()
    world.subscribe("chart", f"{OPENS},{PATIENT}", by=token(read=["patient-OPEN", "Encounter-*", "Patient-close"]))
    world.connect("chart")
    assert confirmed(world, "chart")["hub.events"] == PATIENT


@pytest.mark.req("AUT-3")
@pytest.mark.parametrize("read", [(), ("Patient-close",), ("ImagingStudy-open", "SyncError")])
def test_no_readable_event_is_refused(read: tuple[str, ...]) -> None:
    """403 insufficient_scope, and there is no such subscription; writing is not reading."""
    world = World()
    with pytest.raises(InsufficientScope) as refused:
        world.subscribe("chart", "Patient-open", by=token(read=read))
    assert refused.value.status == 403
    assert refused.value.scope == "fhircast/Patient-open.read"
    assert world.session is None


@pytest.mark.req("SUB-13")
def test_a_name_is_kept() -> None:
    """SyncErrors will name it."""
    world = World()
    world.subscribe("chart", PATIENT, name="Chart ☃")
    assert world.session is not None
    assert world.session.subscriptions["chart"].name == "Chart ☃"


@pytest.mark.req("SUB-14")
@pytest.mark.parametrize(("seconds", "there"), [(59, True), (60, False), (61, False)])
def test_who_never_connects_within_a_minute_is_gone(seconds: int, there: bool) -> None:
    """CONNECT_TIMEOUT runs from the 202."""
    world = World(connect_timeout=60)
    world.subscribe("chart", PATIENT)
    world.wait(seconds)
    if there:
        world.connect("chart")
        assert world.news("chart") == ["subscribe"]
    else:
        with pytest.raises(NotFound):
            world.connect("chart")


@pytest.mark.req("SUB-14")
def test_renewing_is_no_connecting() -> None:
    """A subscription that is renewed and never connected is gone all the same."""
    world = World(connect_timeout=60)
    world.subscribe("chart", PATIENT)
    world.wait(50)
    world.renew("chart", PATIENT)
    world.wait(20)
    with pytest.raises(NotFound):
        world.connect("chart")


@pytest.mark.req("SUB-14", "SUB-23")
def test_who_was_connected_once_may_be_away_for_longer() -> None:
    """CONNECT_TIMEOUT is for those who never came."""
    world = World(connect_timeout=60)
    world.join("chart", PATIENT)
    world.disconnect("chart")
    world.wait(3600)
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]


@pytest.mark.req("SUB-14", "LEA-4")
@pytest.mark.parametrize("what", ["connect", "renew", "unsubscribe"])
@pytest.mark.parametrize("connected", [False, True])
def test_the_time_counts_and_not_the_timer(what: str, connected: bool) -> None:
    """The subscription has ended though the timer is late: its endpoint gets 404."""
    world = World(connect_timeout=60)
    world.subscribe("chart", PATIENT, lease=600)
    if connected:
        world.connect("chart")
    world.now += 601 if connected else 61
    with pytest.raises(NotFound):
        {
            "connect": lambda: world.do(Connected("chart", "socket")),
            "renew": lambda: world.do(Renew(token(), TOPIC, "chart", ("Patient-open",))),
            "unsubscribe": lambda: world.unsubscribe("chart"),
        }[what]()


@pytest.mark.req("SUB-23", "SUB-39")
def test_a_new_subscription_replaces_the_same_apps_ghosts() -> None:
    """Same user and name, without a socket: OHIF subscribes anew after a cut, or before it ever connected."""
    world = World()
    world.join("ghost", PATIENT, name="OHIF")
    world.disconnect("ghost")
    world.subscribe("unborn", PATIENT, name="OHIF")
    world.join("new", PATIENT, name="OHIF")
    for subscription_id in ("ghost", "unborn"):
        with pytest.raises(NotFound):
            world.connect(subscription_id)
    world.publish("Patient-open", patient("p1"))
    assert world.news("new") == ["Patient-open p1"]


@pytest.mark.req("SUB-23", "SUB-39")
@pytest.mark.parametrize(
    ("by", "name", "new"),
    [
        (token(), "chart", "OHIF"),
        (token(), "ohif", "OHIF"),
        (token(), "", ""),
        (token(None, client="server", system=True), "OHIF", "OHIF"),
    ],
)
def test_others_are_no_ghosts(by: Any, name: str, new: str) -> None:
    """Another name, no name at all, or another's subscription of that name: it stays, though without a socket."""
    world = World()
    world.join("first", PATIENT)
    world.join("other", PATIENT, by=by, name=name)
    world.disconnect("other")
    world.join("new", PATIENT, name=new)
    world.connect("other")
    assert world.news("other") == ["subscribe"]


@pytest.mark.req("SUB-23", "SUB-39")
def test_two_of_one_name_live_beside_each_other() -> None:
    """Two windows of one app, both connected."""
    world = World()
    world.join("one", PATIENT, name="OHIF")
    world.join("two", PATIENT, name="OHIF")
    world.publish("Patient-open", patient("p1"))
    assert world.news("one") == world.news("two") == ["Patient-open p1"]


@pytest.mark.req("SUB-23", "SUB-39")
def test_who_is_refused_replaces_no_ghost() -> None:
    """The old subscription stays when the new one is not granted."""
    world = World()
    world.join("ghost", PATIENT, name="OHIF")
    world.disconnect("ghost")
    with pytest.raises(InsufficientScope):
        world.subscribe("new", PATIENT, by=token(read=()), name="OHIF")
    world.connect("ghost")


@pytest.mark.req("SUB-21", "UNS-2")
@pytest.mark.parametrize("events", ["Patient-open"])
def test_refusals_have_a_line_of_reason(events: str) -> None:
    """In plain words, without what came."""
    world = World()
    world.join("chart", events)
    for attempt in (lambda: world.renew("a-secret", events), lambda: world.unsubscribe("a-secret")):
        with pytest.raises(HubError, match=r"\A[^\n]+\Z") as refused:
            attempt()
        assert "a-secret" not in str(refused.value)
