"""Content sharing (FHIRcast 3.0.0, 2.10): resources shared in an open context, in versions, all or nothing.

"The Hub serves as the transaction coordinator": an update names the version it was made on, and of all that name one version
exactly one is accepted.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from fhircast_hub.core.errors import BadRequest, Conflict, TooLarge
from fhircast_hub.core.limits import MAX_CONTENT_BYTES, MAX_IDENTITY, REMEMBERED_UPDATES, Rules
from fhircast_hub.core.state.session import Content, OpenContext, Session, Shared
from fhircast_hub.core.wire.context_items import raw_items
from fhircast_hub.core.wire.event import Event
from fhircast_hub.core.wire.frames import replace_version
from fhircast_hub.core.wire.json import encode
from fhircast_hub.core.wire.resource_identity import changed_identity, identity_size
from fhircast_hub.core.wire.update_bundle import Change, entry_of, full_url_of, resource_of

#: Characters of a version that an error quotes: the hub's own have 36.
_QUOTED = 64


def updated(session: Session, event: Event, version: str, rules: Rules) -> Session | None:
    """The session after an update was applied and its context has `version`; None for a repeat, which changes nothing (EVT-17).

    Raises Conflict where the context is not open or not at the version named, BadRequest or TooLarge for what cannot be applied.
    """
    context = _open_context(session, event)
    content = session.contents.get(context.ref, Content())
    if event.fingerprint in content.updates:
        return None
    _check_version(context, event)
    if len(event.changes) > rules.max_entries:
        raise TooLarge(f"updates: expected at most {rules.max_entries} entries, got {len(event.changes)}")
    content = _applied(context, content, event.changes)
    content = replace(content, updates=(*content.updates, event.fingerprint)[-REMEMBERED_UPDATES:])
    size = content.size + sum(other.size for ref, other in session.contents.items() if ref != context.ref)
    if size > MAX_CONTENT_BYTES:
        raise TooLarge(f"updates: expected at most {MAX_CONTENT_BYTES} bytes of content in a session, got {size}")
    context = replace(context, version=version, frame=replace_version(context.frame, context.context_at, version))
    return replace(
        session,
        contexts={**session.contexts, context.ref: context},
        contents={**session.contents, context.ref: content},
    )


def check_select(session: Session, event: Event) -> None:
    """Raise Conflict unless the select's context is the current one: "Subscribers SHALL NOT send select events unrelated to the
    current context" (2.10)."""
    if _open_context(session, event).ref != session.current:
        raise Conflict(f"{event.name}: expected a select in the current context, and this one is not current")


def bundle(content: Content | None, version: str) -> bytes:
    """What is shared, as the item that GET adds to the context (2.9): "one and only one Bundle resource which SHALL have a type
    of collection"."""
    resources = list((content or Content()).resources.values())
    numbers = [shared.number for shared in resources]
    if numbers != sorted(numbers):  # as the store gave them
        resources.sort(key=lambda shared: shared.number)
    # FHIR's JSON has no empty arrays.
    entry = b',"entry":[%b]' % b",".join([shared.entry for shared in resources]) if resources else b""
    return b'{"key":"content","resource":{"resourceType":"Bundle","id":%b,"type":"collection"%b}}' % (
        encode(version),
        entry,
    )


def _open_context(session: Session, event: Event) -> OpenContext:
    context = session.contexts.get(event.ref)
    if context is None:
        raise Conflict(f"{event.name}: expected an open context, and this one is not open")
    return context


def _check_version(context: OpenContext, event: Event) -> None:
    """ "If the incoming context.versionId and last assigned context.versionId do not match, the Hub SHALL reject" (2.10)."""
    if context.version in event.versions:
        return
    version = event.versions[0] if event.versions else ""
    if not version:
        came = "none"
    elif len(version) <= _QUOTED and version.isascii() and version.isprintable():
        came = version
    else:
        came = f"{len(version)} characters"
    raise Conflict(f"context.versionId: expected the current version {context.version}, got {came}")


def _applied(context: OpenContext, content: Content, changes: tuple[Change, ...]) -> Content:
    """ "SHALL process all Bundle entries in an atomic manner" (2.10). Raises BadRequest naming the entry that cannot be."""
    resources, urls, size = dict(content.resources), dict(content.urls), content.size
    number = max((shared.number for shared in resources.values()), default=0)
    opened_with = _opened_with(context) if changes else {}
    changed: set[str] = set()
    identified = 0  # bytes of identifiers that were compared
    for index, change in enumerate(changes):
        where = f"updates: entry[{index}]"
        ref = _ref(change, urls, where)
        if ref in changed:
            raise BadRequest(f"{where}: expected each resource once, got one that an entry before has")
        changed.add(ref)
        before = resources.get(ref)
        url = full_url_of(before.entry) if before else ""
        urls.pop(url, None)
        size -= len(before.entry) if before else 0
        if change.resource is None:
            _check_delete(before, ref in opened_with, where)
            del resources[ref]
            continue
        if (items := opened_with.get(ref)) is not None:
            identified += identity_size(items, change.resource)
            _check_identity(items, change.resource, where, identified)
        number += 1
        url = change.full_url or url  # who gives none has taken none away
        resources[ref] = Shared(before.number if before else number, entry_of(change.resource, url))
        size += len(resources[ref].entry)
        urls |= {url: ref} if url else {}
    return replace(content, resources=resources, size=size, urls=urls)


def without_contradicted(content: Content, context: OpenContext) -> Content:
    """What is shared after the context was opened again: no copy of a resource to which the open gives another identity (CON-17)."""
    opened = _opened_with(context)
    gone: set[str] = set()
    identified = 0  # bytes of identifiers that were compared; what is too much to compare contradicts
    for ref in filter(content.resources.__contains__, opened):
        copy = resource_of(content.resources[ref].entry)
        identified += identity_size(opened[ref], copy)
        if identified > MAX_IDENTITY or changed_identity(opened[ref], copy):
            gone.add(ref)
    if not gone:
        return content
    return replace(
        content,
        resources={ref: shared for ref, shared in content.resources.items() if ref not in gone},
        urls={url: ref for url, ref in content.urls.items() if ref not in gone},
        size=content.size - sum(len(content.resources[ref].entry) for ref in gone),
    )


def _opened_with(context: OpenContext) -> dict[str, list[bytes]]:
    """The items of the context array, by the ref of their resource."""
    items: dict[str, list[bytes]] = {}
    for _, ref, raw in raw_items(context.context):
        if ref:
            items.setdefault(ref, []).append(raw)
    return items


def _ref(change: Change, urls: dict[str, str], where: str) -> str:
    """The resource that an entry is about. Its id and "the `fullUrl` attribute of the resource's entry in the update bundle (if
    populated) enables Subscribers to consistently identify content" (4.4), so both must name the same one (CON-16)."""
    owner = urls.get(change.full_url, "") if change.full_url else ""
    if owner and change.ref and owner != change.ref:
        if change.resource is None:
            raise BadRequest(f"{where}: expected fullUrl and request.url to name one resource, got two that differ")
        raise BadRequest(f"{where}: expected a fullUrl of the resource's own, got that of another which is shared")
    if not (owner or change.ref):
        raise BadRequest(f"{where}: expected the fullUrl of what was shared, or its Type/id, got neither")
    return owner or change.ref


def _check_delete(shared: Shared | None, is_opened_with: bool, where: str) -> None:
    """A copy that was shared of a resource of the open may go again: what is left is the open's (CON-18)."""
    if shared is not None:
        return
    if is_opened_with:
        # "Subscribers SHALL NOT remove any resources that were present in the context array" (2.10)
        raise BadRequest(
            f"{where}: expected what was shared, got a DELETE of what the context was opened with and nobody has shared since"
        )
    raise BadRequest(f"{where}: expected what was shared, got a DELETE of what is not there")


def _check_identity(opened: Collection[bytes], resource: bytes, where: str, size: int) -> None:
    """ "The Subscriber should close the report context and open a new report context with the correct patient and/or study
    context, rather than using a DiagnosticReport-update event to correct the context" (IHE IRA, RAD-150)."""
    if size > MAX_IDENTITY:
        raise TooLarge(f"{where}: expected at most {MAX_IDENTITY} bytes of identifiers to compare, got {size}")
    if member := changed_identity(opened, resource):
        raise BadRequest(
            f"{where}.resource.{member}: expected the values that the open gave, got others;"
            " close the context and open the right one instead"
        )
