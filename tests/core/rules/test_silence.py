"""The hub reports missing acknowledgements, and ends a subscription after several."""

from __future__ import annotations

import pytest

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core.errors import NotFound
from fhircast_hub.core.state.commands import Acknowledged, AcksTimedOut, MissedAck, Rejected
from fhircast_hub.core.state.effects import Close, EventRef, Send
from tests.core.rules.sync_error_world import Told, errors, opening, told, watched
from tests.core.world import (
    World,
    frozen,
    patient,
    study,
)


@pytest.mark.req("SYN-4", "SYN-6")
def test_who_does_not_answer_is_reported() -> None:
    """The report has name, event and waiting time. It comes once, at its time."""
    world = watched(ack_timeout=5)
    world.join("a", name="A")
    opening(world, "a")
    opening(world, number=2)
    world.wait(4.9)
    assert errors(world) == []
    world.wait(0.3)
    why = "A did not acknowledge Patient-open within 5 seconds"
    assert errors(world) == [Told("event-2", "Patient-open", "A", why)]
    world.wait(999)
    assert errors(world) == []


@pytest.mark.req("SYN-2", "SYN-4")
def test_the_silent_is_not_told_of_itself() -> None:
    """But of the other who was silent too."""
    world = watched(Policy.STRICT)
    for subscription_id in ("a", "b"):
        world.join(subscription_id, "Patient-open,SyncError", name=subscription_id)
    opening(world)
    world.wait(11)
    assert [error.who for error in errors(world)] == ["a", "b"]
    for subscription_id, other in (("a", "b"), ("b", "a")):
        _, error = world.read(subscription_id)
        assert told(error).who == other


@pytest.mark.req("SYN-4", "SYN-5", "SYN-24")
def test_events_that_expire_together_are_one() -> None:
    """One SyncError reports the last event, and counts as one missed acknowledgement."""
    world = watched(Policy.STRICT)
    world.join("a", name="A")
    for number in range(5):
        opening(world, number=number)
        world.wait(0.02)
    world.wait(11)
    assert [error.id for error in errors(world)] == ["event-5"]
    assert world.session
    assert world.session.subscriptions["a"].missed_acks == 1


@pytest.mark.req("SYN-5")
def test_strikes_end_a_subscription() -> None:
    """SyncErrors as before, the last one saying so, then denial and close; the endpoint is gone."""
    world = watched(Policy.STRICT)
    connection = world.join("a", "Patient-open,SyncError", name="A")
    for number in range(3):
        opening(world, number=number)
        world.wait(11)
    why = [f"A did not acknowledge Patient-open within 10 seconds{end}" for end in ("", "", " and was unsubscribed")]
    assert [error.why for error in errors(world)] == why
    *_, denied = world.read("a")
    assert (denied["hub.mode"], denied["hub.events"]) == ("denied", "Patient-open,SyncError")
    assert denied["hub.reason"] == "3 events in a row were not acknowledged"
    assert world.closed == {connection: 1000}
    assert world.session
    assert list(world.session.subscriptions) == ["monitor"]
    assert "a/" not in str(world.session.audiences)
    with pytest.raises(NotFound):
        world.connect("a")
    world.disconnect("a", code=1006)
    world.wait(99)
    assert errors(world) == []


@pytest.mark.req("SYN-5")
def test_the_report_comes_before_the_end() -> None:
    """The others are told first, then the silent one is denied and closed; of several one after the other."""
    world = watched(Policy.STRICT, ack_strikes=1)
    sockets = [
        world.join(subscription_id, "Patient-open,SyncError", name=subscription_id) for subscription_id in ("a", "b")
    ]
    opening(world)
    missed_acks = tuple(
        MissedAck(subscription_id, socket, EventRef("event-1", "event-1", "Patient-open"))
        for subscription_id, socket in zip("ab", sockets, strict=True)
    )
    effects = world.do(AcksTimedOut(missed_acks)).effects
    order = [
        (type(effect), effect.to if isinstance(effect, Send) else effect.connection)
        for effect in effects
        if isinstance(effect, Send | Close)
    ]
    assert order == [
        (Send, ("monitor/1", sockets[1])),
        (Send, (sockets[0],)),
        (Close, sockets[0]),
        (Send, ("monitor/1",)),
        (Send, (sockets[1],)),
        (Close, sockets[1]),
    ]


@pytest.mark.req("SYN-5")
@pytest.mark.parametrize("status", [200, 409])
def test_an_answer_ends_the_strikes(status: int) -> None:
    """Of whatever status: two silences, an answer, and two more are not three in a row."""
    world = watched(ack_strikes=3)
    connection = world.join("a", name="A")
    opening(world, "a", number=0)
    for number in range(1, 6):
        opening(world, number=number)
        if number == 3:
            world.answer("a", status)
        world.wait(11)
    assert not world.closed
    opening(world, number=6)
    world.wait(11)
    assert list(world.closed) == [connection]


@pytest.mark.req("SYN-5", "SUB-23")
def test_strikes_are_kept_over_a_reconnection() -> None:
    """A silent subscriber keeps its missed acknowledgements on return. An answer then clears them."""
    for answers in (False, True):
        world = watched(Policy.STRICT, ack_strikes=2)
        world.join("a", name="A")
        opening(world)
        world.wait(11)
        world.disconnect("a")
        connection = world.connect("a")
        if answers:
            world.answer("a")
        opening(world, number=2)
        world.wait(11)
        assert (connection in world.closed) is not answers


@pytest.mark.req("SYN-6", "SUB-23")
def test_who_acknowledged_before_a_reconnection_is_missed_after_it() -> None:
    """The subscription is known to acknowledge, also after a restart of the hub; a new one is not."""
    world = watched()
    world.join("a", name="A")
    opening(world, "a")
    world.disconnect("a")
    world.connect("a")
    world.wait(11)
    assert [error.id for error in errors(world)] == ["event-1"]
    world.restart()
    world.connect("monitor")
    world.connect("a")
    world.wait(11)
    assert [of["event"]["hub.event"] for of in world.read("monitor")[1:]] == ["SyncError"]
    world.disconnect("a")
    world.join("anew", name="A")
    opening(world, number=2)
    world.wait(99)
    assert errors(world) == []


@pytest.mark.req("SYN-4", "SUB-11")
def test_a_silence_of_the_socket_before_is_nobodys() -> None:
    """A late report of a closed socket or an ended subscription changes nothing."""
    world = watched()
    old = world.join("a", name="A")
    world.connect("a")
    of = EventRef("e", "e", "Patient-open", "patient/p1")
    before = frozen(world.session)
    world.do(AcksTimedOut((MissedAck("a", old, of), MissedAck("nobody", "x", of))))
    world.do(Rejected("nobody", "x", of, 409))
    world.do(Acknowledged("nobody"))
    assert frozen(world.session) == before
    assert errors(world) == []
    empty = World()
    for command in (AcksTimedOut((MissedAck("a", old, of),)), Rejected("a", old, of, 409), Acknowledged("a")):
        assert empty.do(command).effects == ()
    assert empty.session is None


@pytest.mark.req("SYN-6")
def test_a_viewer_that_never_acknowledges_works_for_an_hour() -> None:
    """Most viewers never acknowledge. The default policy reports none of them, and ends none."""
    world = watched()
    connection = world.join("viewer", "Patient-open,Encounter-open,DiagnosticReport-open,heartbeat", name="Viewer")
    for minute in range(60):
        world.publish("ImagingStudy-open", study(f"s{minute}"), patient(f"p{minute}"))
        world.publish("Patient-close", patient(f"p{minute}"))
        world.wait(60)
        assert {"Patient-open", "heartbeat"} <= {each.split()[0] for each in world.news("viewer")}
    assert errors(world) == []
    assert connection not in world.closed
    assert world.session
    assert world.session.subscriptions["viewer"].missed_acks == 0
    world.wait(11)
    assert world.tracker.deadline() is None
