"""The usage of each user in all sessions together: counted with every change, with evictions."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fhircast_hub.core.access.principal import Application, SessionKey
from fhircast_hub.core.access.topic_access import NO_OWNER
from fhircast_hub.core.errors import TooLarge, TooMany, Unavailable
from fhircast_hub.core.state.session import Session, Subscription
from fhircast_hub.service.usage import ABANDONED, LocalUsage
from fhircast_hub.service.weights import growth
from fhircast_hub.telemetry.metrics import Metrics
from tests.counted import counted

ONE, TWO = SessionKey("realm", "one"), SessionKey("realm", "two")
ANN = Application("issuer", "user:ann", "an-app")


def subscription(
    subscription_id: str, since: float = 0.0, *, connection: str = "", of: Application = ANN
) -> Subscription:
    return Subscription(
        *(subscription_id, of.subscriber, "", ("Patient-open",)),
        expires=99.0,
        connected_or_lost_at=since,
        connection=connection,
        issuer=of.issuer,
        client=of.client,
    )


def session(key: SessionKey, *subscriptions: Subscription, owner: str = "ann") -> Session:
    return Session(
        realm=key.realm,
        topic=key.topic,
        owner=owner,
        subscriptions={each.subscription_id: each for each in subscriptions},
    )


def counts(usage: LocalUsage) -> tuple[int, int]:
    return usage.topics, usage.subscriptions


async def test_counts_follow_every_change() -> None:
    """Sessions and subscriptions are counted as they come, stay, and go; going back to nothing leaves nothing."""
    usage = LocalUsage(10, 10)
    assert counts(usage) == (0, 0)
    empty, full = session(ONE), session(ONE, subscription("a"), subscription("b"))
    usage.update(ONE, None, empty)
    assert counts(usage) == (1, 0)
    usage.update(ONE, empty, full)
    assert counts(usage) == (1, 2)
    usage.update(TWO, None, session(TWO, subscription("c")))
    assert counts(usage) == (2, 3)
    usage.update(ONE, full, session(ONE, subscription("b")))
    assert counts(usage) == (2, 2)
    usage.update(ONE, session(ONE, subscription("b")), None)
    usage.update(TWO, session(TWO, subscription("c")), None)
    assert counts(usage) == (0, 0)
    assert not usage._sessions
    assert not usage._subscriptions
    assert not usage._owners
    assert not usage._counted
    assert usage.bytes == usage._idle.bytes == len(usage._idle.weights) == 0


async def test_a_change_and_its_undoing_leave_everything_as_it_was() -> None:
    """A change that the store refused is counted back."""
    usage = LocalUsage(2, 2)
    before, after = session(ONE, subscription("a", 1.0)), session(ONE, subscription("b", 2.0))
    usage.update(ONE, None, before)
    usage.update(ONE, before, after)
    usage.update(ONE, after, before)
    usage.update(TWO, None, session(TWO))
    usage.update(TWO, session(TWO), None)
    assert counts(usage) == (1, 1)
    assert (usage.find("a"), usage.find("b")) == (ONE, None)


async def test_an_endpoint_is_found_as_long_as_it_lives() -> None:
    """`find` returns the session of the endpoint."""
    usage = LocalUsage(10, 10)
    there = session(TWO, subscription("a"))
    assert usage.find("a") is None
    usage.update(TWO, None, there)
    assert usage.find("a") == TWO
    usage.update(TWO, there, None)
    assert usage.find("a") is None


@pytest.mark.req("SUB-22")
async def test_below_the_limit_nobody_goes() -> None:
    """Exactly the limit is allowed."""
    usage = LocalUsage(2, 10)
    assert await usage.subscription_to_evict("realm", ANN) is None
    usage.update(ONE, None, session(ONE, subscription("a")))
    assert await usage.subscription_to_evict("realm", ANN) is None


@pytest.mark.req("SUB-22")
async def test_at_the_limit_the_longest_absent_of_all_sessions_goes() -> None:
    """A connected subscription is never evicted. Of the others, the longest absent goes first."""
    usage = LocalUsage(3, 10)
    usage.update(ONE, None, session(ONE, subscription("a", 1.0, connection="c"), subscription("b", 3.0)))
    usage.update(TWO, None, session(TWO, subscription("c", 2.0)))
    assert await usage.subscription_to_evict("realm", ANN) == (TWO, "c")


@pytest.mark.req("SUB-22")
async def test_sockets_that_come_and_go_are_seen() -> None:
    """A subscription's present state counts, not its first."""
    usage = LocalUsage(2, 10)
    first = session(ONE, subscription("a", 1.0), subscription("b", 2.0))
    usage.update(ONE, None, first)
    there = session(ONE, subscription("a", 5.0, connection="c"), first.subscriptions["b"])
    usage.update(ONE, first, there)
    assert await usage.subscription_to_evict("realm", ANN) == (ONE, "b")
    gone = session(ONE, subscription("a", 6.0), subscription("b", 7.0, connection="d"))
    usage.update(ONE, there, gone)
    assert await usage.subscription_to_evict("realm", ANN) == (ONE, "a")


@pytest.mark.req("SUB-22")
async def test_with_all_sockets_there_it_is_too_many() -> None:
    """The client is told when to try again."""
    usage = LocalUsage(1, 10)
    usage.update(ONE, None, session(ONE, subscription("a", connection="c")))
    with pytest.raises(TooMany) as refusal:
        await usage.subscription_to_evict("realm", ANN)
    assert refusal.value.retry_after


@pytest.mark.req("SUB-22", "SUB-19", "SUB-30")
@pytest.mark.parametrize("other", [ANN._replace(client="a-widget"), ANN._replace(issuer="another")])
async def test_an_application_makes_room_among_its_own(other: Application) -> None:
    """The limit is the user's. Applications evict only their own subscriptions, however long others are absent."""
    usage = LocalUsage(2, 10)
    usage.update(ONE, None, session(ONE, subscription("a", 1.0), subscription("b", 2.0, of=other)))
    assert await usage.subscription_to_evict("realm", other) == (ONE, "b")
    assert await usage.subscription_to_evict("realm", ANN) == (ONE, "a")
    with pytest.raises(TooMany):
        await usage.subscription_to_evict("realm", ANN._replace(client="a-third"))


@pytest.mark.req("SUB-22")
async def test_the_limit_is_each_users_own() -> None:
    """Another user, a client of the same name, and the same user in another realm have their own room."""
    usage = LocalUsage(1, 10)
    usage.update(ONE, None, session(ONE, subscription("a")))
    assert await usage.subscription_to_evict("realm", ANN._replace(subscriber="user:bob")) is None
    assert await usage.subscription_to_evict("realm", ANN._replace(subscriber="client:ann")) is None
    assert await usage.subscription_to_evict("realm-2", ANN) is None
    assert await usage.subscription_to_evict("realm", ANN) == (ONE, "a")


@pytest.mark.req("LIM-1")
async def test_topics_are_limited_by_owner_and_realm() -> None:
    """At the limit one more is refused, for that owner in that realm. An ended session makes room."""
    usage = LocalUsage(10, 1)
    assert await usage.may_begin_session("realm", "ann")
    usage.update(ONE, None, session(ONE))
    assert not await usage.may_begin_session("realm", "ann")
    assert await usage.may_begin_session("realm", "bob")
    assert await usage.may_begin_session("realm-2", "ann")
    usage.update(ONE, session(ONE), None)
    assert await usage.may_begin_session("realm", "ann")


@pytest.mark.req("LIM-1", "AUT-11")
async def test_topics_that_no_user_owns_are_not_limited() -> None:
    """A session of tokens that claim its topic belongs to no user."""
    usage = LocalUsage(10, 1)
    usage.update(ONE, None, session(ONE, owner=NO_OWNER))
    assert await usage.may_begin_session("realm", NO_OWNER)


@pytest.mark.req("LIM-1", "AUT-9")
async def test_a_session_that_came_to_be_somebody_elses_counts_as_theirs() -> None:
    """Two users began the session at once. The overtaken user never owned it."""
    usage = LocalUsage(10, 1)
    mine = session(ONE, owner="ann")
    usage.update(ONE, None, mine)
    usage.update(ONE, mine, replace(mine, owner="bob"))
    assert await usage.may_begin_session("realm", "ann")
    assert not await usage.may_begin_session("realm", "bob")


# --- bytes ---


def holding(key: SessionKey, size: int, *subscriptions: Subscription, owner: str = "ann") -> Session:
    """A session of slightly more than so many bytes."""
    return replace(session(key, *subscriptions, owner=owner), home=bytes(size))


def followed(usage: LocalUsage, *sessions: Session) -> list[SessionKey]:
    """Count these sessions. Returns their keys."""
    keys = [SessionKey(each.realm, each.topic) for each in sessions]
    for key, each in zip(keys, sessions, strict=True):
        usage.update(key, None, each)
    return keys


def key_of(name: str) -> SessionKey:
    return SessionKey("realm", name)


@pytest.mark.req("LIM-2")
async def test_bytes_are_those_of_what_sessions_became() -> None:
    """Each session counts as its last update, whatever the store refused or overtook meanwhile."""
    usage = LocalUsage(10, 10)
    first, second, third = (holding(ONE, size) for size in (1000, 2000, 3000))
    usage.update(ONE, None, first)
    usage.update(ONE, first, second)
    usage.update(ONE, first, third)  # decided on the same session, and to be overtaken
    usage.update(ONE, third, second)
    assert usage.bytes == growth(None, second)
    usage.update(ONE, second, replace(second, owner="bob"))
    assert usage.bytes == growth(None, second)
    usage.update(ONE, replace(second, owner="bob"), None)
    assert usage.bytes == 0


@pytest.mark.req("LIM-2", "LIM-6", "LIM-7")
async def test_the_longest_unused_of_the_users_sessions_make_room() -> None:
    """As many go as are needed: neither followed sessions, nor the growing one, nor other users'."""
    usage = LocalUsage(10, 10, max_user_bytes=50_000)
    old, there, used, new = (key_of(name) for name in ("old", "there", "used", "new"))
    sessions = [holding(old, 10_000), holding(there, 10_000, subscription("s")), holding(used, 1000)]
    followed(usage, holding(key_of("bobs"), 10_000, owner="bob"), *sessions, holding(new, 10_000))
    usage.update(old, sessions[0], replace(sessions[0], order=1))  # used again
    grown = holding(new, 18_000)
    assert await usage.sessions_to_forget(new, holding(new, 10_000), grown) == [used]
    assert await usage.sessions_to_forget(new, holding(new, 10_000), holding(new, 22_000)) == [used, old]
    assert await usage.is_within_limits(new, grown, grown)


@pytest.mark.req("LIM-2", "LIM-6")
async def test_nobody_goes_where_that_would_not_help() -> None:
    """413 in words, and the refusal is counted. A smaller session still finds room."""
    metrics = Metrics()
    usage = LocalUsage(10, 10, 50_000, metrics=metrics)
    followed(usage, holding(ONE, 20_000, subscription("s")), holding(TWO, 10_000))
    with pytest.raises(
        TooLarge, match=r"all sessions of this user may have at most 50000 bytes, and would have [0-9]+, of which"
    ):
        await usage.sessions_to_forget(key_of("new"), None, holding(key_of("new"), 40_000))
    assert (counted(metrics.refused_by_user_bytes), counted(metrics.refused_by_hub_bytes)) == (1, 0)
    assert await usage.sessions_to_forget(key_of("new"), None, holding(key_of("new"), 20_000)) == [TWO]


@pytest.mark.req("LIM-2", "LIM-9")
async def test_whoever_has_too_much_may_have_less() -> None:
    """The store has more bytes than the limits now allow."""
    usage = LocalUsage(10, 10, max_user_bytes=10_000, max_bytes=10_000)
    large = holding(ONE, 50_000, subscription("s"))
    followed(usage, large)
    for after in (None, large, holding(ONE, 49_000, subscription("s")), replace(large, order=9)):
        assert await usage.sessions_to_forget(ONE, large, after) == []
    with pytest.raises(TooLarge):
        await usage.sessions_to_forget(ONE, large, holding(ONE, 50_001, subscription("s")))


@pytest.mark.req("LIM-2")
async def test_room_is_known_where_nobody_has_to_go() -> None:
    """A change within the limits needs no question. Every other change does, and each begin and end of a session."""
    usage = LocalUsage(10, 10, max_user_bytes=50_000, max_bytes=45_000)
    before = holding(ONE, 20_000, subscription("s"))
    followed(usage, before)
    sizes = {0: True, 20_000: True, 30_000: True, 42_000: False, 49_000: False}  # 42 kB: no room in the hub
    for size, has_room in sizes.items():
        assert usage.has_room(ONE, before, holding(ONE, size, subscription("s"))) is has_room
    for first, second in ((None, before), (before, None), (None, None)):
        assert not usage.has_room(ONE, first, second)
    followed(usage, large := holding(TWO, 60_000, subscription("t")))
    assert usage.has_room(TWO, large, replace(large, order=9)), "what does not grow has room"


@pytest.mark.req("LIM-2", "LIM-7")
async def test_of_all_users_the_longest_unused_make_room_for_the_hub() -> None:
    """Otherwise 503, with a time to wait."""
    metrics = Metrics()
    usage = LocalUsage(10, 10, max_bytes=40_000, metrics=metrics)
    followed(usage, holding(ONE, 10_000, owner="bob"), holding(TWO, 10_000, subscription("s")))
    new = key_of("new")
    with pytest.raises(Unavailable):  # bob was there a moment ago, and has little
        await usage.sessions_to_forget(new, None, holding(new, 15_000))
    assert await usage.sessions_to_forget(new, None, holding(new, 15_000), now=ABANDONED + 1) == [ONE]
    with pytest.raises(Unavailable) as refusal:
        await usage.sessions_to_forget(new, None, holding(new, 35_000))
    assert refusal.value.retry_after
    assert (counted(metrics.refused_by_user_bytes), counted(metrics.refused_by_hub_bytes)) == (0, 2)


@pytest.mark.req("LIM-2", "LIM-7")
async def test_for_the_hub_those_with_much_go_first() -> None:
    """Sessions of the same user go, and those of users with more than 1 MiB."""
    usage = LocalUsage(10, 10, max_bytes=4 << 20)
    small, large, own, new = (key_of(name) for name in ("small", "large", "own", "new"))
    followed(usage, holding(small, 1000, owner="bob"), holding(large, 3 << 20, owner="eve"), holding(own, 400_000))
    assert await usage.sessions_to_forget(new, None, holding(new, 700_000)) == [large]
    usage.update(own, holding(own, 400_000), holding(own, 400_000, subscription("s")))
    usage.update(large, holding(large, 3 << 20, owner="eve"), holding(large, 3 << 20, subscription("s"), owner="eve"))
    with pytest.raises(Unavailable):
        await usage.sessions_to_forget(new, None, holding(new, 700_000))


@pytest.mark.req("LIM-2", "LIM-12")
async def test_users_with_much_leave_room_for_those_with_little() -> None:
    """The last eighth of the hub's bytes is for users with at most 1 MiB."""
    usage = LocalUsage(10, 10, 64 << 20, max_bytes=16 << 20)
    followed(usage, holding(ONE, 13 << 20, subscription("s")))
    new, bobs = key_of("new"), key_of("bobs")
    with pytest.raises(Unavailable):
        await usage.sessions_to_forget(new, None, holding(new, 1 << 20))
    assert await usage.sessions_to_forget(bobs, None, holding(bobs, 1 << 19, owner="bob")) == []


@pytest.mark.req("LIM-2", "LIM-10")
async def test_a_close_may_take_some_more() -> None:
    """A close makes room in the end, but has a limit too."""
    usage = LocalUsage(10, 10, max_user_bytes=80_000)
    before = holding(ONE, 70_000, subscription("s"))
    followed(usage, before)
    more, too_much = (holding(ONE, size, subscription("s")) for size in (80_000, 90_000))
    assert not await usage.is_within_limits(ONE, before, more)
    assert await usage.is_within_limits(ONE, before, more, closes=True)
    assert await usage.sessions_to_forget(ONE, before, more, closes=True) == []
    with pytest.raises(TooLarge):
        await usage.sessions_to_forget(ONE, before, too_much, closes=True)


@pytest.mark.req("LIM-2", "AUT-11")
async def test_each_session_that_no_user_owns_has_a_users_bytes() -> None:
    """Tokens that name the topic share the session's bytes, and no others."""
    usage = LocalUsage(10, 10, max_user_bytes=50_000)
    followed(usage, holding(ONE, 30_000, owner=NO_OWNER))
    assert await usage.sessions_to_forget(TWO, None, holding(TWO, 30_000, owner=NO_OWNER)) == []
    with pytest.raises(TooLarge, match="a session that no user owns"):
        await usage.sessions_to_forget(ONE, holding(ONE, 30_000, owner=NO_OWNER), holding(ONE, 60_000, owner=NO_OWNER))


@pytest.mark.req("SES-2")
async def test_the_session_that_was_made_last_is_found() -> None:
    """Among living sessions the time of their beginning decides."""
    usage = LocalUsage(10, 10)
    one, two = (replace(session(key), created_at=made) for key, made in ((ONE, 2.0), (TWO, 1.0)))
    followed(usage, session(key_of("other")))
    assert await usage.last_begun_topic("realm", "ann") is None
    followed(usage, one, two)
    assert await usage.last_begun_topic("realm", "ann") == "one"
    usage.update(ONE, one, None)
    assert await usage.last_begun_topic("realm", "ann") == "two"
    assert await usage.last_begun_topic("realm", "bob") is None
