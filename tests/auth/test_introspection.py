"""The hub asks the issuer about an opaque token, and believes a complete answer (RFC 7662, AUT-14)."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhircast_hub.auth.introspection import Introspector, is_opaque
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwt import MAX_TOKEN_BYTES
from fhircast_hub.auth.verifier import Verifier
from tests.auth.conftest import FakeClock
from tests.auth.introspection_server import INTROSPECT, IntrospectionServer
from tests.auth.introspection_world import AUDIENCE, OPAQUE, World, unavailable
from tests.auth.issuer_server import Answer
from tests.auth.jwt_world import refused, segment
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


# What is asked, and what a good answer means


@pytest.mark.req("AUT-14")
async def test_the_issuer_explains_an_opaque_token(world: World) -> None:
    """Its answer tells who asks, as the claims of a signed token do."""
    expires = world.clock.now + 3600
    principal = await world.verifier.verify(world.knows())
    assert (principal.user, principal.client, principal.realm) == ("user-1", "app", world.server.url)
    assert (principal.expires, principal.opaque, principal.system) == (expires, True, False)
    assert principal.scopes.may_write("patient-open")


@pytest.mark.req("AUT-14")
async def test_the_hub_asks_by_its_own_credentials(world: World) -> None:
    """HTTP Basic, the token in a form and nowhere else (RFC 7662 section 2.1)."""
    token = world.knows("a token/with+odd=characters&more")
    await world.verifier.verify(token)
    assert world.server.asked_by == ["Basic the-hub:p:ss wörd"]
    assert world.server.forms == [{"token": [token], "token_type_hint": ["access_token"]}]
    assert set(world.server.asked) == {INTROSPECT}


@pytest.mark.req("AUT-14", "AUT-8", "AUT-11")
async def test_an_answer_means_what_a_token_means(world: World) -> None:
    """A topic claim limits it, a listed client without a user is a system client."""
    world.verifier = Verifier([world.issuer(system_clients=frozenset({"pacs"}))], world.client, world.clock)
    limited = await world.verifier.verify(world.knows("limited", **{"hub.topic": ["a"]}))
    assert limited.topics == frozenset({"a"})
    system = await world.verifier.verify(world.knows("system", sub="pacs", client_id="pacs"))
    assert (system.user, system.system) == (None, True)
    assert "sub: expected" in await refused(world.verifier, world.knows("nobody", sub=None))


@pytest.mark.req("AUT-14")
@pytest.mark.parametrize(
    "claims",
    [{"iss": None}, {"aud": ["another", AUDIENCE]}, {"nbf": 1_800_000_029}, {"exp": 1_799_999_971}, {"username": "x"}],
)
async def test_what_an_answer_may_leave_out_or_add(world: World, claims: dict[str, Any]) -> None:
    """RFC 7662 makes iss optional; audiences may be several; clocks may differ by half a minute."""
    assert (await world.verifier.verify(world.knows(**claims))).user == "user-1"


@pytest.mark.req("AUT-24")
async def test_an_answer_about_a_token_that_is_not_its_bearers(world: World) -> None:
    """Bound to a key, or registered as another type; an issuer's own word for the type means nothing."""
    bound = world.knows("bound", cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})
    assert (await refused(world.verifier, bound)).startswith("cnf: expected a bearer token")
    for type_ in ("DPoP", "dpop", "PoP", "N_A"):
        assert await refused(world.verifier, world.knows(type_, token_type=type_)) == (
            "token_type: expected a bearer token, got one of another type"
        )
    for type_ in ("Bearer", "bearer", "access_token", ""):
        assert (await world.verifier.verify(world.knows(f"good {type_}", token_type=type_))).user == "user-1"


@pytest.mark.req("AUT-6", "AUT-14")
async def test_scopes_of_an_answer_are_parted_by_spaces_only(world: World) -> None:
    """As those of a signed token."""
    principal = await world.verifier.verify(world.knows(scope="openid\xa0fhircast/*.* fhircast/Patient-open.read"))
    assert (principal.scopes.read, principal.scopes.write) == (frozenset({"patient-open"}), frozenset())


@pytest.mark.req("AUT-14", "AUT-22")
async def test_an_answer_is_not_inflated(world: World) -> None:
    """No encoding is asked for; an encoded answer is none, and neither is one that says something twice."""
    token = world.knows()
    await world.verifier.verify(token)
    assert "accept-encoding: identity\r\n" in world.server.heads[-1].lower()
    text = json.dumps({"active": True, **world.claims()}).encode()
    world.server.instead = Answer(200, gzip.compress(text), ("Content-Encoding: gzip",))
    await unavailable(world.verifier, "another")
    world.server.instead = Answer(200, text[:-1] + b',"sub":"user-2"}')
    await unavailable(world.verifier, "another")
    world.server.instead = Answer(200, text)
    assert (await world.verifier.verify("another")).user == "user-1"


# AUT-1 in an answer


@pytest.mark.req("AUT-1", "AUT-14")
@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({"active": False}, "token"),
        ({"active": None}, "token"),
        ({"active": "true"}, "token"),
        ({"active": 1}, "token"),
        ({"iss": "https://another.example"}, "iss"),
        ({"iss": ""}, "iss"),
        ({"iss": ["x"]}, "iss"),
        ({"aud": None}, "aud"),
        ({"aud": "another"}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": {"hub": 1}}, "aud"),
        ({"aud": "hubs"}, "aud"),
        ({"exp": None}, "exp"),
        ({"exp": 1_799_999_970}, "exp"),
        ({"exp": "1900000000"}, "exp"),
        ({"exp": 1_900_000_000_000}, "exp"),
        ({"nbf": 1_800_000_031}, "nbf"),
        ({"iat": 1_800_000_031}, "iat"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"scope": 1}, "scope"),
        ({"hub.topic": 1}, "hub.topic"),
    ],
)
async def test_an_answer_must_say_all_that_a_signed_token_says(
    world: World, claims: dict[str, Any], named: str
) -> None:
    """Whatever is wrong with it: the refusal names the claim, and quotes nothing of it."""
    token = world.knows(**claims)
    if claims == {"active": None}:
        world.server.instead = Answer(200, b'{"sub": "user-1"}')
    reason = await refused(world.verifier, token)
    assert reason.startswith(f"{named}: ")
    assert "another" not in reason.replace("got another", "")
    assert OPAQUE not in reason


@pytest.mark.req("AUT-14")
async def test_no_other_claim_stands_in_for_the_user(world: World) -> None:
    """An answer without the user_claim is refused, though it has `sub` and `username`."""
    world.verifier = Verifier([world.issuer(user_claim="hpr")], world.client, world.clock)
    assert "hpr: expected" in await refused(world.verifier, world.knows(username="ann"))
    assert (await world.verifier.verify(world.knows("other", hpr="9144889"))).user == "9144889"


# Which tokens are asked about


@pytest.mark.req("AUT-14", "AUT-1")
async def test_a_signed_token_is_never_asked_about(world: World) -> None:
    """Not when it is good, nor when it is forged, expired, of another issuer or algorithm: the issuer could be made to vouch."""
    now = world.clock.now
    head, body, signature = world.idp.token(now=now).split(".")
    for token in (
        f"{head}.{body}.{signature[::-1]}",
        f"{head}.{body}.",
        f"{segment({'alg': 'none'})}.{body}.",
        f"{segment({'alg': 7})}.{body}.x",
        Idp("https://another.example").token(now=now),
        world.idp.token(now=now - 4000),
    ):
        world.knows(token)
        await refused(world.verifier, token)
    assert (await world.verifier.verify(f"{head}.{body}.{signature}")).opaque is False
    assert world.questions == 0


@pytest.mark.req("AUT-14")
@pytest.mark.parametrize(
    "token",
    [
        "0f7a4d0e-5f66-4a55-9d59-0e9c1b8bd5a2",
        "x",
        "a.b",
        "a.b.c",
        "..",
        "not.a.jwt",
        f"{segment({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.a.b.c.d",
        f"{segment({'typ': 'JWT'})}.a.b",
        f"{segment(['alg'])}.a.b",
        f"{segment(b'[' * 5000)}.a.b",
        "é.b.c",
        "\xff\xfe",
    ],
)
async def test_any_other_text_is_asked_about(world: World, token: str) -> None:
    """Random text, encrypted tokens (JWE), three parts that are no JWT."""
    assert is_opaque(token)
    assert (await world.verifier.verify(world.knows(token))).user == "user-1"
    assert world.questions == 1


@pytest.mark.req("AUT-1", "AUT-14")
async def test_a_token_that_is_too_long_is_not_asked_about(world: World) -> None:
    """It is refused by length, and the longest that is not goes through."""
    assert "at most" in await refused(world.verifier, "x" * (MAX_TOKEN_BYTES + 1))
    assert world.questions == 0
    assert (await world.verifier.verify(world.knows("x" * MAX_TOKEN_BYTES))).user == "user-1"


@pytest.mark.req("AUT-1", "AUT-14")
async def test_without_anybody_to_ask_an_opaque_token_is_refused(world: World) -> None:
    """An issuer without an introspection_endpoint explains nothing."""
    issuer = world.issuer(introspection_endpoint=None)
    verifier = Verifier([issuer], world.client, world.clock)
    await refused(verifier, world.knows())
    assert world.questions == 0
    with pytest.raises(ValueError, match="introspection_endpoint"):
        Introspector(issuer, world.client, world.clock)


@pytest.mark.req("AUT-14", "SEC-4")
def test_who_may_be_asked(client: httpx.AsyncClient, clock: FakeClock) -> None:
    """One issuer, for an opaque token does not say whose it is; over https, for the question is the token."""
    one = Issuer("https://a.example", AUDIENCE, introspection_endpoint="https://a.example/introspect")
    two = Issuer("https://b.example", AUDIENCE, introspection_endpoint="https://b.example/introspect")
    plain = Issuer("https://c.example", AUDIENCE, introspection_endpoint="http://c.example/introspect")
    with pytest.raises(ValueError, match="only one"):
        Verifier([one, two], client, clock)
    with pytest.raises(ValueError, match="https"):
        Verifier([plain], client, clock)
    Verifier([plain], client, clock, allow_insecure=True)


@pytest.mark.req("AUT-9", "SES-1")
async def test_a_user_is_named_as_his_tokens_name_him(world: World) -> None:
    """A fhirUser completed by fhir_base, anything else as it is; what no token could say names nobody."""
    fhir = world.issuer(user_claim="fhirUser", fhir_base="https://fhir.example/r4")
    verifier = Verifier([fhir], world.client, world.clock)
    world.verifier = verifier
    principal = await verifier.verify(world.knows(fhirUser="Practitioner/7"))
    for name in ("Practitioner/7", "https://fhir.example/r4/Practitioner/7", "Practitioner/7/_history/3"):
        assert verifier.normal_user(principal, name) == principal.user == "https://fhir.example/r4/Practitioner/7"
    for nobody in ("/", " ", "a\nb", "a\x00"):
        with pytest.raises(ValueError, match="expected"):
            verifier.normal_user(principal, nobody)
