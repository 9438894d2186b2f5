"""An issuer that does not answer harms no other token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from fhircast_hub.auth import introspection
from fhircast_hub.auth.introspection import Introspector
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.verifier import Verifier
from tests.auth.conftest import FakeClock
from tests.auth.introspection_server import INTROSPECT, IntrospectionServer
from tests.auth.introspection_world import AUDIENCE, OPAQUE, World, unavailable
from tests.auth.issuer_server import JWKS, Answer
from tests.auth.jwt_world import refused
from tests.ports import free_port
from tests.running import until
from tests.tokens import Idp


@pytest.fixture
async def server() -> AsyncIterator[IntrospectionServer]:
    async with IntrospectionServer() as server:
        yield server


@pytest.fixture
async def world(server: IntrospectionServer, client: httpx.AsyncClient, clock: FakeClock) -> AsyncIterator[World]:
    world = World(server, client, clock)
    yield world
    await world.verifier.aclose()


@pytest.mark.req("AUT-14", "AUT-16")
@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, b'{"active": true}'),
        Answer(401, b'{"error": "invalid_client"}'),
        Answer(404),
        Answer(204),
        Answer(302, b"", ("Location: /elsewhere",)),
        Answer(307, b"", ("Location: /introspect",)),
        Answer(200, b""),
        Answer(200, b"<html>"),
        Answer(200, b"[]"),
        Answer(200, b"true"),
        Answer(200, b'{"active": true'),
        Answer(200, b"\xff\xfe"),
        Answer(200, b"[" * 100_000),
        Answer(200, b'{"active": true, "x": "%s"}' % (b"x" * (256 * 1024))),
        Answer(200, b"no gzip", ("Content-Encoding: gzip",)),
    ],
)
async def test_what_is_no_answer_is_the_hubs_trouble(world: World, answer: Answer) -> None:
    """503 with the seconds to wait; asked again at once when it comes again, and good when the issuer is."""
    world.server.instead = answer
    token = world.knows()
    assert 0 < ((await unavailable(world.verifier)).retry_after or 0) <= 30
    assert world.questions == 1
    assert set(world.server.asked) == {INTROSPECT}
    world.server.instead = None
    assert (await world.verifier.verify(token)).user == "user-1"


@pytest.mark.req("AUT-14", "AUT-16")
async def test_an_issuer_that_is_away_leaves_signed_tokens_working(
    server: IntrospectionServer, client: httpx.AsyncClient, clock: FakeClock
) -> None:
    """Nobody listens where opaque tokens are asked about: 503 for these, and a JWT is good."""
    away = f"http://127.0.0.1:{free_port()}/introspect"
    idp = Idp(server.url, AUDIENCE)
    server.publish(JWKS, idp.jwks())
    issuer = Issuer(server.url, AUDIENCE, jwks_uri=server.url + JWKS, introspection_endpoint=away)
    verifier = Verifier([issuer], client, clock)
    assert (await unavailable(verifier)).retry_after
    assert (await verifier.verify(idp.token(now=clock.now))).user == "user-1"
    await verifier.aclose()


@pytest.mark.req("AUT-14", "AUT-16")
async def test_an_issuer_that_is_silent_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits longer than ANSWER_SECONDS, not even behind more questions than are asked at once."""
    assert introspection.ANSWER_SECONDS <= 5
    monkeypatch.setattr(introspection, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(introspection, "AT_ONCE", 2)
    world.verifier = Verifier([world.issuer()], world.client, world.clock)
    world.server.open.clear()
    async with asyncio.timeout(5):  # half of what it would take them one pair after the other
        await asyncio.gather(*(unavailable(world.verifier, f"opaque-{n}") for n in range(40)))
    world.server.open.set()
    assert (await world.verifier.verify(world.knows())).user == "user-1"


@pytest.mark.req("AUT-14", "AUT-16")
async def test_only_so_many_questions_are_asked_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up tokens are free; the issuer has other clients, and each is answered in the end."""
    monkeypatch.setattr(introspection, "AT_ONCE", 3)
    world.verifier = Verifier([world.issuer()], world.client, world.clock)
    world.server.open.clear()
    asking = [asyncio.create_task(refused(world.verifier, f"opaque-{n}")) for n in range(12)]
    for _ in range(3):
        await asyncio.wait_for(world.server.arrived.acquire(), 2)
    await asyncio.sleep(0.02)
    assert world.questions == 3
    world.server.open.set()
    assert len(await asyncio.gather(*asking)) == world.questions == 12


@pytest.mark.req("AUT-14", "AUT-16")
async def test_a_flood_of_made_up_tokens_locks_nobody_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was good before is asked about beside it, and is forgotten by none of it; so a revoked token cannot hide behind it."""
    monkeypatch.setattr(introspection, "AT_ONCE", 2)
    monkeypatch.setattr(introspection, "MAX_REMEMBERED", 3)
    monkeypatch.setattr(introspection, "ANSWER_SECONDS", 2.5)
    asked = Introspector(world.issuer(), world.client, world.clock)
    assert (await asked.verify(world.knows())).user == "user-1"
    for n in range(4):
        await refused(asked, f"made-up-{n}")
    world.server.silent = b"flood"
    flood = [asyncio.create_task(unavailable(asked, f"flood-{n}")) for n in range(6)]
    await until(lambda: world.questions == 1 + 4 + 2)
    async with asyncio.timeout(2):
        world.clock.now += introspection.CACHE_SECONDS
        assert (await asked.verify(OPAQUE)).user == "user-1"
        world.clock.now += introspection.CACHE_SECONDS
        del world.server.tokens[OPAQUE]
        await refused(asked, OPAQUE)
    for each in flood:
        each.cancel()
    await asyncio.gather(*flood, *asked._questions.values(), return_exceptions=True)
