"""Opaque tokens: what their issuer is asked, and which of its answers are believed (RFC 7662, AUT-14)."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from fhircast_hub.auth import introspection
from fhircast_hub.auth.introspection import Introspector, is_opaque
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwt import MAX_TOKEN_BYTES
from fhircast_hub.auth.verifier import Verifier
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Unavailable
from fhircast_hub.service.ports import TokenVerifier
from tests.auth.conftest import FakeClock
from tests.auth.introspection_server import INTROSPECT, IntrospectionServer
from tests.auth.issuer_server import JWKS, Answer
from tests.auth.test_jwt import refused, segment
from tests.running import until
from tests.tokens import Idp

OPAQUE = "sesame-0123456789"
AUDIENCE = "hub"


class World:
    """An issuer that can be asked, and a verifier of its tokens."""

    def __init__(self, server: IntrospectionServer, client: httpx.AsyncClient, clock: FakeClock) -> None:
        self.server, self.client, self.clock = server, client, clock
        self.idp = Idp(server.url, AUDIENCE)
        server.publish(JWKS, self.idp.jwks())
        self.verifier = Verifier([self.issuer()], client, clock)

    def issuer(self, **members: Any) -> Issuer:
        """The issuer with these members."""
        given: dict[str, Any] = {
            "jwks_uri": self.server.url + JWKS,
            "introspection_endpoint": self.server.url + INTROSPECT,
            "introspection_client_id": "the-hub",
            "introspection_client_secret": "p:ss wörd",
        }
        return Issuer(self.server.url, AUDIENCE, **(given | members))

    def claims(self, **claims: Any) -> dict[str, Any]:
        """What a good answer says; None leaves a claim out."""
        good = {
            "iss": self.server.url,
            "aud": AUDIENCE,
            "sub": "user-1",
            "client_id": "app",
            "scope": "openid fhircast/*.*",
            "exp": int(self.clock.now) + 3600,
        }
        return {name: value for name, value in (good | claims).items() if value is not None}

    def knows(self, token: str = OPAQUE, **claims: Any) -> str:
        """Let the issuer explain this token."""
        self.server.tokens[token] = self.claims(**claims)
        return token

    @property
    def questions(self) -> int:
        return self.server.asked[INTROSPECT]


@pytest.fixture
async def server() -> AsyncIterator[IntrospectionServer]:
    async with IntrospectionServer() as server:
        yield server


@pytest.fixture
async def world(server: IntrospectionServer, client: httpx.AsyncClient, clock: FakeClock) -> AsyncIterator[World]:
    world = World(server, client, clock)
    yield world
    await world.verifier.aclose()


async def unavailable(verifier: TokenVerifier, token: str = OPAQUE) -> Unavailable:
    """Why this token cannot be judged now."""
    with pytest.raises(Unavailable) as error:
        await verifier.verify(token)
    return error.value


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
    assert "sub is required" in await refused(world.verifier, world.knows("nobody", sub=None))


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
    assert (await refused(world.verifier, bound)).startswith("cnf: the token must be a bearer token")
    for type_ in ("DPoP", "dpop", "PoP", "N_A"):
        assert await refused(world.verifier, world.knows(type_, token_type=type_)) == (
            "token_type must be that of a bearer token, not another"
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
        ({"active": False}, "the token"),
        ({"active": None}, "the token"),
        ({"active": "true"}, "the token"),
        ({"active": 1}, "the token"),
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
    assert reason.startswith(named)
    assert "another" not in reason.replace("not another", "")
    assert OPAQUE not in reason


@pytest.mark.req("AUT-14")
async def test_no_other_claim_stands_in_for_the_user(world: World) -> None:
    """An answer without the user_claim is refused, though it has `sub` and `username`."""
    world.verifier = Verifier([world.issuer(user_claim="hpr")], world.client, world.clock)
    assert "hpr is required" in await refused(world.verifier, world.knows(username="ann"))
    assert (await world.verifier.verify(world.knows("other", hpr="9144889"))).user == "9144889"


# An issuer that does not answer, or oddly


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
    with socket.create_server(("127.0.0.1", 0)) as closed:
        away = f"http://127.0.0.1:{closed.getsockname()[1]}/introspect"
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


# What is remembered


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
    """Of one token; and whoever hangs up spoils nothing for the others."""
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


@pytest.mark.req("AUT-14", "SEC-3")
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
        with pytest.raises(ValueError, match="must be"):
            verifier.normal_user(principal, nobody)
