"""The service decides again after a conflict, and goes on after a failed write."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import Unavailable
from fhircast_hub.core.state.commands import Command
from fhircast_hub.core.state.session import Session
from fhircast_hub.service import service
from fhircast_hub.service.ports import Stale
from tests.running import RunningHub, event, running_hub, until
from tests.service.service_world import moody

#: An issuer whose realm is the same in each process, though its port is not.
REALM = {"realm": "hospital", "user_claim": "sub"}


def stale() -> None:
    raise Stale


# --- conflicts ---


@pytest.mark.req("EVT-13")
async def test_a_conflict_is_decided_again() -> None:
    """An overtaken commit is repeated until it succeeds: the client sees 202, the subscriber one event."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        store = moody(hub)
        store.moods = [stale, stale, stale]
        assert (await hub.publish(event("Patient-open"))).status_code == 202
        assert store.commits == 4
        assert await follower.names(1) == ["Patient-open"]
        assert await follower.silent()


@pytest.mark.req("SUB-22", "LIM-1")
async def test_a_conflict_is_counted_once() -> None:
    """A subscription that had to be decided again is one subscription of one topic, with one deadline."""
    async with running_hub() as hub:
        moody(hub).moods = [stale, stale]
        endpoint = await hub.subscribe(hub__lease_seconds="40")
        assert (hub.hub.service.usage.subscriptions, hub.hub.service.usage.topics) == (1, 1)
        async with hub.follow(endpoint) as follower:
            hub.clock.now += 41
            await hub.hub.service.tick()
            assert (await follower.next())["hub.mode"] == "denied"
        assert hub.hub.service.usage.subscriptions == 0


@pytest.mark.req("EVT-13", "EVT-14")
async def test_what_happens_at_once_happens_one_after_the_other() -> None:
    """With a store that lets others in between load and commit: all is accepted, each once, and all see one order."""
    async with running_hub() as hub:
        endpoints = [await hub.subscribe("Patient-open"), await hub.subscribe("Patient-open")]
        async with hub.follow(endpoints[0]) as one, hub.follow(endpoints[1]) as two:
            moody(hub).slow = True
            publishing = [
                hub.publish(event("Patient-open", f"p{number}", event_id=str(number))) for number in range(20)
            ]
            subscribing = [hub.form(hub__events="Patient-close") for _ in range(5)]
            answers = await asyncio.gather(*publishing, *subscribing)
            assert {answer.status_code for answer in answers} == {202}
            seen = [[(await follower.next())["id"] for _ in range(20)] for follower in (one, two)]
            assert seen[0] == seen[1]
            assert sorted(map(int, seen[0])) == list(range(20))
            assert hub.hub.service.usage.subscriptions == 7
            current = (await hub.context()).json()["context"][0]["resource"]["id"]
            assert current == f"p{seen[0][-1]}"


@pytest.mark.req("AUT-9", "LIM-1")
async def test_of_two_who_are_first_at_once_one_owns_the_topic() -> None:
    """An overtaken user is refused, and the topic does not count for that user."""
    async with running_hub(max_topics_per_user=1) as hub:
        moody(hub).slow = True
        users = {name: hub.token(name) for name in ("ann", "bob", "cy", "dee")}
        answers = await asyncio.gather(*(hub.publish(event("Patient-open"), user) for user in users.values()))
        assert sorted(answer.status_code for answer in answers) == [202, 403, 403, 403]
        for (name, user), answer in zip(users.items(), answers, strict=True):
            if answer.status_code == 403:
                assert (await hub.publish(event("Patient-open", topic=f"{name}'s"), user)).status_code == 202


# --- a store that fails ---


def write_protected(hub: RunningHub, on: bool) -> None:
    """Let every write of the hub's real store fail, as a full disk would."""
    hub.hub.service._store._connection.execute(f"pragma query_only = {int(on)}")  # type: ignore[attr-defined]


async def test_a_failed_write_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """503 with Retry-After on every verb that changes; counts, deadline, context and sockets as before; then all goes on."""
    async with running_hub(store=f"sqlite:///{tmp_path / 'hub.db'}") as hub:
        endpoint = await hub.subscribe(hub__lease_seconds="100")
        async with hub.follow(endpoint) as follower:
            await hub.publish(event("Patient-open", "p1"))
            await follower.next()
            usage, deadlines = hub.hub.service.usage, hub.hub.service._deadlines
            before = usage.subscriptions, usage.topics, deadlines.next(), (await hub.context()).json()
            write_protected(hub, True)
            renewal = {"hub__events": "Patient-close", "hub__channel.endpoint": endpoint, "hub__lease_seconds": "10"}
            for answer in await asyncio.gather(
                hub.form(hub__events="Patient-open", hub__lease_seconds="10"),
                hub.form(hub__events="Patient-open", hub__topic="new", hub__lease_seconds="10"),
                hub.form(**renewal),
                hub.form(hub__mode="unsubscribe", **{"hub__channel.endpoint": endpoint}),
                hub.publish(event("Patient-open", "p2")),
                hub.publish(event("Patient-close", "p1")),
                hub.publish(event("Patient-open", topic="new")),
            ):
                assert answer.status_code == 503
                assert int(answer.headers["Retry-After"]) > 0
            assert (usage.subscriptions, usage.topics, deadlines.next(), (await hub.context()).json()) == before
            assert await follower.silent()
            write_protected(hub, False)
            await hub.publish(event("Patient-open", "p2"))
            assert (await follower.next())["id"] == "Patient-open-p2"
            assert (await hub.form(hub__events="Patient-open", hub__topic="new")).status_code == 202


@pytest.mark.req("SUB-23", "SUB-12")
async def test_a_lost_socket_is_noted_when_the_store_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket closed while nothing could be written. Afterwards its place is empty, and missed events are kept."""
    monkeypatch.setattr(service, "RETRY_SECONDS", 0.01)
    async with running_hub(max_subscriptions_per_topic=1) as hub:
        endpoint = await hub.subscribe()
        store = moody(hub)
        async with hub.follow(endpoint) as follower:
            await hub.publish(event("Patient-open", "p1"))
            await follower.next()
            store.down = True
        await until(lambda: store.commits >= 4)
        (session,) = store.sessions()
        assert [bool(each.connection) for each in session.subscriptions.values()] == [True]
        store.down = False
        await until(lambda: not hub.hub.service._tasks)
        (session,) = store.sessions()
        assert [bool(each.connection) for each in session.subscriptions.values()] == [False]
        hub.clock.now += 5
        await hub.publish(event("Patient-close", "p1"))
        async with hub.follow(endpoint) as follower:
            assert await follower.names(1) == ["Patient-close"]


@pytest.mark.req("LEA-4")
async def test_a_deadline_waits_for_the_store_without_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Due work is tried again after a pause, not all the time, and done once the store can be written."""
    monkeypatch.setattr(service, "RETRY_SECONDS", 0.2)
    async with running_hub() as hub, hub.follow(await hub.subscribe(hub__lease_seconds="30")) as follower:
        store = moody(hub)
        store.down = True
        hub.clock.now += 31
        due = asyncio.create_task(hub.hub.service.tick())
        await until(lambda: store.commits > 0)
        await asyncio.sleep(0.1)  # half a pause
        attempts, tasks = store.commits, len(hub.hub.service._tasks)
        store.down = False
        await due
        assert (await follower.next())["hub.mode"] == "denied"
        assert await follower.closed() == 1000
        assert attempts <= 2, f"{attempts} attempts and {tasks} tasks in a tenth of a second"


async def test_identifiers_are_uuids_by_chance() -> None:
    """Each is as the module uuid writes it, of version 4."""
    ids = [service._RandomIds().uuid() for _ in range(200)]
    found = [uuid.UUID(each) for each in ids]
    assert [str(each) for each in found] == ids
    assert {(each.version, each.variant) for each in found} == {(4, uuid.RFC_4122)}
    assert len(set(ids)) == 200
    assert {each[19] for each in ids} == set("89ab")


async def test_what_cannot_be_written_does_not_stop_what_can(tmp_path: Path) -> None:
    """A session whose text no file can hold is refused; what was accepted with it and after it is in the file."""
    async with running_hub(store=f"sqlite:///{tmp_path / 'hub.db'}", own=REALM) as hub:
        store = hub.hub.service._store
        await hub.publish(event("Patient-open", topic="one"))
        key = SessionKey("hospital", "one")
        session, revision = await store.load(key)
        odd = store.commit_and_deliver(
            SessionKey("hospital", "\ud800"), 0, None, Session(realm="hospital", topic="\ud800", owner="u"), ()
        )
        forget = store.commit_and_deliver(key, revision, session, None, ())
        async with asyncio.timeout(2):
            refused, forgotten = await asyncio.gather(odd, forget, return_exceptions=True)
        assert isinstance(refused, Exception)
        assert forgotten is None or isinstance(forgotten, Unavailable)
        assert (await hub.publish(event("Patient-open", topic="two"))).status_code == 202
    async with running_hub(store=f"sqlite:///{tmp_path / 'hub.db'}", own=REALM) as hub:
        assert (await hub.context(topic="two")).json()["context.type"] == "Patient"


@pytest.mark.req("LEA-4")
async def test_a_clock_that_is_set_lets_no_lease_live_longer() -> None:
    """The machine slept for an hour. The first event after the sleep is not sent to subscribers with ended leases."""
    async with running_hub() as hub, hub.follow(await hub.subscribe(hub__lease_seconds="60")) as follower:
        hub.clock.now += 3600
        assert (await hub.publish(event("Patient-open"))).status_code == 202
        assert (await follower.next())["hub.mode"] == "denied"
        assert await follower.closed() == 1000


async def test_a_failure_of_ours_does_not_stop_the_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Tick that raises an unexpected error is tried again, and other sessions have theirs."""
    async with running_hub() as hub, hub.follow(await hub.subscribe(hub__lease_seconds="60")) as follower:
        await hub.subscribe(hub__topic="odd", hub__lease_seconds="30")
        submit = hub.hub.service.submit

        async def failing(key: SessionKey, command: Command) -> object:
            if key.topic == "odd":
                raise RuntimeError
            return await submit(key, command)

        monkeypatch.setattr(hub.hub.service, "submit", failing)
        hub.clock.now += 61
        await hub.hub.service.tick()
        assert (await follower.next())["hub.mode"] == "denied"
        monkeypatch.undo()
        await hub.hub.service.tick()
        assert hub.hub.service.usage.subscriptions == 0


async def test_who_gives_up_waiting_takes_nobody_along(tmp_path: Path) -> None:
    """Three commits share a transaction. One of the three is cancelled, and the others succeed."""
    async with running_hub(store=f"sqlite:///{tmp_path / 'hub.db'}") as hub:
        store = hub.hub.service._store
        keys = [SessionKey("r", f"topic-{number}") for number in range(3)]
        tasks = [
            asyncio.ensure_future(
                store.commit_and_deliver(key, 0, None, Session(realm="r", topic=key.topic, owner="u"), ())
            )
            for key in keys
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [result is None for result in results] == [True, False, True]
