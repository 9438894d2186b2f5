"""Contexts: what is open, and what is current (FHIRcast 3.0.0, 2.3 and 2.9)."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.topic_access import check_access
from fhircast_hub.core.errors import InsufficientScope
from fhircast_hub.core.limits import MAX_CONTEXT_BYTES, MAX_CONTEXTS, Rules
from fhircast_hub.core.rules.content import bundle
from fhircast_hub.core.rules.derived_opens import derive
from fhircast_hub.core.state.session import Content, OpenContext, Session
from fhircast_hub.core.wire.context_items import raw_items
from fhircast_hub.core.wire.event import Event
from fhircast_hub.core.wire.event_names import spelling
from fhircast_hub.core.wire.frames import with_version
from fhircast_hub.core.wire.json import encode


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


class View(NamedTuple):
    """What a reader sees of a session: its `context` is None where none is current. `kind` says which readers see the same.

    That is "" for those who read the open alone, "content" for those who may also read what was shared (`content`), else the type
    whose derived open they read.
    """

    version: str
    context: OpenContext | None = None
    kind: str = ""
    content: Content | None = None

    def is_same(self, other: View) -> bool:
        """Whether both are answered alike, which costs no look at what they hold."""
        return self.kind == other.kind and self.context is other.context and self.content is other.content


def current_context(session: Session | None, principal: Principal, topic: str, rules: Rules) -> bytes:
    """The answer to GET hub.url/{topic} (2.9), as JSON. Raises what `seen` raises."""
    return written(seen(session, principal, topic, rules))


def seen(session: Session | None, principal: Principal, topic: str, rules: Rules) -> View:
    """What the principal may read of the current context.

    Raises Forbidden or Conflict where the topic is not the principal's, and InsufficientScope where neither the newest open
    nor one derived from it may be read (GET-8).
    """
    check_access(principal, topic, session.owner if session else None)
    if session is None or not session.current:
        return View(session.version if session else "0")
    context = session.contexts[session.current]
    if principal.scopes.may_read(context.key):
        # What was shared is for whoever may read the updates that it came by (EVT-12).
        if principal.scopes.may_read(context.key.removesuffix("open") + "update"):
            return View(context.version, context, "content", session.contents.get(context.ref))
        return View(context.version, context)
    for open_ in reversed(derive(context) if rules.derive_opens else []):
        if principal.scopes.may_read(open_.key):
            return View(context.version, context, open_.type)
    name = spelling(context.key)
    raise InsufficientScope(
        f"the current context was opened by {name}, which this token may not read", scope=f"fhircast/{name}.read"
    )


def written(view: View) -> bytes:
    """The answer for readers of this view, as JSON."""
    context = view.context
    if context is None:
        return _answer("", view.version, b"[]")
    if view.kind == "content":
        content = bundle(view.content, context.version)
        shown = b"%b,%b]" % (_without_content(context.context)[:-1].rstrip(), content)
        return _answer(context.type, view.version, shown)
    for open_ in derive(context) if view.kind else ():
        if open_.type == view.kind:
            return _answer(spelling(open_.key).removesuffix("-open"), view.version, open_.context)
    return _answer(context.type, view.version, context.context)


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
