"""What a SQLite file says of itself: the key of keyed hashes in logs, and the hub that opened the file last.

Older hubs ignore the table `meta`. So the table needs no other schema version, and a file without the table gets one.
"""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

_SCHEMA = "create table if not exists meta (name text primary key, value blob not null) without rowid"
_GET = "select value from meta where name = ?"
_PUT = "insert into meta values (?, ?) on conflict (name) do update set value = excluded.value"
_KEY, _RELEASE = "log_key", "release"
#: Seconds to wait for a hub that empties its log.
_PATIENCE = 5.0


def settle(connection: sqlite3.Connection, release: str) -> bytes:
    """Note the hub's version `release` in the file. Returns the key of keyed hashes, which is made once for each file."""
    connection.execute(_SCHEMA)
    key, noted = _get(connection, _KEY), _get(connection, _RELEASE)
    if key is None:
        key = secrets.token_bytes(32)
        connection.execute(_PUT, (_KEY, key))
    if noted != release.encode():  # a file is not written at each start
        connection.execute(_PUT, (_RELEASE, release.encode()))
    return key


def release_of(connection: sqlite3.Connection) -> str:
    """Version of the hub that opened the file last. "": the file does not say. Raises sqlite3.Error."""
    has_meta = connection.execute("select 1 from sqlite_master where name = 'meta'").fetchone()
    release = _get(connection, _RELEASE) if has_meta else None
    return release.decode(errors="replace") if release else ""


def read_key(path: Path) -> bytes:
    """The key of keyed hashes of a file, also while a hub runs with the file. The file is not written.

    Raises ValueError, for the operator.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: no hub has opened this store")
    # SQLite makes files beside the file when it reads one whose log is gone, unless the file is immutable.
    how = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True, timeout=_PATIENCE)) as connection:
            has_meta = connection.execute("select 1 from sqlite_master where name = 'meta'").fetchone()
            key = _get(connection, _KEY) if has_meta else None
    except sqlite3.Error as error:
        raise ValueError(f"{path} cannot be read as a hub's store: {error}") from None
    if key is None:
        raise ValueError(f"{path} has no key of hashes: no hub of this version has opened this store")
    return key


def _get(connection: sqlite3.Connection, name: str) -> bytes | None:
    found = connection.execute(_GET, (name,)).fetchone()
    return bytes(found[0]) if found else None
