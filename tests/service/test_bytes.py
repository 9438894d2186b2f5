"""Bytes have a budget: a full hub makes room or refuses, and a close is always possible."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.service.service import Service
from tests.running import TOPIC, Clock, RunningHub, event, running_hub
from tests.tokens import Idp

REALM = {"realm": "hospital", "user_claim": "sub"}
KEPT = "Patient-open,Patient-close"


def large(name: str, id_: str, size: int = 20_000, **more: Any) -> dict[str, Any]:
    """An event with a resource of so many bytes."""
    basic = {"key": "basic", "resource": {"resourceType": "Basic", "id": "b", "code": {"text": "x" * size}}}
    return event(name, id_, also=[basic], **more)


async def number(hub: RunningHub, name: str) -> float:
    """The value of a metric."""
    text = (await hub.client.get(f"{hub.origin}/metrics")).text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


@pytest.mark.req("LIM-2", "LIM-8", "LIM-9")
async def test_a_user_who_has_too_much_is_told_so_and_may_always_have_less() -> None:
    """413 with the numbers, for opens, subscriptions and updates. Other users go on, and closes make room."""
    async with running_hub(max_bytes_per_user=100_000) as hub, hub.follow(await hub.subscribe(KEPT)):
        answers = [await hub.publish(large("Patient-open", f"p{count}")) for count in range(5)]
        assert [answer.status_code for answer in answers] == [202] * 4 + [413]
        assert "at most 100000 bytes" in answers[-1].text
        large_one = ",".join(f"{'x' * 100}.{count}" for count in range(100))
        assert (await hub.form(hub__events=large_one)).status_code == 413
        assert (await hub.publish(large("Patient-open", "p1", topic="new"))).status_code == 413
        assert (await hub.publish(large("Patient-open", "p1"), hub.token("bob"), "/bobs")).status_code == 400
        bobs = large("Patient-open", "p1", topic="bobs")
        assert (await hub.publish(bobs, hub.token("bob"))).status_code == 202
        assert (await hub.publish(large("Patient-close", "p0"))).status_code == 202
        assert (await hub.publish(event("Patient-close", "p1"))).status_code == 202
        assert (await hub.publish(large("Patient-open", "p9", 1000))).status_code == 202
        assert await number(hub, "fhircast_refused_by_user_bytes_total") == 3
        assert await number(hub, "fhircast_session_bytes") == hub.hub.service.usage.bytes


@pytest.mark.req("LIM-2", "AUD-1", "LIM-6")
async def test_sessions_that_nobody_follows_make_room(tmp_path: Path) -> None:
    """The longest unused go first, with their contexts. Followed ones stay. The audit trail has each end."""
    trail = tmp_path / "trail"
    async with running_hub(max_bytes_per_user=120_000, audit=f"file://{trail}") as hub:
        await hub.subscribe(KEPT, hub__topic="followed")
        for topic in ("followed", "old", "older", "used"):
            assert (await hub.publish(large("Patient-open", "p1", topic=topic))).status_code == 202
        await hub.publish(event("UserHibernate", topic="old"))
        assert (await hub.publish(large("Patient-open", "p1", 30_000, topic="new"))).status_code == 202
        open_ = {topic for topic in ("followed", "old", "older", "used", "new") if (await is_open(hub, topic))}
        assert open_ == {"followed", "old", "used", "new"}
        assert (await hub.publish(large("Patient-open", "p1", 200_000, topic="impossible"))).status_code == 413
        assert len([topic for topic in open_ if (await is_open(hub, topic))]) == 4, "for nothing nobody has to go"
    assert trail.read_text().count("session forgotten") == 1


async def is_open(hub: RunningHub, topic: str) -> bool:
    return bool((await hub.context(topic=topic)).json()["context"])


@pytest.mark.req("LIM-2", "LIM-8", "LIM-9")
async def test_a_full_hub_says_so_and_goes_on() -> None:
    """503 with Retry-After. Existing contexts are still sent, closed and ended, and then there is room."""
    async with running_hub(max_bytes=100_000) as hub, hub.follow(await hub.subscribe(KEPT)) as follower:
        for count in range(4):
            await hub.publish(large("Patient-open", f"p{count}"))
        bob = hub.token("bob")
        refused = await hub.publish(large("Patient-open", "p1", topic="bobs"), bob)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert await number(hub, "fhircast_refused_by_hub_bytes_total") == 1
        assert await number(hub, "fhircast_max_session_bytes") == 100_000
        assert (await hub.publish(large("Patient-close", "p0"))).status_code == 202
        assert await follower.names(5) == ["Patient-open"] * 4 + ["Patient-close"]
        await hub.publish(event("Patient-close", "p1"))
        hub.clock.now += 60
        await hub.hub.service.tick()
        assert (await hub.publish(large("Patient-open", "p1", topic="bobs"), bob)).status_code == 202


@pytest.mark.req("LIM-2", "SUB-12", "LIM-10")
async def test_a_close_without_room_lets_go_of_what_is_held() -> None:
    """The close is accepted, however large. Absent subscribers are sent the close on return, or one made by the hub."""
    async with running_hub(max_bytes_per_user=60_000) as hub:
        endpoint = await hub.subscribe(KEPT)
        async with hub.follow(endpoint):
            for count in range(2):
                await hub.publish(large("Patient-open", f"p{count}"))
        hub.clock.now += 10
        for count in range(2):
            assert (await hub.publish(large("Patient-close", f"p{count}", 50_000))).status_code == 202
        async with hub.follow(endpoint) as follower:
            closes = [await follower.next() for _ in range(2)]
            ids = [close["event"]["context"][0]["resource"]["id"] for close in closes]
            assert ids == ["p0", "p1"]


@pytest.mark.req("LIM-2", "LIM-11")
async def test_a_store_with_more_than_may_be_is_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The limits are lower now. The hub starts, logs a warning, refuses growth, and accepts what needs less."""
    store, clock, idp = f"sqlite:///{tmp_path / 'hub.db'}", Clock(), Idp()
    common: dict[str, Any] = {"store": store, "clock": clock, "idp": idp, "own": REALM}
    async with running_hub(**common) as hub:
        await hub.subscribe(KEPT)
        for count in range(4):
            await hub.publish(large("Patient-open", f"p{count}"))
    capsys.readouterr()
    async with running_hub(**common, max_bytes=50_000) as again:
        assert "more bytes are held" in capsys.readouterr().out
        assert (await again.publish(large("Patient-open", "p1", topic="new"))).status_code == 503
        for count in range(4):
            assert (await again.publish(large("Patient-close", f"p{count}", 21_000))).status_code == 202
        assert (await again.publish(large("Patient-open", "p1", topic="new"))).status_code == 202


@pytest.mark.req("LIM-2")
async def test_many_at_once_do_not_pass_the_limit() -> None:
    """Simultaneous requests count together."""
    async with running_hub(max_bytes_per_user=100_000) as hub, hub.follow(await hub.subscribe(KEPT)):
        answers = await asyncio.gather(*(hub.publish(large("Patient-open", f"p{count}")) for count in range(12)))
        assert sorted(answer.status_code for answer in answers) == [202] * 4 + [413] * 8
        assert hub.hub.service.usage.bytes <= 100_000


@pytest.mark.req("LIM-1")
async def test_an_abandoned_session_is_found_among_many_by_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of topics one session is asked to make room, not all."""
    commands: list[str] = []
    submit = Service.submit

    async def counted(self: Service, key: SessionKey, command: object) -> object:
        commands.append(type(command).__name__)
        return await submit(self, key, command)  # type: ignore[arg-type]

    async with running_hub(max_topics_per_user=20, session_ttl=1000) as hub:
        for count in range(20):
            await hub.publish(event("Patient-open", topic=f"topic-{count}"))
        monkeypatch.setattr(Service, "submit", counted)
        assert (await hub.publish(event("Patient-open", topic="new"))).status_code == 429
        assert commands.count("MakeRoom") == 1
        hub.clock.now += 1001
        assert (await hub.publish(event("Patient-open", topic="new"))).status_code == 202
        assert commands.count("MakeRoom") == 2
        assert not await is_open(hub, "topic-0")
        assert await is_open(hub, "topic-1")


@pytest.mark.req("GET-11")
async def test_however_many_ask_there_is_one_answer() -> None:
    """All get the very same bytes, until the context changes."""
    async with running_hub() as hub:
        await hub.publish(large("Patient-open", "p1", 500_000))
        (session,) = hub.hub.service._store.sessions()
        key = SessionKey(session.realm, TOPIC)
        principal = await hub.hub._verifier.verify(hub.token())
        first, _ = await hub.hub.service.current_context(key, principal)
        await hub.subscribe(KEPT)
        answers = await asyncio.gather(*(hub.hub.service.current_context(key, principal) for _ in range(200)))
        assert all(answer is first for answer, _ in answers)
        await hub.publish(event("Patient-close", "p1"))
        assert hub.hub.service._answers.bytes == 0


@pytest.mark.req("LIM-2")
async def test_a_new_process_knows_who_was_unused_for_longest(tmp_path: Path) -> None:
    """The order in which the store is read does not matter."""
    store, clock, idp = f"sqlite:///{tmp_path / 'hub.db'}", Clock(), Idp()
    common: dict[str, Any] = {"store": store, "clock": clock, "idp": idp, "own": REALM, "max_bytes_per_user": 100_000}
    async with running_hub(**common) as hub:
        for topic in ("b", "d", "a", "c"):
            clock.now += 1
            await hub.publish(large("Patient-open", "p1", topic=topic))
    async with running_hub(**common) as again:
        await again.publish(large("Patient-open", "p1", topic="new"))
        assert [topic for topic in "abcd" if not await is_open(again, topic)] == ["b"]


@pytest.mark.req("LIM-2")
async def test_a_session_that_the_store_does_not_have_makes_room_once() -> None:
    """Its write failed after its client was gone. The session no longer counts, and nobody waits for ever."""
    async with running_hub(max_bytes_per_user=60_000) as hub:
        await hub.publish(large("Patient-open", "p1", topic="ghost"))
        hub.hub.service._store._sessions.clear()  # type: ignore[attr-defined]
        async with asyncio.timeout(2):
            for _ in range(2):
                assert (await hub.publish(large("Patient-open", "p1", 50_000))).status_code in (202, 413)
        assert hub.hub.service.usage.topics == 1
