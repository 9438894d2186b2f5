"""Whose session it is when a hospital has several authorization servers: AUT-8 to AUT-11 and AUT-15 with two real issuers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.auth.introspection_server import INTROSPECT, IntrospectionServer
from tests.auth.issuer_server import IssuerServer
from tests.running import RunningHub, event, issuer_setting, running_hub
from tests.tokens import Idp

WELCOME, REFUSED, UNKNOWN, UNOWNED = [202, 202, 200], [403, 403, 403], [401, 401, 401], [409, 409, 409]
SESSIONS = "fhircast-hub/sessions.write"
FHIR = "https://fhir.hospital.example/r4"


class Hospital:
    """A hub with two issuers: `token` is the first's, that of the EHR, `login` the second's."""

    def __init__(self, hub: RunningHub, other: Idp) -> None:
        self.hub, self.other = hub, other

    def token(self, **claims: Any) -> str:
        return self.hub.token(**claims)

    def login(self, **claims: Any) -> str:
        return self.other.token(now=self.hub.clock.now, **claims)

    async def may(self, token: str, topic: str = "a-topic") -> list[int]:
        """The statuses of subscribing, publishing and reading."""
        answers = [
            await self.hub.form(token, hub__events="Patient-open", hub__topic=topic),
            await self.hub.publish(event("Patient-open", topic=topic), token),
            await self.hub.context(token, topic),
        ]
        return [answer.status_code for answer in answers]

    async def begins(self, user: str, token: str) -> str:
        """The topic of a session for this user."""
        answer = await self.hub.client.post(
            f"{self.hub.origin}/sessions", json={"user": user}, headers=self.hub.headers(token)
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["hub.topic"])


@asynccontextmanager
async def hospital(own: dict[str, Any], other: dict[str, Any]) -> AsyncIterator[Hospital]:
    """Two issuers with these members, in one realm unless they say otherwise."""
    async with IssuerServer() as server:
        idp = Idp(audience="the-hub-by-another-name")
        realm = {"realm": "hospital"}
        async with running_hub(own=realm | own, others=[issuer_setting(server, idp, **(realm | other))]) as hub:
            yield Hospital(hub, idp)


# The same person


@pytest.mark.req("AUT-9", "AUT-10", "AUT-15")
@pytest.mark.parametrize(
    ("own", "other", "first", "second", "stranger"),
    [
        pytest.param(
            {"user_claim": "hpr_number"},
            {"user_claim": "hpr_number"},
            {"hpr_number": "9144889"},
            {"hpr_number": "9144889"},
            {"hpr_number": "9144897"},
            id="HPR number",
        ),
        pytest.param(
            {"user_claim": "employeeID"},
            {"user_claim": "https://login.example/claims/employee"},
            {"employeeID": "E-17"},
            {"https://login.example/claims/employee": "E-17"},
            {"https://login.example/claims/employee": "e-17", "employeeID": "E-17"},
            id="employee id, called differently",
        ),
        pytest.param(
            {"user_claim": "fhirUser", "fhir_base": FHIR},
            {"user_claim": "fhirUser"},
            {"fhirUser": "Practitioner/7"},
            {"fhirUser": f"{FHIR}/Practitioner/7"},
            {"fhirUser": "https://fhir.clinic.example/r4/Practitioner/7"},
            id="fhirUser, relative and absolute",
        ),
        pytest.param(
            {"user_claim": "fhirUser", "fhir_base": FHIR + "/"},
            {"user_claim": "fhirUser", "fhir_base": "https://fhir.clinic.example/r4"},
            {"fhirUser": "Practitioner/7/_history/2"},
            {"fhirUser": f"{FHIR}/Practitioner/7"},
            {"fhirUser": "Practitioner/7"},
            id="fhirUser, relative to two servers",
        ),
        pytest.param(
            {"user_claim": "sub"},
            {"user_claim": "uid"},
            {"sub": "ann"},
            {"uid": "ann"},
            {"uid": "bob", "sub": "ann"},
            id="sub of one, another claim of the other",
        ),
    ],
)
async def test_one_person_joins_with_tokens_of_either_issuer(
    own: dict[str, Any],
    other: dict[str, Any],
    first: dict[str, Any],
    second: dict[str, Any],
    stranger: dict[str, Any],
) -> None:
    """And hears what is published with the other's; another person does not, though some claim is alike."""
    async with hospital(own, other) as both:
        mine, same, not_me = both.token(**first), both.login(sub="x", **second), both.login(**({"sub": "y"} | stranger))
        async with both.hub.follow(await both.hub.subscribe(token=mine, hub__topic="a-topic")) as follower:
            assert await both.may(same) == WELCOME
            assert await follower.names(1) == ["Patient-open"]
            assert await both.may(not_me) == REFUSED
            assert await follower.silent()
        assert await both.may(same, "theirs") == WELCOME
        assert await both.may(mine, "theirs") == WELCOME
        assert await both.may(not_me, "theirs") == REFUSED


@pytest.mark.req("AUT-9", "AUT-26")
async def test_no_other_claim_stands_in() -> None:
    """A token without its issuer's user_claim is 401, whatever else it says; also one with the other issuer's."""
    async with hospital({"user_claim": "hpr_number"}, {"user_claim": "employeeID"}) as both:
        assert await both.may(both.token(hpr_number="1")) == WELCOME
        for claims in ({}, {"employeeID": "1"}, {"hpr_number": ""}, {"hpr_number": 1}, {"hpr_number": ["1"]}):
            assert await both.may(both.token(**claims)) == UNKNOWN
        assert await both.may(both.login(hpr_number="1")) == UNKNOWN
        assert await both.may(both.login(employeeID="1")) == WELCOME


@pytest.mark.req("AUT-9", "AUT-28")
async def test_a_relative_fhir_user_without_a_base_names_nobody() -> None:
    """Nor does an empty one: whose Practitioner/7 it is cannot be known."""
    async with hospital({"user_claim": "fhirUser", "fhir_base": FHIR}, {"user_claim": "fhirUser"}) as both:
        for name in ("Practitioner/7", "/", "/_history/1"):
            assert await both.may(both.login(fhirUser=name)) == UNKNOWN


@pytest.mark.req("AUT-9", "AUT-15", "SES-1")
async def test_realms_stay_apart() -> None:
    """The same user's name, topic and system client in two realms are two users, two sessions, two clients."""
    members = {"system_clients": ["pacs"]}
    async with hospital({"realm": "north", **members}, {"realm": "south", **members}) as both:
        assert await both.may(both.token(sub="ann")) == WELCOME
        assert await both.may(both.login(sub="bob")) == WELCOME
        assert (await both.hub.context(both.login(sub="bob"), "a-topic")).json() != (
            await both.hub.context(both.token(sub="ann"), "a-topic")
        ).json()
        system = {"sub": "pacs", "client_id": "pacs", "scope": f"fhircast/*.* {SESSIONS}"}
        topic = await both.begins("ann", both.token(**system))
        assert await both.may(both.login(**system), topic) == UNOWNED
        url = f"{both.hub.origin}/sessions/{topic}"
        headers = both.hub.headers(both.login(**system))
        assert (await both.hub.client.get(f"{url}/participants", headers=headers)).status_code == 404
        assert (await both.hub.client.delete(url, headers=headers)).status_code == 404
        assert await both.may(both.token(sub="ann"), topic) == WELCOME


@pytest.mark.req("AUT-8", "AUT-15")
async def test_a_topic_claim_counts_within_its_realm() -> None:
    """A token of either issuer that names the topic is welcome in it, whoever owns it; elsewhere it is not."""
    async with hospital({"user_claim": "sub"}, {"user_claim": "sub"}) as both:
        await both.may(both.token(sub="ann"))
        assert await both.may(both.login(sub="bob", **{"hub.topic": "a-topic"})) == WELCOME
        assert await both.may(both.login(sub="ann", **{"hub.topic": "another"})) == REFUSED
    async with hospital({"realm": "north"}, {"realm": "south"}) as both:
        await both.hub.publish(event("Patient-open", topic="a-topic"), both.token(sub="ann"))
        answer = await both.hub.context(both.login(sub="bob", **{"hub.topic": "a-topic"}), "a-topic")
        assert answer.json()["context"] == []


# System clients


@pytest.mark.req("AUT-11", "SES-1", "AUT-29")
async def test_a_system_client_acts_on_owned_and_made_sessions() -> None:
    """409 where nobody owns the topic, and still nobody does; welcome in any user's, and in what it, or another, had made."""
    own = {"user_claim": "hpr_number", "system_clients": ["pacs", "ehr"]}
    async with hospital(own, {"user_claim": "hpr_number", "system_clients": ["night"]}) as both:
        pacs = both.token(sub="pacs", client_id="pacs")
        night = both.login(sub="night", client_id="night")
        for system in (pacs, night):
            assert await both.may(system) == UNOWNED
        assert both.hub.hub.service.usage.topics == 0
        ehr = both.token(sub="ehr", client_id="ehr", scope=SESSIONS)
        made = await both.begins("9144889", ehr)
        assert await both.may(pacs, made) == await both.may(night, made) == WELCOME
        assert await both.may(both.login(hpr_number="1"), made) == REFUSED
        assert await both.may(both.login(hpr_number="9144889"), made) == WELCOME
        assert await both.may(both.token(hpr_number="1")) == WELCOME
        assert await both.may(pacs) == await both.may(night) == WELCOME
        assert await both.may(both.token(hpr_number="1")) == WELCOME


@pytest.mark.req("AUT-11")
async def test_who_is_not_quite_a_system_client() -> None:
    """Listed at the other issuer, with another sub, or with a user's claim: a user, or nobody."""
    own = {"user_claim": "hpr_number", "system_clients": ["pacs"]}
    async with hospital(own, {"user_claim": "hpr_number"}) as both:
        await both.may(both.token(hpr_number="1"))
        assert await both.may(both.login(sub="pacs", client_id="pacs")) == UNKNOWN
        assert await both.may(both.token(sub="x", client_id="pacs")) == UNKNOWN
        assert await both.may(both.token(sub="pacs", client_id="pacs", hpr_number="2")) == REFUSED
        assert await both.may(both.token(sub="pacs", client_id="PACS")) == UNKNOWN
        claimed = both.login(sub="pacs", client_id="pacs", **{"hub.topic": "unowned"})
        assert await both.may(claimed, "unowned") == WELCOME
        assert await both.may(claimed) == REFUSED
        assert await both.may(both.token(sub="pacs", client_id="pacs"), "unowned") == UNOWNED


# How servers spell it


@pytest.mark.req("AUT-7", "AUT-11", "AUT-15")
@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"scope": "openid fhircast/Patient-open.read fhircast/Patient-open.write"}, id="RFC 9068"),
        pytest.param({"scope": ["openid", "fhircast/Patient-open.*"]}, id="PingFederate, list"),
        pytest.param({"scope": None, "scp": ["openid", "fhircast/Patient-open.*"]}, id="Okta"),
        pytest.param({"scope": None, "scp": "openid fhircast/Patient-open.*"}, id="Entra ID"),
        pytest.param({"scope": "FHIRcast/patient-open.READ fhircast/PATIENT-OPEN.write", "typ": "at+jwt"}, id="case"),
    ],
)
async def test_scopes_are_read_as_servers_spell_them(claims: dict[str, Any]) -> None:
    """`scope` or `scp`, string or list: the same events, and no more."""
    async with hospital({"user_claim": "sub"}, {"user_claim": "sub"}) as both:
        for token in (both.token(**claims), both.login(**claims)):
            assert await both.may(token) == WELCOME
            assert (await both.hub.form(token, hub__events="Encounter-open", hub__topic="a-topic")).status_code == 403


@pytest.mark.req("AUT-7", "AUT-11", "SES-1")
@pytest.mark.parametrize(
    "claims",
    [
        {"client_id": "ehr", "scope": SESSIONS},
        {"client_id": None, "appid": "ehr", "scope": None, "scp": f"x {SESSIONS}"},
        {"client_id": None, "azp": "ehr", "scope": None, "scp": [SESSIONS]},
        {"client_id": None, "cid": "ehr", "scope": None, "scp": [SESSIONS]},
    ],
)
async def test_a_system_client_is_known_by_whatever_claim_names_it(claims: dict[str, Any]) -> None:
    """`client_id`, `azp`, `appid` and `cid`, as RFC 9068, OpenID Connect, Entra ID and Okta have it."""
    async with running_hub(own={"system_clients": ["ehr"]}) as hub:
        answer = await hub.client.post(
            f"{hub.origin}/sessions", json={"user": "ann"}, headers=hub.headers(hub.token("ehr", **claims))
        )
        assert answer.status_code == 201


@pytest.mark.req("AUT-10", "AUT-14")
async def test_one_person_joins_with_an_opaque_token_and_a_signed_one() -> None:
    """The login's tokens are opaque, as PingFederate's reference tokens; its answers spell scope as they like."""
    async with IntrospectionServer() as server:
        idp = Idp()
        realm = {"realm": "hospital", "user_claim": "hpr_number"}
        login = issuer_setting(
            server,
            idp,
            introspection_endpoint=server.url + INTROSPECT,
            introspection_client_id="hub",
            introspection_client_secret="secret",
            **realm,
        )
        async with running_hub(own=realm, others=[login]) as hub:
            both = Hospital(hub, idp)
            known = {"aud": ["hub"], "exp": int(hub.clock.now) + 900, "client_id": "viewer", "sub": "uuid"}
            server.tokens["ref-1"] = known | {"scope": "fhircast/*.*", "hpr_number": "1"}
            server.tokens["ref-2"] = known | {"scp": ["fhircast/*.*"], "hpr_number": "2"}
            server.tokens["ref-3"] = known | {"scope": "fhircast/*.*"}
            server.tokens["ref-4"] = known | {"scope": "fhircast/*.*", "hpr_number": "1", "iss": hub.idp.issuer}
            async with hub.follow(await hub.subscribe(token=both.token(hpr_number="1"), hub__topic="a-topic")) as ehr:
                assert await both.may("ref-1") == WELCOME
                assert await ehr.names(1) == ["Patient-open"]
            assert await both.may("ref-2") == REFUSED
            assert await both.may("ref-2", "theirs") == WELCOME
            assert await both.may("ref-3") == await both.may("ref-4") == UNKNOWN
            assert await both.may(both.login(hpr_number="1")) == WELCOME  # its signed tokens are good as well
