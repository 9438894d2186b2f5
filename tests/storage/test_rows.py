"""The store writes each part of a session in rows, and only changed rows."""

from __future__ import annotations

import re
import sqlite3
import tracemalloc
from pathlib import Path

import pytest
from msgspec.structs import replace

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.rules.content import content_item
from fhircast_hub.core.rules.last_opens import NOTHING_OPENED
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import (
    Audience,
    Content,
    Outgoing,
    Queue,
    Session,
    Shared,
)
from tests.storage.sqlite_world import FULL, KEY, PATIENT, opened


async def test_every_part_of_a_session_survives(tmp_path: Path) -> None:
    """A session read back is equal to the one written, but for the audiences, whose sockets are gone."""
    store = await opened(tmp_path / "hub.db")
    audience = Audience(frozenset({"patient-open"}), NOTHING_OPENED, ("c-1",))
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
    shown = content_item(content, "1")
    assert re.findall(rb'"n":"([^"]*)"', shown) == [ref.encode() for ref in refs]
    await store.commit_and_deliver(KEY, 0, None, replace(FULL, contents={"patient/p1": content}), ())
    await store.close()
    again = await opened(tmp_path / "hub.db")
    (session,) = again.sessions()
    assert content_item(session.contents["patient/p1"], "1") == shown
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
