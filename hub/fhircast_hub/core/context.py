"""Contexts: what is open, what is current, what a joiner is told (FHIRcast 3.0.0, 2.3, 2.4 and 2.9)."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from msgspec.structs import replace

from fhircast_hub.core.audiences import NOTHING, PLACE, before_home, named
from fhircast_hub.core.content import bundle
from fhircast_hub.core.derived import derive, names
from fhircast_hub.core.effects import Message, Notice
from fhircast_hub.core.errors import InsufficientScope
from fhircast_hub.core.items import raw_items
from fhircast_hub.core.limits import MAX_CONTEXT_BYTES, MAX_CONTEXTS, Rules
from fhircast_hub.core.messages import Event, encode, id_of, with_version
from fhircast_hub.core.names import DERIVED, spelling
from fhircast_hub.core.principal import Principal, check_access
from fhircast_hub.core.session import OpenContext, Session, Told


def opened(event: Event, version: str, order: int) -> OpenContext:
    """The context that an accepted open opens, with its frame as it is broadcast."""
    frame, context_at = with_version(event, version)
    return OpenContext(
        ref=event.ref,
        type=event.type,
        id=event.id,
        timestamp=event.timestamp,
        order=order,
        version=version,
        frame=frame,
        context_at=context_at,
        context_size=len(event.context),
        implied=event.implied,
    )


def add(contexts: dict[str, OpenContext], context: OpenContext) -> tuple[dict[str, OpenContext], list[OpenContext]]:
    """The open contexts with `context` as the newest, and those that had to go for it (LIM-1).

    First goes the oldest that is neither the newest of its type nor implied by one that is.
    """
    added = {ref: other for ref, other in contexts.items() if ref != context.ref}
    added[context.ref] = context
    size = sum(len(other.frame) for other in added.values())
    gone: list[OpenContext] = []
    while len(added) > 1 and (len(added) > MAX_CONTEXTS or size > MAX_CONTEXT_BYTES):
        newest = {other.key: other for other in added.values()}
        kept = {ref for other in newest.values() for ref in (other.ref, *other.implied.values())}
        least = next((other for other in added.values() if other.ref not in kept), next(iter(added.values())))
        gone.append(added.pop(least.ref))
        size -= len(least.frame)
    return added, gone


def without(contexts: dict[str, OpenContext], ref: str) -> dict[str, OpenContext]:
    """The open contexts after `ref` was closed: neither it nor a derived open of it is told to anybody any more (CTX-2)."""
    type_ = ref[: ref.index("/")]
    return {
        other.ref: replace(
            other,
            implied={k: v for k, v in other.implied.items() if k != type_},
            closed={**other.closed, type_: ref},
        )
        if other.implied.get(type_) == ref
        else other
        for other in contexts.values()
        if other.ref != ref
    }


class Opening(NamedTuple):
    """An open that somebody is told: its place in the order of all, and the context that it is the open of, or derived from."""

    place: tuple[int, int]
    context: OpenContext
    derived: str = ""

    @property
    def by(self) -> str:
        """The type of what is opened, in lower case."""
        return self.derived or self.context.key.removesuffix("-open")

    def names(self, keys: Collection[str]) -> dict[str, str]:
        """What it tells somebody with these events: the refs of the contexts that it names, by type of names.DERIVED."""
        return {type_: ref for type_, ref in names(self.context, self.derived).items() if f"{type_}-open" in keys}

    def message(self, topic: str) -> Message:
        """Its frame, and what that tells of."""
        if not self.derived:
            return self.context.frame, self.context.notice
        return next(open_ for open_ in derive(self.context) if open_.type == self.derived).message(topic)


class Replay(NamedTuple):
    """What somebody who joins is told: by event the open that is sent; what they count as told then; which open named each, by type."""

    opens: dict[str, Opening]
    told: Told
    where: dict[str, Opening]


def replay(
    session: Session, keys: frozenset[str], rules: Rules, only: Collection[str] | None = None
) -> tuple[list[Message], Told]:
    """What somebody with these events who joins is sent, oldest first, and the opens that they then count as told.

    "Hubs SHALL follow a successful subscription with an event notification informing the new Subscriber of the most recent
    *-open event per anchor type for which no *-close event has occurred" (2.4 "Current context notification"), where an open
    that another context implies counts too, if it is the newer (CTX-7). Of these events `only` some may be sent (SUB-20).
    """
    opens, told, _ = replayed(session, keys, rules)
    wanted = keys if only is None else only
    messages = [
        opens[key].message(session.topic) for key in sorted(opens.keys() & wanted, key=lambda key: opens[key].place)
    ]
    if session.home and "home-open" in wanted:
        id_ = id_of(session.home)
        messages.append((session.home, Notice(id_, id_, spelling("home-open"))))
    return messages, before_home(told, keys) if session.home else told


def replayed(session: Session, keys: frozenset[str], rules: Rules) -> Replay:
    """As if somebody with these events had been there all the time: of each type of event the last open that they were sent."""
    opens: dict[str, Opening] = {}
    where: dict[str, Opening] = {}
    told = NOTHING
    newest = {context.key: context for context in session.contexts.values()}
    for context in session.contexts.values():
        if context.key in keys and newest[context.key] is not context:
            continue
        for type_ in ("",) if context.key in keys else _derivable(context, keys, rules):
            if type_ and told[PLACE[type_]].ref == context.implied[type_]:
                continue
            open_ = Opening((context.order, PLACE.get(type_, len(DERIVED))), context, type_)
            refs = open_.names(keys)
            opens[f"{open_.by}-open"] = open_
            where |= {type_: open_ for type_ in refs if told[PLACE[type_]].ref != refs[type_] or type_ == open_.by}
            told = named(told, open_.by, refs)
    return Replay(opens, told, where)


def _derivable(context: OpenContext, keys: frozenset[str], rules: Rules) -> list[str]:
    implied = context.implied if rules.derive_opens else {}
    return [type_ for type_ in DERIVED if type_ in implied and f"{type_}-open" in keys]


def current_context(session: Session | None, principal: Principal, topic: str, rules: Rules) -> bytes:
    """The answer to GET hub.url/{topic} (2.9), as JSON.

    Raises Forbidden or Conflict where the topic is not the principal's, and InsufficientScope where neither the newest open
    nor one derived from it may be read (GET-8).
    """
    check_access(principal, topic, session.owner if session else None)
    if session is None or not session.current:
        return _answer("", session.version if session else "0", b"[]")
    context = session.contexts[session.current]
    if principal.scopes.may_read(context.key):
        return _answer(context.type, context.version, _with_content(session, context, principal))
    for open_ in reversed(derive(context) if rules.derive_opens else []):
        if principal.scopes.may_read(open_.key):
            return _answer(spelling(open_.key).removesuffix("-open"), context.version, open_.context)
    name = spelling(context.key)
    raise InsufficientScope(
        f"the current context was opened by {name}, which this token may not read", scope=f"fhircast/{name}.read"
    )


def _with_content(session: Session, context: OpenContext, principal: Principal) -> bytes:
    """The context array with what was shared behind it, for whoever may read the updates that it came by (EVT-12)."""
    if not principal.scopes.may_read(context.key.removesuffix("open") + "update"):
        return context.context
    content = bundle(session.contents.get(context.ref), context.version)
    return b"%b,%b]" % (_without_content(context.context)[:-1].rstrip(), content)


def _without_content(context: bytes) -> bytes:
    """The array without items called as the one that is added: "one and only one Bundle" (2.9), and the client's is an old one."""
    if b"content" not in context:
        return context
    items = raw_items(context)
    if all(key != "content" for key, _, _ in items):
        return context
    return b"[%b]" % b",".join(raw for key, _, raw in items if key != "content")


def _answer(type_: str, version: str, context: bytes) -> bytes:
    return b'{"context.type":%b,"context.versionId":%b,"context":%b}' % (encode(type_), encode(version), context)
