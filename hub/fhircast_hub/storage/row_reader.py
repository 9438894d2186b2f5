"""Row reader: how sessions are read from their rows (rows.py).

`session_of` reads all rows of a session. `apply_changes` reads the rows of one change, and shares the rest of the session with the
session of before. Its cost is that of the changed rows, and of a copy of each changed dict.

Both give the same session. Dicts whose order decisions go by are in the same order too:
- `contexts` by `order`, `retained` and posts by number.
- `recent` and `dropped_closes` as written.
Resources of a context are in no order: they are sorted by number when they are shown.

A decision goes by the order of `subscriptions` in two cases. It is the order of effects on several subscriptions. And of
subscriptions that were absent equally long, the first makes room (SUB-22). Each order is right, and a single node decides. So the
order is no part of the rows: `session_of` has the oldest connection or loss first. `apply_changes` keeps the order, and adds new
subscriptions at the end, as decisions do. The order of `outbox` is that of effects only: the oldest post first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

import msgspec
from msgspec.structs import asdict, replace

from fhircast_hub.core.access.principal import SessionKey
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
from fhircast_hub.core.wire.update_bundle import full_url_of
from fhircast_hub.storage.rows import Connections, Head

_Part = TypeVar("_Part")
_Name = TypeVar("_Name", str, int)
#: Rows of one kind: name -> body. None: the row is deleted.
_Rows = Mapping[str, bytes | None]

_HEAD = msgspec.msgpack.Decoder(Head)
_HOME = msgspec.msgpack.Decoder(bytes)
_DROPPED_CLOSES = msgspec.msgpack.Decoder(dict[str, float])
_SUBSCRIPTION = msgspec.msgpack.Decoder(Subscription)
_CONTEXT = msgspec.msgpack.Decoder(OpenContext)
_RETAINED = msgspec.msgpack.Decoder(RetainedEvent)
_OUTGOING = msgspec.msgpack.Decoder(Outgoing)
_SHARED = msgspec.msgpack.Decoder(Shared)
_UPDATES = msgspec.msgpack.Decoder(tuple[bytes, ...])
_AUDIENCE = msgspec.msgpack.Decoder(Audience)
_MEMBERS = msgspec.msgpack.Decoder(tuple[str, ...])
_CONNECTIONS = msgspec.msgpack.Decoder(Connections)

_NO_ROWS: _Rows = {}
_NO_CONTENT = Content()
_NO_POSTS = Queue()


def sessions_of(rows: Iterable[tuple[str, str, str, str, bytes]]) -> Iterator[Session]:
    """The sessions of all rows. The rows are ordered by session, so that those of one session at a time are in memory."""
    for (realm, topic), parts in groupby(rows, key=itemgetter(0, 1)):
        kinds: dict[str, dict[str, bytes]] = {}
        for _, _, kind, name, body in parts:
            kinds.setdefault(kind, {})[name] = body
        yield session_of(realm, topic, kinds)


def session_of(realm: str, topic: str, kinds: Mapping[str, Mapping[str, bytes]]) -> Session:
    """The session of these rows (kind -> name -> body), with connections where the rows have them.

    Raises MsgspecError, KeyError or ValueError for rows that cannot be read. Other kinds are left out.
    """
    session = _with_rows(Session(realm=realm, topic=topic, owner=""), kinds)
    parts = sorted(session.subscriptions.values(), key=lambda part: (part.connected_or_lost_at, part.subscription_id))
    return replace(session, subscriptions={part.subscription_id: part for part in parts})


def apply_changes(
    session: Session | None, key: SessionKey, changes: Iterable[tuple[str, str, bytes | None]]
) -> Session | None:
    """The session `key` after a change by another node. None: there is no session.

    `changes` are kind, name and body of the rows of `rows.shared_changes`. Without a body, the row is deleted. Of several bodies
    of a row the last one counts, so the rows of several changes may follow one another.
    What did not change is the same object as in `session`, which stays as it was.
    Raises MsgspecError, KeyError or ValueError for rows that cannot be read. Other kinds are left out.
    """
    kinds: dict[str, dict[str, bytes | None]] = {}
    for kind, name, body in changes:
        kinds.setdefault(kind, {})[name] = body
    if not kinds:
        return session
    if "head" in kinds and kinds["head"][""] is None:
        return None
    return _with_rows(session or Session(realm=key.realm, topic=key.topic, owner=""), kinds)


def _with_rows(session: Session, kinds: Mapping[str, _Rows]) -> Session:
    """The session after these rows were written or deleted. The head is among them."""

    def rows(kind: str) -> _Rows:
        return kinds.get(kind, _NO_ROWS)

    contexts = _with_decoded(session.contexts, _CONTEXT, rows("context"))
    events = _numbered(_RETAINED, rows("retained"))
    retained = _with_parts(session.retained, events)
    return replace(
        session,
        **_head(session, kinds["head"][""]),
        **_connections(session, rows("connections")),
        home=_single(_HOME, rows("home"), session.home, b""),
        dropped_closes=_single(_DROPPED_CLOSES, rows("dropped_closes"), session.dropped_closes, {}),
        subscriptions=_with_decoded(session.subscriptions, _SUBSCRIPTION, rows("subscription")),
        contexts=contexts if contexts is session.contexts else _sorted(contexts, lambda item: item[1].order),
        contents=_contents(session.contents, rows("updates"), rows("shared")),
        retained=retained if retained is session.retained else _sorted(retained, itemgetter(0)),
        outbox=_outbox(session.outbox, _numbered(_OUTGOING, rows("outgoing")), session.last_post_number),
        audiences=_audiences(session.audiences, rows("audience"), rows("members")),
    )


def _with_parts(before: dict[_Name, _Part], changed: Mapping[_Name, _Part | None]) -> dict[_Name, _Part]:
    """The parts of a session with these changed. None: the part is gone. Without changes, the result is the same object."""
    after = dict(before) if any(part is not None or name in before for name, part in changed.items()) else before
    for name, part in changed.items():
        if part is not None:
            after[name] = part
        elif name in before:
            del after[name]
    return after


def _with_decoded(before: dict[str, _Part], decoder: msgspec.msgpack.Decoder[_Part], rows: _Rows) -> dict[str, _Part]:
    changed = _decoded(decoder, rows)
    return _with_parts(before, changed)


def _decoded(decoder: msgspec.msgpack.Decoder[_Part], rows: _Rows) -> dict[str, _Part | None]:
    return {name: None if body is None else decoder.decode(body) for name, body in rows.items()}


def _numbered(decoder: msgspec.msgpack.Decoder[_Part], rows: _Rows) -> dict[int, _Part | None]:
    return {int(name): part for name, part in _decoded(decoder, rows).items()}


def _sorted(parts: dict[_Name, _Part], key: Callable[[tuple[_Name, _Part]], int]) -> dict[_Name, _Part]:
    return dict(sorted(parts.items(), key=key))


def _single(decoder: msgspec.msgpack.Decoder[_Part], rows: _Rows, before: _Part, empty: _Part) -> _Part:
    """A part that has at most one row."""
    return _decoded(decoder, rows)[""] or empty if rows else before


def _head(before: Session, body: bytes | None) -> dict[str, Any]:
    """The fields of the head. It is written with each change, while `recent` and `sent_nothing` seldom change."""
    if body is None:
        raise KeyError("head")
    head = asdict(_HEAD.decode(body))
    if [*head["recent"].items()] == [*before.recent.items()]:
        head["recent"] = before.recent
    if head["sent_nothing"] == before.sent_nothing:
        head["sent_nothing"] = before.sent_nothing
    return head


def _connections(before: Session, rows: _Rows) -> dict[str, Any]:
    """The fields of the row `connections`. The names of webhooks' connections seldom change with it."""
    if not rows:
        return {}
    connections = _decoded(_CONNECTIONS, rows)[""] or Connections()
    same = connections.webhook_connections == before.webhook_connections
    return {
        "webhook_connections": before.webhook_connections if same else connections.webhook_connections,
        "next_heartbeat": connections.next_heartbeat,
        "poster": connections.poster,
    }


def _audiences(before: tuple[Audience, ...], rows: _Rows, members: _Rows) -> tuple[Audience, ...]:
    """The audiences by their place. An audience has a row of each kind, or neither."""
    if not (rows or members):
        return before
    old = {str(place): audience for place, audience in enumerate(before)}
    audiences = _with_decoded(old, _AUDIENCE, rows)
    names = _with_decoded({place: audience.members for place, audience in old.items()}, _MEMBERS, members)
    places = map(str, range(max(len(audiences), len(names))))
    return tuple(_with_members(audiences[place], names[place]) for place in places)


def _with_members(audience: Audience, members: tuple[str, ...]) -> Audience:
    return audience if audience.members is members else replace(audience, members=members)


def _outbox(before: dict[str, Queue], changed: dict[int, Outgoing | None], newest: int) -> dict[str, Queue]:
    """The outbox without the posts of these numbers, then with the posts that are there. `newest`: number of the newest post."""
    added: dict[str, dict[int, Outgoing]] = {}
    for number, post in sorted(changed.items()):
        if post is not None:
            added.setdefault(post.subscription_id, {})[number] = post
    # A post may have been in the queue of another subscription.
    old = {number for number in changed if number <= newest}
    queues: dict[str, Queue | None] = {
        id_: _without_posts(queue, gone)
        for id_, queue in (before.items() if old else ())
        if (gone := queue.posts.keys() & old)
    }
    for id_, posts in added.items():
        queues[id_] = _with_posts(queues.get(id_, before.get(id_)) or _NO_POSTS, posts)
    return _with_parts(before, queues)


def _without_posts(queue: Queue, numbers: Collection[int]) -> Queue | None:
    """The queue without these posts. None: no post is left."""
    posts = {number: post for number, post in queue.posts.items() if number not in numbers}
    return Queue(posts, queue.size - sum(len(queue.posts[number].frame) for number in numbers)) if posts else None


def _with_posts(queue: Queue, added: dict[int, Outgoing]) -> Queue:
    posts = _sorted({**queue.posts, **added}, itemgetter(0))
    return Queue(posts, queue.size + sum(len(post.frame) for post in added.values()))


def _contents(before: dict[str, Content], updates: _Rows, shared: _Rows) -> dict[str, Content]:
    """The shared content by context. Content has a row `updates`, or it is gone."""
    resources: dict[str, dict[str, Shared | None]] = {ref: {} for ref in updates}
    for name, part in _decoded(_SHARED, shared).items():
        ref, _, shared_ref = name.partition("\n")
        resources.setdefault(ref, {})[shared_ref] = part
    fingerprints = _decoded(_UPDATES, updates)
    for ref in resources.keys() & before.keys() - updates.keys():
        fingerprints[ref] = before[ref].updates
    changed = {
        ref: None if found is None else _content(before.get(ref, _NO_CONTENT), found, resources[ref])
        for ref, found in fingerprints.items()
    }
    return _with_parts(before, changed)


def _content(before: Content, updates: tuple[bytes, ...], changed: dict[str, Shared | None]) -> Content:
    gone = [old for ref in changed if (old := before.resources.get(ref)) is not None]
    come = {ref: new for ref, new in changed.items() if new is not None}
    return Content(
        resources=_with_parts(before.resources, changed),
        size=before.size - sum(len(old.entry) for old in gone) + sum(len(new.entry) for new in come.values()),
        updates=updates,
        urls=_urls(before.urls, {full_url_of(old.entry) for old in gone}, come),
    )


def _urls(before: dict[str, str], gone: AbstractSet[str], come: dict[str, Shared]) -> dict[str, str]:
    """The fullUrls with those of the resources that came, without those of the resources that went or were replaced."""
    new = {url: ref for ref, shared in come.items() if (url := full_url_of(shared.entry))}
    changed: dict[str, str | None] = {**dict.fromkeys(gone), **new}
    return _with_parts(before, {url: ref for url, ref in changed.items() if before.get(url) != ref})
