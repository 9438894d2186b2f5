"""The audit trail: what a running hub writes down, where it goes, and that nothing waits for it."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fhircast_hub.audit import sink as writing
from fhircast_hub.audit.event import Act, AuditEntry
from fhircast_hub.audit.sink import Auditor, FhirServerSink, JsonLinesSink, make_sink
from tests.auth.issuer_server import IssuerServer
from tests.running import TOPIC, Clock, RunningHub, event, issuer_setting, opened, running_hub, until
from tests.tokens import Idp

PUBLIC_URL = "http://localhost:8080/api/hub"
SESSIONS = "fhircast-hub/sessions.write"


def entry(number: int) -> AuditEntry:
    """One of many."""
    return AuditEntry(Act.PUBLISH, 1_800_000_000.0, event=f"org.example.{number}")


def number(line: bytes | str) -> int:
    """Which of them."""
    return int(json.loads(line)["subtype"][2]["code"].rpartition(".")[2])


class Asked:
    """What the audit trail of a hub says so far, by the hub's own name of what was done."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[dict[str, Any]]:
        """All of it; each line is valid."""
        text = self._path.read_text() if self._path.exists() else ""
        for line in text.splitlines():
            AuditEvent.model_validate_json(line)
        return [json.loads(line) for line in text.splitlines()]

    async def of(self, act: str, count: int = 1) -> list[dict[str, Any]]:
        """The entries of this kind, once there are so many."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines() if line["subtype"][1]["code"] == act]

        await until(lambda: len(found()) >= count)
        assert len(found()) == count
        return found()


@asynccontextmanager
async def audited(folder: Path, **settings: Any) -> AsyncIterator[tuple[RunningHub, Asked]]:
    """A hub that writes its trail to a file."""
    path = folder / "trail.jsonl"
    async with running_hub(audit=path.as_uri(), **settings) as hub:
        yield hub, Asked(path)


def who(line: dict[str, Any]) -> dict[str, str]:
    """The agents' names by their roles."""
    agents = {agent["type"]["coding"][0]["code"]: agent for agent in line["agent"]}
    return {role: agent["who"]["identifier"]["value"] for role, agent in agents.items() if "who" in agent}


def about(line: dict[str, Any]) -> list[str]:
    """The patients."""
    return [each["what"]["reference"] for each in line["entity"] if "reference" in each["what"]]


# --- what is written down ---


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


@pytest.mark.req("AUD-1")
async def test_the_session_is_named_by_its_hash(tmp_path: Path) -> None:
    """The same one in each entry, which is the log's; the topic itself, endpoints and tokens are nowhere."""
    with capture_logs() as logs:
        async with audited(tmp_path) as (hub, asked):
            endpoint = await hub.subscribe()
            token = hub.token()
            await hub.publish(event("Patient-open"), token)
            await hub.context(token)
            await asked.of("read")
            named = {line["entity"][-1]["what"]["identifier"]["value"] for line in asked.lines()}
    assert named == {line["topic"] for line in logs if "topic" in line}
    assert len(named) == 1
    text = (tmp_path / "trail.jsonl").read_text()
    assert all(secret not in text for secret in (TOPIC, endpoint.rpartition("/")[2], token))


@pytest.mark.req("AUD-1")
async def test_refusals_leave_an_entry(tmp_path: Path) -> None:
    """400, 401, 403 and 409: a minor failure and its kind; the patient that somebody was kept from is named."""
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
        assert [line["outcomeDesc"] for line in lines] == ["Forbidden", "InsufficientScope", "Conflict", "BadRequest"]
        assert [about(line) for line in lines[:2]] == [["Patient/1"], ["Patient/1"]]
        assert "user-2" in who(lines[0]).values()
        assert all("meta" not in line for line in lines)


@pytest.mark.req("AUD-1")
@pytest.mark.parametrize("token", ["", "not a token", "expired"])
async def test_a_stranger_leaves_an_entry(tmp_path: Path, token: str) -> None:
    """401 of every verb: nobody is named, for nothing was proved, but the address is."""
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
            assert set(who(line).values()) == {hub.url}
            assert (line["outcome"], line["outcomeDesc"]) == ("4", "Unauthenticated")
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


@pytest.mark.req("AUD-3", "AUT-9")
async def test_a_socket_from_elsewhere_leaves_an_entry_of_its_own(tmp_path: Path) -> None:
    """An endpoint is a ticket: whoever comes with it from another address than it was given to may have found it."""
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


@pytest.mark.req("AUD-3")
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
        assert [line["outcomeDesc"] for line in await asked.of("other", 2)] == ["MethodNotAllowed", "TooMany"]


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


# --- lines ---


@pytest.mark.req("AUD-2")
async def test_only_the_owner_reads_the_file(tmp_path: Path) -> None:
    """Made with mode 0600; one that is there is appended to, and keeps what it has."""
    path = tmp_path / "a trail.jsonl"
    async with httpx.AsyncClient() as client:
        for text in (b"{}", b"[]"):
            sink = make_sink(path.as_uri(), client)
            assert sink is not None
            await sink.write([text, text])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"{}\n{}\n[]\n[]\n"


@pytest.mark.req("AUD-2")
async def test_stdout_has_whole_lines(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """`-` is stdout."""
    async with httpx.AsyncClient() as client:
        auditor = Auditor(make_sink("-", client), "https://hub.example")
    for each in range(3):
        auditor.record(entry(each))
    await auditor.stop()
    assert [number(line) for line in capfdbinary.readouterr().out.splitlines()] == [0, 1, 2]


@pytest.mark.req("AUD-2")
async def test_no_half_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full amid a line leaves none of it, and the next attempt is whole."""
    path, real = tmp_path / "trail", os.write
    sink = JsonLinesSink(path)
    await sink.write([b'{"first":1}'])
    with monkeypatch.context() as patched:
        room = [5]

        def write(file: int, text: bytes) -> int:
            if not room:
                raise OSError(28, "No space left on device")
            return real(file, text[: room.pop()])

        patched.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            await sink.write([b'{"second":2}'])
    await sink.write([b'{"second":2}'])
    assert path.read_bytes() == b'{"first":1}\n{"second":2}\n'


# --- the queue ---


class Fake:
    """A sink that can be closed, or fail so many times."""

    def __init__(self, failures: int = 0, error: Exception | None = None) -> None:
        self.failures, self.error = failures, error or httpx.ConnectError("gone")
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[float] = []
        self.batches: list[list[int]] = []

    async def write(self, events: list[bytes]) -> int:
        self.asked.append(time.monotonic())
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise self.error
        self.batches.append([number(line) for line in events])
        return 0

    def got(self) -> list[int]:
        return [each for batch in self.batches for each in batch]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses in thousandths."""
    monkeypatch.setattr(writing, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(writing, "LONGEST_WAIT", 0.08)
    monkeypatch.setattr(writing, "STOP_SECONDS", 0.2)


async def test_without_a_sink_nothing_is_kept() -> None:
    """No setting, no task, no memory."""
    auditor = Auditor(None, "https://hub.example")
    auditor.record(entry(1))
    await auditor.stop()
    assert (auditor.lost, len(auditor._waiting), auditor._task) == (0, 0, None)


@pytest.mark.req("AUD-2")
async def test_entries_go_in_order_and_in_batches() -> None:
    """At most BATCH at a time, each once."""
    sink = Fake()
    auditor = Auditor(sink, "https://hub.example")
    for each in range(250):
        auditor.record(entry(each))
    await until(lambda: len(sink.got()) == 250)
    assert sink.got() == list(range(250))
    assert [len(batch) for batch in sink.batches] == [100, 100, 50]
    auditor.record(entry(250))
    await until(lambda: len(sink.got()) == 251)
    await auditor.stop()


@pytest.mark.req("AUD-2")
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), OSError("disk"), RuntimeError("ours")], ids=repr)
async def test_a_sink_that_fails_is_tried_again(error: Exception) -> None:
    """With pauses that double up to a limit; nothing is lost or doubled, whatever went wrong."""
    sink = Fake(failures=5, error=error)
    auditor = Auditor(sink, "https://hub.example")
    with capture_logs() as logs:
        for each in range(3):
            auditor.record(entry(each))
        await until(lambda: len(sink.got()) == 3)
        await auditor.stop()
    pauses = [after - before for before, after in zip(sink.asked, sink.asked[1:], strict=False)]
    for pause, expected in zip(pauses, (0.02, 0.04, 0.08, 0.08, 0.08), strict=True):
        assert expected * 0.9 < pause
    assert sink.got() == [0, 1, 2]
    assert [line["event"] for line in logs] == ["audit sink fails"] * 5
    assert {line["error"] for line in logs} == {type(error).__name__}
    assert auditor.lost == 0


@pytest.mark.req("AUD-2")
async def test_what_does_not_fit_is_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue has an end; the first loss is a line, and how many there were is another when the sink is back."""
    monkeypatch.setattr(writing, "MAX_WAITING", 10)
    sink = Fake()
    sink.open.clear()
    auditor = Auditor(sink, "https://hub.example")
    with capture_logs() as logs:
        for each in range(17):
            auditor.record(entry(each))
        assert auditor.lost == 7
        assert [line["event"] for line in logs] == ["audit entries are being lost"]
        sink.open.set()
        await until(lambda: len(logs) == 2)
        auditor.record(entry(99))
        await auditor.stop()
    assert sink.got() == [*range(10), 99]
    assert [(line["event"], line.get("count")) for line in logs[1:]] == [("audit entries lost", 7)]


@pytest.mark.req("AUD-2")
async def test_stopping_brings_what_waits() -> None:
    """Entries of the last moment reach the sink."""
    sink = Fake()
    auditor = Auditor(sink, "https://hub.example")
    for each in range(300):
        auditor.record(entry(each))
    await auditor.stop()
    assert sink.got() == list(range(300))


@pytest.mark.req("AUD-2")
async def test_stopping_tries_a_sink_that_failed_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, however long the pause would have been."""
    monkeypatch.setattr(writing, "FIRST_WAIT", 1000.0)
    sink = Fake(failures=1)
    auditor = Auditor(sink, "https://hub.example")
    auditor.record(entry(1))
    await until(lambda: sink.failures == 0)
    await auditor.stop()
    assert sink.got() == [1]


@pytest.mark.req("AUD-2")
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("hangs", [True, False])
async def test_stopping_does_not_wait_for_a_sink_that_is_gone(hangs: bool) -> None:
    """Within STOP_SECONDS; what could not be brought is counted and told, and what comes after it too."""
    sink = Fake(failures=1000)
    if hangs:
        sink.open.clear()
    auditor = Auditor(sink, "https://hub.example")
    with capture_logs() as logs:
        for each in range(5):
            auditor.record(entry(each))
        async with asyncio.timeout(2):
            await auditor.stop()
    assert {"event": "audit entries lost", "count": 5, "log_level": "error"} in logs
    auditor.record(entry(6))
    assert auditor.lost == 6


# --- a FHIR server ---


class FhirStub:
    """Takes batches; `open` is cleared to let it hang."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.statuses: Callable[[int], list[str]] = lambda count: ["201 Created"] * count
        self.status = 200
        self.encode: Callable[[bytes], tuple[bytes, bytes]] = lambda body: (b"identity", body)
        #: an answer without end: so many bytes at a time, and the seconds between them
        self.endless: tuple[int, float] | None = None
        self.requests: list[tuple[str, dict[str, Any]]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/fhir"
        finally:
            self.open.set()
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r")[0])
            bundle = json.loads(await reader.readexactly(length))
            self.requests.append((head, bundle))
            await self.open.wait()
            if self.endless is not None:
                writer.write(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n")
            while self.endless is not None:
                writer.write(b" " * self.endless[0])
                await writer.drain()
                await asyncio.sleep(self.endless[1])
            entries = [{"response": {"status": status}} for status in self.statuses(len(bundle["entry"]))]
            body = json.dumps({"resourceType": "Bundle", "type": "batch-response", "entry": entries}).encode()
            encoding, body = self.encode(body)
            writer.write(b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Encoding: %b\r\n" % (self.status, encoding))
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.mark.req("AUD-2")
async def test_a_fhir_server_is_brought_batches() -> None:
    """POST at its base, FHIR+JSON, a Bundle of type batch with one AuditEvent to create in each entry."""
    stub = FhirStub()
    async with stub.running() as base, running_hub(audit=base) as hub:
        await hub.publish(event("Patient-open", "p1"))
        await until(lambda: sum(len(bundle["entry"]) for _, bundle in stub.requests) == 2)
    head, bundle = stub.requests[0]
    assert head.startswith("post /fhir http/1.1")
    assert "content-type: application/fhir+json" in head
    assert "authorization" not in head
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "batch")
    for each in (each for _, bundle in stub.requests for each in bundle["entry"]):
        AuditEvent.model_validate(each["resource"])
        assert each["request"] == {"method": "POST", "url": "AuditEvent"}


@pytest.mark.req("AUD-2")
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("status", [301, 401, 422, 500, 503])
async def test_a_batch_that_is_refused_is_brought_again(status: int) -> None:
    """Whatever the server's reason, an operator can mend it; and no redirect is followed."""
    stub = FhirStub()
    stub.status = status
    async with stub.running() as base, httpx.AsyncClient(trust_env=False) as client:
        auditor = Auditor(FhirServerSink(base, client), "https://hub.example")
        auditor.record(entry(1))
        await until(lambda: len(stub.requests) >= 2)
        stub.status = 200
        await until(lambda: not auditor._waiting)
        await auditor.stop()
    assert auditor.lost == 0
    assert stub.requests[0][1] == stub.requests[-1][1]


@pytest.mark.req("AUD-2")
async def test_entries_that_are_refused_each_are_lost_and_told() -> None:
    """A batch may succeed while some of it does not: those are counted, and do not come again."""
    stub = FhirStub()
    stub.statuses = lambda count: ["201", "422 Unprocessable Entity", "500"][:count]
    with capture_logs() as logs:
        async with stub.running() as base, httpx.AsyncClient(trust_env=False) as client:
            auditor = Auditor(FhirServerSink(base, client), "https://hub.example")
            for each in range(3):
                auditor.record(entry(each))
            await auditor.stop()
    assert (auditor.lost, len(stub.requests)) == (2, 1)
    assert [(line["event"], line["count"]) for line in logs] == [("audit entries lost", 2)]


@pytest.mark.req("AUD-2")
@pytest.mark.usefixtures("hasty")
async def test_an_answer_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is always about to say something does not hold up the trail: it is asked again."""
    monkeypatch.setattr(writing, "ANSWER_SECONDS", 0.2)
    stub = FhirStub()
    stub.endless = (1, 0.01)
    async with stub.running() as base, httpx.AsyncClient(trust_env=False) as client:
        auditor = Auditor(FhirServerSink(base, client), "https://hub.example")
        auditor.record(entry(1))
        await until(lambda: len(stub.requests) >= 2)
        stub.endless = None
        await until(lambda: not auditor._waiting)
        await auditor.stop()
    assert auditor.lost == 0


@pytest.mark.req("AUD-2")
async def test_an_answer_without_end_is_not_read() -> None:
    """The batch was taken; what more there is to say of it must fit."""
    stub = FhirStub()
    stub.endless = (1 << 16, 0.0)
    async with stub.running() as base, httpx.AsyncClient(trust_env=False) as client:
        auditor = Auditor(FhirServerSink(base, client), "https://hub.example")
        auditor.record(entry(1))
        await until(lambda: not auditor._waiting)
        await auditor.stop()
        stub.endless = None
    assert (auditor.lost, len(stub.requests)) == (0, 1)


@pytest.mark.req("AUD-2")
async def test_an_answer_is_not_inflated() -> None:
    """No encoding is asked for, and an encoded answer is not read: few bytes may stand for many. The batch was taken."""
    stub = FhirStub()
    stub.statuses = lambda count: ["422"] * count
    stub.encode = lambda body: (b"gzip", gzip.compress(body))
    async with stub.running() as base, httpx.AsyncClient(trust_env=False) as client:
        assert await FhirServerSink(base, client).write([b"{}"]) == 0
        stub.encode = lambda body: (b"identity", body)
        assert await FhirServerSink(base, client).write([b"{}"]) == 1
    assert all("accept-encoding: identity\r\n" in head for head, _ in stub.requests)


@pytest.mark.req("AUD-2", "OPS-1")
async def test_what_is_lost_is_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that somebody is woken up by it."""
    (tmp_path / "trail.jsonl").mkdir()  # nothing can be written there
    monkeypatch.setattr(writing, "MAX_WAITING", 2)
    async with audited(tmp_path) as (hub, _):
        for _ in range(5):
            await hub.context()
        metrics = (await hub.client.get(f"{hub.origin}/metrics")).text
        assert "\nfhircast_audit_lost_total 3.0\n" in metrics


@pytest.mark.req("AUD-2")
async def test_a_sink_that_hangs_delays_no_event() -> None:
    """A server that takes a batch and never answers: events are distributed as ever, in any number."""
    stub = FhirStub()
    stub.open.clear()
    async with stub.running() as base, running_hub(audit=base) as hub:
        async with hub.follow(await hub.subscribe()) as follower:
            await until(lambda: len(stub.requests) == 1)
            began = time.monotonic()
            for each in range(50):
                assert (await hub.publish(event("Patient-open", f"p{each}"))).status_code == 202
                assert (await follower.next())["id"] == f"Patient-open-p{each}"
            assert time.monotonic() - began < 4, "the server would be given up after five seconds"
            assert len(stub.requests) == 1
        stub.open.set()
        await until(lambda: sum(len(bundle["entry"]) for _, bundle in stub.requests) >= 50)


@pytest.mark.req("AUD-2")
async def test_the_trail_is_complete_when_the_hub_has_stopped(tmp_path: Path) -> None:
    """Every answer that was given is in the file."""
    async with audited(tmp_path) as (hub, asked):
        answers = [await hub.publish(event("Patient-open", f"p{each}")) for each in range(150)]
    assert {answer.status_code for answer in answers} == {202}
    assert len(await asked.of("publish", 150)) == 150
