"""The hub remembers answers about opaque tokens for a limited time and in limited number."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from structlog.testing import capture_logs

from fhircast_hub.auth import introspection
from fhircast_hub.auth.introspection import Introspector
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Unavailable
from tests.auth.conftest import FakeClock
from tests.auth.introspection_server import IntrospectionServer
from tests.auth.introspection_world import OPAQUE, World
from tests.auth.issuer_server import Answer
from tests.auth.jwt_world import refused


@pytest.fixture
async def server() -> AsyncIterator[IntrospectionServer]:
    async with IntrospectionServer() as server:
        yield server


@pytest.fixture
async def world(server: IntrospectionServer, client: httpx.AsyncClient, clock: FakeClock) -> AsyncIterator[World]:
    world = World(server, client, clock)
    yield world
    await world.verifier.aclose()


@pytest.mark.req("AUT-14")
@pytest.mark.parametrize("good", [True, False])
async def test_an_answer_counts_for_a_while(world: World, good: bool) -> None:
    """Good or not it is asked for once, and again before a minute is over, when it may be another."""
    token = world.knows(active=good)

    async def is_good() -> bool:
        try:
            await world.verifier.verify(token)
        except Exception:
            return False
        return True

    assert [await is_good() for _ in range(3)] == [good] * 3
    world.clock.now += introspection.CACHE_SECONDS - 1
    assert await is_good() is good
    assert world.questions == 1
    world.knows(active=not good)
    world.clock.now += 1
    assert introspection.CACHE_SECONDS <= 60
    assert await is_good() is not good
    assert world.questions == 2


@pytest.mark.req("AUT-14")
async def test_an_answer_counts_from_when_it_was_asked_for(world: World) -> None:
    """An issuer that takes long may have looked at the beginning."""
    world.knows()
    world.server.open.clear()
    asking = asyncio.create_task(world.verifier.verify(OPAQUE))
    await world.server.arrived.acquire()
    world.clock.now += introspection.CACHE_SECONDS
    world.server.open.set()
    await asking
    await world.verifier.verify(OPAQUE)
    assert world.questions == 2


@pytest.mark.req("AUT-14", "AUT-1")
async def test_a_remembered_token_expires_in_its_time(world: World) -> None:
    """Half a minute past its exp it is refused, though the answer still counts."""
    token = world.knows(exp=int(world.clock.now) - 20)
    await world.verifier.verify(token)
    world.clock.now += 10
    assert await refused(world.verifier, token) == "exp: the token has expired"
    assert world.questions == 1


@pytest.mark.req("AUT-14")
async def test_who_ask_at_once_ask_once(world: World) -> None:
    """Requests with one token share one introspection. A request that is cancelled leaves the others their answer."""
    token = world.knows()
    world.server.open.clear()
    asking = [asyncio.create_task(world.verifier.verify(token)) for _ in range(20)]
    await world.server.arrived.acquire()
    asking[0].cancel()
    world.server.open.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(isinstance(each, Principal) for each in found[1:])
    assert world.questions == 1


@pytest.mark.req("AUT-14")
async def test_two_tokens_are_two_questions(world: World) -> None:
    """What one is told of is not the other's, however alike."""
    one, two = world.knows("opaque-a", sub="ann"), world.knows("opaque-A", sub="bob")
    found = await asyncio.gather(world.verifier.verify(one), world.verifier.verify(two))
    assert [each.user for each in found] == ["ann", "bob"]
    assert [(await world.verifier.verify(each)).user for each in (one, two)] == ["ann", "bob"]


@pytest.mark.req("AUT-14")
async def test_memory_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many answers are held, the newest; no question is held once it is answered."""
    monkeypatch.setattr(introspection, "MAX_REMEMBERED", 4)
    asked = Introspector(world.issuer(), world.client, world.clock)
    for n in range(10):
        await refused(asked, f"opaque-{n}")
    assert len(asked._invalid) == 4
    await refused(asked, "opaque-9")
    assert world.questions == 10
    await refused(asked, "opaque-0")
    assert world.questions == 11
    await asyncio.sleep(0)
    assert not asked._questions


@pytest.mark.req("AUT-14", "SEC-3", "AUT-34")
async def test_the_token_is_held_nowhere(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in what is remembered, nor in any log at any level, nor in what is raised."""
    caplog.set_level(logging.DEBUG)
    asked = Introspector(world.issuer(), world.client, world.clock)
    with capture_logs() as logs:
        held = repr(await asked.verify(world.knows())) + await refused(asked, "sesame-unknown")
        world.server.instead = Answer(500, b"")
        with pytest.raises(Unavailable) as error:
            await asked.verify("sesame-unanswered")
    held += repr(asked._valid) + repr(asked._invalid) + repr(logs) + caplog.text + str(error.value)
    assert "sesame" not in held
    assert "p:ss" not in held
