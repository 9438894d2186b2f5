"""Rows: how sessions are stored in rows, and read from them.

A session is a head, and a row for each subscription, open context, shared resource, retained event and post. A change writes the
rows that it changes, however large the session is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import compress, groupby
from operator import is_not, itemgetter
from typing import TypeVar

import msgspec

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.session import (
    Content,
    OpenContext,
    Outgoing,
    Queue,
    RetainedEvent,
    Session,
    Shared,
    Subscription,
)
from fhircast_hub.core.wire.update_bundle import full_url_of

_encode = msgspec.msgpack.Encoder().encode
_Part = TypeVar("_Part", Subscription, OpenContext)
_Name = TypeVar("_Name", str, int)
#: Realm, topic, kind and name of a row.
Row = tuple[str, str, str, str]
#: Rows to write, and the bodies that they get. None: the row is deleted.
Changes = Iterator[tuple[Row, bytes | None]]

_NO_SESSION = Session(realm="", topic="", owner="")


class _Head(msgspec.Struct):
    """The head of a session: its fields without rows of their own. Audiences are not stored: sockets do not survive the process."""

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


_HEAD = msgspec.msgpack.Decoder(_Head)
_HOME = msgspec.msgpack.Decoder(bytes)
_DROPPED_CLOSES = msgspec.msgpack.Decoder(dict[str, float])
_SUBSCRIPTION = msgspec.msgpack.Decoder(Subscription)
_CONTEXT = msgspec.msgpack.Decoder(OpenContext)
_RETAINED = msgspec.msgpack.Decoder(RetainedEvent)
_OUTGOING = msgspec.msgpack.Decoder(Outgoing)
_SHARED = msgspec.msgpack.Decoder(Shared)
_UPDATES = msgspec.msgpack.Decoder(tuple[bytes, ...])


def changes(key: SessionKey, before: Session | None, after: Session | None) -> Changes:
    """The rows that turn the stored session `before` into `after`. None: there is no session."""
    yield (*key, "head", ""), _encode(_head(after)) if after else None
    old, new = before or _NO_SESSION, after or _NO_SESSION
    yield from _differing(key, "home", _single(old.home), _single(new.home))
    yield from _differing(key, "dropped_closes", _single(old.dropped_closes), _single(new.dropped_closes))
    yield from _differing(key, "subscription", old.subscriptions, new.subscriptions)
    yield from _differing(key, "context", old.contexts, new.contexts)
    yield from _differing(key, "retained", old.retained, new.retained)
    yield from _differing_posts(key, old.outbox, new.outbox)
    yield from _differing_contents(key, old.contents, new.contents)


def _differing_contents(key: SessionKey, before: dict[str, Content], after: dict[str, Content]) -> Changes:
    """A row for each shared resource, so that an update writes only the resources that it changes."""
    for ref in before.keys() | after.keys() if before is not after else ():
        old, new = before.get(ref), after.get(ref)
        if old is not new:
            yield from _differing(key, "updates", {ref: old.updates} if old else {}, {ref: new.updates} if new else {})
            # A ref has no line end in it: events with such ids are refused.
            yield from _differing(key, "shared", old.resources if old else {}, new.resources if new else {}, f"{ref}\n")


def _differing_posts(key: SessionKey, before: dict[str, Queue], after: dict[str, Queue]) -> Changes:
    """A row for each post, named by its number. So a post that another subscription takes over keeps its row (WHK-12)."""
    if before is after:
        return
    changed = [id_ for id_ in before.keys() | after.keys() if before.get(id_) is not after.get(id_)]
    yield from _differing(key, "outgoing", _posts(before, changed), _posts(after, changed))


def _posts(outbox: dict[str, Queue], subscription_ids: Iterable[str]) -> dict[int, Outgoing]:
    """The posts of these subscriptions, by number."""
    queues = [outbox[id_].posts for id_ in subscription_ids if id_ in outbox]
    return {number: post for posts in queues for number, post in posts.items()}


def _single(part: object) -> dict[str, object]:
    """A part that has at most one row. An empty part has none."""
    return {"": part} if part else {}


def _head(session: Session) -> _Head:
    return _Head(
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
    )


def _differing(
    key: SessionKey, kind: str, before: Mapping[_Name, object], after: Mapping[_Name, object], prefix: str = ""
) -> Changes:
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


def sessions_of(rows: Iterable[tuple[str, str, str, str, bytes]]) -> Iterator[Session]:
    """The sessions of all rows. The rows are ordered by session, so that those of one session at a time are in memory."""
    for (realm, topic), parts in groupby(rows, key=itemgetter(0, 1)):
        kinds: dict[str, dict[str, bytes]] = {}
        for _, _, kind, name, body in parts:
            kinds.setdefault(kind, {})[name] = body
        yield session_of(realm, topic, kinds)


def session_of(realm: str, topic: str, kinds: dict[str, dict[str, bytes]]) -> Session:
    """The session of these rows (kind -> name -> body). Raises MsgspecError or KeyError for rows that cannot be read."""
    head = _HEAD.decode(kinds["head"][""])
    contexts = sorted(_decoded(_CONTEXT, kinds.get("context", {})), key=lambda context: context.order)
    retained = {int(number): _RETAINED.decode(body) for number, body in kinds.get("retained", {}).items()}
    return Session(
        realm=realm,
        topic=topic,
        **msgspec.structs.asdict(head),
        home=_HOME.decode(kinds["home"][""]) if "home" in kinds else b"",
        dropped_closes=_DROPPED_CLOSES.decode(kinds["dropped_closes"][""]) if "dropped_closes" in kinds else {},
        subscriptions={part.subscription_id: part for part in _decoded(_SUBSCRIPTION, kinds.get("subscription", {}))},
        contexts={context.ref: context for context in contexts},
        contents=_contents(kinds),
        retained=dict(sorted(retained.items())),
        outbox=_outbox(kinds.get("outgoing", {})),
    )


def _outbox(rows: dict[str, bytes]) -> dict[str, Queue]:
    posts: dict[str, dict[int, Outgoing]] = {}
    for number, body in sorted((int(name), body) for name, body in rows.items()):
        post = _OUTGOING.decode(body)
        posts.setdefault(post.subscription_id, {})[number] = post
    return {id_: Queue(some, sum(len(post.frame) for post in some.values())) for id_, some in posts.items()}


def _contents(kinds: dict[str, dict[str, bytes]]) -> dict[str, Content]:
    resources: dict[str, dict[str, Shared]] = {}
    for name, body in kinds.get("shared", {}).items():
        ref, _, shared_ref = name.partition("\n")
        resources.setdefault(ref, {})[shared_ref] = _SHARED.decode(body)
    return {ref: _content(resources.get(ref, {}), body) for ref, body in kinds.get("updates", {}).items()}


def _content(resources: dict[str, Shared], updates: bytes) -> Content:
    return Content(
        resources=resources,
        size=sum(len(shared.entry) for shared in resources.values()),
        updates=_UPDATES.decode(updates),
        urls={url: ref for ref, shared in resources.items() if (url := full_url_of(shared.entry))},
    )


def _decoded(decoder: msgspec.msgpack.Decoder[_Part], rows: dict[str, bytes]) -> Iterator[_Part]:
    return map(decoder.decode, rows.values())
