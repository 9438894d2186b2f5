"""Which keys count, and when they are fetched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

from auth.conftest import FakeClock
from auth.issuer_server import JWKS, IssuerServer
from fhircast_hub.auth import jwks
from fhircast_hub.auth.discovery import FetchError
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwks import KeySet, read_keys
from fhircast_hub.core.errors import Unauthenticated, Unavailable
from tokens import Idp

GOOD = Idp().jwk()


@pytest.fixture
async def keys(issuer: Issuer, client: httpx.AsyncClient, clock: FakeClock) -> AsyncIterator[KeySet]:
    keys = KeySet(issuer, client, clock)
    yield keys
    await keys.aclose()


async def settled(keys: KeySet) -> None:
    """Let a fetch in the background, if there is one, come to its end."""
    if keys._fetching:
        await asyncio.wait({keys._fetching})


def other(kid: str = "key-2") -> dict[str, Any]:
    return Idp(kid=kid).jwk()


def rotate(server: IssuerServer, *entries: dict[str, Any]) -> None:
    server.publish(JWKS, {"keys": entries})


@pytest.mark.req("AUT-1")
@pytest.mark.parametrize(
    "jwk",
    [
        GOOD | {"use": "enc"},
        GOOD | {"use": ["sig"]},
        GOOD | {"key_ops": ["sign"]},
        GOOD | {"key_ops": "verify"},
        GOOD | {"alg": "HS256"},
        GOOD | {"alg": "ES384"},
        GOOD | {"alg": ["ES256"]},
        GOOD | {"kid": 7},
        GOOD | {"crv": "secp256k1"},
        GOOD | {"crv": ["P-256"]},
        GOOD | {"x": GOOD["y"]},
        GOOD | {"x": "AA"},
        GOOD | {"x": 7},
        GOOD | {"d": GOOD["x"]},
        {"kty": "EC", "crv": "P-256"},
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": "key-1"},
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "alg": "ES256", "kid": "key-1"},
        {"kty": "RSA", "n": 1, "e": "AQAB"},
        {"kty": ["EC"]},
        {},
        None,
        7,
        "key",
        [GOOD],
    ],
)
def test_unusable_entries(jwk: Any) -> None:
    """An entry that is no public key for signatures is ignored, and does not hide the good one beside it."""
    assert [key.kid for key in read_keys({"keys": [jwk, GOOD]})] == ["key-1"]
    assert read_keys({"keys": [jwk]}) == frozenset()


@pytest.mark.req("AUT-1")
def test_small_rsa_key() -> None:
    """An RSA key needs 2048 bits."""
    small = jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
    assert read_keys({"keys": [small]}) == frozenset()


@pytest.mark.req("AUT-1")
@pytest.mark.parametrize(
    ("alg", "key", "algorithms"),
    [
        ("RS256", None, {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ("ES256", None, {"ES256"}),
        ("ES384", None, {"ES384"}),
        ("ES512", None, {"ES512"}),
        ("EdDSA", None, {"EdDSA"}),
        ("EdDSA", ed448.Ed448PrivateKey.generate(), {"EdDSA"}),
    ],
)
def test_algorithms_of_a_key(alg: str, key: Any, algorithms: set[str]) -> None:
    """A key verifies what its type can; if it states an algorithm, that one only."""
    jwk = Idp(alg=alg, key=key).jwk()
    (stated,) = read_keys({"keys": [jwk]})
    assert stated.algorithms == {alg}
    del jwk["alg"], jwk["use"], jwk["key_ops"]
    (free,) = read_keys({"keys": [jwk]})
    assert free.algorithms == frozenset(algorithms)


@pytest.mark.parametrize("document", [{}, {"keys": None}, {"keys": {"kty": "EC"}}])
def test_no_key_set(document: dict[str, Any]) -> None:
    """A document without an array of keys is no answer."""
    with pytest.raises(FetchError, match="no JWK Set"):
        read_keys(document)


@pytest.mark.req("AUT-1")
async def test_duplicate_kid(server: IssuerServer, keys: KeySet, idp: Idp) -> None:
    """Where an issuer uses an id twice, either key may have signed; the same key twice is one."""
    rotate(server, idp.jwk(), idp.jwk(), other("key-1"))
    assert len(await keys.find("key-1", "ES256")) == 2


@pytest.mark.req("AUT-1")
async def test_token_without_kid(server: IssuerServer, keys: KeySet, idp: Idp) -> None:
    """Without an id, exactly one key must fit the algorithm."""
    no_kid = {name: value for name, value in idp.jwk().items() if name != "kid"}
    rotate(server, no_kid, Idp(alg="ES384").jwk(), Idp(alg="EdDSA", kid="a").jwk(), Idp(alg="EdDSA", kid="b").jwk())
    (key,) = await keys.find(None, "ES256")
    assert key.kid is None
    for alg in ("EdDSA", "RS256"):
        with pytest.raises(Unauthenticated, match="kid: expected one"):
            await keys.find(None, alg)


@pytest.mark.req("AUT-13")
async def test_unknown_kid_fetches_once_per_pause(
    server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock
) -> None:
    """An unknown key is asked for at once, then the issuer is left alone for thirty seconds."""
    await keys.find("key-1", "ES256")
    assert server.asked[JWKS] == 1
    for seconds, asked in ((0, 2), (0, 2), (29.9, 2), (0.1, 3), (29.9, 3)):
        clock.now += seconds
        with pytest.raises(Unauthenticated, match="no such key"):
            await keys.find("unknown", "ES256")
        assert server.asked[JWKS] == asked


@pytest.mark.req("AUT-13")
async def test_rotated_key(server: IssuerServer, keys: KeySet, idp: Idp) -> None:
    """A new key works from its first token on, even right after the first fetch."""
    await keys.find("key-1", "ES256")
    rotate(server, idp.jwk(), other())
    assert [key.kid for key in await keys.find("key-2", "ES256")] == ["key-2"]


@pytest.mark.req("AUT-13")
async def test_clock_set_back(server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock) -> None:
    """A clock that was set back does not lengthen the pause."""
    with pytest.raises(Unauthenticated):
        await keys.find("unknown", "ES256")
    clock.now -= 86400
    rotate(server, other())
    assert await keys.find("key-2", "ES256")


@pytest.mark.req("AUT-12")
async def test_hourly_refresh_waits_for_nobody(server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock) -> None:
    """After an hour the keys are fetched anew, while the old ones go on working; then the vanished one is gone."""
    (old,) = await keys.find("key-1", "ES256")
    rotate(server, other())
    server.open.clear()
    clock.now += 3600
    assert list(await keys.find("key-1", "ES256")) == [old]
    assert keys.holds(old)
    server.open.set()
    await settled(keys)
    assert not keys.holds(old)
    assert await keys.find("key-2", "ES256")


@pytest.mark.req("AUT-12")
async def test_refresh_keeps_what_did_not_change(server: IssuerServer, keys: KeySet, idp: Idp) -> None:
    """A key fetched again is the same key; under the same id with other numbers it is another."""
    (old,) = await keys.find("key-1", "ES256")
    keys._fetch_soon()
    await settled(keys)
    assert keys.holds(old)
    rotate(server, other("key-1"))
    keys._fetch_soon()
    await settled(keys)
    assert not keys.holds(old)


@pytest.mark.req("AUT-12")
async def test_refresh_though_nobody_asks(
    server: IssuerServer, keys: KeySet, idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a quiet night the keys are refreshed too."""
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0.001)
    await keys.find("key-1", "ES256")
    for _ in range(6):  # two documents and the keys, twice
        await asyncio.wait_for(server.arrived.acquire(), 5)
    assert server.asked[JWKS] >= 2


@pytest.mark.req("AUT-16")
async def test_unreachable_issuer(server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock) -> None:
    """While an issuer is unreachable its known keys work, others are answered 503 with the seconds to wait."""
    await keys.find("key-1", "ES256")
    await server.stop()
    clock.now += 7200
    assert await keys.find("key-1", "ES256")
    await settled(keys)
    assert await keys.find("key-1", "ES256")
    for seconds, retry_after in ((0, 30), (12.5, 18), (17.4, 1)):
        clock.now += seconds
        with pytest.raises(Unavailable) as refused:
            await keys.find("key-2", "ES256")
        assert refused.value.retry_after == retry_after


@pytest.mark.req("AUT-16")
async def test_issuer_comes_back(server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock) -> None:
    """An issuer that was unreachable at first is asked again after the pause, not before."""
    await server.stop()
    with pytest.raises(Unavailable):
        await keys.find("key-1", "ES256")
    await server.start()
    clock.now += 29
    with pytest.raises(Unavailable):
        await keys.find("key-1", "ES256")
    assert server.asked[JWKS] == 0
    clock.now += 1
    assert await keys.find("key-1", "ES256")


@pytest.mark.req("AUT-16")
async def test_hanging_issuer(server: IssuerServer, keys: KeySet, idp: Idp, monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer that accepts and says nothing is given up soon."""
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.01)
    server.open.clear()
    with pytest.raises(Unavailable):
        await keys.find("key-1", "ES256")
    server.open.set()


@pytest.mark.req("AUT-13")
async def test_concurrent_requests_share_a_fetch(server: IssuerServer, keys: KeySet, idp: Idp) -> None:
    """All who need the same issuer's keys at the same time wait for one fetch, whoever of them gives up."""
    server.open.clear()
    waiting = [asyncio.create_task(keys.find("key-1", "ES256")) for _ in range(5)]
    waiting.append(asyncio.create_task(keys.find("unknown", "ES256")))
    await server.arrived.acquire()
    waiting[0].cancel()
    server.open.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(isinstance(result, list) and len(result) == 1 for result in results[1:5])
    assert isinstance(results[5], Unauthenticated)
    assert server.asked[JWKS] == 1


async def test_close_while_fetching(server: IssuerServer, keys: KeySet, idp: Idp) -> None:
    """Closing ends a fetch, and who waited for it is told so instead of being cancelled."""
    server.open.clear()
    waiting = asyncio.create_task(keys.find("key-1", "ES256"))
    await server.arrived.acquire()
    await keys.aclose()
    with pytest.raises(Unavailable):
        await waiting
    server.open.set()


@pytest.mark.req("SEC-1")
async def test_log_names_the_host_only(
    server: IssuerServer, keys: KeySet, idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed fetch is logged with the issuer's host and a reason that quotes nothing of what came."""
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(jwks.log, "warning", lambda event, **values: lines.append({"event": event, **values}))
    server.publish(JWKS, {"keys": "secret"})
    with pytest.raises(Unavailable):
        await keys.find("key-1", "ES256")
    assert lines == [{"event": "issuer_keys_not_fetched", "issuer": "127.0.0.1", "reason": "answered no JWK Set"}]


def test_secp256k1_is_not_taken() -> None:
    """Only the curves of the pinned algorithms count."""
    key = ec.generate_private_key(ec.SECP256K1()).public_key()
    assert read_keys({"keys": [jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True)]}) == frozenset()
