"""Topic access: the user, claim or system client that may act on a session."""

from __future__ import annotations

import pytest

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.access.topic_access import check_access, new_owner
from fhircast_hub.core.errors import Conflict, Forbidden, InsufficientScope
from tests.core.world import TOPIC, World, patient, token


@pytest.mark.req("AUT-9")
def test_a_session_belongs_to_the_user_who_first_subscribed() -> None:
    """Whoever comes first owns the topic; another user is refused."""
    world = World()
    world.subscribe("chart", "Patient-open", by=token("ann"))
    with pytest.raises(Forbidden):
        world.subscribe("other", "Patient-open", by=token("bob"))


@pytest.mark.req("AUT-9")
def test_a_session_belongs_to_the_user_who_first_published() -> None:
    """Publishing binds as subscribing does, for publishing, subscribing and reading alike."""
    world = World()
    world.publish("Patient-open", patient("p1"), by=token("ann"))
    for attempt in (
        lambda: world.publish("Patient-open", patient("p2"), by=token("bob")),
        lambda: world.subscribe("other", "Patient-open", by=token("bob")),
        lambda: world.get(by=token("bob")),
    ):
        with pytest.raises(Forbidden):
            attempt()
    assert world.current() == "Patient p1"


@pytest.mark.req("AUT-9")
def test_a_request_that_fails_binds_nothing() -> None:
    """Who is refused, for whatever reason, does not come to own the topic."""
    world = World()
    with pytest.raises(InsufficientScope):
        world.subscribe("chart", "Patient-open", by=token("bob", read=()))
    with pytest.raises(InsufficientScope):
        world.publish("Patient-open", patient("p1"), by=token("bob", write=()))
    world.get(by=token("bob"))
    assert world.session is None
    world.publish("Patient-open", patient("p1"), by=token("ann"))
    assert world.current() == "Patient p1"


@pytest.mark.req("AUT-10")
def test_other_apps_of_the_user_join() -> None:
    """It is the user that counts, not the client the token was issued to."""
    world = World()
    world.join("chart", by=token("ann", client="chart"))
    world.join("viewer", by=token("ann", client="viewer"))
    world.publish("Patient-open", patient("p1"), by=token("ann", client="ehr"))
    assert world.news("chart") == world.news("viewer") == ["Patient-open p1"]


@pytest.mark.req("AUT-8")
def test_a_topic_claim_limits_to_its_topics() -> None:
    """A token that names other topics is refused here, though its bearer owns the session."""
    world = World()
    world.publish("Patient-open", patient("p1"), by=token("ann"))
    elsewhere = token("ann", topics=["another-topic"])
    for attempt in (
        lambda: world.publish("Patient-open", patient("p2"), by=elsewhere),
        lambda: world.subscribe("chart", "Patient-open", by=elsewhere),
        lambda: world.get(by=elsewhere),
    ):
        with pytest.raises(Forbidden) as refused:
            attempt()
        assert not isinstance(refused.value, InsufficientScope)


@pytest.mark.req("AUT-8")
@pytest.mark.parametrize("topics", [[TOPIC], ["another", TOPIC]])
def test_a_topic_claim_admits_to_its_topics(topics: list[str]) -> None:
    """One topic or several, a token that names this one may act here."""
    world = World()
    world.join("chart", by=token("ann", topics=topics))
    world.publish("Patient-open", patient("p1"), by=token("ann", topics=topics))
    assert world.news("chart") == ["Patient-open p1"]


@pytest.mark.req("AUT-8")
def test_an_empty_topic_claim_admits_nowhere() -> None:
    """No topic is not every topic."""
    with pytest.raises(Forbidden):
        check_access(token(topics=[]), TOPIC, None)


@pytest.mark.req("AUT-11", "AUT-29")
def test_a_system_client_acts_on_sessions_that_users_own() -> None:
    """A worklist server subscribes and publishes in ann's session."""
    world = World()
    world.join("chart", by=token("ann"))
    server = token(None, client="server", system=True)
    world.join("server", by=server)
    world.publish("Patient-open", patient("p1"), by=server)
    assert world.news("chart") == world.news("server") == ["Patient-open p1"]
    assert world.get(by=server)["context.type"] == "Patient"


@pytest.mark.req("AUT-11", "AUT-29")
def test_a_system_client_begins_no_session() -> None:
    """On a topic that nobody owns it is told 409, and nothing is bound."""
    world = World()
    server = token(None, client="server", system=True)
    for attempt in (
        lambda: world.publish("Patient-open", patient("p1"), by=server),
        lambda: world.subscribe("server", "Patient-open", by=server),
    ):
        with pytest.raises(Conflict):
            attempt()
    assert world.session is None


@pytest.mark.req("AUT-11")
def test_a_system_client_begins_no_session_with_a_claim_either() -> None:
    """Its hub.topic claim limits it, and does not make the session anybody's."""
    world = World()
    server = token(None, client="server", system=True, topics=frozenset({TOPIC}))
    with pytest.raises(Conflict):
        world.publish("Patient-open", patient("p1"), by=server)
    assert world.session is None


@pytest.mark.req("AUT-11", "AUT-29")
def test_a_system_client_does_not_come_to_own_a_session() -> None:
    """After it published, the session is still its user's."""
    world = World()
    world.join("chart", by=token("ann"))
    world.publish("Patient-open", patient("p1"), by=token(None, client="server", system=True))
    world.publish("Patient-open", patient("p2"), by=token("ann"))
    with pytest.raises(Forbidden):
        world.publish("Patient-open", patient("p3"), by=token("bob"))


@pytest.mark.req("AUT-11", "AUT-30")
def test_a_userless_token_acts_only_where_its_claim_says() -> None:
    """Without user, claim and system client there is no session to act on."""
    world = World()
    with pytest.raises(Forbidden):
        world.subscribe("kiosk", "Patient-open", by=token(None))
    world.publish("Patient-open", patient("p1"), by=token("ann"))
    with pytest.raises(Forbidden):
        world.get(by=token(None))
    assert world.get(by=token(None, topics=[TOPIC]))["context.type"] == "Patient"


@pytest.mark.req("UNS-3")
def test_a_user_and_a_client_of_one_name_are_two() -> None:
    """Somebody whose user is called as a client is does not own that client's subscriptions."""
    assert token("same").subscriber != token(None, client="same").subscriber
    assert token("same", client="a").subscriber == token("same", client="b").subscriber


@pytest.mark.req("AUT-9")
def test_nobody_owns_what_a_userless_token_begins() -> None:
    """A user without a claim does not get in where only claims do."""
    world = World()
    world.subscribe("kiosk", "Patient-open", by=token(None, topics=[TOPIC]))
    assert new_owner(token(None)) != new_owner(token("ann")) == "ann"
    with pytest.raises(Forbidden):
        world.subscribe("chart", "Patient-open", by=token("ann"))
    with pytest.raises(Conflict):
        world.subscribe("server", "Patient-open", by=token(None, client="server", system=True))


@pytest.mark.req("EVT-11")
def test_realms_do_not_meet() -> None:
    """The same topic in two realms is two sessions."""
    assert SessionKey("a", TOPIC) != SessionKey("b", TOPIC)
