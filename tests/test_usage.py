"""What each user has in all sessions together: counted with every change, and who makes room for whom."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fhircast_hub.core.errors import TooMany
from fhircast_hub.core.principal import CLAIMED, Application, SessionKey
from fhircast_hub.core.session import Session, Subscription
from fhircast_hub.usage import Usage

ONE, TWO = SessionKey("realm", "one"), SessionKey("realm", "two")
ANN = Application("issuer", "user:ann", "an-app")


def subscription(sid: str, since: float = 0.0, *, connection: str = "", of: Application = ANN) -> Subscription:
    return Subscription(
        *(sid, of.subscriber, "", ("Patient-open",)),
        expires=99.0,
        since=since,
        connection=connection,
        issuer=of.issuer,
        client=of.client,
    )


def session(key: SessionKey, *subscriptions: Subscription, owner: str = "ann") -> Session:
    return Session(
        realm=key.realm, topic=key.topic, owner=owner, subscriptions={each.sid: each for each in subscriptions}
    )


def counts(usage: Usage) -> tuple[int, int]:
    return usage.topics, usage.subscriptions


def test_counts_follow_every_change() -> None:
    """Sessions and subscriptions are counted as they come, stay, and go; going back to nothing leaves nothing."""
    usage = Usage(10, 10)
    assert counts(usage) == (0, 0)
    empty, full = session(ONE), session(ONE, subscription("a"), subscription("b"))
    usage.follow(ONE, None, empty)
    assert counts(usage) == (1, 0)
    usage.follow(ONE, empty, full)
    assert counts(usage) == (1, 2)
    usage.follow(TWO, None, session(TWO, subscription("c")))
    assert counts(usage) == (2, 3)
    usage.follow(ONE, full, session(ONE, subscription("b")))
    assert counts(usage) == (2, 2)
    usage.follow(ONE, session(ONE, subscription("b")), None)
    usage.follow(TWO, session(TWO, subscription("c")), None)
    assert counts(usage) == (0, 0)
    assert not usage._sessions
    assert not usage._subscriptions
    assert not usage._topics


def test_a_change_and_its_undoing_leave_everything_as_it_was() -> None:
    """What was followed too early, because the store then refused it, is followed back."""
    usage = Usage(2, 2)
    before, after = session(ONE, subscription("a", 1.0)), session(ONE, subscription("b", 2.0))
    usage.follow(ONE, None, before)
    usage.follow(ONE, before, after)
    usage.follow(ONE, after, before)
    usage.follow(TWO, None, session(TWO))
    usage.follow(TWO, session(TWO), None)
    assert counts(usage) == (1, 1)
    assert (usage.find("a"), usage.find("b")) == (ONE, None)


def test_an_endpoint_is_found_as_long_as_it_lives() -> None:
    """`find` says whose session it is of."""
    usage = Usage(10, 10)
    there = session(TWO, subscription("a"))
    assert usage.find("a") is None
    usage.follow(TWO, None, there)
    assert usage.find("a") == TWO
    usage.follow(TWO, there, None)
    assert usage.find("a") is None


@pytest.mark.req("SUB-22")
def test_below_the_limit_nobody_goes() -> None:
    """The limit itself is the most that one may have."""
    usage = Usage(2, 10)
    assert usage.to_evict("realm", ANN) is None
    usage.follow(ONE, None, session(ONE, subscription("a")))
    assert usage.to_evict("realm", ANN) is None


@pytest.mark.req("SUB-22")
def test_at_the_limit_the_longest_absent_of_all_sessions_goes() -> None:
    """Who has a socket never goes, however old; of the others the one whose socket went, or never came, first."""
    usage = Usage(3, 10)
    usage.follow(ONE, None, session(ONE, subscription("a", 1.0, connection="c"), subscription("b", 3.0)))
    usage.follow(TWO, None, session(TWO, subscription("c", 2.0)))
    assert usage.to_evict("realm", ANN) == (TWO, "c")


@pytest.mark.req("SUB-22")
def test_sockets_that_come_and_go_are_seen() -> None:
    """What counts is what the subscription is now, not what it was when it was made."""
    usage = Usage(2, 10)
    first = session(ONE, subscription("a", 1.0), subscription("b", 2.0))
    usage.follow(ONE, None, first)
    there = session(ONE, subscription("a", 5.0, connection="c"), first.subscriptions["b"])
    usage.follow(ONE, first, there)
    assert usage.to_evict("realm", ANN) == (ONE, "b")
    gone = session(ONE, subscription("a", 6.0), subscription("b", 7.0, connection="d"))
    usage.follow(ONE, there, gone)
    assert usage.to_evict("realm", ANN) == (ONE, "a")


@pytest.mark.req("SUB-22")
def test_with_all_sockets_there_it_is_too_many() -> None:
    """And the client is told when to try again."""
    usage = Usage(1, 10)
    usage.follow(ONE, None, session(ONE, subscription("a", connection="c")))
    with pytest.raises(TooMany) as refusal:
        usage.to_evict("realm", ANN)
    assert refusal.value.retry_after


@pytest.mark.req("SUB-22", "SUB-19")
@pytest.mark.parametrize("other", [ANN._replace(client="a-widget"), ANN._replace(issuer="another")])
def test_an_application_makes_room_among_its_own(other: Application) -> None:
    """The limit is the user's; but no other application of theirs has to go, however long it is absent."""
    usage = Usage(2, 10)
    usage.follow(ONE, None, session(ONE, subscription("a", 1.0), subscription("b", 2.0, of=other)))
    assert usage.to_evict("realm", other) == (ONE, "b")
    assert usage.to_evict("realm", ANN) == (ONE, "a")
    with pytest.raises(TooMany):
        usage.to_evict("realm", ANN._replace(client="a-third"))


@pytest.mark.req("SUB-22")
def test_the_limit_is_each_users_own() -> None:
    """Another user, a client of the same name, and the same user in another realm have their own room."""
    usage = Usage(1, 10)
    usage.follow(ONE, None, session(ONE, subscription("a")))
    assert usage.to_evict("realm", ANN._replace(subscriber="user:bob")) is None
    assert usage.to_evict("realm", ANN._replace(subscriber="client:ann")) is None
    assert usage.to_evict("realm-2", ANN) is None
    assert usage.to_evict("realm", ANN) == (ONE, "a")


@pytest.mark.req("LIM-1")
def test_topics_are_limited_by_owner_and_realm() -> None:
    """At the limit one more is too many, for that owner in that realm; one that went makes room."""
    usage = Usage(10, 1)
    assert usage.may_begin("realm", "ann")
    usage.follow(ONE, None, session(ONE))
    assert usage.owned("realm", "ann") == [ONE]
    assert not usage.may_begin("realm", "ann")
    assert usage.may_begin("realm", "bob")
    assert usage.may_begin("realm-2", "ann")
    usage.follow(ONE, session(ONE), None)
    assert usage.may_begin("realm", "ann")


@pytest.mark.req("LIM-1", "AUT-11")
def test_topics_that_no_user_owns_are_not_limited() -> None:
    """A session of tokens that claim its topic belongs to no user."""
    usage = Usage(10, 1)
    usage.follow(ONE, None, session(ONE, owner=CLAIMED))
    assert usage.may_begin("realm", CLAIMED)


@pytest.mark.req("LIM-1", "AUT-9")
def test_a_session_that_came_to_be_somebody_elses_counts_as_theirs() -> None:
    """Of two who were first at once one was overtaken: theirs it never was."""
    usage = Usage(10, 1)
    mine = session(ONE, owner="ann")
    usage.follow(ONE, None, mine)
    usage.follow(ONE, mine, replace(mine, owner="bob"))
    assert usage.may_begin("realm", "ann")
    assert not usage.may_begin("realm", "bob")
