"""Who may do what, on the wire: tokens, scopes, owners, realms, system clients."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import jwt
import pytest

from tests.auth.issuer_server import IssuerServer
from tests.http.wire import ask
from tests.ports import free_port
from tests.running import TOPIC, RunningHub, event, issuer_setting, running_hub
from tests.tokens import Idp

FORM = b"hub.channel.type=websocket&hub.mode=subscribe&hub.topic=" + TOPIC.encode() + b"&hub.events=Patient-open"
AS_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
AS_JSON = {"Content-Type": "application/json"}


async def three_verbs(hub: RunningHub, headers: dict[str, str], query: str = "") -> list[tuple[int, str]]:
    """Subscribe, publish and read with these headers: each answer's status and challenge."""
    body = json.dumps(event("Patient-open")).encode()
    answers = [
        await ask(hub, "POST", f"/api/hub{query}", AS_FORM | headers, FORM),
        await ask(hub, "POST", f"/api/hub{query}", AS_JSON | headers, body),
        await ask(hub, "GET", f"/api/hub/{TOPIC}{query}", headers),
    ]
    return [(answer.status, answer.headers.get("www-authenticate", "")) for answer in answers]


async def may(hub: RunningHub, token: str, topic: str = TOPIC) -> list[int]:
    """The statuses of subscribing, publishing and reading with this token."""
    answers = [
        await hub.form(token, hub__events="Patient-open", hub__topic=topic),
        await hub.publish(event("Patient-open", topic=topic), token),
        await hub.context(token, topic),
    ]
    return [answer.status_code for answer in answers]


WELCOME, REFUSED = [202, 202, 200], [403, 403, 403]


def symmetric(hub: RunningHub, claims: dict[str, Any], key: str, alg: str) -> str:
    """A token of an algorithm without key pairs."""
    return jwt.encode(claims, key, alg, headers={"kid": hub.idp.kid})


def bad_tokens(hub: RunningHub) -> dict[str, str]:
    """Tokens that prove nothing, by what is wrong with them."""
    now, good = int(hub.clock.now), hub.token()
    head, claims, signature = good.split(".")
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(claims + "=="))
    other = json.dumps({**decoded, "sub": "user-2"}).encode()
    forged = base64.urlsafe_b64encode(other).rstrip(b"=").decode()
    stranger = Idp(hub.idp.issuer)
    return {
        "malformed": "not.a.jwt",
        "no JWT at all": "opaque-0123456789",
        "three empty parts": "..",
        "two tokens": f"{good} {good}",
        "too long": "x" * 20_000,
        "expired": hub.token(exp=now - 31),
        "not yet valid": hub.token(nbf=now + 31),
        "issued in the future": hub.token(iat=now + 31),
        "signed by a stranger with the same key id": stranger.token(now=now),
        "changed after it was signed": f"{head}.{forged}.{signature}",
        "without its signature": f"{head}.{claims}.",
        "for another audience": hub.token(aud="another"),
        "for no audience": hub.token(aud=None),
        "of an unknown issuer": hub.token(iss="https://idp.example"),
        "of no issuer": hub.token(iss=None),
        "HS256": symmetric(hub, decoded, "a secret of thirty-two characters", "HS256"),
        "none": symmetric(hub, decoded, "", "none"),
        "without exp": hub.token(exp=None),
        "exp as text": hub.token(exp=str(now + 100)),
        "exp in milliseconds": hub.token(exp=(now + 100) * 1000),
        "without a user": hub.token(sub=None),
        "an empty user": hub.token(sub=""),
        "a user that is no text": hub.token(sub=["user-1"]),
        "a topic claim that is none": hub.token(**{"hub.topic": 1}),
        "scopes that are none": hub.token(scope=1),
    }


@pytest.mark.req("AUT-1")
async def test_a_token_that_proves_nothing_is_refused_on_every_verb() -> None:
    """401 with exactly `Bearer error="invalid_token"`, whatever is wrong with it; nothing is created."""
    async with running_hub() as hub:
        for what, token in bad_tokens(hub).items():
            refused = [(401, 'Bearer error="invalid_token"')] * 3
            assert await three_verbs(hub, {"Authorization": f"Bearer {token}"}) == refused, what
        assert hub.hub.service.usage.topics == 0


@pytest.mark.req("AUT-1")
async def test_no_token_gets_a_plain_challenge_on_every_verb() -> None:
    """401 with exactly `Bearer`: without the header, with an empty one, with another scheme."""
    async with running_hub() as hub:
        for headers in ({}, {"Authorization": ""}, {"Authorization": "Basic dTpw"}, {"Authorization": "Bearer"}):
            assert await three_verbs(hub, headers) == [(401, "Bearer")] * 3, headers


@pytest.mark.req("AUT-2")
async def test_only_the_authorization_header_counts() -> None:
    """A good token in the query, the form, a cookie or another header is no token; beside a bad one it does not help."""
    async with running_hub() as hub:
        token = hub.token()
        elsewhere = {"Cookie": f"access_token={token}", "X-Authorization": f"Bearer {token}", "X-Access-Token": token}
        for name in ("access_token", "token", "authorization"):
            assert await three_verbs(hub, elsewhere, f"?{name}={token}") == [(401, "Bearer")] * 3
            form = FORM + f"&{name}={token}".encode()
            assert (await ask(hub, "POST", "/api/hub", AS_FORM, form)).status == 401
        bad = elsewhere | {"Authorization": "Bearer x"}
        assert {status for status, _ in await three_verbs(hub, bad, f"?access_token={token}")} == {401}
        good = {"authorization": f"bEARER  {token} "}
        assert [status for status, _ in await three_verbs(hub, good, "?access_token=x")] == WELCOME


@pytest.mark.req("AUT-1", "AUT-2", "AUT-25")
async def test_clocks_may_differ_by_half_a_minute() -> None:
    """Up to 30 s past exp or before nbf and iat a token is still good, and then no more, though it was good before."""
    async with running_hub() as hub:
        now = int(hub.clock.now)
        token = hub.token(exp=now + 10, nbf=now + 29, iat=now + 29)
        assert (await hub.context(token)).status_code == 200
        hub.clock.now += 39
        assert (await hub.context(token)).status_code == 200
        hub.clock.now += 2
        assert (await hub.context(token)).status_code == 401


@pytest.mark.req("AUT-3", "AUT-4", "AUT-5", "AUT-6", "AUT-7")
@pytest.mark.parametrize(
    ("claims", "granted", "writes"),
    [
        ({"scope": "fhircast/*.*"}, "Patient-open,Encounter-open", True),
        ({"scope": "openid fhircast/patient-OPEN.READ patient/*.read"}, "Patient-open", False),
        ({"scope": "FHIRCAST/Patient-open.* fhircast/Encounter-open.write"}, "Patient-open", True),
        ({"scope": None, "scp": ["fhircast/Encounter-open.read", "fhircast/*.write"]}, "Encounter-open", True),
        ({"scope": None, "scp": "fhircast/*.read"}, "Patient-open,Encounter-open", False),
        ({"scope": ["fhircast/Patient-open.write"]}, None, True),
        ({"scope": "fhircast/Patient.read fhircast/Patient-open fhircast/Patient-open.rw xfhircast/*.*"}, None, False),
        ({"scope": "fhircast/Home-open.write"}, None, False),
        ({"scope": None}, None, False),
    ],
)
async def test_scopes_grant_what_they_say(claims: dict[str, Any], granted: str | None, writes: bool) -> None:
    """The events that may be read are granted, none at all is 403; an event needs its own write scope."""
    async with running_hub() as hub:
        token = hub.token(**claims)
        answer = await hub.form(token, hub__events="Patient-open, Encounter-open")
        if granted is None:
            assert answer.status_code == 403
            assert answer.headers["WWW-Authenticate"].startswith('Bearer error="insufficient_scope"')
        else:
            async with hub.follow(answer.json()["hub.channel.endpoint"]):
                (subscription,) = hub.hub.service._store.sessions()
            assert ",".join(next(iter(subscription.subscriptions.values())).events) == granted
        answer = await hub.publish(event("Patient-open"), token)
        assert answer.status_code == (202 if writes else 403)
        if not writes:
            needed = "Patient-open.write" if any(claims.values()) else "*.read"
            challenge = f'Bearer error="insufficient_scope", scope="fhircast/{needed}"'
            assert answer.headers["WWW-Authenticate"] == challenge


@pytest.mark.req("AUT-8")
async def test_a_topic_claim_limits_a_token() -> None:
    """As string or list: there it is welcome, also where another user owns the topic; elsewhere 403, also where nobody does."""
    async with running_hub() as hub:
        await hub.subscribe(token=hub.token("user-2"), hub__topic="theirs")
        one, several = hub.token(**{"hub.topic": TOPIC}), hub.token(**{"hub.topic": [TOPIC, "theirs"]})
        assert await may(hub, one) == WELCOME
        assert await may(hub, several, "theirs") == WELCOME
        assert await may(hub, one, "theirs") == await may(hub, several, "elsewhere") == REFUSED
        assert await may(hub, hub.token(**{"hub.topic": []})) == REFUSED
        assert await may(hub, hub.token(**{"hub.topic": TOPIC.upper()})) == REFUSED


@pytest.mark.req("AUT-9")
@pytest.mark.parametrize("verb", ["subscribe", "publish"])
async def test_a_session_belongs_to_who_first_subscribed_or_published(verb: str) -> None:
    """From then on every verb of another user is 403, and the owner is welcome."""
    async with running_hub() as hub:
        if verb == "subscribe":
            await hub.subscribe()
        else:
            await hub.publish(event("Patient-open"))
        assert await may(hub, hub.token("user-2")) == REFUSED
        assert await may(hub, hub.token("USER-1")) == REFUSED
        assert await may(hub, hub.token("user-1", client_id="another-app")) == WELCOME


@pytest.mark.req("AUT-9", "AUT-28")
async def test_fhir_user_is_compared_as_an_absolute_url() -> None:
    """A relative one belongs to the issuer's fhir_base; without the claim no other one stands in."""
    own = {"user_claim": "fhirUser", "fhir_base": "https://fhir.example/r4/"}
    async with running_hub(own=own) as hub:
        assert await may(hub, hub.token("a", fhirUser="Practitioner/1")) == WELCOME
        assert await may(hub, hub.token("b", fhirUser="https://fhir.example/r4/Practitioner/1")) == WELCOME
        assert await may(hub, hub.token("a", fhirUser="Practitioner/2")) == REFUSED
        assert await may(hub, hub.token("a", fhirUser="https://other.example/r4/Practitioner/1")) == REFUSED
        assert await may(hub, hub.token("a")) == [401, 401, 401]


@pytest.mark.req("AUT-10", "AUT-15")
async def test_tokens_of_every_issuer_of_a_realm_name_the_same_users() -> None:
    """One user subscribes with a token of one issuer and is told what an app publishes with one of the other."""
    async with IssuerServer() as server:
        other = Idp()
        realm = {"realm": "hospital", "user_claim": "email"}
        async with running_hub(own=realm, others=[issuer_setting(server, other, **realm)]) as hub:
            subscriber = hub.token("x", email="ann@hospital.example")
            same = other.token("y", email="ann@hospital.example", now=hub.clock.now)
            stranger = other.token("x", email="bob@hospital.example", now=hub.clock.now)
            async with hub.follow(await hub.subscribe(token=subscriber)) as follower:
                assert await may(hub, same) == WELCOME
                assert await follower.names(1) == ["Patient-open"]
                assert await may(hub, stranger) == REFUSED


@pytest.mark.req("AUT-15", "EVT-11")
async def test_a_topic_in_two_realms_is_two_sessions() -> None:
    """Same topic, same user name, two issuers without a common realm: each has its own context, and hears its own events."""
    async with IssuerServer() as server:
        other = Idp(audience="another-audience")
        async with running_hub(others=[issuer_setting(server, other)]) as hub:
            theirs = other.token("user-1", now=hub.clock.now)
            async with hub.follow(await hub.subscribe()) as one, hub.follow(await hub.subscribe(token=theirs)) as two:
                await hub.publish(event("Patient-open", "theirs"), theirs)
                assert (await two.next())["id"] == "Patient-open-theirs"
                assert await one.silent()
            assert (await hub.context()).json()["context"] == []
            assert (await hub.context(theirs)).json()["context"] != []
            # Each issuer speaks for itself only: neither with the other's key, nor for the other's audience.
            forged = other.token("user-1", iss=hub.idp.issuer, aud=hub.idp.audience, now=hub.clock.now)
            assert (await hub.context(forged)).status_code == 401
            assert (await hub.context(other.token(aud=hub.idp.audience, now=hub.clock.now))).status_code == 401


@pytest.mark.req("AUT-11", "AUT-29")
async def test_a_system_client_acts_on_sessions_that_a_user_owns() -> None:
    """Where nobody owns the topic 409, and it binds none; then every verb, in any user's session, and the user stays owner."""
    async with running_hub(own={"system_clients": ["pacs"]}) as hub:
        system = hub.token("pacs", client_id="pacs")
        assert await may(hub, system) == [409, 409, 409]
        assert await may(hub, hub.token(), "mine") == WELCOME
        assert await may(hub, hub.token("user-2"), "theirs") == WELCOME
        assert await may(hub, system, "mine") == await may(hub, system, "theirs") == WELCOME
        assert await may(hub, hub.token("user-2"), "mine") == REFUSED
        async with hub.follow(await hub.subscribe(hub__topic="mine")) as follower:
            await follower.next()
            await hub.publish(event("Patient-open", "p2", topic="mine"), system)
            assert (await follower.next())["id"] == "Patient-open-p2"
        scoped = hub.token("pacs", "fhircast/Encounter-open.*", client_id="pacs")
        assert await may(hub, scoped, "mine") == REFUSED


@pytest.mark.req("AUT-11", "AUT-30")
async def test_who_is_not_quite_a_system_client_is_none() -> None:
    """A listed client with a user is that user; an unlisted one without a user acts only on topics that its token claims."""
    async with running_hub(own={"system_clients": ["pacs"]}) as hub:
        await hub.subscribe(hub__topic="mine")
        assert await may(hub, hub.token("user-2", client_id="pacs"), "mine") == REFUSED
        userless = {"sub": "other", "client_id": "other"}
        assert await may(hub, hub.token(**userless), "mine") == REFUSED
        assert await may(hub, hub.token(**userless), "nobody's") == REFUSED
        claimed = hub.token(**userless, **{"hub.topic": ["mine", "nobody's"]})
        assert await may(hub, claimed, "mine") == await may(hub, claimed, "nobody's") == WELCOME
        assert await may(hub, hub.token(), "nobody's") == REFUSED


@pytest.mark.req("AUT-16")
async def test_an_issuer_that_cannot_be_reached_is_the_hubs_trouble() -> None:
    """503 with Retry-After on every verb, soon, for its tokens; those of another issuer are good meanwhile."""
    url = f"http://127.0.0.1:{free_port()}"
    away = Idp(url)
    setting = {"issuer": url, "audience": "hub", "jwks_uri": url + "/jwks"}
    async with running_hub(others=[setting]) as hub:
        token = away.token(now=hub.clock.now)
        answers: list[httpx.Response] = [
            await hub.form(token, hub__events="Patient-open"),
            await hub.publish(event("Patient-open"), token),
            await hub.context(token),
        ]
        for answer in answers:
            assert answer.status_code == 503
            assert 0 < int(answer.headers["Retry-After"]) <= 30
            assert "WWW-Authenticate" not in answer.headers
        assert await may(hub, hub.token()) == WELCOME


@pytest.mark.req("AUT-16", "AUT-19")
async def test_an_issuer_that_went_away_leaves_its_known_keys_working() -> None:
    """A new token under a key that was fetched before is good; one under an unknown key gets 503 until the issuer is back."""
    async with IssuerServer() as server:
        other = Idp()
        async with running_hub(others=[issuer_setting(server, other)]) as hub:
            assert (await hub.context(other.token("a", now=hub.clock.now), "a")).status_code == 200
            await server.stop()
            hub.clock.now += 60
            assert (await hub.context(other.token("b", now=hub.clock.now), "b")).status_code == 200
            renewed = Idp(other.issuer, kid="key-2")
            token = renewed.token("c", now=hub.clock.now)
            assert (await hub.context(token, "c")).status_code == 503
            issuer_setting(server, renewed)
            await server.start()
            hub.clock.now += 31
            assert (await hub.context(token, "c")).status_code == 200
            assert (await hub.context(other.token("d", now=hub.clock.now), "d")).status_code == 401
