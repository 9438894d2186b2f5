"""Tokens that are not what they say."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.auth.issuer_server import JWKS, IssuerServer
from tests.running import TOPIC, RunningHub, event, issuer_setting, running_hub
from tests.tokens import Idp


def part(value: object) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def refused(hub: RunningHub, token: str) -> bool:
    """Whether the token opens nothing, on each verb. Half a minute passes for each, in which its key may be asked for once."""
    answers = []
    for asked in (
        hub.context(token),
        hub.publish(event("Patient-open"), token),
        hub.form(token, hub__events="Patient-open"),
        hub.client.post(f"{hub.origin}/sessions", headers=hub.headers(token), json={"user": "user-1"}),
    ):
        hub.clock.now += 30
        answers.append(await asked)
    return {(answer.status_code, answer.headers.get("WWW-Authenticate")) for answer in answers} == {
        (401, 'Bearer error="invalid_token"')
    }


@pytest.mark.req("AUT-1")
@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
async def test_algorithm_confusion(alg: str) -> None:
    """The issuer's public key, in any of its notations, is no secret to sign with."""
    async with running_hub() as hub:
        public = hub.idp.key.public_key()
        body = hub.token().split(".")[1]
        for secret in (
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(hub.idp.jwk()).encode(),
            b"",
        ):
            unsigned = f"{part({'alg': alg, 'kid': hub.idp.kid})}.{body}"
            signature = pyjwt.get_algorithm_by_name(alg).sign(unsigned.encode(), secret)
            encoded = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
            assert await refused(hub, f"{unsigned}.{encoded}")


@pytest.mark.req("AUT-1")
@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None])
async def test_alg_none(alg: str | None) -> None:
    """A token that nobody signed, with and without the remains of a signature."""
    async with running_hub() as hub:
        _, body, signature = hub.token().split(".")
        for tail in ("", signature):
            assert await refused(hub, f"{part({'alg': alg, 'kid': hub.idp.kid})}.{body}.{tail}")


@pytest.mark.req("AUT-1")
async def test_jku_x5u_jwk_injection() -> None:
    """A token does not say where its key is, and nobody asks there."""
    async with running_hub() as hub, IssuerServer() as evil:
        thief = Idp(hub.idp.issuer, kid=hub.idp.kid)
        evil.publish("/keys", thief.jwks())
        for kid in (hub.idp.kid, "thief", None):
            for header in (
                {"jku": f"{evil.url}/keys"},
                {"x5u": f"{evil.url}/keys"},
                {"jwk": thief.jwk()},
                {"x5c": ["AAAA"]},
                {"jku": f"{evil.url}/keys", "x5u": f"{evil.url}/keys", "jwk": thief.jwk()},
            ):
                assert await refused(hub, thief.token(now=hub.clock.now, headers={**header, "kid": kid}))
        assert not evil.asked


@pytest.mark.req("AUT-1", "AUT-19")
@pytest.mark.parametrize(
    "kid", ["../../../dev/null", "/dev/null", "' OR 1=1 --", "http://127.0.0.1/", "key-1\0", "x" * 9000, "${jndi:x}", 1]
)
async def test_kid_injection(kid: Any) -> None:
    """A key's id is a name among the issuer's keys, and neither path, query nor address."""
    async with running_hub() as hub:
        thief = Idp(hub.idp.issuer)
        body = thief.token(now=hub.clock.now).split(".")[1]
        unsigned = f"{part({'alg': 'ES256', 'kid': kid})}.{body}"
        assert await refused(hub, f"{unsigned}.{'A' * 86}")
        assert (await hub.context()).status_code == 200


@pytest.mark.req("AUT-19", "AUT-20", "AUT-33")
@pytest.mark.parametrize("kid", ["made-up", None])
async def test_key_flood(kid: str | None) -> None:
    """Hundreds of unknown keys, named or not, make the hub ask their issuer three times, and cost nobody else anything."""
    async with IssuerServer() as server:
        idp = Idp()
        async with running_hub(others=[issuer_setting(server, idp)]) as hub:
            assert (await hub.context(idp.token(now=hub.clock.now))).status_code == 200
            before, statuses = server.asked[JWKS], []
            for number in range(300):
                stranger = Idp(idp.issuer, kid=f"made-up-{number}")
                token = stranger.token(now=hub.clock.now, headers={"kid": kid and stranger.kid})
                statuses.append((await hub.context(token)).status_code)
            assert statuses == [401] * 3 + [503] * 297
            assert server.asked[JWKS] - before == 3
            for headers in ({}, {"kid": None}):
                own = idp.token("user-2", now=hub.clock.now, headers=headers)
                assert (await hub.context(own, "another")).status_code == 200
            renewed = Idp(kid="key-2")
            issuer_setting(server, renewed)
            token = renewed.token(now=hub.clock.now)
            later = await hub.context(token)
            assert (later.status_code, later.headers["Retry-After"]) == (503, "30")
            assert "WWW-Authenticate" not in later.headers
            hub.clock.now += 30
            assert (await hub.context(token)).status_code == 200


@pytest.mark.req("AUT-1")
@pytest.mark.parametrize(
    "audience", ["HUB", "hub ", "hub/", "hub\0", ["other"], [["hub"]], {"hub": "hub"}, "https://hub.example", "", None]
)
async def test_audience_confusion(audience: Any) -> None:
    """A token for somebody else, however alike, is none for the hub."""
    async with running_hub() as hub:
        assert await refused(hub, hub.token(aud=audience))


@pytest.mark.req("AUT-1", "AUT-15")
async def test_issuer_confusion() -> None:
    """No issuer vouches for the users of another: key, audience and key id of one do not go with the name of the other."""
    async with IssuerServer() as server:
        other = Idp(audience="other")
        async with running_hub(others=[issuer_setting(server, other)]) as hub:
            now = hub.clock.now
            for token in (
                other.token(now=now, iss=hub.idp.issuer),
                other.token(now=now, iss=hub.idp.issuer, aud="hub"),
                other.token(now=now, aud="hub"),
                hub.token(iss=other.issuer),
                hub.token(iss=other.issuer, aud="other"),
                hub.token(aud="other"),
                *(hub.token(iss=f"{hub.idp.issuer}{tail}") for tail in ("/", "#", "\0", "@evil.example", "/..")),
                *(hub.token(iss=iss) for iss in ([hub.idp.issuer], "", None, hub.idp.issuer.upper())),
            ):
                assert await refused(hub, token)
            assert (await hub.context(other.token(now=now))).status_code == 200


@pytest.mark.req("AUT-3", "AUT-5", "AUT-6")
@pytest.mark.parametrize(
    "scope",
    [
        *("fhircast/*.writes", "fhircast/*.reads", "fhircast/*.readwrite", "fhircast/*.rw", "fhircast/*.write.read.x"),
        *("fhircast/**", "fhircast/*", "fhircast.*.*", "fhircast-hub/*.*", "fhir/*.*", "xfhircast/*.*", "*/*.*", "*"),
        *("ｆhircast/*.*", "fhircaſt/*.*", "fhircast/＊.＊", "fhircast∕*.*", "fhircast/*․*", "fhircast/*.wrıte"),  # noqa: RUF001
        *("fhircast/Patient‐open.*", "fhircast/Patient-openx.*", "fhircast/Patient-ope.*", "fhircast/Ρatient-open.*"),  # noqa: RUF001
        *("fhircast/*.*\u200b", "\ufefffhircast/*.*", "fhircast/%2A.*", "fhircast\\*.*", '"fhircast/*.*"'),
    ],
)
async def test_scope_look_alikes(scope: str) -> None:
    """A scope that only looks like one of FHIRcast's grants nothing."""
    async with running_hub() as hub:
        blind = hub.token(scope=scope)
        for answer in (
            await hub.publish(event("Patient-open"), blind),
            await hub.form(blind, hub__events="Patient-open"),
            await hub.context(blind),
        ):
            assert answer.status_code == 403 or (answer.status_code == 200 and answer.json()["context"] == [])
        assert hub.hub.service.usage.topics == 0


@pytest.mark.req("AUT-9")
async def test_the_topic_of_another_user() -> None:
    """Who knows a topic is not who owns it: no verb, and no word of what is in it, nor whether it exists."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        await hub.publish(event("Patient-open", "zebulon"))
        await follower.next()
        foreign = hub.token("user-2")
        for answer in (
            await hub.context(foreign),
            await hub.publish(event("Patient-close", "zebulon"), foreign),
            await hub.form(foreign, hub__events="Patient-open"),
            await hub.client.get(f"{hub.origin}/sessions/{TOPIC}/participants", headers=hub.headers(foreign)),
        ):
            assert answer.status_code == 403
            assert "zebulon" not in answer.text
            assert "user-1" not in answer.text
        assert await follower.silent()


@pytest.mark.req("AUT-2")
async def test_token_in_query_or_cookie() -> None:
    """Where proxies log it and browsers add it: it opens nothing there, nor in a form or a header of another name."""
    async with running_hub() as hub:
        token = hub.token()
        form = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "x.y"}
        query = "?" + "&".join(f"{name}={token}" for name in ("access_token", "token", "authorization"))
        for headers in ({}, {"Cookie": f"Authorization=Bearer {token}; access_token={token}"}, {"X-Authorization": f"Bearer {token}"}):  # fmt: skip
            for answer in (
                await hub.client.get(f"{hub.url}/{TOPIC}{query}", headers=headers),
                await hub.client.post(f"{hub.url}{query}", data=form | {"access_token": token}, headers=headers),
                await hub.client.post(f"{hub.url}{query}", json=event("Patient-open"), headers=headers),
                await hub.client.post(f"{hub.origin}/sessions{query}", json={"user": "user-1"}, headers=headers),
            ):
                assert answer.status_code == 401
        assert hub.hub.service.usage.topics == 0


@pytest.mark.req("AUT-8", "AUT-15")
async def test_cross_realm_topic() -> None:
    """A topic's name, a user's name and even the claim that names the topic lead nobody into another realm's session."""
    async with IssuerServer() as server:
        other = Idp(audience="other")
        async with running_hub(others=[issuer_setting(server, other)]) as hub:
            async with hub.follow(await hub.subscribe()) as follower:
                await hub.publish(event("Patient-open", "zebulon"))
                await follower.next()
                for claims in ({}, {"hub.topic": TOPIC}, {"hub.topic": ["x", TOPIC], "realm": hub.idp.issuer}):
                    foreign = other.token("user-1", now=hub.clock.now, **claims)
                    assert (await hub.context(foreign)).json()["context"] == []
                    assert (await hub.publish(event("Patient-close", "zebulon"), foreign)).status_code == 202
                    assert "zebulon" not in (await hub.context(foreign)).text
                assert await follower.silent()
            assert (await hub.context()).json()["context.type"] == "Patient"
