"""Files of older hubs: each step makes the rows of one schema version those of the next.

A step runs once, when the store is opened, in one transaction. An older hub does not open the file afterwards.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

_Names = Mapping[str, str]

#: Version 2 to 3: members of each kind of row that have new names, and kinds that have.
_EVENT_REF: _Names = {"matters": "reportable"}
_MEMBERS: Mapping[str, _Names] = {
    "head": {
        "changed": "last_change_order",
        "used": "last_used_at",
        "posts": "last_post_number",
        "made": "created_at",
    },
    "subscription": {
        "sid": "subscription_id",
        "since": "connected_or_lost_at",
        "fresh": "never_connected",
        "sure": "delivered_until",
        "back_by": "reconnect_deadline",
        "strikes": "missed_acks",
        "refused": "refused_event",
        "shown": "shown_opens",
    },
    "held": {"at": "accepted_at", "notice": "event_ref"},
    "outgoing": {"sid": "subscription_id", "notice": "event_ref"},
}
_KINDS: _Names = {"held": "retained", "lost": "dropped_closes"}


def _give_new_names(connection: sqlite3.Connection) -> None:
    """Version 2 to 3: names are those that the field uses."""
    rows = connection.execute("select rowid, kind, body from part").fetchall()
    for rowid, kind, body in rows:
        new = _renamed(body, _MEMBERS[kind]) if kind in _MEMBERS else body
        if new is not body or kind in _KINDS:
            values = (_KINDS.get(kind, kind), new, rowid)
            connection.execute("update part set kind = ?, body = ? where rowid = ?", values)


def _renamed(body: bytes, names: _Names) -> bytes:
    row: dict[str, Any] = msgspec.msgpack.decode(body)
    new = {names.get(name, name): value for name, value in row.items()}
    if "event_ref" in new:
        new["event_ref"] = {_EVENT_REF.get(name, name): value for name, value in new["event_ref"].items()}
    return msgspec.msgpack.encode(new)


#: By the version that a step starts from.
_STEPS: Mapping[int, Callable[[sqlite3.Connection], None]] = {2: _give_new_names}
OLDEST_VERSION = min(_STEPS)


def upgrade(connection: sqlite3.Connection, version: int, to: int) -> None:
    """Bring a file of schema `version` to the version `to`, or change nothing. Raises sqlite3.Error or MsgspecError where it cannot."""
    connection.execute("begin immediate")
    try:
        for step in range(version, to):
            _STEPS[step](connection)
        connection.execute(f"pragma user_version = {to}")
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise
