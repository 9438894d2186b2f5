"""A topic and a user have a limited number of subscriptions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.subscribing_world import lives
from tests.running import RunningHub, event, running_hub, until

ENDPOINT = "hub__channel.endpoint"


async def left(hub: RunningHub) -> None:
    """Wait until the hub has noted that no socket is there."""
    await until(lambda: not len(hub.hub.registry) and not hub.hub.service._tasks)


@pytest.mark.req("SUB-22")
async def test_a_full_topic_refuses_and_then_lets_the_longest_absent_go() -> None:
    """With all sockets there: 429 with Retry-After, and nobody goes. Else who has none longest gives way."""
    async with running_hub(max_subscriptions_per_topic=2) as hub:
        first, second = await hub.subscribe(), await hub.subscribe()
        async with hub.follow(first), hub.follow(second) as kept:
            answer = await hub.form(hub__events="Patient-open")
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) > 0
            await hub.publish(event("Patient-open"))
            assert await kept.names(1) == ["Patient-open"]
        await left(hub)
        hub.clock.now += 5
        async with hub.follow(first):
            pass  # it came back, so the second is absent longest
        await left(hub)
        third = await hub.subscribe()
        assert not await lives(second)
        assert await lives(first)
        assert await lives(third)


@pytest.mark.req("SUB-22")
async def test_a_user_over_the_limit_loses_the_longest_absent_of_all_sessions() -> None:
    """Across topics: sockets stay, of the others the one goes that is absent longest; with none absent: 429."""
    async with running_hub(max_subscriptions_per_user=3) as hub:
        first = await hub.subscribe(hub__topic="first")
        hub.clock.now += 1
        second = await hub.subscribe(hub__topic="second")
        hub.clock.now += 1
        third = await hub.subscribe(hub__topic="third")
        async with hub.follow(first):
            hub.clock.now += 1
            fourth = await hub.subscribe(hub__topic="fourth")
            assert not await lives(second)
            async with hub.follow(third), hub.follow(fourth):
                answer = await hub.form(hub__events="Patient-open", hub__topic="fifth")
                assert answer.status_code == 429
                assert int(answer.headers["Retry-After"]) > 0
                assert (await hub.context(hub.token("user-2"), "fifth")).status_code == 200  # and created nothing
                # The limit is each user's own.
                assert await lives(await hub.subscribe(token=hub.token("user-2"), hub__topic="sixth"))


@pytest.mark.req("SUB-22")
async def test_a_request_that_will_be_refused_costs_nobody_a_place() -> None:
    """At the user's limit: 403 for the scope, for the owner, for the claim, 429 for the topic, 401 for the lease, 404, 400."""
    limits: dict[str, Any] = {
        "max_subscriptions_per_user": 2,
        "max_subscriptions_per_topic": 1,
        "max_topics_per_user": 2,
    }
    async with running_hub(**limits) as hub:
        foreign = await hub.subscribe(token=hub.token("user-2"), hub__topic="foreign")
        async with hub.follow(foreign):
            mine = await hub.subscribe(hub__topic="mine"), await hub.subscribe(hub__topic="mine too")
            stale = hub.token(exp=int(hub.clock.now) - 10)
            limited = hub.token(**{"hub.topic": "mine"})
            refusals = [
                (403, await hub.form(hub.token(scope=""), hub__events="Patient-open", hub__topic="mine")),
                (403, await hub.form(hub__events="Patient-open", hub__topic="foreign")),
                (403, await hub.form(limited, hub__events="Patient-open", hub__topic="mine too")),
                (429, await hub.form(hub__events="Patient-open", hub__topic="a third one")),
                (401, await hub.form(stale, hub__events="Patient-open", hub__topic="mine")),
                (404, await hub.form(hub__events="Patient-open", **{ENDPOINT: "wss://made-up/x"})),
                (400, await hub.form(hub__events="Patient-open", hub__lease_seconds="0")),
            ]
            assert [answer.status_code for _, answer in refusals] == [status for status, _ in refusals]
        assert [await lives(endpoint) for endpoint in mine] == [True, True]


@pytest.mark.req("SUB-22", "SUB-23")
async def test_who_replaces_a_subscription_of_their_own_is_not_over_the_limit() -> None:
    """At the user's limit an app that comes anew takes its own old place, not that of another app."""
    async with running_hub(max_subscriptions_per_user=2) as hub:
        other = await hub.subscribe(hub__topic="elsewhere", subscriber__name="Other app")
        hub.clock.now += 1
        old = await hub.subscribe(subscriber__name="OHIF")
        new = await hub.subscribe(subscriber__name="OHIF")
        assert not await lives(old)
        assert await lives(new)
        assert await lives(other)


@pytest.mark.req("SUB-23", "SUB-39")
async def test_a_name_that_comes_anew_replaces_those_without_a_socket() -> None:
    """Same user, session and non-empty name: the absent goes, the connected lives beside; no name replaces nothing."""
    async with running_hub() as hub:
        there = await hub.subscribe(subscriber__name="OHIF")
        async with hub.follow(there) as follower:
            absent = await hub.subscribe(subscriber__name="OHIF")
            elsewhere = await hub.subscribe(subscriber__name="OHIF", hub__topic="elsewhere")
            nameless = await hub.subscribe(), await hub.subscribe(subscriber__name="")
            new = await hub.subscribe(subscriber__name="OHIF")
            assert not await lives(absent)
            assert [await lives(endpoint) for endpoint in (elsewhere, *nameless, new)] == [True] * 4
            await hub.publish(event("Patient-open"))
            assert await follower.names(1) == ["Patient-open"]
