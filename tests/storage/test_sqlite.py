"""The store commits in batches, and a crash or a failed write loses nothing that was acknowledged."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import Unavailable
from fhircast_hub.core.state.effects import Send
from fhircast_hub.core.state.session import (
    Session,
)
from fhircast_hub.storage.sqlite import SqliteStore
from tests.running import until
from tests.storage.sqlite_world import FULL, KEY, attempts_to_empty, change, change_until, kept, opened


async def test_concurrent_commits_share_a_transaction(tmp_path: Path) -> None:
    """A hundred commits of one turn of the event loop are one statement, and so one transaction."""
    store = await opened(tmp_path / "hub.db")
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    keys = [SessionKey("realm", f"topic-{number}") for number in range(100)]
    await asyncio.gather(
        *(
            store.commit_and_deliver(key, 0, None, Session(realm=key.realm, topic=key.topic, owner="u"), ())
            for key in keys
        )
    )
    assert len(statements) == 1
    assert statements[0].count("topic-") == 100
    await store.close()


async def test_a_larger_batch_is_one_transaction_too(tmp_path: Path) -> None:
    """What does not fit one statement, puts and deletes, is all there or not at all."""
    store = await opened(tmp_path / "hub.db")
    await store.commit_and_deliver(KEY, 0, None, FULL, ())
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    keys = [SessionKey("realm", f"topic-{number}") for number in range(250)]
    new = [
        store.commit_and_deliver(key, 0, None, Session(realm=key.realm, topic=key.topic, owner="u"), ()) for key in keys
    ]
    await asyncio.gather(*new, store.commit_and_deliver(KEY, 1, FULL, None, ()))
    assert (statements[0], statements[-1]) == ("begin immediate", "commit")
    assert statements.count("commit") == 1
    await store.close()
    again = await opened(tmp_path / "hub.db")
    assert len(list(again.sessions())) == 250
    await again.close()


async def test_the_log_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log beyond its bound is begun anew although writers never pause."""
    monkeypatch.setattr("fhircast_hub.storage.sqlite.MAX_LOG_BYTES", 3 * 4096)
    monkeypatch.setattr("fhircast_hub.storage.sqlite.EMPTY_SECONDS", 1000.0)
    monkeypatch.setattr("fhircast_hub.storage.sqlite.SYNC_SECONDS", 0.02)
    begun: set[bytes] = set()
    sizes: list[int] = []
    tried = attempts_to_empty(monkeypatch)

    def is_begun_anew() -> bool:
        log = (tmp_path / "hub.db-wal").read_bytes()
        begun.add(log[16:24])  # the salts, which each log has of its own
        sizes.append(len(log))
        return len(begun) == 4

    async with kept(tmp_path / "hub.db") as store:
        await change_until(store, lambda: bool(tried))  # the first time is due in any case
        await change_until(store, is_begun_anew)
    assert [is_empty for _, is_empty in tried[:1]] == [True]
    assert sizes[-1] == max(sizes)  # the file keeps its size


async def test_changes_are_soon_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is, with all that was committed. So a power cut costs what came after the last wait for the disk."""
    monkeypatch.setattr("fhircast_hub.storage.sqlite.SYNC_SECONDS", 0.02)
    on_disk: list[tuple[str, int]] = []

    def fdatasync(file: int) -> None:
        on_disk.append((Path(f"/proc/self/fd/{file}").readlink().name, os.fstat(file).st_size))

    async with kept(tmp_path / "hub.db") as store:
        await until(lambda: not store._has_log)
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        monkeypatch.setattr("fhircast_hub.storage.sqlite.EMPTY_SECONDS", 1000.0)
        await change(store)
        written = (tmp_path / "hub.db-wal").stat().st_size
        await until(lambda: ("hub.db-wal", written) in on_disk)


async def test_effects_wait_until_the_change_is_in_the_file(tmp_path: Path) -> None:
    """When somebody is told of a change, another process can read it in the file."""
    seen: list[int] = []

    def look(effects: object) -> None:
        other = sqlite3.connect(tmp_path / "hub.db")
        seen.append(other.execute("select count(*) from part").fetchone()[0])
        other.close()

    store = SqliteStore(tmp_path / "hub.db")
    await store.open(look)
    await store.commit_and_deliver(
        KEY,
        0,
        None,
        replace(FULL, contexts={}, retained={}, contents={}, subscriptions={}, home=b"", dropped_closes={}),
        (Send(("c",), b"x"),),
    )
    assert seen == [1]
    await store.close()


async def test_a_failed_write_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """When the file cannot be written, every commit of the batch raises Unavailable and memory says what the file says."""
    store = await opened(tmp_path / "hub.db")
    await store.commit_and_deliver(KEY, 0, None, FULL, ())
    before = await store.load(KEY)
    store._connection.execute("pragma query_only = on")
    new = SessionKey("realm", "new")
    results = await asyncio.gather(
        store.commit_and_deliver(KEY, before[1], FULL, replace(FULL, owner="x"), (Send(("c",), b"x"),)),
        store.commit_and_deliver(new, 0, None, replace(FULL, topic="new"), ()),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    assert await store.load(KEY) == before
    assert await store.load(new) == (None, 0)
    store._connection.execute("pragma query_only = off")
    await store.commit_and_deliver(KEY, before[1], FULL, replace(FULL, owner="y"), ())
    await store.close()


_WRITER = """
import asyncio, sys
from pathlib import Path
from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.session import Session
from fhircast_hub.storage.sqlite import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open(lambda effects: None)
    for number in range(1_000_000):
        topic = f"topic-{number}"
        await store.commit_and_deliver(SessionKey("r", topic), 0, None, Session(realm="r", topic=topic, owner="u"), ())
        print(number, flush=True)

asyncio.run(main())
"""


def killed_while_writing(path: Path) -> set[str]:
    """The topics that a process had acknowledged when it was killed in the midst of its commits."""
    command = [sys.executable, "-c", _WRITER, str(path)]
    hub = str(Path(__file__).parents[2] / "hub")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": hub}) as writer:
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline() for _ in range(300)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [line for line in writer.stdout if line.endswith("\n")]
    return {f"topic-{int(number)}" for number in acknowledged}


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """Every commit that a killed process had acknowledged is in the file."""
    acknowledged = killed_while_writing(tmp_path / "hub.db")
    store = await opened(tmp_path / "hub.db")
    assert {session.topic for session in store.sessions()} >= acknowledged
    await store.close()
