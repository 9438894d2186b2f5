"""Rows: how sessions are stored in rows. `row_reader.py` reads them.

A session is a head, and a row for each subscription, open context, shared resource, retained event and post. A change writes the
rows that it changes, however large the session is.

A store with one process stores no connections: they end with the process. Its rows are those of `changes`.
In a store with several processes a session outlives each of them. Its rows are those of `shared_changes`. The kinds of rows with
connections are:
- `audience`: the events and last opens of an audience. Each open changes the last opens.
- `members`: the names of an audience's connections. There may be a thousand, and an open changes none of them.
- `connections`: the names of webhooks' connections, their poster, and the time of the next heartbeat.
Rows of audiences are named by the place of the audience in the session: "0", "1", and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import compress, zip_longest
from operator import is_not
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.session import Audience, Content, Outgoing, Queue, Session

_encode = msgspec.msgpack.Encoder().encode
_Name = TypeVar("_Name", str, int)
#: Realm, topic, kind and name of a row.
Row = tuple[str, str, str, str]
#: A row to write, and the body that the row gets. None: the row is deleted.
Change = tuple[Row, bytes | None]

_NO_SESSION = Session(realm="", topic="", owner="")


class Head(msgspec.Struct):
    """The head of a session: its fields without rows of their own."""

    owner: str
    order: int
    version: str
    current: str
    last_change_order: int
    last_used_at: float
    deadline: float | None
    last_post_number: int
    created_at: float
    recent: dict[bytes, int]
    #: Not in rows of older hubs: their subscribers count as sent something.
    sent_nothing: frozenset[str] = frozenset()


class Connections(msgspec.Struct):
    """The row `connections` of a session. A session without webhooks and heartbeats has none."""

    webhook_connections: frozenset[str] = frozenset()
    next_heartbeat: float | None = None
    poster: str = ""


def changes(key: SessionKey, before: Session | None, after: Session | None) -> list[Change]:
    """The rows that turn the stored session `before` into `after`. None: there is no session."""
    found: list[Change] = [((*key, "head", ""), _encode(_head(after)) if after else None)]
    old, new = before or _NO_SESSION, after or _NO_SESSION
    # Most parts of a session stay the same object.
    if old.home is not new.home:
        found += _differing(key, "home", _single(old.home), _single(new.home))
    if old.dropped_closes is not new.dropped_closes:
        found += _differing(key, "dropped_closes", _single(old.dropped_closes), _single(new.dropped_closes))
    if old.subscriptions is not new.subscriptions:
        found += _differing(key, "subscription", old.subscriptions, new.subscriptions)
    if old.contexts is not new.contexts:
        found += _differing(key, "context", old.contexts, new.contexts)
    if old.retained is not new.retained:
        found += _differing(key, "retained", old.retained, new.retained)
    if old.outbox is not new.outbox:
        found += _differing_posts(key, old.outbox, new.outbox)
    if old.contents is not new.contents:
        found += _differing_contents(key, old.contents, new.contents)
    return found


def shared_changes(key: SessionKey, before: Session | None, after: Session | None) -> list[Change]:
    """As `changes`, with the rows of connections. `row_reader.apply_changes` is the inverse."""
    found = changes(key, before, after)
    old, new = before or _NO_SESSION, after or _NO_SESSION
    if old.audiences is not new.audiences:
        for place, (audience, other) in enumerate(zip_longest(old.audiences, new.audiences)):
            found += _differing_audience(key, str(place), audience, other)
    connections, others = _connections(old), _connections(new)
    if connections != others:
        found.append(((*key, "connections", ""), _encode(others) if others != Connections() else None))
    return found


def _differing_audience(
    key: SessionKey, place: str, before: Audience | None, after: Audience | None
) -> Iterator[Change]:
    """The rows of the audience at this place that differ. None: there is no audience at the place."""
    if after is None:
        yield (*key, "audience", place), None
        yield (*key, "members", place), None
        return
    if before is after:
        return
    if before is None or (before.keys, before.last_opened) != (after.keys, after.last_opened):
        yield (*key, "audience", place), _encode(replace(after, members=()))
    if before is None or before.members != after.members:
        yield (*key, "members", place), _encode(after.members)


def _differing_contents(key: SessionKey, before: dict[str, Content], after: dict[str, Content]) -> Iterator[Change]:
    """A row for each shared resource, so that an update writes only the resources that it changes."""
    for ref in before.keys() | after.keys():
        old, new = before.get(ref), after.get(ref)
        if old is not new:
            yield from _differing(key, "updates", {ref: old.updates} if old else {}, {ref: new.updates} if new else {})
            # A ref has no line end in it: events with such ids are refused.
            yield from _differing(key, "shared", old.resources if old else {}, new.resources if new else {}, f"{ref}\n")


def _differing_posts(key: SessionKey, before: dict[str, Queue], after: dict[str, Queue]) -> Iterator[Change]:
    """A row for each post, named by its number. So a post that another subscription takes over keeps its row (WHK-12)."""
    changed = [id_ for id_ in before.keys() | after.keys() if before.get(id_) is not after.get(id_)]
    yield from _differing(key, "outgoing", _posts(before, changed), _posts(after, changed))


def _posts(outbox: dict[str, Queue], subscription_ids: Iterable[str]) -> dict[int, Outgoing]:
    """The posts of these subscriptions, by number."""
    queues = [outbox[id_].posts for id_ in subscription_ids if id_ in outbox]
    return {number: post for posts in queues for number, post in posts.items()}


def _single(part: object) -> dict[str, object]:
    """A part that has at most one row. An empty part has none."""
    return {"": part} if part else {}


def _connections(session: Session) -> Connections:
    return Connections(session.webhook_connections, session.next_heartbeat, session.poster)


def _head(session: Session) -> Head:
    return Head(
        owner=session.owner,
        order=session.order,
        version=session.version,
        current=session.current,
        last_change_order=session.last_change_order,
        last_used_at=session.last_used_at,
        deadline=session.deadline,
        last_post_number=session.last_post_number,
        created_at=session.created_at,
        recent=session.recent,
        sent_nothing=session.sent_nothing,
    )


def _differing(
    key: SessionKey, kind: str, before: Mapping[_Name, object], after: Mapping[_Name, object], prefix: str = ""
) -> Iterator[Change]:
    """The rows of the parts that differ from `before`. Their names begin with `prefix`. Mostly one part of thousands differs."""
    if before is after:
        return
    kept = len(after)
    for name in compress(after, map(is_not, after.values(), map(before.get, after))):
        kept -= name not in before
        yield (*key, kind, f"{prefix}{name}"), _encode(after[name])
    if kept < len(before):
        for name in before.keys() - after.keys():
            yield (*key, kind, f"{prefix}{name}"), None
