"""Content sharing: resources that applications share in an open context (FHIRcast 3.0.0, 2.10).

"The Hub serves as the transaction coordinator." An update names the version of the context that the update is based on.
Several applications may update one version: the hub accepts exactly one update, and answers the others with 409 (conflicts.py).
All entries of an update are applied, or none.

Example: DiagnosticReport r1 is open at version v1. An update of v1 puts Observation o1, and makes version v2. GET then answers
with the context array of the open and an item `content`, a Bundle with Observation o1.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from fhircast_hub.core.errors import BadRequest, TooLarge
from fhircast_hub.core.limits import MAX_CONTENT_BYTES, MAX_IDENTITY, REMEMBERED_UPDATES, Rules
from fhircast_hub.core.rules.conflicts import check_version, open_context
from fhircast_hub.core.state.session import Content, OpenContext, Session, Shared
from fhircast_hub.core.wire.context_items import raw_items
from fhircast_hub.core.wire.event import Event
from fhircast_hub.core.wire.frames import replace_version
from fhircast_hub.core.wire.json import encode
from fhircast_hub.core.wire.resource_identity import changed_identity, identity_size
from fhircast_hub.core.wire.update_bundle import Change, entry_of, full_url_of, resource_of


def apply_update(session: Session, event: Event, version: str, rules: Rules) -> Session | None:
    """The session after an update, whose context has `version` now. None: the update is a repeat and changes nothing (EVT-17).

    Raises Conflict where the context is not open, or not at the version that the update names. Raises BadRequest for an entry
    that cannot be applied, and TooLarge.
    """
    context = open_context(session, event)
    content = session.contents.get(context.ref, Content())
    if event.fingerprint in content.updates:
        return None
    check_version(context, event)
    if len(event.changes) > rules.max_entries:
        raise TooLarge(
            f"updates may have at most {rules.max_entries} entries, and this Bundle has {len(event.changes)}"
        )
    content = _apply(context, content, event.changes)
    content = replace(content, updates=(*content.updates, event.fingerprint)[-REMEMBERED_UPDATES:])
    size = content.size + sum(other.size for ref, other in session.contents.items() if ref != context.ref)
    if size > MAX_CONTENT_BYTES:
        raise TooLarge(
            f"updates: a session may have at most {MAX_CONTENT_BYTES} bytes of content, and would have {size}"
        )
    context = replace(context, version=version, frame=replace_version(context.frame, context.context_at, version))
    return replace(
        session,
        contexts={**session.contexts, context.ref: context},
        contents={**session.contents, context.ref: content},
    )


def drop_contradicted(content: Content, context: OpenContext) -> Content:
    """The content after `context` was opened again (CON-30).

    Copies of resources are dropped where the open gives another identity. Copies with too many identifiers to compare are
    dropped too.
    """
    opened = _opened_items(context)
    dropped: set[str] = set()
    compared = 0  # bytes of identifiers
    for ref in filter(content.resources.__contains__, opened):
        copy = resource_of(content.resources[ref].entry)
        compared += identity_size(opened[ref], copy)
        if compared > MAX_IDENTITY or changed_identity(opened[ref], copy):
            dropped.add(ref)
    if not dropped:
        return content
    return replace(
        content,
        resources={ref: shared for ref, shared in content.resources.items() if ref not in dropped},
        urls={url: ref for url, ref in content.urls.items() if ref not in dropped},
        size=content.size - sum(len(content.resources[ref].entry) for ref in dropped),
    )


def content_item(content: Content | None, version: str) -> bytes:
    """The context item with the shared content, which GET adds to the context array.

    "one and only one Bundle resource which SHALL have a type of collection" (2.9).
    """
    resources = list((content or Content()).resources.values())
    numbers = [shared.number for shared in resources]
    if numbers != sorted(numbers):  # in the order of the store's rows
        resources.sort(key=lambda shared: shared.number)
    # FHIR's JSON has no empty arrays.
    entry = b',"entry":[%b]' % b",".join([shared.entry for shared in resources]) if resources else b""
    return b'{"key":"content","resource":{"resourceType":"Bundle","id":%b,"type":"collection"%b}}' % (
        encode(version),
        entry,
    )


def _apply(context: OpenContext, content: Content, changes: tuple[Change, ...]) -> Content:
    """Apply all entries or none: "SHALL process all Bundle entries in an atomic manner" (2.10).

    Raises BadRequest for an entry that cannot be applied. Raises TooLarge for too many identifiers to compare.
    """
    if not changes:
        return content
    draft = _Draft(context, content)
    for index, change in enumerate(changes):
        draft.apply(change, f"updates: entry[{index}]")
    return draft.content()


class _Draft:
    """The content of a context, while the entries of an update are applied."""

    def __init__(self, context: OpenContext, content: Content) -> None:
        self._before = content
        self._resources, self._urls, self._size = dict(content.resources), dict(content.urls), content.size
        self._last_number = max((shared.number for shared in content.resources.values()), default=0)
        self._opened = _opened_items(context)
        self._changed: set[str] = set()
        #: Bytes of identifiers that were compared.
        self._compared = 0

    def apply(self, change: Change, where: str) -> None:
        """Apply an entry, which an error calls `where`."""
        ref = _resource_ref(change, self._urls, where)
        if ref in self._changed:
            raise BadRequest(f"{where} must not repeat the resource of an earlier entry")
        self._changed.add(ref)
        before = self._resources.get(ref)
        url = full_url_of(before.entry) if before else ""
        self._urls.pop(url, None)
        self._size -= len(before.entry) if before else 0
        if change.resource is None:
            _check_delete(before, ref in self._opened, where)
            del self._resources[ref]
            return
        if (items := self._opened.get(ref)) is not None:
            self._compared += identity_size(items, change.resource)
            _check_identity(items, change.resource, where, self._compared)
        self._last_number += 1
        url = change.full_url or url  # a PUT without a fullUrl keeps the former one
        shared = Shared(before.number if before else self._last_number, entry_of(change.resource, url))
        self._resources[ref] = shared
        self._size += len(shared.entry)
        if url:
            self._urls[url] = ref

    def content(self) -> Content:
        """The content after all entries."""
        return replace(self._before, resources=self._resources, size=self._size, urls=self._urls)


def _opened_items(context: OpenContext) -> dict[str, list[bytes]]:
    """The items of the context array, by the ref of their resource."""
    items: dict[str, list[bytes]] = {}
    for _, ref, raw in raw_items(context.context):
        if ref:
            items.setdefault(ref, []).append(raw)
    return items


def _resource_ref(change: Change, urls: dict[str, str], where: str) -> str:
    """The ref of the resource that an entry changes. `urls` are the fullUrls of shared resources, with their refs.

    The resource's id and "the `fullUrl` attribute of the resource's entry in the update bundle (if populated) enables Subscribers
    to consistently identify content" (4.4). So both must name the same resource (CON-23, CON-24).
    """
    owner = urls.get(change.full_url, "") if change.full_url else ""
    if owner and change.ref and owner != change.ref:
        if change.resource is None:
            raise BadRequest(f"{where}: fullUrl and request.url must name the same resource, and they name two")
        raise BadRequest(f"{where}.fullUrl must be the resource's own, and it is that of another shared resource")
    if not (owner or change.ref):
        raise BadRequest(f"{where} must have the fullUrl of a shared resource, or its Type/id, and it has neither")
    return owner or change.ref


def _check_delete(shared: Shared | None, came_with_open: bool, where: str) -> None:
    """Raise BadRequest for a DELETE of a resource that is not shared.

    A shared copy of a resource of the open may be deleted. The resource of the open remains (CON-18).
    """
    if shared is not None:
        return
    if came_with_open:
        # "Subscribers SHALL NOT remove any resources that were present in the context array" (2.10)
        raise BadRequest(
            f"{where}: DELETE must name a shared resource; the context was opened with this one,"
            " and nobody has shared it since"
        )
    raise BadRequest(f"{where}: DELETE must name a shared resource, and this one is not there")


def _check_identity(opened: Collection[bytes], resource: bytes, where: str, compared: int) -> None:
    """Raise BadRequest where `resource` has another identity than the `opened` items; TooLarge where too much was compared.

    "The Subscriber should close the report context and open a new report context with the correct patient and/or study
    context, rather than using a DiagnosticReport-update event to correct the context" (IHE IRA, RAD-150).
    """
    if compared > MAX_IDENTITY:
        raise TooLarge(
            f"{where}: an update may have at most {MAX_IDENTITY} bytes of identifiers to compare, and this one has {compared}"
        )
    if member := changed_identity(opened, resource):
        raise BadRequest(
            f"{where}.resource.{member} must have the values that the open gave, and has others;"
            " close the context and open the right one instead"
        )
