"""The hub checks a request in a fixed order, and a refused request changes nothing."""

from __future__ import annotations

import json

import pytest

from tests.http.wire import ask
from tests.running import event, running_hub

AS_JSON = {"Content-Type": "application/json"}


@pytest.mark.req("AUT-1", "AUT-2")
async def test_the_token_is_checked_before_anything_else() -> None:
    """401 comes before 415, 413, 400, 404 and 405, whatever else is wrong with path, type and body."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with running_hub(max_body_bytes=1000) as hub:
        for method, path, headers, body in [
            ("POST", "/api/hub", {"Content-Type": "text/plain"}, b"x"),
            ("POST", "/api/hub", {}, b""),
            ("POST", "/api/hub", AS_JSON, b"x" * 2000),
            ("POST", "/api/hub", AS_JSON, b"{"),
            ("POST", "/api/hub", form, b"hub.mode=x"),
            ("POST", "/api/hub/another", AS_JSON, json.dumps(event("Patient-open")).encode()),
            ("POST", "/api/hub/%ff", AS_JSON, b"{}"),
            ("POST", "/api/hub/ws", AS_JSON, b"{}"),
            ("GET", "/api/hub", {}, None),
            ("GET", "/api/hub/%ff", {}, None),
            ("GET", "/api/hub/ws", {}, None),
            ("GET", "/api/hub/" + "t" * 2000, {}, None),
        ]:
            answer = await ask(hub, method, path, headers, body)
            assert answer.status == 401, (method, path, headers)
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.req("SUB-21", "UNS-3", "AUT-9", "AUT-3")
async def test_form_then_endpoint_then_owner_then_scope() -> None:
    """400 before 404, 404 before the owner's 403, that before the scope's; and 400 before 403 for an event."""
    async with running_hub() as hub:
        await hub.subscribe()
        foreign, blind = hub.token("user-2"), hub.token("user-2", scope="fhircast/Home-open.read")
        unknown = {"hub__channel.endpoint": "wss://hub.example/x"}
        for token, status, more in [
            (foreign, 400, {**unknown, "hub__events": "Patient-open", "hub__lease_seconds": "0"}),
            (foreign, 404, {**unknown, "hub__events": "Patient-open"}),
            (blind, 404, {**unknown, "hub__events": "Patient-open"}),
            (blind, 404, {**unknown, "hub__mode": "unsubscribe"}),
            (blind, 400, {"hub__mode": "unsubscribe"}),
        ]:
            assert (await hub.form(token, **more)).status_code == status, more
        for answer in (
            await hub.form(blind, hub__events="Patient-open"),
            await hub.publish(event("Patient-open"), blind),
            await hub.context(blind),
        ):
            assert answer.status_code == 403
            assert "WWW-Authenticate" not in answer.headers, "another scope would not help"
        assert (await hub.publish(event("Patient-open", ""), blind)).status_code == 400
        assert (await hub.publish(b"{}", blind)).status_code == 400


@pytest.mark.req("AUT-9")
async def test_a_request_that_fails_creates_nothing() -> None:
    """Whatever it fails for, no session and no owner is left behind."""
    async with running_hub(max_body_bytes=1000) as hub:
        blind = hub.token(scope="")
        failed = [
            await hub.form(blind, hub__events="Patient-open"),
            await hub.form(hub__events="Patient-open", hub__lease_seconds="x"),
            await hub.form(hub__events="Patient-open", **{"hub__channel.endpoint": "wss://x/y"}),
            await hub.form(hub__mode="unsubscribe"),
            await hub.publish(event("Patient-open"), blind),
            await hub.publish(event("Patient-open") | {"id": ""}),
            await hub.publish(event("Patient-open"), path="/another"),
            await hub.publish(event("DiagnosticReport-select")),
            await hub.publish(event("Patient-open", "x" * 1000)),
            await hub.context(),
            await hub.context(blind),
        ]
        assert [answer.status_code for answer in failed] == [403, 400, 404, 400, 403, 400, 400, 409, 413, 200, 200]
        assert hub.hub.service.usage.topics == 0


@pytest.mark.req("AUT-21")
@pytest.mark.parametrize("scope", ["openid", "", "patient/*.read fhircast-hub/sessions.write"])
@pytest.mark.parametrize("sent", ["application/json", "application/x-www-form-urlencoded", "text/html"])
async def test_a_token_without_any_fhircast_scope_is_refused_before_the_body_is_read(scope: str, sent: str) -> None:
    """Whatever it would send: 403, though the body never comes."""
    async with running_hub() as hub:
        token = f"Bearer {hub.token(scope=scope)}"
        headers = {"Authorization": token, "Content-Type": sent, "Content-Length": "99"}
        answer = await ask(hub, "POST", "/api/hub", headers)
        assert answer.status == 403
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="fhircast/*.read"'
        assert b"no FHIRcast scope" in answer.body


@pytest.mark.req("AUT-21", "SUB-19", "SUB-30")
async def test_a_token_for_openid_alone_unsubscribes_nobody() -> None:
    """Though it is the same user's, and knows the name."""
    async with running_hub() as hub, hub.follow(await hub.subscribe(subscriber__name="EHR")) as ehr:
        answer = await hub.form(hub.token(scope="openid"), hub__mode="unsubscribe", subscriber__name="EHR")
        assert answer.status_code == 403
        await hub.publish(event("Patient-open"))
        assert await ehr.names(1) == ["Patient-open"]
