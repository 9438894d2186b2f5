"""What every store must do; each test runs against each store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.effects import Effect, Send
from fhircast_hub.core.state.session import Session
from fhircast_hub.postgresql.parts import SharedParts
from fhircast_hub.service.ports import SessionStore, Stale
from fhircast_hub.storage.memory import MemoryStore
from fhircast_hub.storage.sqlite import SqliteStore
from fhircast_hub.telemetry.metrics import Metrics

KEY = SessionKey("realm", "topic")
SESSION = Session(realm="realm", topic="topic", owner="user")
#: Subscriptions and topics of a user, bytes of a user and of all.
LIMITS = 10, 10, 1 << 20, 1 << 30


class Opened:
    """An open store, and what it delivered."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self.delivered: list[Effect] = []


def made(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> SessionStore:
    """A new store of this kind."""
    match kind:
        case "memory":
            return MemoryStore()
        case "sqlite":
            return SqliteStore(tmp_path / "hub.db")
    parts = SharedParts(request.getfixturevalue("database"), None, time.time)
    return parts.make_store(*LIMITS, Metrics(), lambda key: None)[0]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    store = made(request.param, request, tmp_path)
    world = Opened(store)
    await store.open(world.delivered.extend)
    yield world
    await store.close()


def said(text: str) -> tuple[Effect, ...]:
    return (Send(("c",), text.encode()),)


async def test_a_session_that_was_never_committed_is_not_there(opened: Opened) -> None:
    """An unknown session is None at revision 0."""
    assert await opened.store.load(KEY) == (None, 0)


async def test_what_was_committed_is_loaded(opened: Opened) -> None:
    """A committed session is there, at another revision."""
    await opened.store.commit_and_deliver(KEY, 0, None, SESSION, ())
    session, revision = await opened.store.load(KEY)
    assert session == SESSION
    assert revision != 0


async def test_a_commit_on_an_old_revision_is_refused_and_changes_nothing(opened: Opened) -> None:
    """Of two commits on one revision the second is stale, and its effects are not delivered."""
    await opened.store.commit_and_deliver(KEY, 0, None, SESSION, said("first"))
    with pytest.raises(Stale):
        await opened.store.commit_and_deliver(KEY, 0, None, replace(SESSION, owner="other"), said("second"))
    assert (await opened.store.load(KEY))[0] == SESSION
    assert opened.delivered == list(said("first"))


async def test_an_unchanged_session_delivers(opened: Opened) -> None:
    """A commit of the very same session only delivers its effects."""
    await opened.store.commit_and_deliver(KEY, 0, None, SESSION, ())
    session, revision = await opened.store.load(KEY)
    await opened.store.commit_and_deliver(KEY, revision, session, session, said("again"))
    assert (await opened.store.load(KEY))[0] is session
    assert opened.delivered == list(said("again"))


async def test_none_forgets(opened: Opened) -> None:
    """A session committed as None is gone."""
    await opened.store.commit_and_deliver(KEY, 0, None, SESSION, ())
    _, revision = await opened.store.load(KEY)
    await opened.store.commit_and_deliver(KEY, revision, SESSION, None, ())
    assert await opened.store.load(KEY) == (None, 0)


@pytest.mark.req("EVT-13")
async def test_effects_are_delivered_in_the_order_of_the_commits(opened: Opened) -> None:
    """Concurrent commits of one session are delivered in the one order in which they were accepted."""

    async def change(number: int) -> None:
        while True:
            session, revision = await opened.store.load(KEY)
            after = replace(session, order=number) if session else SESSION
            try:
                await opened.store.commit_and_deliver(KEY, revision, session, after, said(str(number)))
            except Stale:
                continue  # as the service does
            return

    await asyncio.gather(*(change(number) for number in range(50)))
    assert opened.delivered == [effect for number in range(50) for effect in said(str(number))]


async def test_realm_and_topic_are_not_confused(opened: Opened) -> None:
    """The same topic in two realms is two sessions."""
    other = SessionKey("realm-2", "topic")
    await opened.store.commit_and_deliver(KEY, 0, None, SESSION, ())
    await opened.store.commit_and_deliver(other, 0, None, replace(SESSION, realm="realm-2", owner="somebody"), ())
    session, _ = await opened.store.load(KEY)
    assert session is not None
    assert session.owner == "user"
