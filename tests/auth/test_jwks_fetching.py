"""The hub fetches keys within a budget, hourly, and through failures of the issuer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from fhircast_hub.auth import jwks
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwks import Key, KeySet
from fhircast_hub.core.errors import Unauthenticated, Unavailable
from tests.auth.conftest import FakeClock
from tests.auth.issuer_server import JWKS, IssuerServer
from tests.auth.jwks_world import find, other, rotate
from tests.tokens import Idp


@pytest.fixture
async def keys(issuer: Issuer, client: httpx.AsyncClient, clock: FakeClock) -> AsyncIterator[KeySet]:
    keys = KeySet(issuer, client, clock)
    yield keys
    await keys.aclose()


async def unknown(keys: KeySet, kid: str | None = "unknown") -> int:
    """Ask for a key that the issuer does not have: 0 where that is said (401), the seconds to wait where it is not (503)."""
    try:
        await find(keys, kid, signed=lambda key: False)
    except Unavailable as later:
        return later.retry_after or -1
    except Unauthenticated:
        return 0
    raise AssertionError("no key signs this")


async def settled(keys: KeySet) -> None:
    """Let a fetch in the background, if there is one, come to its end."""
    if keys._fetching:
        await asyncio.wait({keys._fetching})


@pytest.mark.req("AUT-19", "AUT-20", "AUT-33")
@pytest.mark.parametrize("kid", ["unknown", None])
async def test_unknown_keys_are_fetched_within_a_budget(
    server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock, kid: str | None
) -> None:
    """An unknown key is asked for three times at once, then once each thirty seconds; meanwhile nobody is told that there is none."""
    await find(keys, "key-1")
    assert server.asked[JWKS] == 1, "the first fetch is no part of the budget"
    for seconds, wait, asked in (
        *((0, 0, 2), (0, 0, 3), (0, 0, 4)),
        *((0, 30, 4), (29.5, 1, 4), (0.5, 0, 5), (0, 30, 5), (12.5, 18, 5)),
        *((300, 0, 6), (0, 0, 7), (0, 0, 8), (0, 30, 8)),
    ):
        clock.now += seconds
        assert await unknown(keys, kid) == wait
        assert server.asked[JWKS] == asked
    assert (await find(keys, "key-1")).kid == "key-1"


@pytest.mark.req("AUT-19", "AUT-33")
async def test_strangers_do_not_keep_a_new_key_away(
    server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock
) -> None:
    """Known keys need no fetch, whatever ids are made up. A new key waits for a fetch, and the next request gets the key."""
    await find(keys, "key-1")
    for number in range(50):
        await unknown(keys, f"made-up-{number}")
    rotate(server, idp.jwk(), other())
    with pytest.raises(Unavailable) as later:
        await find(keys, "key-2")
    assert (await find(keys, "key-1")).kid == (await find(keys, None)).kid == "key-1"
    assert server.asked[JWKS] == 4
    assert later.value.retry_after == 30
    clock.now += 30
    await unknown(keys, "made-up")
    assert (await find(keys, "key-2")).kid == "key-2"
    assert server.asked[JWKS] == 5


@pytest.mark.req("AUT-12", "AUT-19", "AUT-33")
async def test_refresh_is_no_part_of_the_budget(server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock) -> None:
    """With nothing left of the budget the keys are refreshed all the same, and an unknown key waits for that."""
    await find(keys, "key-1")
    clock.now += jwks.REFRESH_SECONDS
    while keys._take_fetch(clock.now):
        pass
    rotate(server, idp.jwk(), other())
    assert (await find(keys, "key-2")).kid == "key-2"
    assert server.asked[JWKS] == 2


@pytest.mark.req("AUT-19")
async def test_rotated_key(server: IssuerServer, keys: KeySet, idp: Idp) -> None:
    """A new key works from its first token on, even right after the first fetch."""
    await find(keys, "key-1")
    rotate(server, idp.jwk(), other())
    assert (await find(keys, "key-2")).kid == "key-2"


@pytest.mark.req("AUT-19")
async def test_clock_set_back(server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock) -> None:
    """A clock that was set back makes nobody wait longer than thirty seconds."""
    await find(keys, "key-1")
    while not await unknown(keys):
        pass
    clock.now -= 86400
    keys._fetched_at = clock.now  # the refresh, which a clock set back brings about, is not what is tried here
    assert await unknown(keys) == 30
    clock.now += 30
    rotate(server, other())
    assert (await find(keys, "key-2")).kid == "key-2"


@pytest.mark.req("AUT-12", "AUT-32")
async def test_hourly_refresh_waits_for_nobody(server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock) -> None:
    """After an hour the keys are fetched anew, while the old ones go on working; then the vanished one is gone."""
    old = await find(keys, "key-1")
    rotate(server, other())
    server.open.clear()
    clock.now += 3600
    assert await find(keys, "key-1") == old
    assert keys.holds(old)
    server.open.set()
    await settled(keys)
    assert not keys.holds(old)
    await find(keys, "key-2")


@pytest.mark.req("AUT-12")
async def test_refresh_keeps_what_did_not_change(server: IssuerServer, keys: KeySet, idp: Idp) -> None:
    """A key fetched again is the same key; under the same id with other numbers it is another."""
    old = await find(keys, "key-1")
    keys._fetch_soon()
    await settled(keys)
    assert keys.holds(old)
    rotate(server, other("key-1"))
    keys._fetch_soon()
    await settled(keys)
    assert not keys.holds(old)


@pytest.mark.req("AUT-12", "AUT-32")
async def test_refresh_though_nobody_asks(
    server: IssuerServer, keys: KeySet, idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a quiet night the keys are refreshed too."""
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0.001)
    await find(keys, "key-1")
    for _ in range(6):  # two documents and the keys, twice
        await asyncio.wait_for(server.arrived.acquire(), 5)
    assert server.asked[JWKS] >= 2


@pytest.mark.req("AUT-16")
async def test_unreachable_issuer(server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock) -> None:
    """While an issuer is unreachable its known keys work, others are answered 503 with the seconds to wait."""
    await find(keys, "key-1")
    await server.stop()
    clock.now += 7200
    await find(keys, "key-1")
    await settled(keys)
    await find(keys, "key-1")
    for seconds, retry_after in ((0, 1), (0, 1), (0, 30), (12.5, 18), (17, 1)):
        clock.now += seconds
        assert await unknown(keys, "key-2") == retry_after


@pytest.mark.req("AUT-16", "AUT-19")
async def test_issuer_comes_back(server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock) -> None:
    """An issuer that was unreachable for a moment is asked again at once; one that stays away, within the budget."""
    await server.stop()
    assert await unknown(keys, "key-1") == 1
    await server.start()
    await find(keys, "key-1")
    await server.stop()
    assert [await unknown(keys, "key-2") for _ in range(4)] == [1, 30, 30, 30]
    await server.start()
    rotate(server, other())
    clock.now += 29
    assert await unknown(keys, "key-2") == 1
    assert server.asked[JWKS] == 1
    clock.now += 1
    await find(keys, "key-2")


@pytest.mark.req("AUT-16")
async def test_hanging_issuer(server: IssuerServer, keys: KeySet, idp: Idp, monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer that accepts and says nothing is given up soon."""
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.01)
    server.open.clear()
    with pytest.raises(Unavailable):
        await find(keys, "key-1")
    server.open.set()


@pytest.mark.req("AUT-19")
async def test_concurrent_requests_share_a_fetch(server: IssuerServer, keys: KeySet, idp: Idp) -> None:
    """Requests that need one issuer's keys at the same time share one fetch. A cancelled request does not end the fetch."""
    server.open.clear()
    waiting = [asyncio.create_task(find(keys, "key-1")) for _ in range(5)]
    waiting.append(asyncio.create_task(find(keys, "unknown")))
    await server.arrived.acquire()
    waiting[0].cancel()
    server.open.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(isinstance(result, Key) for result in results[1:5])
    assert isinstance(results[5], Unauthenticated)
    assert server.asked[JWKS] == 1


async def test_close_while_fetching(server: IssuerServer, keys: KeySet, idp: Idp) -> None:
    """Closing ends a fetch, and who waited for it is told so instead of being cancelled."""
    server.open.clear()
    waiting = asyncio.create_task(find(keys, "key-1"))
    await server.arrived.acquire()
    await keys.aclose()
    with pytest.raises(Unavailable):
        await waiting
    server.open.set()
