"""The hub finds the key of a token among the usable keys of its issuer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

from fhircast_hub.auth.discovery import FetchError
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwks import MAX_TRIED, Key, KeySet, read_keys
from fhircast_hub.core.errors import Unauthenticated
from tests.auth.conftest import FakeClock
from tests.auth.issuer_server import JWKS, IssuerServer
from tests.auth.jwks_world import find, other, rotate
from tests.tokens import Idp

GOOD = Idp().jwk()


@pytest.fixture
async def keys(issuer: Issuer, client: httpx.AsyncClient, clock: FakeClock) -> AsyncIterator[KeySet]:
    keys = KeySet(issuer, client, clock)
    yield keys
    await keys.aclose()


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


def test_secp256k1_is_not_taken() -> None:
    """Only the curves of the pinned algorithms count."""
    key = ec.generate_private_key(ec.SECP256K1()).public_key()
    assert read_keys({"keys": [jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True)]}) == ()
