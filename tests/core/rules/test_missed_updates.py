"""A subscriber that comes back receives the updates of its absence."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from fhircast_hub.core.errors import Conflict
from tests.core.rules.content_world import R1, R2, Reading, anchor, put
from tests.core.world import (
    World,
    label,
    patient,
    report,
    token,
)


def back(world: World, subscription_id: str = "viewer") -> list[str]:
    """Connect again. The events after the confirmation."""
    world.connect(subscription_id)
    confirmed, *news = world.news(subscription_id)
    assert confirmed == "subscribe"
    return news


def named(world: Reading, *ids: str, of: str = R1) -> Iterator[str]:
    """Updates whose Bundles have these ids, one second after the other. Returns them in short."""
    for id_ in ids:
        world.wait(1)
        posted = world.update(put("Observation", id_), of=of)
        posted["event"]["context"][1]["resource"]["id"] = id_
        world.post(posted)
        yield f"DiagnosticReport-update {id_}"


@pytest.mark.req("SUB-12", "CTX-1")
def test_missed_updates_are_told_in_order_with_the_closes() -> None:
    """Then the open contexts are sent at their current version, as the others were sent them."""
    world = Reading()
    world.join("other", "DiagnosticReport-update,DiagnosticReport-close")
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.disconnect("viewer")
    list(named(world, "u1"))
    list(named(world, "u2", of=R2))
    world.wait(1)
    world.publish("DiagnosticReport-close", report("r2"))
    list(named(world, "u3"))
    sent = world.heard("other")
    world.connect("viewer")
    _, *missed, opened = world.heard("viewer")
    assert missed == sent
    assert [label(frame) for frame in missed] == [
        "DiagnosticReport-update u1",
        "DiagnosticReport-update u2",
        "DiagnosticReport-close r2",
        "DiagnosticReport-update u3",
    ]
    last = json.loads(missed[-1])["event"]["context.versionId"]
    assert json.loads(opened)["event"]["context.versionId"] == last == world.version()


@pytest.mark.req("SUB-12")
def test_missed_updates_are_told_once() -> None:
    """Updates are not sent again at the next return, to a connected subscriber, or to a new one."""
    world = Reading()
    world.subscribe("late", "DiagnosticReport-update")
    world.join("other", "DiagnosticReport-update")
    world.disconnect("viewer")
    expected = list(named(world, "u1", "u2"))
    world.wait(1)
    assert world.news("other") == expected
    assert back(world) == [*expected, "DiagnosticReport-open r1"]
    world.disconnect("viewer")
    world.disconnect("other")
    world.wait(1)
    assert back(world) == ["DiagnosticReport-open r1"]
    assert back(world, "other") == back(world, "late") == []


@pytest.mark.req("SUB-12", "EVT-12")
def test_missed_updates_are_not_told_to_who_did_not_subscribe_to_them() -> None:
    """Nor to who may not read them."""
    world = Reading()
    world.join("chart", "DiagnosticReport-open,DiagnosticReport-close,Patient-update")
    world.join("guest", "DiagnosticReport-open,DiagnosticReport-update", by=token(read=["DiagnosticReport-open"]))
    for subscription_id in ("chart", "guest"):
        world.disconnect(subscription_id)
    list(named(world, "u1"))
    assert back(world, "chart") == back(world, "guest") == ["DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12", "SUB-34")
def test_missed_updates_are_bounded_in_number() -> None:
    """The newest are told, and no older one between them; a close that went with the others is made."""
    world = Reading(retained_messages=2)
    world.publish("Patient-open", patient("p1"))
    world.heard("viewer")
    world.disconnect("viewer")
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    expected = list(named(world, "u1", "u2", "u3"))
    assert back(world) == ["Patient-close p1", *expected[-2:], "DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12", "SUB-34")
@pytest.mark.parametrize(("room", "told"), [(3, 3), (2.9, 2), (1, 1), (0.9, 0)])
def test_missed_updates_are_bounded_in_bytes(room: float, told: int) -> None:
    """Of their frames."""
    world = Reading()
    list(named(world, "u0"))
    (frame,) = world.heard("viewer")
    world = Reading(retained_bytes=int(room * len(frame)))
    world.disconnect("viewer")
    expected = list(named(world, "u1", "u2", "u3"))
    assert back(world) == [*expected[3 - told :], "DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12", "SUB-36")
def test_what_the_last_socket_may_not_have_received_is_told_again() -> None:
    """Updates after the last sign of life are sent. One that had arrived is not, as it may be applied only once."""
    world = Reading()
    (arrived,) = named(world, "u1")
    delivered_until = world.now
    in_doubt = list(named(world, "u2", "u3"))
    world.wait(1)
    assert world.news("viewer") == [arrived, *in_doubt]
    world.disconnect("viewer", delivered_until=delivered_until)
    in_doubt += named(world, "u4")
    assert back(world) == [*in_doubt, "DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12", "SUB-11")
def test_who_takes_over_is_told_what_the_old_socket_may_not_have_received() -> None:
    """The socket may have been dead for a minute, but not for an hour."""
    world = Reading()
    list(named(world, "u1"))
    world.wait(61)
    expected = list(named(world, "u2"))
    world.wait(1)
    assert back(world) == [*expected, "DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12", "CON-9", "SUB-42")
def test_updates_before_a_close_are_not_told_again_when_it_is_open_again() -> None:
    """Updates before the close would bring its content back, and are not sent. Later updates are sent."""
    world = Reading()
    delivered_until = world.now
    list(named(world, "u1"))
    world.publish("DiagnosticReport-close", report("r1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    expected = list(named(world, "u2"))
    world.wait(1)
    world.heard("viewer")
    world.disconnect("viewer", delivered_until=delivered_until)
    assert back(world) == [*expected, "DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12", "EVT-17")
def test_a_repeated_update_is_missed_once() -> None:
    """The update was accepted once."""
    world = Reading()
    world.disconnect("viewer")
    expected = list(named(world, "u1"))
    repeated = world.update(put("Observation", "o1"))
    repeated["event"]["context"][1]["resource"]["id"] = "u2"
    for _ in range(3):
        world.wait(1)
        world.post(repeated)
    assert back(world) == [*expected, "DiagnosticReport-update u2", "DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12")
def test_refused_updates_and_selects_are_not_missed() -> None:
    """Nobody was sent the former, and what is selected is of the moment."""
    world = Reading()
    world.disconnect("viewer")
    world.wait(1)
    world.refuses(world.update(version="stale"), Conflict)
    world.publish("DiagnosticReport-select", anchor(R1))
    assert back(world) == ["DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12", "SUB-34")
def test_what_alone_is_too_much_to_hold_costs_the_others_nothing() -> None:
    """The small updates before and after it are told; by its priorVersionId the next one says that one is missing."""
    world = Reading(retained_bytes=2000)
    world.disconnect("viewer")
    before = list(named(world, "u1"))
    world.share(put("Observation", "large", text="x" * 3000))
    assert back(world) == [*before, "DiagnosticReport-open r1"]
