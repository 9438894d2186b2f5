"""The verifier of all issuers, and a change of the issuers while the hub runs (OPS-20)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.verifier import Verifier
from fhircast_hub.core.errors import Unauthenticated, Unavailable
from tests.auth.conftest import FakeClock
from tests.auth.introspection_server import IntrospectionServer
from tests.auth.introspection_world import World
from tests.auth.issuer_server import JWKS, IssuerServer
from tests.running import until
from tests.tokens import Idp


@pytest.fixture
async def other() -> AsyncIterator[IssuerServer]:
    """A second authorization server."""
    async with IssuerServer() as server:
        yield server


@pytest.mark.req("OPS-20")
async def test_the_issuers_change_while_the_hub_runs(
    server: IssuerServer, other: IssuerServer, client: httpx.AsyncClient, clock: FakeClock, idp: Idp, issuer: Issuer
) -> None:
    """An issuer that stays keeps its keys and verified tokens. A removed one is trusted no more, a new one is at once."""
    second = Idp(other.url)
    other.publish_keys(second.jwks())
    verifier = Verifier([issuer], client, clock)
    token, new = idp.token(now=clock.now), second.token(now=clock.now)
    assert (await verifier.verify(token)).issuer == idp.issuer
    verifier.reload([issuer, Issuer(other.url, second.audience)])
    assert verifier.recall(token) is not None
    await until(lambda: not verifier.without_keys())
    assert (await verifier.verify(new)).issuer == other.url
    assert (await verifier.verify(token)).issuer == idp.issuer
    assert (server.asked[JWKS], other.asked[JWKS]) == (1, 1)
    verifier.reload([Issuer(other.url, second.audience)])
    assert verifier.recall(token) is None
    with pytest.raises(Unauthenticated, match="iss must be an issuer that this hub knows"):
        await verifier.verify(token)
    assert [each.issuer for each in verifier.health()] == [other.url]
    await verifier.aclose()


@pytest.mark.req("OPS-20", "AUT-9")
async def test_a_verified_token_is_read_anew_where_its_issuer_changes(
    client: httpx.AsyncClient, clock: FakeClock, idp: Idp, issuer: Issuer
) -> None:
    """Else the old realm or claim of the user would go on until the token expires."""
    verifier = Verifier([issuer], client, clock)
    token = idp.token(now=clock.now, hpr="9144889")
    assert (await verifier.verify(token)).user == "user-1"
    verifier.reload([Issuer(idp.issuer, idp.audience, user_claim="hpr", realm="hospital")])
    principal = await verifier.verify(token)
    assert (principal.user, principal.realm) == ("9144889", "hospital")
    await verifier.aclose()


@pytest.mark.req("OPS-20")
async def test_issuers_with_a_mistake_change_nothing(
    client: httpx.AsyncClient, clock: FakeClock, idp: Idp, issuer: Issuer
) -> None:
    verifier = Verifier([issuer], client, clock)
    token = idp.token(now=clock.now)
    await verifier.verify(token)
    for wrong in ([issuer, issuer], [Issuer("http://idp.example", "hub")]):
        with pytest.raises(ValueError, match="issuer"):
            verifier.reload(wrong)
    assert verifier.recall(token) is not None
    await verifier.aclose()


@pytest.mark.req("OPS-20", "AUT-16")
async def test_keys_remain_where_only_the_reading_of_tokens_changes(
    server: IssuerServer, client: httpx.AsyncClient, clock: FakeClock, idp: Idp, issuer: Issuer
) -> None:
    """Also while the issuer cannot be reached."""
    verifier = Verifier([issuer], client, clock)
    token = idp.token(now=clock.now)
    await verifier.verify(token)
    await server.stop()
    verifier.reload([Issuer(idp.issuer, idp.audience, system_clients=frozenset({"night"}))])
    assert (await verifier.verify(token)).user == "user-1"
    assert verifier.without_keys() == []
    await verifier.aclose()


@pytest.mark.req("OPS-20", "AUT-14")
async def test_answers_about_opaque_tokens_remain_where_only_the_secret_changes(
    client: httpx.AsyncClient, clock: FakeClock
) -> None:
    """A new realm or claim asks again. Without introspection such a token is refused."""
    async with IntrospectionServer() as server:
        world = World(server, client, clock)
        token = world.knows(hpr="9144889")
        await world.verifier.verify(token)
        world.verifier.reload([world.issuer(introspection_client_secret="new")])
        assert (await world.verifier.verify(token), world.questions)[1] == 1
        world.verifier.reload([world.issuer(introspection_client_secret="new", user_claim="hpr")])
        assert (await world.verifier.verify(token)).user == "9144889"
        assert server.asked_by[-1].endswith(":new")
        world.verifier.reload([Issuer(server.url, "hub", jwks_uri=server.url + JWKS)])
        with pytest.raises(Unauthenticated):
            await world.verifier.verify(token)
        await world.verifier.aclose()


@pytest.mark.req("OPS-20")
@pytest.mark.parametrize("opaque", [False, True])
async def test_a_change_during_a_verification_counts(
    client: httpx.AsyncClient, clock: FakeClock, *, opaque: bool
) -> None:
    """The issuer goes while the hub waits for the issuer's answer."""
    async with IntrospectionServer() as server:
        world = World(server, client, clock)
        token = world.knows() if opaque else world.idp.token(now=clock.now)
        server.open.clear()
        verifying = asyncio.create_task(world.verifier.verify(token))
        await server.arrived.acquire()
        world.verifier.reload([Issuer("https://idp.example", "hub", introspection_endpoint=f"{server.url}/other")])
        server.open.set()
        with pytest.raises((Unauthenticated, Unavailable)):
            await verifying
        assert world.verifier.recall(token) is None
        await world.verifier.aclose()


@pytest.mark.req("AUT-1")
async def test_a_slash_at_the_end_of_the_issuer_is_named(
    client: httpx.AsyncClient, clock: FakeClock, idp: Idp, issuer: Issuer
) -> None:
    """The most frequent mistake in `iss`."""
    verifier = Verifier([issuer], client, clock)
    slashed = idp.token(now=clock.now, iss=f"{idp.issuer}/")
    with pytest.raises(Unauthenticated, match="differs from such an issuer by the slash at its end"):
        await verifier.verify(slashed)
    with pytest.raises(Unauthenticated, match=r"that this hub knows$"):
        await verifier.verify(idp.token(now=clock.now, iss="https://idp.example"))
