"""Two of the demo's authorization servers and a real hub that trusts both: one user is in one session, and failures reach it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.auth import AuthServer, HubSessions
from tests.ports import free_port
from tests.process.hub_process import HubProcess, Visitor, hub_process
from tests.running import event
from tests.smart_client import AUDIENCE, User, auth_server, listen, origin, serving
from tests.tokens import Idp

SYSTEM = "auth-server"
FHIRCAST = "openid fhircast/*.*"


@dataclass
class House:
    """The EHR's server has the session API, the house's login has not; each has a browser with the viewer."""

    ehr: User
    login: User
    visitor: Visitor
    hub: HubProcess

    async def subscribe(self, token: str, topic: str) -> int:
        """The status of subscribing."""
        return (await self.visitor.form(token, hub__events="Patient-open", hub__topic=topic)).status_code


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """All of it, running."""
    port, listeners = free_port(), (listen(), listen())
    shared = {"audience": AUDIENCE, "realm": "house", "user_claim": "hpr_number"}
    issuers = [{"issuer": origin(each), **shared} for each in listeners]
    issuers[0]["system_clients"] = [SYSTEM]  # type: ignore[assignment]
    api = HubSessions(f"http://127.0.0.1:{port}/sessions", SYSTEM)
    async with AsyncExitStack() as running:
        users = []
        for listener, hub_api in zip(listeners, (api, None), strict=True):
            server = auth_server(listener, hub_api, fhir_base=f"{origin(listener)}/fhir")
            users.append(
                await running.enter_async_context(User(await running.enter_async_context(serving(server, listener))))
            )
        hub = hub_process(tmp_path, port=port, issuers=issuers, store="memory:")
        running.callback(hub.__exit__)
        await asyncio.to_thread(hub.wait_until_ready)
        visitor = await running.enter_async_context(Visitor(hub, Idp()))
        yield House(users[0], users[1], visitor, hub)


async def test_tokens_of_both_servers_join_one_session(house: House) -> None:
    """The EHR's token response names the session; a token of the house's login for the same person is good for it too."""
    first = await house.ehr.tokens("okafor", scope=FHIRCAST)
    second = await house.login.tokens("okafor", scope=FHIRCAST)
    assert first["hub.url"] == house.visitor.url
    assert not {"hub.url", "hub.topic"} & set(second)
    topic = first["hub.topic"]
    endpoints = [
        await house.visitor.subscribe("Patient-open", tokens["access_token"], hub__topic=topic)
        for tokens in (first, second)
    ]
    async with house.visitor.follow(endpoints[0]) as ehr, house.visitor.follow(endpoints[1]) as viewer:
        for number, tokens in enumerate((first, second)):
            opened = event("Patient-open", f"p{number}", topic=topic)
            assert (await house.visitor.publish(opened, tokens["access_token"])).status_code == 202
            for follower in (ehr, viewer):
                assert (await follower.next())["id"] == opened["id"]


async def test_a_session_is_one_persons_and_the_same_at_each_launch(house: House) -> None:
    first = await house.ehr.tokens("okafor", scope=f"{FHIRCAST} offline_access")
    again = await house.ehr.tokens("okafor", scope=FHIRCAST)
    refreshed = (await house.ehr.refresh(first["refresh_token"])).json()
    assert first["hub.topic"] == again["hub.topic"] == refreshed["hub.topic"]
    other = await house.login.tokens("chen", scope=FHIRCAST)
    assert await house.subscribe(first["access_token"], first["hub.topic"]) == 202
    assert await house.subscribe(other["access_token"], first["hub.topic"]) == 403
    plain = await house.ehr.tokens("okafor", scope="openid")
    assert "hub.topic" not in plain


@pytest.mark.parametrize("switch", ["expired_token", "unknown_key"])
async def test_the_hub_refuses_what_the_switches_make(house: House, switch: str) -> None:
    topic = (await house.ehr.tokens(scope=FHIRCAST))["hub.topic"]
    for user in (house.ehr, house.login):
        await user.switch(switch)
        bad = await user.tokens(scope=FHIRCAST)
        assert await house.subscribe(bad["access_token"], topic) == 401
        assert await user.introspect(bad["access_token"]) == {"active": False}
        await user.switch()
        good = await user.tokens(scope=FHIRCAST)
        assert await house.subscribe(good["access_token"], topic) == 202


async def test_a_scope_withheld_lets_an_app_follow_and_not_publish(house: House) -> None:
    await house.ehr.switch("scope_withheld")
    tokens = await house.ehr.tokens(scope=FHIRCAST)
    assert await house.subscribe(tokens["access_token"], tokens["hub.topic"]) == 202
    refused = await house.visitor.publish(event("Patient-open", topic=tokens["hub.topic"]), tokens["access_token"])
    assert refused.status_code == 403


async def test_without_the_hub_tokens_go_out_without_a_session(house: House, caplog: pytest.LogCaptureFixture) -> None:
    code = (await house.ehr.agree(scope=FHIRCAST))["code"]
    house.hub.__exit__()
    with caplog.at_level(logging.WARNING):
        tokens: dict[str, Any] = (await house.ehr.redeem(code)).json()
    assert tokens["access_token"]
    assert not {"hub.url", "hub.topic"} & set(tokens)
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("demo")]
    assert "the hub gave no session (ConnectError)" in line
    assert tokens["access_token"] not in line


async def test_a_hub_that_refuses_is_as_good_as_away(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: AuthServer = house.ehr.server
    assert server.hub
    monkeypatch.setattr(server, "hub", HubSessions(server.hub.url, "another"))
    tokens = await house.ehr.tokens(scope=FHIRCAST)
    assert "hub.topic" not in tokens
    assert "the hub gave no session (status 401)" in caplog.text
