"""Upgrades of files of older hubs. Each step turns the rows of one schema version into those of the next.

A step runs once, in one transaction, when the store is opened. An older hub does not open the file afterwards.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

#: Old name -> new name.
_Names = Mapping[str, str]

#: Version 2 to 3: members of an EventRef.
_EVENT_REF: _Names = {"matters": "reportable"}
#: Version 2 to 3: kind of row -> its members.
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
#: Version 2 to 3: kinds of rows.
_KINDS: _Names = {"held": "retained", "lost": "dropped_closes"}


def _give_new_names(connection: sqlite3.Connection) -> None:
    """Version 2 to 3: members and kinds of rows have new names."""
    rows = connection.execute("select rowid, kind, body from part").fetchall()
    for rowid, kind, body in rows:
        new = _renamed(body, _MEMBERS[kind]) if kind in _MEMBERS else body
        if new is not body or kind in _KINDS:
            values = (_KINDS.get(kind, kind), new, rowid)
            connection.execute("update part set kind = ?, body = ? where rowid = ?", values)


def _renamed(body: bytes, names: _Names) -> bytes:
    row = msgspec.msgpack.decode(body, type=dict[str, Any])
    new = {names.get(name, name): value for name, value in row.items()}
    if "event_ref" in new:
        event_ref = msgspec.convert(new["event_ref"], dict[str, Any])
        new["event_ref"] = {_EVENT_REF.get(name, name): value for name, value in event_ref.items()}
    return msgspec.msgpack.encode(new)


#: Version that a step starts from -> the step.
_STEPS: Mapping[int, Callable[[sqlite3.Connection], None]] = {2: _give_new_names}
#: The oldest version that can be upgraded.
OLDEST_VERSION = min(_STEPS)


def upgrade(connection: sqlite3.Connection, version: int, to: int) -> None:
    """Upgrade a file from schema `version` to schema `to`, completely or not at all. Raises sqlite3.Error or MsgspecError."""
    connection.execute("begin immediate")
    try:
        for step in range(version, to):
            _STEPS[step](connection)
        connection.execute(f"pragma user_version = {to}")
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:  # SQLite ends some transactions by itself
            connection.execute("rollback")
        raise
