"""A session with every part, and an opened store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import (
    Content,
    OpenContext,
    RetainedEvent,
    Session,
    Shared,
    Subscription,
)
from fhircast_hub.storage.scrubbing import WriteAheadLog
from fhircast_hub.storage.sqlite import SqliteStore

KEY = SessionKey("https://idp.example", "topic ø\u2028")
PATIENT = OpenContext(
    ref="patient/p1",
    type="Patient",
    id="e1",
    timestamp="2026-11-22T10:00:00Z",
    order=7,
    version="11111111-1111-4111-8111-111111111111",
    frame=b'{"raw":"\xc3\xb8", "n":1.10}',
    context_at=1,
    context_size=2,
    implied={"encounter": "encounter/e1"},
)
FULL = Session(
    realm=KEY.realm,
    topic=KEY.topic,
    owner="user-1",
    order=9,
    version="11111111-1111-4111-8111-111111111111",
    current="patient/p1",
    home=b"{}",
    last_change_order=8,
    dropped_closes={"Patient/p9": 1.5},
    last_used_at=2.5,
    recent={b"\xaa\xff": 7, b"bb": 8},
    contexts={"study/s": replace(PATIENT, ref="study/s", order=3), "patient/p1": PATIENT},
    retained={
        5: RetainedEvent(1.0, EventRef("e1", "e1", "Patient-close"), "Patient", "patient/p0", b"close"),
        11: RetainedEvent(2.0, EventRef("e2", "e2", "Patient-close"), "Patient", "patient/x", b"c"),
    },
    contents={
        "study/s": Content(
            {"observation/2": Shared(1, b"{2}"), "observation/1": Shared(2, b"{1}")}, 6, (b"\xaa", b"b")
        ),
        "patient/p1": Content({}, 0, (b"c",)),
    },
    subscriptions={
        "subscription_id": Subscription(
            "subscription_id",
            "user:user-1",
            "Viewer",
            ("Patient-open",),
            expires=99.5,
            connected_or_lost_at=1.0,
            left=True,
        )
    },
    sent_nothing=frozenset({"subscription_id"}),
    deadline=99.5,
)


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    await store.open(lambda effects: None)
    return store


@asynccontextmanager
async def kept(path: Path) -> AsyncIterator[SqliteStore]:
    """A store that has one session."""
    store = await opened(path)
    await store.commit_and_deliver(KEY, 0, None, FULL, ())
    yield store
    await store.close()


async def change(store: SqliteStore, **parts: object) -> None:
    """Commit the session with these parts."""
    before, revision = await store.load(KEY)
    assert before
    await store.commit_and_deliver(KEY, revision, before, replace(before, order=before.order + 1, **parts), ())


async def change_until(store: SqliteStore, is_so: Callable[[], bool]) -> None:
    """Commits that never pause, until it is so."""
    async with asyncio.timeout(5):
        while not is_so():
            await change(store)


def attempts_to_empty(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, bool]]:
    """A list of all attempts to empty a log from now on: the monotonic second of its begin, and whether the log was empty then."""
    attempts: list[tuple[float, bool]] = []
    empty = WriteAheadLog.empty

    def recorded(log: WriteAheadLog) -> bool:
        began = time.monotonic()
        is_empty = empty(log)
        attempts.append((began, is_empty))
        return is_empty

    monkeypatch.setattr(WriteAheadLog, "empty", recorded)
    return attempts
