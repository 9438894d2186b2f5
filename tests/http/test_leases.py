"""A lease is granted up to the maximum, and ends with its token."""

from __future__ import annotations

import pytest
from websockets.asyncio.client import connect

from tests.running import Follower, event, running_hub

ENDPOINT = "hub__channel.endpoint"


async def lease(endpoint: str) -> int:
    """The seconds that the confirmation grants."""
    async with connect(endpoint, proxy=None) as connection:
        seconds: int = (await Follower(connection).next())["hub.lease_seconds"]
        return seconds


@pytest.mark.req("LEA-1")
@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ({}, 100),
        ({"hub__lease_seconds": "150"}, 150),
        ({"hub__lease": "150"}, 150),
        ({"hub__lease_seconds": "201"}, 200),
        ({"hub__lease": "9" * 40}, 200),
    ],
)
async def test_the_lease_is_granted_up_to_the_maximum(asked: dict[str, str], granted: int) -> None:
    """What was asked, under either name, as far as the maximum goes; else the default. It runs from the 202."""
    async with running_hub(default_lease=100, max_lease=200) as hub:
        endpoint = await hub.subscribe(**asked)
        hub.clock.now += 10
        assert await lease(endpoint) == granted - 10


@pytest.mark.req("LEA-2", "LEA-4")
async def test_no_lease_outlives_its_token() -> None:
    """It ends with the token's exp, with a denial and close 1000."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe(token=hub.token(exp=int(hub.clock.now) + 90), hub__lease_seconds="5000")
        assert await lease(endpoint) == 90
        async with hub.follow(endpoint) as follower:
            hub.clock.now += 91
            await hub.hub.service.tick()
            assert (await follower.next())["hub.mode"] == "denied"
            assert await follower.closed() == 1000


@pytest.mark.req("LEA-2")
async def test_a_token_past_its_end_may_act_but_not_subscribe() -> None:
    """Within the clock skew after exp: an event is taken, a subscription or renewal gets 401 invalid_token."""
    async with running_hub() as hub:
        token = hub.token(exp=int(hub.clock.now) + 10)
        endpoint = await hub.subscribe(token=hub.token())
        hub.clock.now += 11
        assert (await hub.publish(event("Patient-open"), token)).status_code == 202
        for more in ({}, {ENDPOINT: endpoint}):
            answer = await hub.form(token, hub__events="Patient-open", **more)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.req("LEA-2")
async def test_a_token_that_is_over_is_the_first_thing_wrong() -> None:
    """Token 401 comes before endpoint 404 and scope 403: a client then fetches a new token instead of giving up."""
    async with running_hub() as hub:
        over = {"exp": int(hub.clock.now) - 5}
        unknown = {ENDPOINT: "wss://made-up/x"}
        assert (await hub.form(hub.token(**over), hub__events="Patient-open", **unknown)).status_code == 401
        for scope in ("fhircast/Home-open.read", ""):
            blind = hub.token(scope=scope, **over)
            assert (await hub.form(blind, hub__events="Patient-open")).status_code == 401


@pytest.mark.req("LEA-3")
async def test_a_fresh_token_prolongs_the_lease_on_the_same_socket() -> None:
    """Renewed with a token that is good for longer, a socket lives beyond the end of the first."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe(token=hub.token(exp=int(hub.clock.now) + 100))
        async with hub.follow(endpoint) as follower:
            hub.clock.now += 50
            fresh = hub.token(exp=int(hub.clock.now) + 100)
            await hub.form(fresh, hub__events="Patient-open", **{ENDPOINT: endpoint})
            assert (await follower.next())["hub.lease_seconds"] == 100
            hub.clock.now += 60
            await hub.hub.service.tick()
            await hub.publish(event("Patient-open"))
            assert await follower.names(1) == ["Patient-open"]
