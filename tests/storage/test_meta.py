"""What a file says of itself: the key of keyed hashes, and the hub that opened it last."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fhircast_hub.storage import meta, sqlite
from fhircast_hub.storage.meta import read_key
from fhircast_hub.storage.sqlite import SCHEMA_VERSION, SqliteStore
from tests.storage.sqlite_world import FULL, KEY, opened


async def key_of(path: Path) -> bytes:
    """The key that a hub learns when it opens the file."""
    learned: list[bytes] = []
    store = SqliteStore(path, learned.append)
    await store.open(lambda effects: None)
    await store.close()
    (key,) = learned
    return key


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.req("OPS-30")
async def test_the_key_of_a_file_is_made_once(tmp_path: Path) -> None:
    """By chance, with 256 bits. Each file has another."""
    first, other = await key_of(tmp_path / "hub.db"), await key_of(tmp_path / "other.db")
    assert await key_of(tmp_path / "hub.db") == first != other
    assert len(first) == len(other) == 32


@pytest.mark.req("OPS-30")
async def test_a_file_of_a_hub_without_keys_gets_one(tmp_path: Path) -> None:
    """The schema version stays. So the hub of before opens the file afterwards too."""
    store = await opened(tmp_path / "hub.db")
    await store.commit_and_deliver(KEY, 0, None, FULL, ())
    await store.close()
    with closing(sqlite3.connect(tmp_path / "hub.db")) as connection:
        connection.execute("drop table meta")
        connection.commit()
    with pytest.raises(ValueError, match="has no key of hashes"):
        read_key(tmp_path / "hub.db")
    key = await key_of(tmp_path / "hub.db")
    assert read_key(tmp_path / "hub.db") == key
    with closing(sqlite3.connect(tmp_path / "hub.db")) as connection:
        assert connection.execute("pragma user_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("select count(*) from part where kind = 'head'").fetchone() == (1,)


@pytest.mark.req("OPS-30")
async def test_the_key_is_read_while_a_hub_has_the_file(tmp_path: Path) -> None:
    """Also when the key is only in the log, and after the hub. The reader leaves no file behind."""
    path = tmp_path / "hub.db"
    learned: list[bytes] = []
    store = SqliteStore(path, learned.append)
    await store.open(lambda effects: None)
    assert b"log_key" not in path.read_bytes()
    assert [read_key(path)] == learned
    await store.close()
    before = content(tmp_path)
    assert set(before) == {"hub.db", "hub.db.lock"}
    assert [read_key(path)] == learned
    assert content(tmp_path) == before


@pytest.mark.req("OPS-30")
async def test_the_key_is_read_after_a_crash(tmp_path: Path) -> None:
    """The log that the process left has the key."""
    store = await opened(tmp_path / "hub.db")
    (tmp_path / "crashed").mkdir()
    for name in ("hub.db", "hub.db-wal"):
        (tmp_path / "crashed" / name).write_bytes((tmp_path / name).read_bytes())
    await store.close()
    assert read_key(tmp_path / "crashed" / "hub.db") == read_key(tmp_path / "hub.db")


@pytest.mark.req("OPS-30", "SEC-3")
@pytest.mark.parametrize("there", ["nothing", "no database", "a folder", "another database"])
def test_where_there_is_no_key_to_read(tmp_path: Path, there: str) -> None:
    """One line for the operator, and nothing is made."""
    path = tmp_path / "a name?mode=rw#.db"
    if there == "no database":
        path.write_bytes(os.urandom(10_000))
    elif there == "a folder":
        path.mkdir()
    elif there == "another database":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("create table meta (name text, value blob)")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="a name") as refusal:
        read_key(path)
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.req("OPS-31")
async def test_a_file_names_the_hub_that_opened_it_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub of the same version writes nothing when it opens the file again."""
    releases: list[str] = []
    for release in ("1.4.0", "1.5.0", "1.5.0"):
        monkeypatch.setattr(sqlite, "version_of", lambda _, release=release: release)
        await (await opened(tmp_path / "hub.db")).close()
        with closing(sqlite3.connect(tmp_path / "hub.db")) as connection:
            releases.append(meta.release_of(connection))
    assert releases == ["1.4.0", "1.5.0", "1.5.0"]
    before = (tmp_path / "hub.db").read_bytes()
    await (await opened(tmp_path / "hub.db")).close()
    assert (tmp_path / "hub.db").read_bytes() == before
