"""Each request and each connection leaves one entry in the audit trail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.audit.audit_world import Asked, audited
from tests.auth.issuer_server import IssuerServer
from tests.running import TOPIC, Clock, RunningHub, event, issuer_setting, opened, running_hub, until
from tests.tokens import Idp

PUBLIC_URL = "http://localhost:8080/api/hub"
SESSIONS = "fhircast-hub/sessions.write"


def who(line: dict[str, Any]) -> dict[str, str]:
    """The agents' names by their roles."""
    agents = {agent["type"]["coding"][0]["code"]: agent for agent in line["agent"]}
    return {role: agent["who"]["identifier"]["value"] for role, agent in agents.items() if "who" in agent}


def about(line: dict[str, Any]) -> list[str]:
    """The patients."""
    return [each["what"]["reference"] for each in line["entity"] if "reference" in each["what"]]


@pytest.mark.req("AUD-1")
async def test_each_kind_of_request_leaves_one_entry(tmp_path: Path) -> None:
    """Subscribe, publish, read, unsubscribe: who, which event, which patient, how it ended, when."""
    async with audited(tmp_path) as (hub, asked):
        endpoint = await hub.subscribe("Patient-open,Patient-close")
        assert (await hub.publish(event("Patient-open", "p1"))).status_code == 202
        assert (await hub.context()).status_code == 200
        await hub.form(hub__mode="unsubscribe", **{"hub__channel.endpoint": endpoint})
        [subscribed], [published] = await asked.of("subscribe"), await asked.of("publish")
        [read], [unsubscribed] = await asked.of("read"), await asked.of("unsubscribe")
        requests = [subscribed, published, read, unsubscribed]
        for line in requests:
            assert {"user-1", "app", hub.url} == set(who(line).values())
            assert (line["outcome"], line["recorded"]) == ("0", "2027-01-15T08:00:00.000Z")
            assert "127.0.0.1" in [agent.get("network", {}).get("address") for agent in line["agent"]]
        assert subscribed["subtype"][2]["code"] == "Patient-open,Patient-close"
        assert published["subtype"][2]["code"] == "Patient-open"
        assert [about(line) for line in requests] == [[], ["Patient/p1"], ["Patient/p1"], []]


@pytest.mark.req("AUD-1", "AUD-8", "SEC-1")
async def test_the_session_is_named_by_its_topic_and_by_the_hash_of_the_log(tmp_path: Path) -> None:
    """In each entry. The log has the hash alone. Endpoints and tokens are nowhere."""
    with capture_logs() as logs:
        async with audited(tmp_path) as (hub, asked):
            endpoint = await hub.subscribe()
            token = hub.token()
            await hub.publish(event("Patient-open"), token)
            await hub.context(token)
            async with hub.follow(endpoint):
                await asked.of("connect")
            for path in ("/participants", ""):
                await hub.client.request(
                    "GET" if path else "DELETE", f"{hub.origin}/sessions/{TOPIC}{path}", headers=hub.headers()
                )
            await asked.of("read", 2)
            await asked.of("session", 2)
            sessions = [line["entity"][-1] for line in asked.lines()]
    assert {session["what"]["identifier"]["value"] for session in sessions} == {TOPIC}
    [logged] = {line["topic"] for line in logs if "topic" in line}
    assert {session["detail"][0]["valueString"] for session in sessions} == {logged}
    assert TOPIC not in json.dumps(logs)
    text = (tmp_path / "trail.jsonl").read_text()
    assert all(secret not in text for secret in (endpoint.rpartition("/")[2], token))


@pytest.mark.req("AUD-8")
async def test_a_request_refused_before_its_topic_was_read_names_none(tmp_path: Path) -> None:
    """Neither one that is no topic, nor one of a body that cannot be read."""
    async with audited(tmp_path) as (hub, asked):
        long = "x" * 2000
        assert (await hub.publish(b'{"hub.topic": "' + TOPIC.encode())).status_code == 400
        assert (await hub.publish(event("Patient-open", topic=long))).status_code == 400
        assert (await hub.context(topic=long)).status_code == 400
        for line in [*await asked.of("publish", 2), *await asked.of("read")]:
            assert line["entity"][-1]["what"] == {"display": "no topic was read"}
        text = (tmp_path / "trail.jsonl").read_text()
        assert all(told not in text for told in (TOPIC, long))


@pytest.mark.req("AUD-1")
async def test_refusals_leave_an_entry(tmp_path: Path) -> None:
    """400, 403 and 409: a minor failure with its reason; the patient that somebody was kept from is named."""
    async with audited(tmp_path) as (hub, asked):
        await hub.subscribe()
        foreign, blind = hub.token("user-2"), hub.token(scope="fhircast/Patient-open.read")
        update = event("DiagnosticReport-update", also=[{"key": "updates", "resource": {"resourceType": "Bundle"}}])
        for answer, status in [
            (await hub.publish(event("Patient-open"), foreign), 403),
            (await hub.publish(event("Patient-open"), blind), 403),
            (await hub.publish(update), 409),
        ]:
            assert answer.status_code == status, answer.text
        assert (await hub.publish(b"{}")).status_code == 400
        lines = await asked.of("publish", 4)
        assert [line["outcome"] for line in lines] == ["4"] * 4
        assert [line["outcomeDesc"] for line in lines] == [
            "this topic belongs to another user",
            "this token's scopes do not allow writing Patient-open",
            "DiagnosticReport-update needs an open context, and this context is not open",
            "event is required",
        ]
        assert [about(line) for line in lines[:2]] == [["Patient/1"], ["Patient/1"]]
        assert "user-2" in who(lines[0]).values()
        assert all("meta" not in line for line in lines)


@pytest.mark.req("AUD-1", "OPS-17")
@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "the header Authorization is required: Bearer and a token"),
        ("not a token", "the token must be a JWT, and this one cannot be decoded"),
        ("expired", "exp: the token has expired"),
    ],
)
async def test_a_stranger_leaves_an_entry(tmp_path: Path, token: str, reason: str) -> None:
    """401 of every verb: the address is named, and the client where the issuer's signature proves the client."""
    async with audited(tmp_path) as (hub, asked):
        sent = hub.token(exp=1) if token == "expired" else token
        headers = {"Authorization": f"Bearer {sent}"} if token else {}
        for answer in (
            await hub.client.get(f"{hub.url}/{TOPIC}", headers=headers),
            await hub.client.post(hub.url, headers=headers),
            await hub.client.post(f"{hub.origin}/sessions", headers=headers, json={"user": "ann"}),
        ):
            assert answer.status_code == 401
        for line in [*await asked.of("read"), *await asked.of("other", 2)]:
            assert set(who(line).values()) == ({hub.url, "app"} if token == "expired" else {hub.url})
            assert (line["outcome"], line["outcomeDesc"]) == ("4", reason)
            stranger = next(agent for agent in line["agent"] if agent["requestor"])
            assert stranger["network"]["address"] == "127.0.0.1"


@pytest.mark.req("AUD-3")
async def test_a_socket_leaves_an_entry(tmp_path: Path) -> None:
    """Who subscribed, with which application and to what; from where the socket came. Also when it comes again."""
    async with audited(tmp_path) as (hub, asked):
        endpoint = await hub.subscribe("Patient-open,Patient-close")
        for _ in range(2):
            async with hub.follow(endpoint):
                pass
        for connected in await asked.of("connect", 2):
            assert {"user-1", "app", hub.url} == set(who(connected).values())
            assert (connected["outcome"], connected["action"]) == ("0", "E")
            assert connected["subtype"][2]["code"] == "Patient-open,Patient-close"
            assert [agent["network"]["address"] for agent in connected["agent"][1:2]] == ["127.0.0.1"]
            [subscribed] = await asked.of("subscribe")
            assert connected["entity"] == subscribed["entity"]
        assert endpoint.rpartition("/")[2] not in json.dumps(asked.lines())
        assert not [line for line in asked.lines() if line["subtype"][1]["code"] == "socket-from-elsewhere"]


@pytest.mark.req("AUD-3")
async def test_a_refused_socket_leaves_an_entry(tmp_path: Path) -> None:
    """An endpoint that is none, or no more, and a handshake that is none: only the address is known."""
    async with audited(tmp_path) as (hub, asked):
        endpoint = await hub.subscribe()
        await hub.form(hub__mode="unsubscribe", **{"hub__channel.endpoint": endpoint})
        for count, path in enumerate((endpoint, endpoint + "x", hub.url.replace("http", "ws") + "/ws/"), 1):
            with pytest.raises(InvalidStatus):
                await connect(path, proxy=None)
            *_, refused = await asked.of("connect", count)
            assert set(who(refused).values()) == {hub.url}
            assert refused["outcome"] == "4"
            assert [agent["network"]["address"] for agent in refused["agent"] if agent["requestor"]] == ["127.0.0.1"]
        async with opened(hub) as (reader, writer):
            writer.write(b"GET /api/hub/ws/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        assert [line["outcome"] for line in await asked.of("connect", 4)] == ["4"] * 4


@pytest.mark.req("AUD-3", "AUT-9", "AUD-4")
async def test_a_socket_from_elsewhere_leaves_an_entry_of_its_own(tmp_path: Path) -> None:
    """An endpoint is a ticket. A socket from another address than the subscription's may use a stolen ticket."""
    home, away = {"X-Forwarded-For": "2001:db8:0:1::7"}, {"X-Forwarded-For": "198.51.100.9"}
    async with keeping(tmp_path) as started:
        async with started() as (hub, asked):
            hub.client.headers.update(home)
            endpoint = await hub.subscribe()
            beside = {"X-Forwarded-For": "2001:db8:0:1:ffff::8"}
            for headers in (home, beside, {"X-Forwarded-For": "203.0.113.1, [2001:0db8:0:1::7]:5050"}):
                async with hub.follow(here(hub, endpoint), additional_headers=headers):
                    pass
            assert len(await asked.of("connect", 3)) == 3
            async with hub.follow(here(hub, endpoint), additional_headers=away):
                [line] = await asked.of("socket-from-elsewhere")
        assert set(who(line).values()) == {"user-1", "app", PUBLIC_URL}
        assert line["agent"][1]["network"]["address"] == "198.51.100.9"
        assert (line["outcome"], line["outcomeDesc"]) == ("0", "the subscription was made from 2001:db8:0:1::7")
        async with started() as (hub, asked):
            async with hub.follow(here(hub, endpoint), additional_headers=away):
                await asked.of("socket-from-elsewhere", 2)
            hub.client.headers.update(away)
            await hub.subscribe(**{"hub__channel.endpoint": endpoint})  # renewed, with a token, from there
            async with hub.follow(here(hub, endpoint), additional_headers=away):
                await asked.of("connect", 6)
            await asked.of("socket-from-elsewhere", 2)


@pytest.mark.req("AUD-3", "AUD-5")
async def test_nobody_says_where_their_socket_comes_from(tmp_path: Path) -> None:
    """X-Forwarded-For counts from trusted proxies only, for sockets as for requests; of the first is told in the log, once."""
    with capture_logs() as logs:
        async with audited(tmp_path, trusted_proxies=["192.0.2.1"]) as (hub, asked):
            endpoint = await hub.subscribe()
            for _ in range(2):
                async with hub.follow(endpoint, additional_headers={"X-Forwarded-For": "198.51.100.9"}):
                    pass
            for line in await asked.of("connect", 2):
                assert line["agent"][1]["network"]["address"] == "127.0.0.1"
    [warned] = [line for line in logs if line["log_level"] == "warning"]
    assert (warned["host"], "FHIRCAST_TRUSTED_PROXIES" in warned["reason"]) == ("127.0.0.1", True)


@asynccontextmanager
async def keeping(folder: Path) -> AsyncIterator[Callable[[], AbstractAsyncContextManager[tuple[RunningHub, Asked]]]]:
    """Starts a hub that keeps its sessions, behind a proxy, as often as one likes."""
    clock = Clock()
    async with IssuerServer() as keys:
        settings: dict[str, Any] = {
            "store": f"sqlite:///{folder}/hub.db",
            "public_url": PUBLIC_URL,
            "trusted_proxies": ["127.0.0.1"],
        }
        yield partial(audited, folder, clock=clock, issuer=keys, idp=Idp(keys.url), **settings)


def here(hub: RunningHub, endpoint: str) -> str:
    """The endpoint as it is reached in this run."""
    return f"ws://127.0.0.1:{hub.port}/api/hub/ws/{endpoint.rpartition('/')[2]}"


@pytest.mark.req("AUD-1", "RAT-1")
async def test_other_verbs_and_too_many_requests_leave_an_entry(tmp_path: Path) -> None:
    """A verb that nothing answers, and what a rate limit turns away."""
    async with audited(tmp_path, rate_limit_token=1) as (hub, asked):
        assert (await hub.client.put(hub.url, headers=hub.headers())).status_code == 405
        assert (await hub.publish(event("Patient-open"))).status_code == 429
        assert [line["outcomeDesc"] for line in await asked.of("other", 2)] == [
            "the method must be GET or POST, not PUT",
            "too many requests",
        ]


@pytest.mark.req("AUD-1")
async def test_the_patient_is_named_where_the_event_names_one(tmp_path: Path) -> None:
    """In a close by its resource, in a select by its reference; one that cannot be read is none."""
    async with audited(tmp_path) as (hub, asked):
        patient = {"key": "patient", "resource": {"resourceType": "Patient", "id": "p1"}}
        for also in ({"reference": {"reference": "https://ehr.example/Patient/p2"}}, {"reference": 7}):
            select = event("DiagnosticReport-select", also=[{"key": "patient", **also}])
            assert (await hub.publish(select)).status_code == 409
        assert (await hub.publish(event("Encounter-close", also=[patient]))).status_code == 202
        assert [about(line) for line in await asked.of("publish", 3)] == [["Patient/p2"], [], ["Patient/p1"]]


@pytest.mark.req("AUD-1")
async def test_session_changes_leave_an_entry(tmp_path: Path) -> None:
    """Begun, joined, left, ended by a lease: the hub's own doing, beside the requests that asked for it."""
    async with audited(tmp_path) as (hub, asked):
        await hub.subscribe(hub__lease_seconds="100")
        await hub.publish(event("Patient-open"))
        begun, *_ = await asked.of("session")
        assert who(begun) == {"110152": hub.url}
        assert begun["outcomeDesc"] == "session begun"
        hub.clock.now += 101
        await hub.hub.service.tick()
        _, changed = await asked.of("session", 2)
        assert changed["outcomeDesc"] == "session changed"
        assert changed["agent"][0]["requestor"]


@pytest.mark.req("AUD-1", "SES-1", "SES-4")
async def test_the_session_api_leaves_entries(tmp_path: Path) -> None:
    """Which client began and ended a session, and who was refused to."""
    async with audited(tmp_path, own={"system_clients": ["ehr"]}) as (hub, asked):
        ehr = hub.headers(hub.token("ehr", SESSIONS, client_id="ehr"))
        sessions = f"{hub.origin}/sessions"
        begun = await hub.client.post(sessions, headers=ehr, json={"user": "user-1"})
        ended = await hub.client.delete(f"{sessions}/{begun.json()['hub.topic']}", headers=ehr)
        refused = await hub.client.post(sessions, headers=hub.headers(), json={"user": "user-1"})
        assert [begun.status_code, ended.status_code, refused.status_code] == [201, 204, 403]
        lines = [line for line in await asked.of("session", 5) if len(line["agent"]) > 1]
        assert [line["outcome"] for line in lines] == ["0", "0", "4"]
        assert [who(line)["110153"] for line in lines] == ["ehr", "ehr", "app"]
        assert len({line["entity"][-1]["what"]["identifier"]["value"] for line in lines[:2]}) == 1


@pytest.mark.req("AUD-1")
async def test_both_of_two_issuers_are_told_apart(tmp_path: Path) -> None:
    """A user is named together with who says so."""
    async with IssuerServer() as server:
        idp = Idp()
        async with audited(tmp_path, others=[issuer_setting(server, idp)]) as (hub, asked):
            await hub.publish(event("Patient-open"))
            await hub.publish(event("Patient-open"), idp.token(now=hub.clock.now))
            lines = await asked.of("publish", 2)
            systems = [line["agent"][2]["who"]["identifier"]["system"] for line in lines]
            assert systems == [hub.idp.issuer, idp.issuer]


@pytest.mark.req("AUD-1")
async def test_who_looks_after_the_hub_leaves_none(tmp_path: Path) -> None:
    """Health, metrics, discovery, the description and preflights touch nobody's session."""
    async with audited(tmp_path) as (hub, asked):
        for url in (
            *(f"{hub.origin}{path}" for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json")),
            *(f"{hub.url}{path}" for path in ("/.well-known/fhircast-configuration", "/metadata")),
        ):
            assert (await hub.client.get(url)).status_code == 200
        asking = {"Origin": "https://viewer.example", "Access-Control-Request-Method": "POST"}
        assert (await hub.client.options(hub.url, headers=asking)).status_code == 200
        await hub.context()
        await asked.of("read")
        assert len(asked.lines()) == 1


@pytest.mark.req("AUD-2", "SEC-1")
async def test_the_log_has_none_of_it(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    """Users, patients and addresses are in the trail only, also while its sink fails."""
    with capture_logs() as logs:
        async with running_hub(audit=(tmp_path / "no" / "folder").as_uri()) as hub:
            await hub.publish(event("Patient-open", "zebulon"), hub.token("quastenflosser"))
            await until(lambda: any(line["event"] == "audit sink fails" for line in logs))
    told = json.dumps(logs) + str(capfdbinary.readouterr())
    assert all(word not in told for word in ("zebulon", "quastenflosser", "Patient/"))
    assert {"event": "audit entries lost", "count": 2, "log_level": "error"} in logs
