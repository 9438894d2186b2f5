"""The hub refuses a token that is malformed, of another kind or too long."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwt import MAX_TOKEN_BYTES, JwtVerifier
from fhircast_hub.core.errors import Unauthenticated
from tests.auth.conftest import FakeClock
from tests.auth.jwt_world import refused, segment, signed
from tests.tokens import Idp

UNREADABLE = "token: expected a JWT, got something that cannot be decoded"


def part_of(token: str, number: int) -> bytes:
    """The text of its header (0) or of its claims (1)."""
    part = token.split(".")[number]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@pytest.mark.req("AUT-1")
async def test_malformed(verifier: JwtVerifier, idp: Idp, clock: FakeClock) -> None:
    """What is not a JWT is refused as such, whatever its bytes."""
    head, body, signature = idp.token(now=clock.now).split(".")
    for token in (
        *("", ".", "..", "...", "a.b.c", "\0", "é", "\ud800", "a" * MAX_TOKEN_BYTES, head, f"{head}.{body}"),
        *(f"{head}.{body}.{signature}.", f".{body}.{signature}", f"{head}..{signature}", f" {head}.{body}.{signature}"),
        *(f"{segment(junk)}.{body}.{signature}" for junk in (b"[]", b"1", b"null", b"\xff", b"{" * 9000)),
        *(f"{head}.{segment(junk)}.{signature}" for junk in (b"[]", b"1", b"null", b"\xff", b"[" * 9000, b"9" * 9000)),
        f"{segment({'alg': 'ES256', 'kid': 7})}.{body}.{signature}",
    ):
        assert (await refused(verifier, token)).startswith("token: ")


@pytest.mark.req("AUT-22")
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
async def test_another_encoding(verifier: JwtVerifier, idp: Idp, clock: FakeClock, encoding: str) -> None:
    """Header and claims are UTF-8 without a byte order mark, also where the issuer signed another encoding."""
    header, claims = (part_of(idp.token(now=clock.now), number) for number in (0, 1))
    assert (await verifier.verify(signed(idp, header, claims))).user == "user-1"
    for parts in ((header.decode().encode(encoding), claims), (header, claims.decode().encode(encoding))):
        assert await refused(verifier, signed(idp, *parts)) == UNREADABLE


@pytest.mark.req("AUT-22")
async def test_a_name_twice(verifier: JwtVerifier, idp: Idp, clock: FakeClock) -> None:
    """Two readers may take one of them each, so neither counts."""
    header, claims = (part_of(idp.token(now=clock.now), number) for number in (0, 1))
    for parts in (
        (header[:-1] + b',"alg":"ES256"}', claims),
        (header, claims[:-1] + b',"sub":"user-2"}'),
        (header, claims[:-1] + b',"s\\u0075b":"user-2"}'),
        (header, claims[:-1] + b',"act":{"sub":"a","sub":"b"}}'),
    ):
        assert await refused(verifier, signed(idp, *parts)) == UNREADABLE


@pytest.mark.req("AUT-22")
async def test_what_json_has_no_number_for(verifier: JwtVerifier, idp: Idp, clock: FakeClock) -> None:
    """NaN and Infinity are no JSON."""
    header, claims = (part_of(idp.token(now=clock.now), number) for number in (0, 1))
    for number in (b"NaN", b"Infinity", b"-Infinity"):
        assert await refused(verifier, signed(idp, header, claims[:-1] + b',"n":' + number + b"}")) == UNREADABLE


@pytest.mark.req("AUT-22")
async def test_a_token_has_one_spelling(verifier: JwtVerifier, idp: Idp, clock: FakeClock) -> None:
    """Its signature, which nothing protects, is base64url without padding, and unused bits are zero."""
    token = idp.token(now=clock.now)
    assert (await verifier.verify(token)).user == "user-1"
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spelt = token[:-1] + last[last.index(token[-1]) + 1]
    for other in (token + "==", token + "=", spelt, token + "\n", token[:-4] + "." + token[-4:]):
        assert await refused(verifier, other) == UNREADABLE
    assert verifier.remembered == 1


@pytest.mark.req("AUT-23")
@pytest.mark.parametrize(
    "typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt", "application/jwt", ""]
)
async def test_kinds_of_jwt(verifier: JwtVerifier, idp: Idp, clock: FakeClock, typ: str) -> None:
    """A token without typ (here ""), a JWT, or an access token, in any case."""
    token = idp.token(now=clock.now, headers={"typ": typ})
    assert json.loads(part_of(token, 0)).get("typ", "") == typ
    assert (await verifier.verify(token)).user == "user-1"


@pytest.mark.req("AUT-23")
@pytest.mark.parametrize(
    ("typ", "came"),
    [
        ("logout+jwt", "a string of length 10"),
        ("dpop+jwt", "a string of length 8"),
        ("application/okta-internal-at+jwt", "a string of length 32"),
        ("text/jwt", "a string of length 8"),
        ("at+jwt ", "a string of length 7"),
        (" JWT", "a string of length 4"),
        ("application/application/at+jwt", "a string of length 30"),
        ("", "a string of length 0"),
        (7, "a number"),
        (["JWT"], "an array of length 1"),
        (None, "null"),
    ],
)
async def test_a_jwt_of_another_kind(verifier: JwtVerifier, idp: Idp, clock: FakeClock, typ: object, came: str) -> None:
    """A JWT that its issuer made for something else is no access token."""
    claims = part_of(idp.token(now=clock.now), 1)
    token = signed(idp, json.dumps({"alg": "ES256", "kid": "key-1", "typ": typ}).encode(), claims)
    assert await refused(verifier, token) == f"typ: expected JWT, at+jwt or application/at+jwt, got {came}"


@pytest.mark.req("AUT-1")
async def test_too_long(verifier: JwtVerifier, idp: Idp, clock: FakeClock) -> None:
    """A token over 16 KiB is refused before anything is done with it."""
    token = idp.token(now=clock.now, padding="x" * MAX_TOKEN_BYTES)
    assert await refused(verifier, token) == f"token: expected at most 16384 characters, got {len(token)}"


_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=5,
)
_headers = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip"]), _json | st.just("ES256"))
_idp = Idp()
_names = ["iss", "aud", "exp", "nbf", "iat", "sub", "jti", "scope", "scp", "hub.topic", "client_id", "azp"]


@pytest.mark.req("AUT-1")
@given(
    token=st.text()
    | st.tuples(_headers.map(segment), st.binary().map(segment), st.binary().map(segment)).map(".".join)
    | st.dictionaries(st.sampled_from(_names), _json).map(lambda claims: _idp.token(**claims))
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_token_is_judged(token: str) -> None:
    """No token whatever, well signed or not, makes the verifier raise anything but its refusal."""

    async def judge() -> None:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, json=_idp.jwks()))
        issuer = Issuer(_idp.issuer, _idp.audience, jwks_uri="https://idp.example/jwks")
        async with httpx.AsyncClient(transport=transport) as client:
            verifier = JwtVerifier([issuer], client, lambda: 1_800_000_000.0)
            try:
                await verifier.verify(token)
            except Unauthenticated:
                pass
            await verifier.aclose()

    asyncio.run(judge())
