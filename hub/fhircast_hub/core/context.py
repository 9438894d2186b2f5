"""Contexts: what is open, what is current, what a joiner is told (FHIRcast 3.0.0, 2.3, 2.4 and 2.9)."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from fhircast_hub.core.audiences import NOTHING, Told, remember
from fhircast_hub.core.content import bundle
from fhircast_hub.core.derived import DerivedOpen, derive
from fhircast_hub.core.effects import Message, Notice
from fhircast_hub.core.errors import InsufficientScope
from fhircast_hub.core.limits import MAX_CONTEXT_BYTES, MAX_CONTEXTS, Rules
from fhircast_hub.core.messages import Event, encode, id_of, raw_items, with_version
from fhircast_hub.core.names import DERIVED, spelling
from fhircast_hub.core.principal import Principal, check_access
from fhircast_hub.core.session import OpenContext, Session


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
        other.ref: replace(other, implied={k: v for k, v in other.implied.items() if k != type_})
        if other.implied.get(type_) == ref
        else other
        for other in contexts.values()
        if other.ref != ref
    }


def replay(session: Session, keys: Collection[str], rules: Rules) -> tuple[list[Message], Told]:
    """What somebody who joins is sent, oldest first, and the opens that they then count as told.

    "Hubs SHALL follow a successful subscription with an event notification informing the new Subscriber of the most recent
    *-open event per anchor type for which no *-close event has occurred" (2.4 "Current context notification"), where an open
    that another context implies counts too, if it is the newer (CTX-4).
    """
    newest = {context.key: context for context in session.contexts.values()}
    derived = _newest_derived(newest, session, rules)
    told = NOTHING
    found: list[tuple[int, int, Message]] = []
    for key, context in newest.items():
        if key in keys and key not in derived:
            found.append((context.order, len(DERIVED), (context.frame, context.notice)))
            if (type_ := key.removesuffix("-open")) in DERIVED:
                told = remember(told, type_, context.ref)
    for key, open_ in derived.items():
        if key in keys:
            found.append((open_.source.order, DERIVED.index(open_.type), open_.message(session.topic)))
            told = remember(told, open_.type, open_.ref)
    replayed = [message for _, _, message in sorted(found, key=lambda one: one[:2])]
    if session.home and "home-open" in keys:
        id_ = id_of(session.home)
        replayed.append((session.home, Notice(id_, id_, spelling("home-open"))))
    return replayed, NOTHING if session.home else told


def _newest_derived(newest: dict[str, OpenContext], session: Session, rules: Rules) -> dict[str, DerivedOpen]:
    """By event, the derived opens that are newer than the newest stored one of their type and open something else."""
    sources: dict[str, OpenContext] = {}
    for context in session.contexts.values() if rules.derive_opens else ():
        for type_ in context.implied:
            sources[type_] = context
    found: dict[str, DerivedOpen] = {}
    for type_, source in sources.items():
        stored = newest.get(f"{type_}-open")
        if stored is None or (source.order > stored.order and source.implied[type_] != stored.ref):
            found[f"{type_}-open"] = next(open_ for open_ in derive(source) if open_.type == type_)
    return found


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
