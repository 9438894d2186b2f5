"""The SQLite store: what is on disk after the process died, who may read it, and what happens when it cannot be written."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import Unavailable
from fhircast_hub.core.rules.audiences import NOTHING
from fhircast_hub.core.rules.content import bundle
from fhircast_hub.core.state.effects import EventRef, Send
from fhircast_hub.core.state.session import (
    Audience,
    Content,
    OpenContext,
    Outgoing,
    Queue,
    RetainedEvent,
    Session,
    Shared,
    Subscription,
)
from fhircast_hub.storage.scrubbing import empty_log, move_log
from fhircast_hub.storage.sqlite import SCHEMA_VERSION, SqliteStore, _open_private, _prepare, _statements
from tests.running import until

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
            "subscription_id", "user:user-1", "Viewer", ("Patient-open",), expires=99.5, connected_or_lost_at=1.0
        )
    },
    deadline=99.5,
)


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    await store.open(lambda effects: None)
    return store


async def test_every_part_of_a_session_survives(tmp_path: Path) -> None:
    """A session read back is equal to the one written, but for the audiences, whose sockets are gone."""
    store = await opened(tmp_path / "hub.db")
    audience = Audience(frozenset({"patient-open"}), NOTHING, ("c-1",))
    await store.commit_and_deliver(KEY, 0, None, replace(FULL, audiences=(audience,)), ())
    await store.close()
    again = await opened(tmp_path / "hub.db")
    assert list(again.sessions()) == [FULL]
    assert list(next(iter(again.sessions())).contexts) == ["study/s", "patient/p1"]  # oldest first
    await again.close()


async def test_only_what_differs_is_written_and_what_went_is_deleted(tmp_path: Path) -> None:
    """A commit writes the head and the parts that changed; parts that are gone are gone from the file."""
    store = await opened(tmp_path / "hub.db")
    await store.commit_and_deliver(KEY, 0, None, FULL, ())
    _, revision = await store.load(KEY)
    less = replace(FULL, contexts={"patient/p1": PATIENT}, retained={}, contents={}, subscriptions={})
    await store.commit_and_deliver(KEY, revision, FULL, less, ())
    await store.close()
    with sqlite3.connect(tmp_path / "hub.db") as connection:
        rows = connection.execute("select kind, name from part").fetchall()
    connection.close()
    assert sorted(rows) == [("context", "patient/p1"), ("dropped_closes", ""), ("head", ""), ("home", "")]


@pytest.mark.req("CON-6")
async def test_an_update_writes_the_resources_that_it_changes(tmp_path: Path) -> None:
    """One is added, one replaced and one deleted, beside one that stays: three rows, those of the context, and the head."""
    store = await opened(tmp_path / "hub.db")
    stays, goes, changes, comes = (Shared(number, b"{%d}" % number) for number in range(1, 5))
    before = Content({"a/stays": stays, "a/goes": goes, "a/changes": changes}, 9, (b"1",))
    resources = {"a/stays": stays, "a/changes": replace(changes, entry=b"{}"), "a/comes": comes}
    after = Content(resources, 8, (b"1", b"2"))
    other = Content({"a/other": Shared(1, b"{o}")}, 3, (b"o",))
    sessions = [replace(FULL, contents={"patient/p1": content, "study/s": other}) for content in (before, after)]
    await store.commit_and_deliver(KEY, 0, None, sessions[0], ())
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    await store.commit_and_deliver(KEY, 1, sessions[0], sessions[1], ())
    _, put, delete, _ = statements
    assert re.findall(r"'(head|updates|shared|context)', '([^']*)'", put) == [
        ("head", ""),
        ("updates", "patient/p1"),
        ("shared", "patient/p1\na/changes"),
        ("shared", "patient/p1\na/comes"),
    ]
    assert "name = 'patient/p1\na/goes'" in delete
    await store.close()
    again = await opened(tmp_path / "hub.db")
    assert list(again.sessions()) == [sessions[1]]
    await again.close()


@pytest.mark.req("CON-9", "CON-10")
async def test_the_rows_of_a_closed_context_go(tmp_path: Path) -> None:
    """Its resources and what is known of its updates; those of the others stay."""
    store = await opened(tmp_path / "hub.db")
    await store.commit_and_deliver(KEY, 0, None, FULL, ())
    less = replace(FULL, contexts={"patient/p1": PATIENT}, contents={"patient/p1": FULL.contents["patient/p1"]})
    await store.commit_and_deliver(KEY, 1, FULL, less, ())
    await store.close()
    with sqlite3.connect(tmp_path / "hub.db") as connection:
        rows = connection.execute("select kind, name from part where kind in ('shared', 'updates')").fetchall()
    connection.close()
    assert rows == [("updates", "patient/p1")]


@pytest.mark.req("CON-16")
async def test_shared_resources_keep_their_order(tmp_path: Path) -> None:
    """However their rows are read, they are shown in the order in which they were shared."""
    store = await opened(tmp_path / "hub.db")
    refs = [f"observation/{number}" for number in (9, 10, 1, 5, 3)]
    resources = {ref: Shared(place, b'{"n":"%b"}' % ref.encode()) for place, ref in enumerate(refs)}
    content = Content(dict(sorted(resources.items())), sum(len(each.entry) for each in resources.values()), (b"1",))
    shown = bundle(content, "1")
    assert re.findall(rb'"n":"([^"]*)"', shown) == [ref.encode() for ref in refs]
    await store.commit_and_deliver(KEY, 0, None, replace(FULL, contents={"patient/p1": content}), ())
    await store.close()
    again = await opened(tmp_path / "hub.db")
    (session,) = again.sessions()
    assert bundle(session.contents["patient/p1"], "1") == shown
    assert session.contents["patient/p1"].size == content.size
    await again.close()


@pytest.mark.req("CON-16")
async def test_full_urls_are_read_from_the_entries(tmp_path: Path) -> None:
    """They stand in no row of their own: what an older hub wrote has them too."""
    store = await opened(tmp_path / "hub.db")
    entries = [
        b'{"fullUrl":"urn:uuid:1","resource":{"x":"{"}}',
        b'{"fullUrl":"a\\"b","resource":{}}',
        b'{"resource":{}}',
    ]
    resources = {f"observation/{place}": Shared(place, entry) for place, entry in enumerate(entries)}
    urls = {"urn:uuid:1": "observation/0", 'a"b': "observation/1"}
    content = Content(resources, sum(map(len, entries)), (b"1",), urls)
    await store.commit_and_deliver(KEY, 0, None, replace(FULL, contents={"patient/p1": content}), ())
    await store.close()
    again = await opened(tmp_path / "hub.db")
    (session,) = again.sessions()
    assert session.contents == {"patient/p1": content}
    await again.close()


@pytest.mark.req("WHK-8", "WHK-12")
async def test_what_waits_for_callbacks_is_written_as_it_changes(tmp_path: Path) -> None:
    """One has answered, one waits for more, and what waited for a third is its successor's: the row of each post, no other."""
    store = await opened(tmp_path / "hub.db")

    def queue(subscription_id: str, *numbers: int) -> Queue:
        frames = {number: b"frame %d" % number for number in numbers}
        event_ref = EventRef("e", "e", "Patient-open")
        return Queue(
            {number: Outgoing(subscription_id, event_ref, frame) for number, frame in frames.items()},
            sum(map(len, frames.values())),
        )

    before = {"answers": queue("answers", 1, 4), "hangs": queue("hangs", 2, 5), "old": queue("old", 3, 10)}
    after = {"answers": queue("answers", 4), "hangs": before["hangs"], "new": queue("new", 3, 10, 11)}
    after["answers"].posts[4] = before["answers"].posts[4]
    sessions = [replace(FULL, outbox=outbox, last_post_number=11) for outbox in (before, after)]
    await store.commit_and_deliver(KEY, 0, None, sessions[0], ())
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    await store.commit_and_deliver(KEY, 1, sessions[0], sessions[1], ())
    _, put, delete, _ = statements
    assert sorted(re.findall(r"'outgoing', '([^']*)'", put)) == ["10", "11", "3"]
    assert "name = '1'" in delete
    await store.close()
    again = await opened(tmp_path / "hub.db")
    (session,) = again.sessions()
    assert session == sessions[1]
    assert list(session.outbox["new"].posts) == [3, 10, 11]  # oldest first
    await again.close()


async def test_a_store_is_read_session_by_session(tmp_path: Path) -> None:
    """Beside the sessions themselves there is no second copy of all that they hold."""
    store = await opened(tmp_path / "hub.db")
    for number in range(40):
        key, context = SessionKey("realm", f"topic-{number}"), replace(PATIENT, frame=bytes(200_000))
        session = Session(realm=key.realm, topic=key.topic, owner="u", contexts={PATIENT.ref: context})
        await store.commit_and_deliver(key, 0, None, session, ())
    await store.close()
    tracemalloc.start()
    try:
        again = await opened(tmp_path / "hub.db")
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held > 40 * 200_000
    assert most < held + 4 * 200_000
    await again.close()


def modes_in(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


@pytest.mark.parametrize("umask", [0o000, 0o022])
async def test_nobody_else_can_read_the_file(tmp_path: Path, umask: int) -> None:
    """The file, its log and its lock have mode 0600 whatever the umask, also if the file was there with another."""
    path = tmp_path / "hub.db"
    before = os.umask(umask)
    try:
        path.touch(0o666)
        store = await opened(path)
        await store.commit_and_deliver(KEY, 0, None, FULL, ())
        modes = modes_in(tmp_path)
    finally:
        os.umask(before)
    await store.close()
    assert set(modes) >= {"hub.db", "hub.db-wal", "hub.db.lock"}
    assert set(modes.values()) == {0o600}


async def test_a_second_hub_is_refused(tmp_path: Path) -> None:
    """Two hubs on one file would each be right and together wrong: the second does not start."""
    store = await opened(tmp_path / "hub.db")
    with pytest.raises(ValueError, match="in use by another hub"):
        await opened(tmp_path / "hub.db")
    await store.close()
    await (await opened(tmp_path / "hub.db")).close()


async def test_a_file_of_the_schema_before_is_upgraded(tmp_path: Path) -> None:
    """A session is the one that the hub before wrote, now and when the file is opened again."""
    connection = sqlite3.connect(tmp_path / "hub.db")
    connection.executescript((Path(__file__).parent / "schema-2.sql").read_text(encoding="utf-8"))
    connection.close()
    first = await opened(tmp_path / "hub.db")
    (session,) = first.sessions()
    await first.close()
    chart = Subscription(
        "hook",
        *("user:user-1", "Chart", ("Patient-close",)),
        expires=88.5,
        connected_or_lost_at=1.5,
        connection="hook-hook",
        never_connected=False,
        delivered_until=1.5,
        reconnect_deadline=3.5,
        callback="https://chart.example/",
        secret=b"sealed",
        opaque=True,
        acknowledges=True,
        missed_acks=2,
        refused_event="Patient-open",
        issuer="https://issuer.example",
        client="chart",
        shown_opens=("patient/p1",),
        address="192.0.2.1",
    )
    viewer = replace(FULL.subscriptions["subscription_id"], subscription_id="sid")
    post = Outgoing("hook", EventRef("e3", "e3", "Patient-open", "patient/p1"), b"post")
    assert session == replace(
        FULL,
        created_at=1.25,
        last_post_number=4,
        outbox={"hook": Queue({4: post}, 4)},
        subscriptions={"hook": chart, "sid": viewer},
    )
    second = await opened(tmp_path / "hub.db")
    assert list(second.sessions()) == [session]
    await second.close()


async def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A row that cannot be read stops the upgrade, and the older hub still opens the file."""
    connection = sqlite3.connect(tmp_path / "hub.db")
    connection.executescript((Path(__file__).parent / "schema-2.sql").read_text(encoding="utf-8"))
    connection.execute("update part set body = x'c1' where kind = 'outgoing'")
    connection.commit()
    before = list(connection.iterdump())
    with pytest.raises(ValueError, match="cannot be read as a hub's store"):
        await opened(tmp_path / "hub.db")
    assert list(connection.iterdump()) == before
    assert connection.execute("pragma user_version").fetchone() == (2,)
    connection.close()


async def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    """A file that a newer hub wrote is not touched."""
    with sqlite3.connect(tmp_path / "hub.db") as connection:
        connection.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(ValueError, match=f"schema version {SCHEMA_VERSION + 1}"):
        await opened(tmp_path / "hub.db")


async def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    """Ten thousand random bytes are not a store."""
    (tmp_path / "hub.db").write_bytes(os.urandom(10_000))
    with pytest.raises(ValueError, match="cannot be read") as refusal:
        await opened(tmp_path / "hub.db")
    assert "\n" not in str(refusal.value)


def open_files() -> list[str]:
    """The names of the files that this process has open."""
    descriptors = (Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd"))
    return [str(descriptor.readlink()) for descriptor in descriptors if descriptor.is_symlink()]


@pytest.mark.parametrize("content", ["another schema", "no database", "a folder"])
async def test_a_refused_file_is_closed(tmp_path: Path, content: str) -> None:
    """What is in the way can be moved away, and a hub that tries again has as many files open as before."""
    path = tmp_path / "hub.db"
    if content == "another schema":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    elif content == "no database":
        path.write_bytes(os.urandom(10_000))
    else:
        path.mkdir()
    with pytest.raises((ValueError, OSError)) as refusal:  # kept, or its traceback would close what it holds
        await opened(path)
    assert [name for name in open_files() if name.startswith(str(tmp_path))] == []
    assert str(refusal.value)


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
    monkeypatch.setattr("fhircast_hub.storage.sqlite.MAX_LOG_PAGES", 3)
    monkeypatch.setattr("fhircast_hub.storage.sqlite.EMPTY_SECONDS", 1000.0)
    monkeypatch.setattr("fhircast_hub.storage.sqlite.CHECKPOINT_SECONDS", 0.02)
    sizes: list[int] = []

    def shrinks() -> bool:
        sizes.append((tmp_path / "hub.db-wal").stat().st_size)
        return sizes[-1] < max(sizes)

    async with kept(tmp_path / "hub.db") as store:
        for _ in range(2):  # the first time is due in any case
            await change_until(store, shrinks)
            sizes.clear()


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


async def test_two_names_of_one_file_have_one_lock(tmp_path: Path) -> None:
    """A second hub that comes by a symbolic link is refused too."""
    store = await opened(tmp_path / "hub.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "hub.db")
    with pytest.raises(ValueError, match="in use by another hub"):
        await opened(tmp_path / "link.db")
    await store.close()


# --- what was deleted ---

MARK = b"Q2hlcmNoZXo=" * 50


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


@pytest.mark.req("OPS-7")
@pytest.mark.parametrize("size", [1, 20], ids=["within a page", "over several pages"])
async def test_what_was_closed_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """It was in the log and moved into the file; then it went. It is overwritten in the file, and the log is empty."""
    monkeypatch.setattr("fhircast_hub.storage.sqlite.CHECKPOINT_SECONDS", 0.02)
    monkeypatch.setattr("sqlite3.connect", without_secure_delete(sqlite3.connect))
    async with kept(tmp_path / "hub.db") as store:
        await change(store, contexts={"patient/p1": replace(PATIENT, frame=MARK * size)})
        assert marked(tmp_path) == {"hub.db-wal"}
        await until(lambda: marked(tmp_path) == {"hub.db"})
        await change(store, contexts={})
        await until(lambda: not marked(tmp_path))


@pytest.mark.req("OPS-7")
async def test_a_hub_that_is_never_idle_empties_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came and went far behind in the log is overwritten by nothing else."""
    monkeypatch.setattr("fhircast_hub.storage.sqlite.CHECKPOINT_SECONDS", 0.02)
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
    monkeypatch.setattr("fhircast_hub.storage.sqlite.CHECKPOINT_SECONDS", 0.02)
    again = await opened(tmp_path / "crashed" / "hub.db")
    await until(lambda: not marked(tmp_path / "crashed"))
    await again.close()


@pytest.mark.req("OPS-7")
def test_what_was_moved_within_the_file_is_overwritten(tmp_path: Path) -> None:
    """Of thousands of rows that come, change and go some are moved to other pages: what they leave behind is none of the file's."""
    path, chance, number = tmp_path / "hub.db", random.Random(0), 0
    living: dict[str, bytes] = {}
    file = _open_private(path)
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
                assert move_log(path, file) > 0
        assert empty_log(path, file)
        found = set(re.findall(rb"mark[0-9]{8}", path.read_bytes()))
        assert found <= {*living.values(), *map(str.encode, living)}
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    os.close(file)


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
