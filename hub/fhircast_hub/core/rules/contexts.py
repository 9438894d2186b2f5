"""Contexts: the open contexts of a session, and the answer to GET (FHIRcast 3.0.0, 2.3 and 2.9).

A context is opened by a *-open event and closed by a *-close event. Several contexts may be open. At most one of them is current:
the one of the newest open, unless that was closed. GET answers with the current context:
"context.type", "context.versionId" and "context" (2.9).

Example: ImagingStudy-open s1, with patient p1, is the current context. A reader with the scope ImagingStudy-open.read gets the
study's context array. A reader with Patient-open.read alone gets the array of the derived Patient-open p1 (derived_opens.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec.structs import replace

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.topic_access import check_access
from fhircast_hub.core.errors import InsufficientScope
from fhircast_hub.core.limits import MAX_CONTEXT_BYTES, MAX_CONTEXTS, Rules
from fhircast_hub.core.rules.content import content_item
from fhircast_hub.core.rules.derived_opens import derive_opens
from fhircast_hub.core.state.session import Content, OpenContext, Session
from fhircast_hub.core.wire.context_items import raw_items
from fhircast_hub.core.wire.event import Event
from fhircast_hub.core.wire.event_names import spelling
from fhircast_hub.core.wire.frames import with_version
from fhircast_hub.core.wire.json import encode


def context_of(event: Event, version: str, order: int) -> OpenContext:
    """The context that an accepted open opens. `order` is Session.order at the open."""
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


def add_context(
    contexts: dict[str, OpenContext], context: OpenContext
) -> tuple[dict[str, OpenContext], list[OpenContext]]:
    """The open contexts with `context` as the newest, and the contexts that were removed to make room (LIM-4).

    Removed first: the oldest that is neither the newest of its type, nor named by such a newest one.
    Removed next: the oldest that `context` does not name. Removed last: the oldest of all.
    """
    added = contexts.copy()
    added.pop(context.ref, None)  # a context that is opened again becomes the newest
    added[context.ref] = context
    removed: list[OpenContext] = []
    size = sum([len(other.frame) for other in added.values()])
    if len(added) <= MAX_CONTEXTS and size <= MAX_CONTEXT_BYTES:
        return added, removed
    named = {context.ref, *context.implied.values()}
    while len(added) > 1 and (len(added) > MAX_CONTEXTS or size > MAX_CONTEXT_BYTES):
        newest = {other.type.lower(): other for other in added.values()}
        kept = {ref for other in newest.values() for ref in (other.ref, *other.implied.values())}
        victim = _first_outside(added, kept) or _first_outside(added, named) or next(iter(added))
        removed.append(added.pop(victim))
        size -= len(removed[-1].frame)
    return added, removed


def _first_outside(contexts: Iterable[str], refs: set[str]) -> str | None:
    """The oldest context that is none of `refs`."""
    return next((ref for ref in contexts if ref not in refs), None)


def remove_context(contexts: dict[str, OpenContext], ref: str) -> dict[str, OpenContext]:
    """The open contexts after `ref` was closed. No derived open of `ref` is sent any more (CTX-2)."""
    left = contexts.copy()
    left.pop(ref, None)
    type_ = ref[: ref.index("/")]
    for other in [other for other in left.values() if other.implied.get(type_) == ref]:
        implied = {implied_type: implied for implied_type, implied in other.implied.items() if implied_type != type_}
        left[other.ref] = replace(other, implied=implied, closed={**other.closed, type_: ref})
    return left


class View(NamedTuple):
    """A session as a principal may read it. Principals with equal views get the same answer to GET."""

    #: context.versionId of the answer.
    version: str
    #: The current context; None: no context is current.
    context: OpenContext | None = None
    #: "": the open alone. "content": the open and shared content. Else the type of the derived open that is read instead.
    part: str = ""
    #: Shared content of the context, if the principal may read it.
    content: Content | None = None

    def is_same(self, other: View) -> bool:
        """Whether both views have the same answer. Compares objects by identity, which is fast."""
        same = (self.version, self.part) == (other.version, other.part)
        return same and self.context is other.context and self.content is other.content


def current_context(session: Session | None, principal: Principal, topic: str, rules: Rules) -> bytes:
    """The answer to GET hub.url/{topic} (2.9), as JSON. Raises as `view_for` does."""
    return encode_view(view_for(session, principal, topic, rules))


def view_for(session: Session | None, principal: Principal, topic: str, rules: Rules) -> View:
    """The principal's view of the session; `session` is None where the topic has none.

    Raises Forbidden or Conflict where the topic is not the principal's. Raises InsufficientScope where neither the current
    context's open nor a derived open of it may be read (GET-8).
    """
    check_access(principal, topic, session.owner if session else None)
    if session is None or not session.current:
        return View(session.version if session else "0")
    context = session.contexts[session.current]
    if principal.scopes.may_read(context.key):
        # Content came by updates, so the scope for updates is needed to read it (EVT-12).
        if principal.scopes.may_read(context.key.removesuffix("open") + "update"):
            return View(context.version, context, "content", session.contents.get(context.ref))
        return View(context.version, context)
    for open_ in reversed(derive_opens(context) if rules.derive_opens else []):
        if principal.scopes.may_read(open_.key):
            return View(context.version, context, open_.type)
    name = spelling(context.key)
    raise InsufficientScope(
        "the current context was opened by …, which this token's scopes do not allow to read",
        scope=f"fhircast/{name}.read",
        quoted=name,
    )


def encode_view(view: View) -> bytes:
    """The answer to GET for this view, as JSON."""
    context = view.context
    if context is None:
        return _answer("", view.version, b"[]")
    if view.part == "content":
        item = content_item(view.content, context.version)
        items = b"%b,%b]" % (_without_content(context.context)[:-1].rstrip(), item)
        return _answer(context.type, view.version, items)
    for open_ in derive_opens(context) if view.part else ():
        if open_.type == view.part:
            return _answer(spelling(open_.key).removesuffix("-open"), view.version, open_.context)
    return _answer(context.type, view.version, context.context)


def _without_content(context: bytes) -> bytes:
    """The context array without the publisher's own `content` items: GET adds "one and only one Bundle" (2.9), the hub's."""
    if b"content" not in context:
        return context
    items = raw_items(context)
    if all(key != "content" for key, _, _ in items):
        return context
    return b"[%b]" % b",".join(raw for key, _, raw in items if key != "content")


def _answer(type_: str, version: str, context: bytes) -> bytes:
    return b'{"context.type":%b,"context.versionId":%b,"context":%b}' % (encode(type_), encode(version), context)
