"""What an operator sees of sessions, how one is found, and how one is ended."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.core.errors import Unavailable
from tests.audit.audit_world import Asked
from tests.console.console_world import operated
from tests.running import TOPIC, Follower, event, until

EVENTS = "Patient-open,Patient-close,SyncError"


async def answered(follower: Follower, status: int, reason: str = "") -> None:
    """Read the next message and answer it."""
    message = await follower.next()
    answer: dict[str, Any] = {"id": message["id"], "status": status}
    await follower.connection.send(json.dumps(answer | ({"reason": reason} if reason else {})))


@pytest.mark.req("CSL-3")
async def test_who_takes_part_and_in_which_state_since_when() -> None:
    """Name, client, channel, state with its time, and the last acknowledgement."""
    async with operated() as console:
        hub = console.hub
        chart = await hub.subscribe(EVENTS, **{"subscriber.name": "Chart"})
        await hub.subscribe(EVENTS, **{"subscriber.name": "Late"})
        async with hub.follow(chart) as follower, console.stream(session=console.hash()) as stream:
            hub.clock.now += 5
            await console.open()
            await answered(follower, 409, "a note is not signed")
            part = await stream.until("session", lambda part: part["participants"][0]["state"] == "refused")
            first, second = part["participants"]
            assert (first["name"], first["client"], first["channel"]) == ("Chart", "app", "websocket")
            assert (first["refused"], first["since"]) == ("Patient-open", 1_800_000_000.0)
            assert first["acknowledgedAt"] == hub.clock.now
            assert (second["name"], second["state"]) == ("Late", "not connected yet")
            assert (part["topic"], part["openContexts"]) == (TOPIC, 1)
            rows = (await stream.until("sessions", lambda part: part["rows"][0]["states"].get("refused")))["rows"]
            assert rows[0]["states"] == {"refused": 1, "not connected yet": 1}
            assert rows[0]["lastEvent"] == {"name": "Patient-open", "at": hub.clock.now}


@pytest.mark.req("CSL-3", "CSL-6")
async def test_last_events_and_sync_errors_come_with_their_reasons() -> None:
    """The newest first. Who sent is named by the subscription, else by the client. Also where nobody is told."""
    async with operated() as console:
        hub = console.hub
        ehr = hub.token(client_id="ehr")
        chart = await hub.subscribe("Patient-open", **{"subscriber.name": "Chart"})
        await hub.publish(event("Patient-open", "p0"), ehr)
        async with hub.follow(chart) as follower:
            await answered(follower, 200)
            hub.clock.now += 1
            await console.open()
            await answered(follower, 409, "a note is not signed")
            await until(lambda: bool(console.console.sessions.recorder._held))
            async with console.stream(session=console.hash()) as stream:
                part = await stream.until("session", lambda part: part["problems"])
        assert [(each["name"], each["sender"], each["told"]) for each in part["events"]] == [
            ("Patient-open", "Chart", 1),
            ("Patient-open", "ehr", 0),
        ]
        (problem,) = part["problems"]
        assert problem["words"] == "Chart refused to follow Patient-open (status 409): … note is not signed"
        assert (problem["subscriber"], problem["event"], problem["told"]) == ("Chart", "Patient-open", 0)


@pytest.mark.req("CSL-3")
async def test_a_session_is_found_by_topic_by_hash_and_by_user() -> None:
    """A part of the topic, or the twelve digits of a log line; or the user, or the hash of the user."""
    async with operated() as console:
        hub = console.hub
        for number in range(3):
            hub.clock.now += 1
            token = hub.token(f"user-{number}")
            await hub.publish(event("Patient-open", topic=f"topic-{number}"), token)

        async def found(search: str) -> list[str]:
            part = (await console.state(search=search))["sessions"]
            assert part["total"] == len(part["rows"])
            return [row["topic"] for row in part["rows"]]

        assert await found("") == ["topic-2", "topic-1", "topic-0"]
        assert await found("topic-1") == await found(console.hash("topic-1")) == ["topic-1"]
        assert await found("opic") == ["topic-2", "topic-1", "topic-0"]
        assert await found("user-2") == await found(console.user_hash("user-2")) == ["topic-2"]
        assert await found("nothing") == await found("0" * 12) == []
        assert console.user_hash("user-2") in json.dumps(await console.state())
        assert "user-2" not in json.dumps(await console.state())
        assert console.user_hash("user-2", "another realm") != console.user_hash("user-2")
        assert console.hash("user:user-2") not in json.dumps(await console.state())


@pytest.mark.req("CSL-3")
async def test_a_list_is_bounded_and_says_how_many_more_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those used last are there."""
    monkeypatch.setattr("fhircast_hub.console.sessions.ROWS", 3)
    async with operated() as console:
        for number in range(5):
            console.hub.clock.now += 1
            await console.open(topic=f"{number}")
        part = (await console.state())["sessions"]
        assert part["total"] == 5
        assert [row["topic"] for row in part["rows"]] == ["4", "3", "2"]
        assert (await console.session("0"))["topic"] == "0"


@pytest.mark.req("CSL-7")
async def test_a_session_is_ended_with_its_reason_in_the_audit_trail(tmp_path: Path) -> None:
    """The subscribers get the denial of DELETE /sessions, and not the operator's words. The trail has these, and no log line."""
    path = tmp_path / "trail.jsonl"
    async with operated(audit=path.as_uri()) as console:
        hub, asked = console.hub, Asked(path)
        await console.open()
        async with hub.follow(await hub.subscribe()) as follower:
            answer = await console.end({"topic": TOPIC, "reason": " Ward round is over \t"})
            assert (answer.status_code, answer.content) == (204, b"")
            await follower.next()  # the patient that was open
            denied = await follower.next()
            assert (denied["hub.mode"], denied["hub.reason"]) == ("denied", "the session was ended")
            assert await follower.closed() == 1000
        assert (await console.session())["gone"]
        await until(lambda: any("Ward" in json.dumps(line) for line in asked.lines()))
        (ended,) = [line for line in asked.lines() if line.get("outcomeDesc") == "Ward round is over"]
        assert ended["outcome"] == "0"
        assert ended["subtype"][1]["code"] == "session"
        assert {agent["who"]["identifier"]["value"] for agent in ended["agent"]} >= {"operator", "console"}
        assert console.hash() in json.dumps(ended["entity"])
        assert (await console.end({"topic": TOPIC, "reason": "x"})).status_code == 404


@pytest.mark.req("CSL-7", "CSL-9")
@pytest.mark.parametrize("fault", [None, Unavailable("the store is away"), RuntimeError()])
async def test_the_operators_reason_is_in_the_trail_also_where_the_end_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    """Beside the refusal: the session may have ended nevertheless."""
    path = tmp_path / "trail.jsonl"
    async with operated(audit=path.as_uri()) as console:
        if fault:
            await console.open()

            async def fail(*_: object) -> None:
                raise copy.copy(fault)  # the parameter lives on, and would keep the request by its traceback

            monkeypatch.setattr(console.hub.hub.service, "submit", fail)
        answer = await console.end({"topic": TOPIC, "reason": "Ward round is over"})
        assert answer.status_code >= 400
        assert "Ward" not in answer.text
        ended = (await Asked(path).of("session", 2 if fault else 1))[-1]
        words = "the hub failed; its log says where" if isinstance(fault, RuntimeError) else str(fault or "no session")
        assert ended["outcomeDesc"].startswith(words)
        assert ended["outcomeDesc"].endswith("; the operator's reason: Ward round is over")


@pytest.mark.req("CSL-3")
async def test_streams_share_a_list_until_the_store_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another search has another list."""
    monkeypatch.setattr("fhircast_hub.console.sessions.SECONDS", 3600.0)
    async with operated() as console:
        await console.open()
        sessions = console.console.sessions
        reader = await console.hub.hub._verifier.verify(console.reader)
        first = await sessions.list(reader)
        assert await sessions.list(reader) is first
        assert await sessions.list(reader, TOPIC) is not first
        sessions._lists.clear()
        assert await sessions.list(reader) is not first


@pytest.mark.req("CSL-7")
async def test_only_console_write_ends_a_session_and_only_with_a_reason() -> None:
    async with operated() as console:
        await console.open()
        answer = await console.end({"topic": TOPIC, "reason": "x"}, console.reader)
        assert answer.status_code == 403
        assert 'scope="fhircast-hub/console.write"' in answer.headers["WWW-Authenticate"]
        for reason in ("", "  ", "x" * 201, "two\nlines", "a\x1b[31m"):
            assert (await console.end({"topic": TOPIC, "reason": reason})).status_code == 400
        bodies: list[Any] = [{"topic": TOPIC}, {"topic": TOPIC, "reason": "x", "more": 1}, [], b"{", b"\xff"]
        for body in bodies:
            assert (await console.end(body)).status_code == 400
        headers = console.hub.headers(console.operator, **{"Content-Type": "text/plain"})
        url = f"{console.url}/sessions/end"
        assert (await console.hub.client.post(url, content=b"{}", headers=headers)).status_code == 415
        assert (await console.session())["topic"] == TOPIC
        assert (await console.end({"topic": TOPIC, "reason": "x" * 200})).status_code == 204


@pytest.mark.req("CSL-7")
async def test_a_session_that_no_user_owns_is_ended_too() -> None:
    async with operated() as console:
        token = console.hub.token(None, client_id="device", **{"hub.topic": TOPIC})
        assert (await console.hub.publish(event("Patient-open"), token)).status_code == 202
        assert (await console.session())["user"] == ""
        assert (await console.end({"topic": TOPIC, "reason": "x"})).status_code == 204


@pytest.mark.req("CSL-9", "AUD-1")
async def test_each_look_at_sessions_is_in_the_audit_trail(tmp_path: Path) -> None:
    """Who looked, and at which session; a stream at its start. A refused look too."""
    path = tmp_path / "trail.jsonl"
    async with operated(audit=path.as_uri()) as console:
        asked = Asked(path)
        await console.open()
        await console.state(session=console.hash())
        (read,) = await asked.of("read")
        assert {agent["who"]["identifier"]["value"] for agent in read["agent"]} >= {"reader", "console"}
        assert console.hash() in json.dumps(read["entity"])
        async with console.stream() as stream:
            await stream.next()
            await asked.of("read", 2)
        await console.get("/state", console.hub.token())
        (refused,) = await asked.of("other")
        assert refused["outcome"] == "4"
        await asked.of("read", 2)
