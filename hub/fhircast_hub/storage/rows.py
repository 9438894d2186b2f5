"""The rows in which a session is kept: which of them a change writes, and the session that they make.

A session is its head, and a row for each subscription, open context, shared resource, held event and post that waits. What a
change costs follows what it changes, not what the session holds.
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


class _Head(msgspec.Struct):
    """A session's own row: all of it that is not a row of its own, or that no process survives (the audiences)."""

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


def changes(key: SessionKey, before: Session | None, after: Session | None) -> Iterator[tuple[Row, bytes | None]]:
    """The rows with which the file says `after` where it said `before`; None for one to delete."""
    yield (*key, "head", ""), _encode(_head(after)) if after else None
    yield from _differing(key, "home", _one(before.home if before else b""), _one(after.home if after else b""))
    yield from _differing(
        key,
        "dropped_closes",
        _one(before.dropped_closes if before else {}),
        _one(after.dropped_closes if after else {}),
    )
    yield from _differing(
        key, "subscription", before.subscriptions if before else {}, after.subscriptions if after else {}
    )
    yield from _differing(key, "context", before.contexts if before else {}, after.contexts if after else {})
    yield from _differing(key, "retained", before.retained if before else {}, after.retained if after else {})
    yield from _changed_outbox(key, before.outbox if before else {}, after.outbox if after else {})
    yield from _changed_contents(key, before.contents if before else {}, after.contents if after else {})


def _changed_contents(
    key: SessionKey, before: dict[str, Content], after: dict[str, Content]
) -> Iterator[tuple[Row, bytes | None]]:
    """A row for each resource that was shared, so that an update writes no more than it changes."""
    for ref in before.keys() | after.keys() if before is not after else ():
        old, new = before.get(ref), after.get(ref)
        if old is not new:
            yield from _differing(key, "updates", {ref: old.updates} if old else {}, {ref: new.updates} if new else {})
            # No ref has a line end in it: the API refuses that.
            yield from _differing(key, "shared", old.resources if old else {}, new.resources if new else {}, f"{ref}\n")


def _changed_outbox(
    key: SessionKey, before: dict[str, Queue], after: dict[str, Queue]
) -> Iterator[tuple[Row, bytes | None]]:
    """A row for each post that waits. Those of a callback may have become another subscription's (WHK-12): its row is one still."""
    if before is after:
        return
    changed = [
        subscription_id
        for subscription_id in before.keys() | after.keys()
        if before.get(subscription_id) is not after.get(subscription_id)
    ]
    old, new = (
        {
            number: post
            for subscription_id in changed
            if subscription_id in outbox
            for number, post in outbox[subscription_id].posts.items()
        }
        for outbox in (before, after)
    )
    yield from _differing(key, "outgoing", old, new)


def _one(part: object) -> dict[str, object]:
    """A part of which there is one, or none."""
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
) -> Iterator[tuple[Row, bytes | None]]:
    """The rows of those parts that are others than `before`; `prefix` stands before their names. Of thousands mostly one is."""
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
    """The sessions of all rows, which come session by session: of one at a time the rows are in memory too."""
    for (realm, topic), parts in groupby(rows, key=itemgetter(0, 1)):
        kinds: dict[str, dict[str, bytes]] = {}
        for _, _, kind, name, body in parts:
            kinds.setdefault(kind, {})[name] = body
        yield session_of(realm, topic, kinds)


def session_of(realm: str, topic: str, kinds: dict[str, dict[str, bytes]]) -> Session:
    """The session of these rows, by kind and name. Raises MsgspecError or KeyError where it cannot be read."""
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
    return {
        subscription_id: Queue(some, sum(len(post.frame) for post in some.values()))
        for subscription_id, some in posts.items()
    }


def _contents(kinds: dict[str, dict[str, bytes]]) -> dict[str, Content]:
    resources: dict[str, dict[str, Shared]] = {}
    for name, body in kinds.get("shared", {}).items():
        ref, _, other = name.partition("\n")
        resources.setdefault(ref, {})[other] = _SHARED.decode(body)
    return {
        ref: Content(
            resources=resources.get(ref, {}),
            size=sum(len(shared.entry) for shared in resources.get(ref, {}).values()),
            updates=_UPDATES.decode(body),
            urls={url: other for other, shared in resources.get(ref, {}).items() if (url := full_url_of(shared.entry))},
        )
        for ref, body in kinds.get("updates", {}).items()
    }


def _decoded(decoder: msgspec.msgpack.Decoder[_Part], rows: dict[str, bytes]) -> Iterator[_Part]:
    return map(decoder.decode, rows.values())
