"""The hub believes a token that is signed by a key of its issuer and has good claims."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed448
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fhircast_hub.auth import jwt
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwt import JwtVerifier
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Unavailable
from tests.auth.conftest import FakeClock, MakeVerifier
from tests.auth.issuer_server import JWKS, IssuerServer
from tests.auth.jwt_world import refused, segment
from tests.tokens import Idp, make_key


def at_once(verifier: JwtVerifier, token: str) -> Principal:
    """What verify returns without having been suspended."""
    with pytest.raises(StopIteration) as stop:
        verifier.verify(token).send(None)
    principal = stop.value.value
    assert isinstance(principal, Principal)
    return principal


@pytest.mark.req("AUT-1")
async def test_good_token(verifier: JwtVerifier, idp: Idp, clock: FakeClock) -> None:
    """A token of the issuer's key, for this hub and in its time, tells who asks."""
    principal = await verifier.verify(idp.token(now=clock.now))
    assert (principal.user, principal.client, principal.realm) == ("user-1", "app", idp.issuer)
    assert principal.expires == clock.now + 3600


@pytest.mark.req("AUT-1")
@pytest.mark.parametrize(
    "alg", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
)
async def test_algorithms(verifier: JwtVerifier, server: IssuerServer, clock: FakeClock, alg: str) -> None:
    """Every asymmetric algorithm in common use is understood."""
    idp = Idp(server.url, alg=alg)
    server.publish(JWKS, idp.jwks())
    token = idp.token(now=clock.now)
    assert (await verifier.verify(token)).user == "user-1"
    signed, _, encoded = token.rpartition(".")
    signature = base64.urlsafe_b64decode(encoded + "==")
    for bad in (b"", b"\0", signature[:-1], signature + b"\0", bytes(len(signature)), signature[::-1]):
        assert "signature" in await refused(verifier, f"{signed}.{segment(bad)}")


@pytest.mark.req("AUT-1")
async def test_ed448(verifier: JwtVerifier, server: IssuerServer, clock: FakeClock) -> None:
    """EdDSA is understood on both of its curves."""
    idp = Idp(server.url, alg="EdDSA", key=ed448.Ed448PrivateKey.generate())
    server.publish(JWKS, idp.jwks())
    assert (await verifier.verify(idp.token(now=clock.now))).user == "user-1"


@pytest.mark.req("AUT-1")
async def test_alg_none(verifier: JwtVerifier, idp: Idp, clock: FakeClock) -> None:
    """A token signed by nobody is refused, however "none" is spelt."""
    body = idp.token(now=clock.now).split(".")[1]
    for alg in ("none", "None", "NONE", "nOnE"):
        reason = await refused(verifier, f"{segment({'alg': alg, 'kid': 'key-1'})}.{body}.")
        assert reason == f"alg must be an asymmetric algorithm, not {alg}"


@pytest.mark.req("AUT-1")
@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
async def test_public_key_as_secret(verifier: JwtVerifier, idp: Idp, clock: FakeClock, alg: str) -> None:
    """The public key, which everyone has, is no secret to sign with."""
    pem = idp.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    unsigned = f"{segment({'alg': alg, 'kid': 'key-1'})}.{idp.token(now=clock.now).split('.')[1]}"
    signature = pyjwt.get_algorithm_by_name(alg).sign(unsigned.encode(), pem)
    assert await refused(verifier, f"{unsigned}.{segment(signature)}") == (
        f"alg must be an asymmetric algorithm, not {alg}"
    )


@pytest.mark.req("AUT-1")
@pytest.mark.parametrize(
    "alg", [None, 7, "", ["ES256"], "ES256 ", "a-long-one-that-says-something", "ES256K", "Ed25519"]
)
async def test_other_algorithms(verifier: JwtVerifier, idp: Idp, clock: FakeClock, alg: object) -> None:
    """An algorithm outside the list is refused, and quoted only if it can be a name."""
    body = idp.token(now=clock.now).split(".")[1]
    reason = await refused(verifier, f"{segment({'alg': alg, 'kid': 'key-1'})}.{body}.AAAA")
    assert reason.startswith("alg must be an asymmetric algorithm, not")
    assert "says-something" not in reason


@pytest.mark.req("AUT-1")
async def test_algorithm_of_another_key(
    verifier: JwtVerifier, server: IssuerServer, idp: Idp, clock: FakeClock
) -> None:
    """An allowed algorithm is refused where the key is not for it."""
    rsa = Idp(idp.issuer, alg="RS256")
    assert await refused(verifier, rsa.token(now=clock.now)) == "alg: the issuer's key is not for RS256"
    server.publish(JWKS, {"keys": [rsa.jwk() | {"kid": "key-2"}]})
    by_ps = Idp(idp.issuer, alg="PS256", key=rsa.key, kid="key-2")
    assert await refused(verifier, by_ps.token(now=clock.now)) == "alg: the issuer's key is not for PS256"


@pytest.mark.req("AUT-1")
async def test_wrong_key(verifier: JwtVerifier, idp: Idp, clock: FakeClock) -> None:
    """A key of the same id and kind that is not the issuer's signs nothing."""
    assert "signature" in await refused(verifier, Idp(idp.issuer).token(now=clock.now))


@pytest.mark.req("AUT-1")
async def test_duplicate_kid(verifier: JwtVerifier, server: IssuerServer, idp: Idp, clock: FakeClock) -> None:
    """Of several keys with one id, the one that signed is found."""
    twin = Idp(idp.issuer)
    server.publish(JWKS, {"keys": [idp.jwk(), twin.jwk()]})
    assert (await verifier.verify(idp.token(now=clock.now))).user == "user-1"
    assert (await verifier.verify(twin.token(now=clock.now))).user == "user-1"


@pytest.mark.req("AUT-20")
@pytest.mark.parametrize("alg", ["ES256", "RS256"])
async def test_no_kid(verifier: JwtVerifier, server: IssuerServer, clock: FakeClock, alg: str) -> None:
    """A token without kid, as ADFS makes them, is believed if one of the issuer's keys signed it, also in a rollover."""
    old, new = Idp(server.url, alg=alg), Idp(server.url, alg=alg, kid="key-2")
    header = {"kid": None, "x5t": "9vNzPrvF9WFqfQYbG5Q7Zl3rhtk"}
    for published in ([old], [old, new], [new]):
        server.publish(JWKS, {"keys": [idp.jwk() for idp in published]})
        verifier._trusted[server.url].keys._fetch_soon()
        await verifier._trusted[server.url].keys._fetching  # type: ignore[misc]
        for idp in published:
            assert (await verifier.verify(idp.token(now=clock.now, headers=header))).user == "user-1"
    thief = Idp(server.url, alg=alg)
    assert "signature" in await refused(verifier, thief.token(now=clock.now, headers=header))
    assert "aud" in await refused(verifier, new.token(now=clock.now, headers=header, aud="other"))


@pytest.mark.req("AUT-1")
async def test_key_in_header(verifier: JwtVerifier, server: IssuerServer, idp: Idp, clock: FakeClock) -> None:
    """A token does not bring its own key."""
    thief = Idp(idp.issuer)
    server.publish("/evil", thief.jwks())
    headers = {"jwk": thief.jwk(), "jku": server.url + "/evil", "x5u": server.url + "/evil", "x5c": ["AAAA"]}
    for kid in ("key-1", "key-x", None):
        await refused(verifier, thief.token(now=clock.now, headers={**headers, "kid": kid}))
    assert server.asked["/evil"] == 0


@pytest.mark.req("AUT-1")
@pytest.mark.parametrize(
    "headers",
    [{"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": False}, {"crit": ["b64"], "b64": True}, {"crit": []}],
)
async def test_critical_headers(verifier: JwtVerifier, idp: Idp, clock: FakeClock, headers: dict[str, Any]) -> None:
    """A header that must be understood and is not, spoils the token (RFC 7515 section 4.1.11)."""
    _, body, signature = idp.token(now=clock.now).split(".")
    token = f"{segment({'alg': 'ES256', 'kid': 'key-1', **headers})}.{body}.{signature}"
    assert (await refused(verifier, token)).startswith("the token's header")


@pytest.mark.req("AUT-1")
@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "other"}, "aud must have this hub's audience, not another"),
        ({"aud": ["other", "HUB"]}, "aud must have this hub's audience, not another"),
        ({"aud": ["hub", 7]}, "aud must have this hub's audience, not another"),
        ({"aud": {"hub": 1}}, "aud must have this hub's audience, not another"),
        ({"aud": None}, "aud is required: this hub's audience"),
        ({"aud": []}, "aud is required: this hub's audience"),
        ({"iss": "https://unknown.example"}, "iss must be an issuer that this hub knows"),
        ({"iss": None}, "iss must be an issuer that this hub knows"),
        ({"sub": 7}, "sub must be a string"),
        ({"jti": 7}, "jti must be a string"),
        ({"exp": None}, "exp is required"),
        ({"exp": 1_799_999_970}, "exp: the token has expired"),
        ({"nbf": 1_800_000_031}, "nbf: the token is not yet valid"),
        ({"iat": 1_800_000_031}, "iat: the token is not yet valid"),
        ({"hub.topic": 7}, "hub.topic must be a string or an array of strings, not a number"),
    ],
)
async def test_bad_claims(
    verifier: JwtVerifier, idp: Idp, clock: FakeClock, claims: dict[str, Any], reason: str
) -> None:
    """A well signed token is refused for each claim that does not fit, and told which."""
    assert await refused(verifier, idp.token(now=clock.now, **claims)) == reason
    assert verifier.remembered == 0


@pytest.mark.req("AUT-1")
@pytest.mark.parametrize(
    "claims",
    [{"aud": ["other", "hub"]}, {"exp": 1_799_999_971}, {"nbf": 1_800_000_030}, {"iat": None}, {"jti": "1"}],
)
async def test_good_claims(verifier: JwtVerifier, idp: Idp, clock: FakeClock, claims: dict[str, Any]) -> None:
    """An audience among others will do, and so will a date within thirty seconds."""
    assert (await verifier.verify(idp.token(now=clock.now, **claims))).user == "user-1"


@pytest.mark.req("AUT-1")
async def test_several_audiences(make_verifier: MakeVerifier, idp: Idp, clock: FakeClock) -> None:
    """One of the configured audiences is enough, none of them is not."""
    verifier = make_verifier(Issuer(idp.issuer, ("hub", "https://hub.example")))
    assert (await verifier.verify(idp.token(now=clock.now, aud="https://hub.example"))).user == "user-1"
    assert "aud" in await refused(verifier, idp.token(now=clock.now, aud="https://hub"))


@pytest.mark.req("AUT-1")
async def test_remembered_token(
    verifier: JwtVerifier, idp: Idp, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token seen before is not verified again and waits for nothing, until it expires."""
    token = idp.token(now=clock.now)
    principal = await verifier.verify(token)
    with monkeypatch.context() as patched:
        patched.setattr(jwt, "_unverified", None)
        clock.now += 3600 + 29.9
        assert at_once(verifier, token) is principal
    clock.now += 0.1
    assert await refused(verifier, token) == "exp: the token has expired"
    assert verifier.remembered == 0


@pytest.mark.req("AUT-1")
async def test_memory_is_bounded(
    verifier: JwtVerifier, idp: Idp, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound the oldest token is forgotten."""
    monkeypatch.setattr(jwt, "MAX_REMEMBERED", 3)
    tokens = [idp.token(f"user-{number}", now=clock.now) for number in range(5)]
    for token in tokens:
        await verifier.verify(token)
    assert verifier.remembered == 3
    monkeypatch.setattr(jwt, "_unverified", None)
    assert [at_once(verifier, token).user for token in tokens[2:]] == ["user-2", "user-3", "user-4"]


@pytest.mark.req("AUT-12", "AUT-32")
async def test_vanished_key(verifier: JwtVerifier, server: IssuerServer, idp: Idp, clock: FakeClock) -> None:
    """A token whose key is published no more is forgotten when the keys are next fetched."""
    token = idp.token(now=clock.now)
    await verifier.verify(token)
    successor = Idp(idp.issuer, kid="key-2")
    server.publish(JWKS, successor.jwks())
    assert at_once(verifier, token).user == "user-1"
    assert (await verifier.verify(successor.token(now=clock.now))).user == "user-1"
    assert await refused(verifier, token) == "kid: the issuer has no such key"
    assert verifier.remembered == 1


@pytest.mark.req("AUT-12")
async def test_remembered_tokens_keep_the_keys_fresh(
    verifier: JwtVerifier, server: IssuerServer, idp: Idp, clock: FakeClock
) -> None:
    """Where only remembered tokens come, their keys are refreshed all the same, and none of them waits."""
    token = idp.token(now=clock.now, exp=int(clock.now) + 86400)
    await verifier.verify(token)
    server.publish(JWKS, Idp(idp.issuer).jwks())
    server.asked.clear()
    clock.now += 3600
    assert at_once(verifier, token).user == "user-1"
    fetching = verifier._trusted[idp.issuer].keys._fetching
    assert fetching is not None
    await fetching
    assert "signature" in await refused(verifier, token)
    assert server.asked[JWKS] == 1


@pytest.mark.req("AUT-16")
async def test_unreachable_issuer(verifier: JwtVerifier, server: IssuerServer, idp: Idp, clock: FakeClock) -> None:
    """While the issuer is away, new tokens of known keys are believed; for other keys it is a matter of waiting."""
    await verifier.verify(idp.token(now=clock.now))
    await server.stop()
    assert (await verifier.verify(idp.token("user-2", now=clock.now))).user == "user-2"
    with pytest.raises(Unavailable) as error:
        await verifier.verify(idp.token(now=clock.now, headers={"kid": "key-2"}))
    assert error.value.retry_after == 1


@pytest.mark.req("AUT-15")
async def test_two_issuers(make_verifier: MakeVerifier, server: IssuerServer, idp: Idp, clock: FakeClock) -> None:
    """Each issuer's tokens are checked with its own keys, though both may use one id, and mapped to the shared realm."""
    async with IssuerServer() as second:
        other = Idp(second.url, "hub-2", key=make_key("ES256"))
        second.publish_keys(other.jwks())
        verifier = make_verifier(
            Issuer(idp.issuer, "hub", realm="hospital"),
            Issuer(other.issuer, "hub-2", realm="hospital", user_claim="upn"),
        )
        one = await verifier.verify(idp.token("drx", now=clock.now))
        two = await verifier.verify(other.token("4711", upn="drx", now=clock.now))
        assert (one.realm, one.user) == (two.realm, two.user)
        forged = Idp(other.issuer, "hub-2", key=idp.key)
        assert "signature" in await refused(verifier, forged.token(upn="drx", now=clock.now))
        assert "aud" in await refused(verifier, other.token(upn="drx", now=clock.now, aud="hub"))


@pytest.mark.req("SEC-4")
def test_insecure_issuers(client: httpx.AsyncClient, clock: FakeClock) -> None:
    """An issuer or jwks_uri without https is not taken unless that is allowed; nor is an issuer twice."""
    insecure = [Issuer("http://idp.example", "hub"), Issuer("https://idp.example", "hub", jwks_uri="http://k.example")]
    for issuer in insecure:
        with pytest.raises(ValueError, match="https"):
            JwtVerifier([issuer], client, clock)
        JwtVerifier([issuer], client, clock, allow_insecure=True)
    with pytest.raises(ValueError, match="twice"):
        JwtVerifier([Issuer("https://idp.example", "hub"), Issuer("https://idp.example", "other")], client, clock)
