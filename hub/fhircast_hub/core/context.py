"""Contexts: what is open, and what is current (FHIRcast 3.0.0, 2.3 and 2.9)."""

from __future__ import annotations

from msgspec.structs import replace

from fhircast_hub.core.content import bundle
from fhircast_hub.core.derived import derive
from fhircast_hub.core.errors import InsufficientScope
from fhircast_hub.core.items import raw_items
from fhircast_hub.core.limits import MAX_CONTEXT_BYTES, MAX_CONTEXTS, Rules
from fhircast_hub.core.messages import Event, encode, with_version
from fhircast_hub.core.names import spelling
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

    First goes the oldest that is neither the newest of its type nor implied by one that is; then the oldest that `context` does
    not imply.
    """
    added = {ref: other for ref, other in contexts.items() if ref != context.ref}
    added[context.ref] = context
    size = sum(len(other.frame) for other in added.values())
    named = {context.ref, *context.implied.values()}
    gone: list[OpenContext] = []
    while len(added) > 1 and (len(added) > MAX_CONTEXTS or size > MAX_CONTEXT_BYTES):
        newest = {other.key: other for other in added.values()}
        kept = {ref for other in newest.values() for ref in (other.ref, *other.implied.values())}
        least = min(added.values(), key=lambda other: (other.ref in kept, other.ref in named))  # of equals the oldest
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
