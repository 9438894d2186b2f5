"""A renewal replaces the events, the lease and the name of a live endpoint."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.http.subscribing_world import lives
from tests.running import TOPIC, event, running_hub

ENDPOINT = "hub__channel.endpoint"


@pytest.mark.req("SUB-20")
async def test_a_renewal_replaces_events_lease_and_name() -> None:
    """Same endpoint, same socket, a new confirmation; then what is new is received, and what was dropped is not."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe("Patient-open", hub__lease_seconds="100", subscriber__name="before")
        async with hub.follow(endpoint) as follower:
            renewal = {ENDPOINT: endpoint, "subscriber__name": "after", "hub__lease_seconds": "500"}
            answer = await hub.form(hub__events="Patient-close,Encounter-open", **renewal)
            assert (answer.status_code, answer.json()) == (202, {"hub.channel.endpoint": endpoint})
            confirmation = await follower.next()
            assert confirmation["hub.events"] == "Patient-close,Encounter-open"
            assert confirmation["hub.lease_seconds"] == 500
            await hub.publish(event("Patient-open"))
            await hub.publish(event("Patient-close"))
            assert await follower.names(1) == ["Patient-close"]
            gone = await hub.form(hub__mode="unsubscribe", subscriber__name="after")
            assert (gone.status_code, gone.json()) == (202, {}), "the caller did not say the endpoint"
            assert (await follower.next())["hub.mode"] == "denied"


@pytest.mark.req("SUB-20", "SUB-32")
async def test_a_renewal_that_may_read_nothing_leaves_everything() -> None:
    """403 and the old state: no confirmation, no denial, the old event still comes."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe("Patient-open")
        async with hub.follow(endpoint) as follower:
            blind = hub.token(scope="fhircast/Encounter-open.read")
            assert (await hub.form(blind, hub__events="Patient-close", **{ENDPOINT: endpoint})).status_code == 403
            assert await follower.silent()
            await hub.publish(event("Patient-open"))
            assert await follower.names(1) == ["Patient-open"]


@pytest.mark.req("SUB-20", "SUB-31")
async def test_a_renewal_loses_and_doubles_nothing_in_flight() -> None:
    """Renewed again and again in a stream of events, a socket receives each of them once, in order."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe("UserLogout")
        async with hub.follow(endpoint) as follower:

            async def renew() -> None:
                for number in range(20):
                    events = "UserLogout,UserHibernate" if number % 2 else "UserLogout"
                    assert (await hub.form(hub__events=events, **{ENDPOINT: endpoint})).status_code == 202

            async def publish() -> None:
                for number in range(60):
                    await hub.publish(event("UserLogout", event_id=str(number)))

            await asyncio.gather(renew(), publish())
            said = [await follower.next() for _ in range(80)]
            assert [each["id"] for each in said if "id" in each] == [str(number) for number in range(60)]
            assert await follower.silent()


@pytest.mark.req("SUB-21")
async def test_only_a_live_endpoint_of_this_session_and_user_is_renewed() -> None:
    """404 for a made-up one, another session's, another user's, an ended one, one whose lease is over."""
    async with running_hub() as hub:
        mine = await hub.subscribe()
        other = hub.token("user-2")
        theirs = await hub.subscribe(token=other, hub__topic="theirs")
        ended = await hub.subscribe()
        await hub.form(hub__mode="unsubscribe", **{ENDPOINT: ended})
        for topic, endpoint in [
            (TOPIC, "wss://hub.example/ws/made-up"),
            (TOPIC, "not even a URL"),
            ("elsewhere", mine),
            (TOPIC, theirs),
            (TOPIC, ended),
        ]:
            answer = await hub.form(hub__events="Patient-open", hub__topic=topic, **{ENDPOINT: endpoint})
            assert answer.status_code == 404, endpoint
        assert (await hub.form(other, hub__events="Patient-open", **{ENDPOINT: mine})).status_code == 404
        assert (await hub.context(other, "elsewhere")).status_code == 200  # nothing was created
        hub.clock.now += 61
        await hub.hub.service.tick()
        assert (await hub.form(hub__events="Patient-open", **{ENDPOINT: mine})).status_code == 404


@pytest.mark.req("SUB-19", "SUB-30", "SUB-20", "UNS-6")
@pytest.mark.parametrize("claims", [{"client_id": "a-widget"}, {"client_id": None, "azp": "a-widget"}])
async def test_an_endpoint_is_renewed_by_the_application_that_made_it(claims: dict[str, Any]) -> None:
    """Another one of the same user finds none to renew; who knows the endpoint may end it, and the answer names it again."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        renewal = await hub.form(hub.token(**claims), hub__events="Patient-close", **{ENDPOINT: endpoint})
        assert renewal.status_code == 404
        assert await lives(endpoint)
        ended = await hub.form(hub.token(**claims), hub__mode="unsubscribe", **{ENDPOINT: endpoint})
        assert ended.json() == {"hub.channel.endpoint": endpoint}
        assert not await lives(endpoint)
