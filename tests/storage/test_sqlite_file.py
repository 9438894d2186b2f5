"""The store opens its own file only, and nobody else reads or opens the file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fhircast_hub.service.ports import StoreAway
from fhircast_hub.storage.sqlite import SCHEMA_VERSION
from fhircast_hub.storage.upgrade import OLDEST_VERSION
from tests.storage.sqlite_world import FULL, KEY, opened


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


READS = f"this hub reads versions {OLDEST_VERSION} to {SCHEMA_VERSION}"


@pytest.mark.req("OPS-31")
@pytest.mark.parametrize(
    ("version", "release", "said"),
    [
        (
            SCHEMA_VERSION + 1,
            "9.1.0",
            f"schema version {SCHEMA_VERSION + 1}, written by fhircast-hub 9.1.0; {READS}:"
            " install fhircast-hub 9.1.0 or newer, or restore a backup of the file",
        ),
        (
            SCHEMA_VERSION + 1,
            "",
            f"schema version {SCHEMA_VERSION + 1}; {READS}:"
            " install the hub that wrote the file, or a newer one, or restore a backup of the file",
        ),
        (
            OLDEST_VERSION - 1,
            "",
            f"schema version {OLDEST_VERSION - 1}; {READS}:"
            f" open the file once with an older hub that reads version {OLDEST_VERSION - 1} and writes a newer one",
        ),
    ],
)
async def test_a_file_of_another_schema_is_refused(tmp_path: Path, version: int, release: str, said: str) -> None:
    """The line names both versions, the hub that wrote the file, and what to do. The file is not touched."""
    path = tmp_path / "hub.db"
    with closing(sqlite3.connect(path)) as connection:
        if release:
            connection.execute("create table meta (name text primary key, value blob not null)")
            connection.execute("insert into meta values ('release', ?)", (release.encode(),))
        connection.execute(f"pragma user_version = {version}")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="schema version") as refusal:
        await opened(path)
    assert str(refusal.value) == f"{path} has {said}"
    assert path.read_bytes() == before


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


@pytest.mark.req("OPS-42")
async def test_a_file_that_another_program_locks_may_be_free_later(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        with pytest.raises(StoreAway, match=r"hub\.db is in use by another program"):
            await opened(tmp_path / "hub.db")
    await (await opened(tmp_path / "hub.db")).close()


async def test_two_names_of_one_file_have_one_lock(tmp_path: Path) -> None:
    """A second hub that comes by a symbolic link is refused too."""
    store = await opened(tmp_path / "hub.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "hub.db")
    with pytest.raises(ValueError, match="in use by another hub"):
        await opened(tmp_path / "link.db")
    await store.close()
