"""Which keys count, and when they are fetched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

from fhircast_hub.auth import jwks
from fhircast_hub.auth.discovery import FetchError
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwks import MAX_TRIED, Key, KeySet, read_keys
from fhircast_hub.core.errors import Unauthenticated, Unavailable
from tests.auth.conftest import FakeClock
from tests.auth.issuer_server import JWKS, IssuerServer
from tests.tokens import Idp

GOOD = Idp().jwk()


@pytest.fixture
async def keys(issuer: Issuer, client: httpx.AsyncClient, clock: FakeClock) -> AsyncIterator[KeySet]:
    keys = KeySet(issuer, client, clock)
    yield keys
    await keys.aclose()


async def find(keys: KeySet, kid: str | None, alg: str = "ES256", *, signed: Callable[[Key], bool] = bool) -> Key:
    """The key that signed a token with this header, by default the first that is tried."""
    key, _ = await keys.find(kid, alg, lambda key: signed(key) or None)
    return key


async def unknown(keys: KeySet, kid: str | None = "unknown") -> int:
    """Ask for a key that the issuer does not have: 0 where that is said (401), the seconds to wait where it is not (503)."""
    try:
        await find(keys, kid, signed=lambda key: False)
    except Unavailable as later:
        return later.retry_after or -1
    except Unauthenticated:
        return 0
    raise AssertionError("no key signs this")


def without_kid(jwk: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in jwk.items() if name != "kid"}


def is_key(idp: Idp) -> Callable[[Key], bool]:
    """Whether a key is that of `idp`."""
    (own,) = read_keys(idp.jwks())
    return lambda key: key.der == own.der


def noted(tried: list[Key], signer: Idp | None = None) -> Callable[[Key], bool]:
    """Whether a key is that of `signer`; each one that is asked about is added to `tried`."""

    def signed(key: Key) -> bool:
        tried.append(key)
        return signer is not None and is_key(signer)(key)

    return signed


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
    assert read_keys({"keys": [jwk]}) == ()


@pytest.mark.req("AUT-1")
def test_small_rsa_key() -> None:
    """An RSA key needs 2048 bits."""
    small = jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
    assert read_keys({"keys": [small]}) == ()


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
    tried: list[Key] = []
    with pytest.raises(Unauthenticated, match="signature"):
        await find(keys, "key-1", signed=noted(tried))
    assert len(tried) == len(set(tried)) == 2


@pytest.mark.req("AUT-20")
async def test_token_without_kid(server: IssuerServer, keys: KeySet) -> None:
    """Without an id in the token, each key that is for its algorithm is tried, in the order of the set."""
    signer, edwards = Idp(kid="b"), Idp(alg="EdDSA", kid="c")
    rotate(server, other("a"), edwards.jwk(), signer.jwk(), without_kid(other()))
    tried: list[Key] = []
    assert (await find(keys, None, signed=noted(tried, signer))).kid == "b"
    assert [key.kid for key in tried] == ["a", "b"]
    assert (await find(keys, None, "EdDSA")).kid == "c"
    with pytest.raises(Unauthenticated, match="alg: the issuer's key is not for RS256"):
        await find(keys, None, "RS256")


@pytest.mark.req("AUT-20")
async def test_token_without_kid_after_a_rollover(server: IssuerServer, keys: KeySet, idp: Idp) -> None:
    """A token without an id, signed with a key that was not published before, is found at its first request."""
    await find(keys, None)
    successor = Idp(kid="key-2")
    rotate(server, idp.jwk(), successor.jwk())
    assert (await find(keys, None, signed=is_key(successor))).kid == "key-2"
    assert server.asked[JWKS] == 2


@pytest.mark.req("AUT-20")
async def test_keys_without_kid(server: IssuerServer, keys: KeySet) -> None:
    """A key without an id may have signed under any id that no other key has."""
    named, nameless = Idp(kid="a"), Idp()
    rotate(server, named.jwk(), without_kid(nameless.jwk()))
    assert (await find(keys, "thumbprint", signed=is_key(nameless))).kid is None
    with pytest.raises(Unauthenticated, match="signature"):
        await find(keys, "a", signed=is_key(nameless))
    assert server.asked[JWKS] == 1


@pytest.mark.req("AUT-20")
async def test_few_keys_are_tried(server: IssuerServer, keys: KeySet) -> None:
    """However many keys a set has, so many are tried for one token; after a fetch only those that are new."""
    rotate(server, *(other(f"key-{number}") for number in range(MAX_TRIED + 3)))
    tried: list[Key] = []
    with pytest.raises(Unauthenticated, match="signature"):
        await find(keys, None, signed=noted(tried))
    assert len(tried) == MAX_TRIED
    tried.clear()
    successor = other("successor")
    rotate(server, successor, *(other(f"key-{number}") for number in range(3)))
    with pytest.raises(Unauthenticated, match="signature"):
        await find(keys, None, signed=noted(tried))
    assert len(tried) == MAX_TRIED + 4
    assert len(set(tried)) == len(tried)


@pytest.mark.req("AUT-19", "AUT-20")
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


@pytest.mark.req("AUT-19")
async def test_strangers_do_not_keep_a_new_key_away(
    server: IssuerServer, keys: KeySet, idp: Idp, clock: FakeClock
) -> None:
    """Known keys are answered at once whatever is made up; a new one is waited for, and comes with whoever asks next."""
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


@pytest.mark.req("AUT-12", "AUT-19")
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


@pytest.mark.req("AUT-12")
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


@pytest.mark.req("AUT-12")
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
    """All who need the same issuer's keys at the same time wait for one fetch, whoever of them gives up."""
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


@pytest.mark.req("SEC-1")
async def test_log_names_the_host_only(
    server: IssuerServer, keys: KeySet, idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed fetch is logged with the issuer's host and a reason that quotes nothing of what came."""
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(jwks.log, "warning", lambda event, **values: lines.append({"event": event, **values}))
    server.publish(JWKS, {"keys": "secret"})
    with pytest.raises(Unavailable):
        await find(keys, "key-1")
    assert lines == [{"event": "issuer_keys_not_fetched", "issuer": "127.0.0.1", "reason": "answered no JWK Set"}]


def test_secp256k1_is_not_taken() -> None:
    """Only the curves of the pinned algorithms count."""
    key = ec.generate_private_key(ec.SECP256K1()).public_key()
    assert read_keys({"keys": [jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True)]}) == ()
