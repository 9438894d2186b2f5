"""Closed contexts are in no file of the store."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import re
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from fhircast_hub.storage import scrubbing
from fhircast_hub.storage.scrubbing import WriteAheadLog
from fhircast_hub.storage.sqlite import _open_private, _prepare, _statements
from tests.running import until
from tests.storage.sqlite_world import PATIENT, attempts_to_empty, change, change_until, kept, opened

#: The byte of the log's index that a checkpoint locks (https://sqlite.org/walformat.html, 2.2: WAL_CKPT_LOCK).
CHECKPOINT_LOCK = 121
MARK = b"Q2hlcmNoZXo=" * 50


def marked(folder: Path, mark: bytes = MARK) -> set[str]:
    """The names of the files that hold the mark."""
    return {file.name for file in folder.iterdir() if mark in file.read_bytes()}


def without_secure_delete(connect: Callable[..., sqlite3.Connection]) -> Callable[..., sqlite3.Connection]:
    """Some builds of SQLite delete securely on their own, as Debian's does. Others connect like this."""

    def connect_(*arguments: object, **options: object) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.execute("pragma secure_delete = off")
        return connection

    return connect_


@pytest.mark.req("OPS-7", "OPS-10")
@pytest.mark.parametrize("size", [1, 20], ids=["within a page", "over several pages"])
async def test_what_was_closed_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """It was in the log and moved into the file; then it went. It is overwritten in the file, and the log is empty."""
    monkeypatch.setattr("fhircast_hub.storage.sqlite.SYNC_SECONDS", 0.02)
    monkeypatch.setattr("sqlite3.connect", without_secure_delete(sqlite3.connect))
    async with kept(tmp_path / "hub.db") as store:
        await change(store, contexts={"patient/p1": replace(PATIENT, frame=MARK * size)})
        assert marked(tmp_path) == {"hub.db-wal"}
        await until(lambda: marked(tmp_path) == {"hub.db"})
        await change(store, contexts={})
        await until(lambda: not marked(tmp_path))


@pytest.mark.req("OPS-7", "OPS-10")
async def test_a_hub_that_is_never_idle_empties_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came and went far behind in the log is overwritten by nothing else."""
    monkeypatch.setattr("fhircast_hub.storage.sqlite.SYNC_SECONDS", 0.02)
    monkeypatch.setattr("fhircast_hub.storage.sqlite.EMPTY_SECONDS", 0.1)
    async with kept(tmp_path / "hub.db") as store:
        await change_until(store, lambda: (tmp_path / "hub.db").stat().st_size > 0)  # the first time is due in any case
        await change(store, home=bytes(3_000_000))
        await change(store, home=MARK)
        await change(store, home=b"")
        assert "hub.db-wal" in marked(tmp_path)
        await change_until(store, lambda: not marked(tmp_path))


@pytest.mark.req("OPS-7")
async def test_what_was_closed_before_a_crash_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of a process that was killed has what came and went; the next process empties it, though nothing happens there."""
    async with kept(tmp_path / "hub.db") as store:
        await change(store, home=MARK)
        await change(store, home=b"")
        shutil.copytree(tmp_path, tmp_path / "crashed")
    assert marked(tmp_path / "crashed") == {"hub.db-wal"}
    monkeypatch.setattr("fhircast_hub.storage.sqlite.SYNC_SECONDS", 0.02)
    again = await opened(tmp_path / "crashed" / "hub.db")
    await until(lambda: not marked(tmp_path / "crashed"))
    await again.close()


@pytest.mark.req("OPS-7", "OPS-10")
def test_what_was_moved_within_the_file_is_overwritten(tmp_path: Path) -> None:
    """Of thousands of rows that come, change and go some are moved to other pages: what they leave behind is none of the file's."""
    path, chance, number = tmp_path / "hub.db", random.Random(0), 0
    living: dict[str, bytes] = {}
    file = _open_private(path)
    log = WriteAheadLog(path, file)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        _prepare(connection, path)
        for turn in range(6000):
            comes = chance.random() < (0.55 if turn // 500 % 2 == 0 else 0.42)
            if comes or not living or chance.random() < 0.5:
                number += 1
                mark = b"mark%08d" % number
                name = mark.decode() if comes or not living else chance.choice(list(living))
                living[name] = mark
                body = mark * chance.choice([1, 5, 20, 50, 100, 400])
            else:
                name, body = chance.choice(list(living)), None
                del living[name]
            for statement in _statements({("realm", f"topic-{int(name[-2:]) % 7}", "held", name): body}):
                connection.execute(*statement)
            if turn % 1500 == 1499:
                assert log.sync() > 0
                log.move()
        assert log.empty()
        found = set(re.findall(rb"mark[0-9]{8}", path.read_bytes()))
        assert found <= {*living.values(), *map(str.encode, living)}
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    os.close(file)


@pytest.mark.req("OPS-7", "OPS-10")
async def test_pages_are_overwritten_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a full disk. The hub forgets no page, also where nothing is committed any more, and keeps the log until then."""
    monkeypatch.setattr("fhircast_hub.storage.sqlite.SYNC_SECONDS", 0.02)
    overwritten: list[set[int]] = []

    def full_at_first(file: int, pages: set[int]) -> None:
        if not pages:
            return
        overwritten.append(set(pages))
        assert (tmp_path / "hub.db-wal").stat().st_size > 0
        if len(overwritten) < 3:
            raise OSError(errno.ENOSPC, "no space")

    async with kept(tmp_path / "hub.db") as store:
        await until(lambda: not store._has_log)
        monkeypatch.setattr(scrubbing, "_scrub", full_at_first)
        await change(store)
        await until(lambda: len(overwritten) > 2 and not store._has_log)
    first, second, third, *_ = overwritten
    assert first
    assert first == second == third


@pytest.mark.req("OPS-7")
def test_a_log_that_another_process_moves(tmp_path: Path) -> None:
    """The hub remembers the pages, also where that process ends the log."""
    path = tmp_path / "hub.db"
    file = _open_private(path)
    log = WriteAheadLog(path, file)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        _prepare(connection, path)
        pages = log._pages_to_move()
        assert pages
        with lock_of_checkpoints(path):
            log.move()
        assert log._unscrubbed == pages
        connection.execute("pragma wal_checkpoint(truncate)")
        log.move()
        assert not log._unscrubbed
    os.close(file)


@contextmanager
def lock_of_checkpoints(path: Path) -> Iterator[None]:
    """Another process moves the log, within the block."""
    shared = os.open(f"{path}-shm", os.O_RDWR)
    # Of the open file, so that the lock holds against this process too.
    fcntl.fcntl(shared, fcntl.F_OFD_SETLK, struct.pack("hhlli", fcntl.F_WRLCK, os.SEEK_SET, CHECKPOINT_LOCK, 1, 0))
    yield
    os.close(shared)


@pytest.mark.req("OPS-7", "OPS-10")
@pytest.mark.parametrize("longest", [1 << 40, 0], ids=["due", "long"])
async def test_a_log_that_is_read_is_emptied_soon_and_not_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    """By a hub that is never idle. Each attempt stops its commits for a moment."""
    monkeypatch.setattr("fhircast_hub.storage.sqlite.SYNC_SECONDS", 0.02)
    monkeypatch.setattr("fhircast_hub.storage.sqlite.EMPTY_SECONDS", 1000.0)
    monkeypatch.setattr("fhircast_hub.storage.sqlite.EMPTY_AGAIN_SECONDS", 0.3)
    monkeypatch.setattr("fhircast_hub.storage.sqlite.MAX_LOG_BYTES", longest)
    tried = attempts_to_empty(monkeypatch)
    async with kept(tmp_path / "hub.db") as store:
        with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as backup:
            backup.execute("begin")
            backup.execute("select * from part").fetchone()
            await change_until(store, lambda: len(tried) == 2)
        await change_until(store, lambda: tried[-1][1])
    assert [emptied for _, emptied in tried[:2]] == [False, False]
    assert all(later - before >= 0.3 for (before, _), (later, _) in pairwise(tried[:3]))


async def test_who_reads_the_file_for_long_holds_up_no_commit(tmp_path: Path) -> None:
    """As a backup does: the log is emptied later, and what is committed meanwhile is written."""
    async with kept(tmp_path / "hub.db") as store:
        with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as backup:
            backup.execute("begin")
            backup.execute("select * from part").fetchone()
            await change(store)
            await store._empty()
            assert (tmp_path / "hub.db-wal").stat().st_size > 0
            await change(store)
        await store._empty()
        assert (tmp_path / "hub.db-wal").stat().st_size == 0


async def test_a_commit_waits_while_the_log_is_emptied(tmp_path: Path) -> None:
    """It is written behind that, though the file is closed then, and who waits for it is told."""
    async with kept(tmp_path / "hub.db") as store:
        emptying = asyncio.create_task(store._empty())
        await asyncio.sleep(0)
        committed = asyncio.create_task(change(store, owner="another"))
        await asyncio.sleep(0)
        assert store._emptying
        assert not committed.done()
        await asyncio.gather(emptying, committed)
    again = await opened(tmp_path / "hub.db")
    assert [session.owner for session in again.sessions()] == ["another"]
    await again.close()
