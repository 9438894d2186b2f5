"""Subscriptions: made, renewed and ended; their sockets come, go and come back; their leases run out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import (
    BadRequest,
    Forbidden,
    HubError,
    InsufficientScope,
    NotFound,
    TooMany,
    Unauthenticated,
)
from fhircast_hub.core.rules import missed_events
from fhircast_hub.core.state.commands import Connected, Disconnected, Evict, Renew, Restarted
from tests.core.world import CLOSES, NOON, OPENS, TOPIC, World, encounter, item, patient, study, token

PATIENT = "Patient-open,Patient-close"


def confirmed(world: World, subscription_id: str) -> dict[str, Any]:
    """The newest confirmation on its socket."""
    return next(frame for frame in reversed(world.read(subscription_id)) if frame.get("hub.mode") == "subscribe")


# Subscribing (SUB-3, 8, 13, 14; AUT-3, 4)


@pytest.mark.req("SUB-3")
def test_the_first_frame_is_the_confirmation() -> None:
    """Mode, topic, granted events and the whole seconds that remain; and then what is current."""
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
    """What the token may not read is left out, in silence."""
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
    """What ended by now is over though the timer is late: 404 for its endpoint."""
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


# Renewing (SUB-20, 10; LEA-3)


@pytest.mark.req("SUB-20", "LEA-3")
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


@pytest.mark.req("SUB-20")
def test_a_renewal_tells_what_is_current_for_added_names_only() -> None:
    """What was known before is not told again."""
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
    """What was told before the renewal, and what the renewal told, both count."""
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


@pytest.mark.req("SUB-20")
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


@pytest.mark.req("SUB-20", "SUB-23")
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


# Whose a subscription is


#: Tokens of the same user that are other applications'.
OTHERS = [token(client="a-widget"), replace(token(), issuer="another")]


@pytest.mark.req("SUB-19", "SUB-20", "SUB-21")
@pytest.mark.parametrize("other", OTHERS)
def test_another_application_of_the_same_user_may_not_renew(other: Principal) -> None:
    """Not found, as if it were not there; the subscription keeps its events and its lease."""
    world = World()
    world.join("chart", PATIENT)
    before = world.session
    with pytest.raises(NotFound):
        world.renew("chart", "Patient-close", by=other)
    assert world.session == before


@pytest.mark.req("SUB-19", "UNS-7")
@pytest.mark.parametrize("other", OTHERS)
def test_another_application_of_the_same_user_may_not_unsubscribe_by_name(other: Principal) -> None:
    """A widget that knows the name, or says none, finds no subscription of its own."""
    world = World()
    world.join("chart", PATIENT, name="EHR")
    for name in ("EHR", None):
        with pytest.raises(BadRequest, match="has 0"):
            world.unsubscribe(None, by=other, name=name)
    world.join("own", PATIENT, by=other, name="EHR")
    world.unsubscribe(None, by=other, name="EHR")
    assert (world.news("chart"), world.news("own")) == ([], ["denied"])


@pytest.mark.req("SUB-19", "UNS-6")
def test_whoever_knows_the_endpoint_may_end_it() -> None:
    """An endpoint is unguessable: another application of the user that has it was given it."""
    world = World()
    world.join("chart", PATIENT)
    world.unsubscribe("chart", by=OTHERS[0])
    assert world.news("chart") == ["denied"]


@pytest.mark.req("SUB-19", "SUB-23", "SUB-12")
@pytest.mark.parametrize("other", OTHERS)
def test_a_name_that_another_application_takes_replaces_nobody(other: Principal) -> None:
    """The viewer's socket is being renewed; a widget that calls itself the same must not cost it the close that it missed."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.join("viewer", "Patient-open,Patient-close", name="Viewer")
    world.disconnect("viewer", code=1006)
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.subscribe("widget", "Patient-open", by=other, name="Viewer")
    world.connect("viewer")
    assert world.news("viewer") == ["subscribe", "Patient-close p1"]


@pytest.mark.req("SUB-19", "SUB-23")
def test_a_widget_that_comes_after_a_cut_makes_nobody_a_ghost() -> None:
    """A socket that is found dead is replaced by a newer one of the same application and name only."""
    world = World()
    world.join("viewer", PATIENT, name="Viewer")
    world.wait(1)
    world.join("widget", PATIENT, by=OTHERS[0], name="Viewer")
    world.disconnect("viewer", delivered_until=world.now - 1, code=1006)
    assert world.session is not None
    assert set(world.session.subscriptions) == {"viewer", "widget"}


@pytest.mark.req("SUB-19", "SUB-22")
@pytest.mark.parametrize("other", OTHERS)
def test_nobody_makes_room_for_another_application(other: Principal) -> None:
    """A topic that is full of others' is full, though some have no socket: 429."""
    world = World(max_subscriptions=2)
    world.join("viewer", PATIENT)
    world.join("own", PATIENT, by=other)
    world.disconnect("viewer")
    with pytest.raises(TooMany):
        world.subscribe("new", PATIENT, by=replace(other, client="a-third"))
    world.disconnect("own")
    world.wait(1)
    world.subscribe("new", PATIENT, by=other)
    assert world.session is not None
    assert set(world.session.subscriptions) == {"viewer", "new"}


# Leases (LEA)


@pytest.mark.req("LEA-1")
@pytest.mark.parametrize(
    ("asked", "granted"), [(None, 7200), (60, 60), (86400, 86400), (86401, 86400), (10**18, 86400)]
)
def test_a_lease_is_granted_up_to_the_maximum(asked: int | None, granted: int) -> None:
    """Without one, the default."""
    world = World(default_lease=7200, max_lease=86400)
    world.subscribe("chart", PATIENT, lease=asked)
    world.connect("chart")
    assert confirmed(world, "chart")["hub.lease_seconds"] == granted
    world.renew("chart", PATIENT, lease=asked)
    assert confirmed(world, "chart")["hub.lease_seconds"] == granted


@pytest.mark.req("LEA-2")
def test_a_lease_ends_with_the_token() -> None:
    """Never beyond its exp, asked for or by default."""
    world = World()
    world.subscribe("chart", PATIENT, by=token(expires=NOON + 100), lease=3600)
    world.connect("chart")
    assert confirmed(world, "chart")["hub.lease_seconds"] == 100
    world.wait(101)
    assert world.news("chart") == ["denied"]


@pytest.mark.req("LEA-2")
@pytest.mark.parametrize("late", [0.5, 29])
def test_a_token_past_its_end_cannot_subscribe(late: float) -> None:
    """Within clock skew it may be taken for other things; here it is 401, and nothing comes to be."""
    world = World()
    with pytest.raises(Unauthenticated):
        world.subscribe("chart", PATIENT, by=token(expires=NOON - late))
    assert world.session is None


@pytest.mark.req("LEA-2", "SUB-20")
def test_a_token_past_its_end_cannot_renew() -> None:
    """401, and the old lease stays, for otherwise a renewal would end the subscription."""
    world = World()
    world.join("chart", PATIENT)
    with pytest.raises(Unauthenticated):
        world.renew("chart", PATIENT, by=token(expires=NOON - 1))
    world.wait(100)
    assert world.news("chart") == []


@pytest.mark.req("LEA-4")
def test_at_its_end_a_subscription_is_denied() -> None:
    """Denial frame, close 1000, endpoint dead; the others stay."""
    world = World()
    socket = world.join("chart", PATIENT, lease=60)
    world.join("viewer", PATIENT)
    world.wait(59.9)
    assert world.news("chart") == []
    world.wait(0.1)
    (denial,) = world.read("chart")
    assert denial.pop("hub.reason")
    assert denial == {"hub.mode": "denied", "hub.topic": TOPIC, "hub.events": PATIENT}
    assert world.closed == {socket: 1000}
    with pytest.raises(NotFound):
        world.connect("chart")
    world.publish("Patient-open", patient("p1"))
    assert world.news("viewer") == ["Patient-open p1"]


@pytest.mark.req("LEA-1", "LEA-4")
def test_a_lease_runs_from_the_202() -> None:
    """Coming late, going and coming back do not make it longer."""
    world = World()
    world.subscribe("chart", PATIENT, lease=100)
    world.wait(50)
    world.connect("chart")
    world.disconnect("chart")
    world.wait(49)
    world.connect("chart")
    world.wait(1)
    assert world.news("chart") == ["subscribe", "denied"]


@pytest.mark.req("LEA-4")
def test_the_lease_of_the_absent_ends_too() -> None:
    """In silence: nobody is there to be told."""
    world = World()
    world.join("chart", PATIENT, lease=60)
    world.disconnect("chart")
    world.wait(60)
    assert world.closed == {}
    with pytest.raises(NotFound):
        world.connect("chart")


# Unsubscribing (UNS)


@pytest.mark.req("UNS-6")
def test_unsubscribing_ends_it_for_good() -> None:
    """Denial frame, close 1000, nothing more, and the endpoint never comes back."""
    world = World()
    socket = world.join("chart", PATIENT)
    world.unsubscribe("chart")
    (denial,) = world.read("chart")
    assert (denial["hub.mode"], denial["hub.topic"], denial["hub.events"]) == ("denied", TOPIC, PATIENT)
    assert world.closed == {socket: 1000}
    world.publish("Patient-open", patient("p1"))
    assert world.news("chart") == []
    with pytest.raises(NotFound):
        world.connect("chart")
    with pytest.raises(NotFound):
        world.renew("chart", PATIENT)


@pytest.mark.req("UNS-6")
@pytest.mark.parametrize("came", [True, False])
def test_unsubscribing_without_a_socket(came: bool) -> None:
    """Somebody who is gone, or never came, can be unsubscribed."""
    world = World()
    world.subscribe("chart", PATIENT)
    if came:
        world.connect("chart")
        world.disconnect("chart")
    assert world.unsubscribe("chart").effects == ()
    with pytest.raises(NotFound):
        world.connect("chart")


@pytest.mark.req("UNS-2")
def test_an_unknown_endpoint_cannot_be_unsubscribed() -> None:
    """404, in a session that is there and in one that is not."""
    with pytest.raises(NotFound):
        World().unsubscribe("chart")
    world = World()
    world.join("chart", PATIENT)
    world.unsubscribe("chart")
    with pytest.raises(NotFound):
        world.unsubscribe("chart")


@pytest.mark.req("UNS-3")
@pytest.mark.parametrize("by", [token("bob"), token("bob", topics=[TOPIC]), token(None, client="ann", system=True)])
def test_another_users_endpoint_cannot_be_unsubscribed(by: Any) -> None:
    """404 too, and it stays."""
    world = World()
    world.join("chart", PATIENT)
    with pytest.raises(NotFound):
        world.unsubscribe("chart", by=by)
    world.publish("Patient-open", patient("p1"))
    assert world.news("chart") == ["Patient-open p1"]


@pytest.mark.req("UNS-7")
def test_without_endpoint_the_name_says_which() -> None:
    """The caller's own subscription of that name, if it is exactly one."""
    world = World()
    world.join("one", PATIENT, name="OHIF")
    world.join("two", PATIENT, name="chart")
    world.join("server", PATIENT, by=token(None, client="server", system=True), name="OHIF")
    world.unsubscribe(None, name="OHIF")
    assert (world.news("one"), world.news("two"), world.news("server")) == (["denied"], [], [])


@pytest.mark.req("UNS-7")
@pytest.mark.parametrize("names", [[], ["chart"], ["OHIF", "OHIF"], ["chart", "ohif"]])
def test_without_endpoint_and_not_exactly_one_of_that_name(names: list[str]) -> None:
    """None or two: 400, and all stay."""
    world = World()
    for number, name in enumerate(names):
        world.join(f"s{number}", PATIENT, name=name)
    with pytest.raises(BadRequest):
        world.unsubscribe(None, name="OHIF")
    world.publish("Patient-open", patient("p1"))
    assert all(world.news(f"s{number}") == ["Patient-open p1"] for number in range(len(names)))


@pytest.mark.req("UNS-7")
def test_without_endpoint_and_name_an_only_nameless_one_is_meant() -> None:
    """A client that gave no name when it subscribed gives none now. (Of several, none is meant.)"""
    world = World()
    world.join("one", PATIENT)
    world.unsubscribe(None)
    assert world.news("one") == ["denied"]
    world.join("two", PATIENT)
    world.join("three", PATIENT)
    with pytest.raises(BadRequest):
        world.unsubscribe(None)


@pytest.mark.req("UNS-7")
def test_another_users_subscription_is_never_meant() -> None:
    """Somebody whose token names the topic, without a subscription of their own, gets 400."""
    world = World()
    world.join("chart", PATIENT, name="OHIF")
    with pytest.raises(BadRequest):
        world.unsubscribe(None, by=token("bob", topics=[TOPIC]), name="OHIF")


# Limits (SUB-22)


@pytest.mark.req("SUB-22")
def test_a_full_topic_takes_no_more() -> None:
    """While all are connected: 429 with Retry-After, and nobody goes."""
    world = World(max_subscriptions=2)
    world.join("one", PATIENT)
    world.join("two", PATIENT)
    before = world.session
    with pytest.raises(TooMany) as refused:
        world.subscribe("three", PATIENT)
    assert refused.value.status == 429
    assert (refused.value.retry_after or 0) > 0
    assert world.session is before


@pytest.mark.req("SUB-22")
def test_the_longest_absent_makes_room() -> None:
    """Those without a socket go first, the longest absent before the others, and no more than needed."""
    world = World(max_subscriptions=3)
    for subscription_id in ("a", "b", "c"):
        world.join(subscription_id, PATIENT)
    for subscription_id in ("b", "a"):
        world.wait(1)
        world.disconnect(subscription_id)
    world.wait(1)
    world.join("d", PATIENT)
    with pytest.raises(NotFound):
        world.connect("b")
    world.connect("a")
    world.publish("Patient-open", patient("p1"))
    assert world.news("c") == world.news("d") == ["Patient-open p1"]


@pytest.mark.req("SUB-22")
def test_who_is_refused_takes_nobodys_place() -> None:
    """Nobody goes for a subscription that is not granted."""
    world = World(max_subscriptions=1)
    world.join("one", PATIENT)
    world.disconnect("one")
    with pytest.raises(InsufficientScope):
        world.subscribe("two", PATIENT, by=token(read=()))
    world.connect("one")


@pytest.mark.req("SUB-22")
def test_a_renewal_needs_no_room() -> None:
    """A full topic's subscriptions can be renewed."""
    world = World(max_subscriptions=1)
    world.join("one", PATIENT)
    world.renew("one", PATIENT)
    assert world.news("one") == ["subscribe"]


@pytest.mark.req("SUB-22")
def test_a_user_over_the_limit_elsewhere_loses_who_is_absent() -> None:
    """Evicted is who has no socket; who has come back meanwhile stays."""
    world = World()
    world.join("here", PATIENT)
    world.join("away", PATIENT)
    world.disconnect("away")
    for subscription_id in ("here", "away", "unknown"):
        world.do(Evict(subscription_id))
    with pytest.raises(NotFound):
        world.connect("away")
    world.publish("Patient-open", patient("p1"))
    assert world.news("here") == ["Patient-open p1"]


# Sockets (SUB-11, 12, 17)


@pytest.mark.req("SUB-11")
def test_an_unknown_endpoint_is_refused() -> None:
    """In a session and without one."""
    world = World()
    with pytest.raises(NotFound):
        world.do(Connected("chart", "socket"))
    world.join("chart", PATIENT)
    with pytest.raises(NotFound):
        world.do(Connected("other", "socket"))


@pytest.mark.req("SUB-11")
def test_a_second_socket_takes_over() -> None:
    """The first is closed with 1008 and sent nothing more; the second begins as any."""
    world = World()
    first = world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    second = world.connect("chart")
    world.publish("Patient-open", patient("p2"))
    assert world.closed == {first: 1008}
    assert world.news("chart") == ["subscribe", "Patient-open p1", "Patient-open p2"]
    assert len(world.frames[first]) == 2
    assert second not in world.closed


@pytest.mark.req("SUB-11")
def test_the_end_of_the_first_socket_is_not_the_seconds() -> None:
    """The old connection's end is heard of after the new one came."""
    world = World()
    first = world.join("chart", PATIENT)
    world.connect("chart")
    world.do(Disconnected("chart", first, world.now, 1000))
    world.publish("Patient-open", patient("p1"))
    assert world.news("chart") == ["subscribe", "Patient-open p1"]


@pytest.mark.req("SUB-12")
def test_who_comes_back_is_told_what_was_closed() -> None:
    """Confirmation, the missed closes in order, then what is current: nothing else, and nothing twice."""
    world = World()
    world.join("chart", f"{OPENS},{CLOSES}")
    for id_ in ("p1", "p2", "p3"):
        world.publish("Patient-open", patient(id_))
    world.publish("Patient-close", patient("p3"))
    world.wait(1)
    world.news("chart")
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-close", patient("p2"))
    world.publish("ImagingStudy-open", study("s1"))
    world.publish("ImagingStudy-close", study("s1"))
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.connect("chart")
    assert world.news("chart") == [
        "subscribe",
        "Patient-close p2",
        "ImagingStudy-close s1",
        "Patient-open p1",
        "Encounter-open e1",
    ]


@pytest.mark.req("SUB-12")
def test_missed_closes_are_the_same_messages() -> None:
    """Byte for byte what the others were sent."""
    world = World()
    world.join("chart", PATIENT)
    world.join("viewer", "Patient-close")
    world.publish("Patient-open", patient("p1"))
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.connect("chart")
    assert world.heard("chart")[-1:] == world.heard("viewer")


@pytest.mark.req("SUB-12")
def test_what_is_current_is_told_always() -> None:
    """Also to somebody who missed nothing, and who knows it already."""
    world = World()
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.disconnect("chart")
    world.connect("chart")
    world.disconnect("chart")
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-open p1"]


@pytest.mark.req("SUB-12", "EVT-12")
def test_only_closes_that_were_asked_for_are_told() -> None:
    """A subscriber of opens is told no closes on coming back."""
    world = World()
    world.join("chart", "Patient-open,ImagingStudy-close")
    world.publish("Patient-open", patient("p1"))
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]


@pytest.mark.req("SUB-12")
def test_a_close_that_may_not_have_arrived_is_told_again() -> None:
    """The socket was dead for a while before anybody knew."""
    world = World()
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.wait(5)
    delivered_until = world.now
    world.wait(5)
    world.publish("Patient-close", patient("p1"))
    world.wait(15)
    world.disconnect("chart", delivered_until=delivered_until)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1"]


@pytest.mark.req("SUB-12")
def test_a_close_is_held_for_hours() -> None:
    """As long as its lease lasts, for whoever is away."""
    world = World()
    world.join("chart", PATIENT, lease=7200)
    world.publish("Patient-open", patient("p1"))
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.wait(7000)
    world.publish("Patient-close", patient("p2"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1", "Patient-close p2"]


def away(world: World, events: str = PATIENT, *, since: float = 0) -> None:
    """`chart` was told p1, p2 and p3 and is away."""
    world.join("chart", events)
    for id_ in ("p1", "p2", "p3"):
        world.publish("Patient-open", patient(id_))
    world.wait(1)
    world.disconnect("chart")
    world.wait(1)


@pytest.mark.req("SUB-12")
@pytest.mark.parametrize("rules", [{"retained_messages": 2}, {"retained_bytes": 600}, {"retained_messages": 0}])
def test_where_closes_are_not_held_they_are_made(rules: dict[str, Any]) -> None:
    """A close for every context that somebody was told open and that is closed now, each once, older ones first."""
    world = World(**rules)
    away(world)
    world.publish("Patient-close", patient("p2"))
    world.publish("Patient-close", patient("p1"))
    for number in range(5):
        world.publish("Encounter-close", encounter(f"e{number}"))
    world.connect("chart")
    first, *closes, current = world.news("chart")
    assert (first, sorted(closes), current) == (
        "subscribe",
        ["Patient-close p1", "Patient-close p2"],
        "Patient-open p3",
    )


@pytest.mark.req("SUB-12")
def test_a_made_close_is_an_event() -> None:
    """New id, the hub's time, the catalogue's spelling and key, and the resource it is about."""
    world = World(retained_messages=0)
    away(world)
    world.publish("patient-CLOSE", patient("p3"))
    world.wait(1)
    world.connect("chart")
    close = world.read("chart")[1]
    assert close.pop("id")
    assert close == {
        "timestamp": "2023-04-01T12:00:03.000Z",
        "event": {"hub.topic": TOPIC, "hub.event": "Patient-close", "context": [patient("p3")]},
    }


@pytest.mark.req("SUB-12", "EVT-12")
def test_no_close_is_made_that_was_not_asked_for() -> None:
    """As with those that are held."""
    world = World(retained_messages=0)
    away(world, "Patient-open")
    world.publish("Patient-close", patient("p3"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-open p2"]


@pytest.mark.req("SUB-12", "EVT-9")
@pytest.mark.parametrize("type_", ["MedicationRequest", "ImagingStudy", "DiagnosticReport"])
def test_a_made_close_names_its_type_as_it_was_spelled(type_: str) -> None:
    """FHIR's types have capitals inside, those of the catalogue and all others."""
    world = World(retained_messages=0)
    key = {"ImagingStudy": "study", "DiagnosticReport": "report"}.get(type_, type_.lower())
    anchor = item(key, type_, "x1")
    world.join("chart", f"{type_}-open,{type_}-close")
    world.publish(f"{type_}-open", anchor, patient("p1"))
    world.disconnect("chart")
    world.wait(1)
    world.publish(f"{type_}-close", anchor)
    world.connect("chart")
    _, close = world.read("chart")
    assert (close["event"]["hub.event"].lower(), close["event"]["context"]) == (f"{type_}-close".lower(), [anchor])


@pytest.mark.req("SUB-12")
def test_a_close_is_made_for_what_was_told_by_a_derived_open() -> None:
    """A chart that knows only patients was told p1 by a study, and missed that p1 was closed."""
    world = World(retained_messages=0)
    world.join("chart", PATIENT)
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert world.news("chart") == ["Patient-open p1"]
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1"]


@pytest.mark.req("SUB-12")
def test_what_is_told_on_coming_back_may_get_lost_too() -> None:
    """One socket after the other breaks before anything was answered: the close is told on each."""
    world = World()
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.wait(5)
    delivered_until = world.now
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.news("chart")
    world.disconnect("chart", delivered_until=delivered_until)
    for _ in range(3):
        world.wait(10)
        world.connect("chart")
        assert world.news("chart") == ["subscribe", "Patient-close p1"]
        world.wait(1)
        world.disconnect("chart", delivered_until=world.tracker.delivered_until("chart"))


@pytest.mark.req("SUB-12")
def test_what_was_closed_before_the_first_socket_came_was_not_missed() -> None:
    """Whoever was never told that it is open need not be told that it is not."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.subscribe("chart", PATIENT)
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.wait(1)
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]
    world.disconnect("chart", delivered_until=world.tracker.delivered_until("chart"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]


@pytest.mark.req("SUB-12")
@pytest.mark.parametrize("end", ["noticed", "taken over"])
def test_a_close_is_made_for_what_was_closed_before_the_end_was_noticed(end: str) -> None:
    """The socket died, p1 was closed, other closes pushed that out of what is held; then the socket is found dead."""
    world = World(retained_messages=1)
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.wait(1)
    delivered_until = world.now
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.publish("Encounter-close", encounter("e1"))
    world.wait(1)
    world.news("chart")
    if end == "noticed":
        world.disconnect("chart", delivered_until=delivered_until)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1"]


@pytest.mark.req("SUB-12")
def test_a_socket_may_be_dead_for_as_long_as_pings_take_to_tell() -> None:
    """With a ping every 20 s, more rarely than by default, and 20 s to answer, one is found after up to 40 s."""
    world = World()
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.wait(1)
    delivered_until = world.now
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.wait(35)
    world.publish("Patient-close", patient("p2"))
    world.news("chart")
    world.disconnect("chart", delivered_until=delivered_until)
    world.connect("chart")
    assert world.news("chart")[:2] == ["subscribe", "Patient-close p1"]


@pytest.mark.req("SUB-12")
def test_what_is_held_is_not_made() -> None:
    """One close was pushed out, the other is held: each is told once, the older first."""
    world = World(retained_messages=1)
    away(world)
    world.publish("Patient-close", patient("p3"))
    world.publish("Patient-close", patient("p1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p3", "Patient-close p1", "Patient-open p2"]


@pytest.mark.req("SUB-12")
@pytest.mark.parametrize("end", ["noticed", "taken over"])
def test_a_close_that_may_not_have_arrived_is_not_told_of_what_is_open_again(end: str) -> None:
    """The socket was dead, or not, when p1 was closed and opened again: its close must not come after its open."""
    world = World()
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.wait(5)
    delivered_until = world.now
    world.wait(5)
    world.publish("Patient-close", patient("p1"))
    world.publish("Patient-open", patient("p1"))
    world.wait(1)
    world.news("chart")
    if end == "noticed":
        world.disconnect("chart", delivered_until=delivered_until)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-open p1"]


@pytest.mark.req("SUB-12")
def test_what_was_closed_and_opened_again_meanwhile_is_told_as_it_was() -> None:
    """Whoever had no socket missed the close, and what was closed with it; then it is told the open."""
    world = World()
    away(world)
    world.publish("Patient-close", patient("p2"))
    world.publish("Patient-open", patient("p2"))
    world.wait(1)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p2", "Patient-open p2"]


@pytest.mark.req("SUB-12")
def test_what_a_young_socket_was_told_on_coming_back_is_held() -> None:
    """It may be dead as well, and until that is noticed others are closed."""
    world = World()
    away(world)
    delivered_until = world.now
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.wait(200)
    world.connect("chart")
    world.wait(10)
    world.publish("Patient-close", patient("p2"))
    world.news("chart")
    world.disconnect("chart", delivered_until=delivered_until)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1", "Patient-close p2", "Patient-open p3"]


@pytest.mark.req("SUB-12", "LIM-1")
def test_closes_that_are_too_many_to_hold_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten."""
    monkeypatch.setattr(missed_events, "REMEMBERED_CLOSES", 3)
    world = World(retained_messages=1)
    away(world)
    for number in range(10):
        world.publish("Encounter-close", encounter(f"e{number}"))
    assert world.session
    assert list(world.session.dropped_closes) == [f"Encounter/e{number}" for number in (6, 7, 8)]


@pytest.mark.req("SUB-12")
def test_what_is_open_again_is_not_closed() -> None:
    """No close is made for a context that was closed and opened again."""
    world = World(retained_messages=0)
    away(world)
    world.publish("Patient-close", patient("p3"))
    world.publish("Patient-open", patient("p3"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-open p3"]


@pytest.mark.req("SUB-23")
def test_who_has_no_socket_is_sent_nothing() -> None:
    """Neither before the first socket came nor after it went; the endpoint stays."""
    world = World()
    world.subscribe("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    assert world.frames == {}
    socket = world.connect("chart")
    world.disconnect("chart")
    world.publish("Patient-open", patient("p2"))
    assert len(world.frames[socket]) == 2
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-open p2"]


@pytest.mark.req("SUB-23")
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


@pytest.mark.req("SUB-23")
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


@pytest.mark.req("SUB-23")
def test_two_of_one_name_live_beside_each_other() -> None:
    """Two windows of one app, both connected."""
    world = World()
    world.join("one", PATIENT, name="OHIF")
    world.join("two", PATIENT, name="OHIF")
    world.publish("Patient-open", patient("p1"))
    assert world.news("one") == world.news("two") == ["Patient-open p1"]


@pytest.mark.req("SUB-23")
def test_who_is_refused_replaces_no_ghost() -> None:
    """The old subscription stays when the new one is not granted."""
    world = World()
    world.join("ghost", PATIENT, name="OHIF")
    world.disconnect("ghost")
    with pytest.raises(InsufficientScope):
        world.subscribe("new", PATIENT, by=token(read=()), name="OHIF")
    world.connect("ghost")


@pytest.mark.req("SUB-23")
def test_after_a_restart_all_may_come_back() -> None:
    """To their endpoints, with their events and what is left of their leases; whatever they may have missed is told."""
    world = World()
    world.join("chart", f"{OPENS},{CLOSES}", lease=3600)
    world.wait(10)
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-open", patient("p2"))
    world.publish("Patient-close", patient("p2"))
    before = list(world.frames["chart/1"])
    world.wait(10)
    world.do(Restarted())
    world.publish("ImagingStudy-open", study("s1"))
    assert world.frames["chart/1"] == before
    world.wait(10)
    world.connect("chart")
    first, *others = world.heard("chart")
    assert json.loads(first)["hub.lease_seconds"] == 3570
    world.news("chart")
    labels = [json.loads(frame)["event"]["hub.event"] for frame in others]
    assert labels == ["Patient-close", "Patient-open", "ImagingStudy-open"]


@pytest.mark.req("SUB-23")
def test_a_restart_of_nothing_is_nothing() -> None:
    """A topic without session stays without; one without sockets keeps all."""
    world = World()
    world.do(Restarted())
    assert world.session is None
    world.subscribe("chart", PATIENT)
    world.do(Restarted())
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]


@pytest.mark.req("AUT-9")
@pytest.mark.parametrize("subscription_id", ["new", "chart"])
def test_another_user_gets_no_subscription(subscription_id: str) -> None:
    """403 for subscribing, whoever's scopes reach; nothing changes."""
    world = World()
    world.join("chart", PATIENT)
    before = world.session
    with pytest.raises(Forbidden):
        world.subscribe(subscription_id, PATIENT, by=token("bob"))
    assert world.session is before


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


@pytest.mark.req("SUB-11", "SUB-12")
def test_a_take_over_does_not_tell_old_closes_again() -> None:
    """A socket that was dead for an hour would have been noticed: what it was sent then has arrived."""
    world = World(max_lease=10000)
    world.join("chart", PATIENT, lease=10000)
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-close", patient("p1"))
    world.wait(3600)
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]


@pytest.mark.req("SUB-12", "LIM-1")
def test_of_several_contexts_that_go_at_once_each_close_is_held() -> None:
    """One large open pushes out four; whoever was away is told all four."""
    world = World(retained_bytes=100_000_000)
    world.join("chart", PATIENT)
    for number in range(4):
        world.publish("Patient-open", patient(f"p{number}"), {"key": "extension", "data": "x" * 2_000_000})
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-open", patient("big"), {"key": "extension", "data": "x" * 8_000_000})
    world.connect("chart")
    assert world.news("chart") == [
        "subscribe",
        *(f"Patient-close p{number}" for number in range(4)),
        "Patient-open big",
    ]
