"""A subscription belongs to one application of one user."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import (
    BadRequest,
    Forbidden,
    NotFound,
    TooMany,
)
from tests.core.world import World, patient, token

PATIENT = "Patient-open,Patient-close"
#: Tokens of the same user that are other applications'.
OTHERS = [token(client="a-widget"), replace(token(), issuer="another")]


@pytest.mark.req("SUB-19", "SUB-30", "SUB-20", "SUB-21")
@pytest.mark.parametrize("other", OTHERS)
def test_another_application_of_the_same_user_may_not_renew(other: Principal) -> None:
    """Not found, as if it were not there; the subscription keeps its events and its lease."""
    world = World()
    world.join("chart", PATIENT)
    before = world.session
    with pytest.raises(NotFound):
        world.renew("chart", "Patient-close", by=other)
    assert world.session == before


@pytest.mark.req("SUB-19", "SUB-30", "UNS-7")
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


@pytest.mark.req("SUB-19", "SUB-30", "UNS-6")
def test_whoever_knows_the_endpoint_may_end_it() -> None:
    """An endpoint is unguessable: another application of the user that has it was given it."""
    world = World()
    world.join("chart", PATIENT)
    world.unsubscribe("chart", by=OTHERS[0])
    assert world.news("chart") == ["denied"]


@pytest.mark.req("SUB-19", "SUB-30", "SUB-23", "SUB-12", "SUB-39")
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


@pytest.mark.req("SUB-19", "SUB-30", "SUB-23")
def test_a_widget_that_comes_after_a_cut_makes_nobody_a_ghost() -> None:
    """A socket that is found dead is replaced by a newer one of the same application and name only."""
    world = World()
    world.join("viewer", PATIENT, name="Viewer")
    world.wait(1)
    world.join("widget", PATIENT, by=OTHERS[0], name="Viewer")
    world.disconnect("viewer", delivered_until=world.now - 1, code=1006)
    assert world.session is not None
    assert set(world.session.subscriptions) == {"viewer", "widget"}


@pytest.mark.req("SUB-19", "SUB-30", "SUB-22")
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


@pytest.mark.req("AUT-9")
@pytest.mark.parametrize("subscription_id", ["new", "chart"])
def test_another_user_gets_no_subscription(subscription_id: str) -> None:
    """The hub answers the subscription request with 403, for scopes of any client. The session does not change."""
    world = World()
    world.join("chart", PATIENT)
    before = world.session
    with pytest.raises(Forbidden):
        world.subscribe(subscription_id, PATIENT, by=token("bob"))
    assert world.session is before
