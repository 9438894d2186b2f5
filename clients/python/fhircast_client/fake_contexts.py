"""What a fake hub knows: which contexts are open, at which version, with which content. No I/O."""

from __future__ import annotations

import uuid
from typing import Any

from fhircast_client.errors import HubError
from fhircast_client.events import Event, Kind, parse_event
from fhircast_client.sharing import Entries, changed

_CONFLICT = 409


class FakeContexts:
    """The open contexts of one session; `versions`: the hub gives them (STU3)."""

    def __init__(self, *, versions: bool) -> None:
        self._versions = versions
        self._opens: dict[str, dict[str, Any]] = {}  # by anchor, in the order in which they were opened
        self._content: dict[str, Entries] = {}
        self._current = ""
        self._home: dict[str, Any] | None = None
        self._newest = ""  # id of the newest change

    def accept(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Take an event; the message to distribute, None for a repeat of what is not the newest any more.

        Raises HubError 409 for an update of another version than the current one.
        """
        event = parse_event(message)
        match event.kind:
            case Kind.OPEN:
                return self._open(event, message)
            case Kind.CLOSE:
                self._opens.pop(event.anchor, None)
                self._content.pop(event.anchor, None)
                if event.anchor == self._current:
                    self._current = ""
            case Kind.HOME:
                self._current, self._home = "", message
            case Kind.UPDATE if self._versions:
                return self._update(event, message)
        if event.kind.changes_context:
            self._newest = event.id
        return message

    def replay(self) -> list[dict[str, Any]]:
        """What somebody who joins is told: the newest open of each type, oldest first, and Home-open where that is newer."""
        newest = {anchor.partition("/")[0]: message for anchor, message in self._opens.items()}
        ordered = [message for message in self._opens.values() if message in newest.values()]
        return [*ordered, *([self._home] if self._home else [])]

    def current(self) -> dict[str, Any]:
        """The answer to "Get Current Context"."""
        if not self._current:
            return {"context.type": "", "context.versionId": "0", "context": []}
        inner = self._opens[self._current]["event"]
        version = inner["context.versionId"]
        content = self._content[self._current]
        entries = [
            ({"fullUrl": content.urls[ref]} if ref in content.urls else {}) | {"resource": resource}
            for ref, resource in content.items()
        ]
        bundle = {"resourceType": "Bundle", "id": version, "type": "collection", "entry": entries}
        return {
            "context.type": self._current.partition("/")[0],
            "context.versionId": version,
            "context": [*inner["context"], {"key": "content", "resource": bundle}],
        }

    def is_open(self, anchor: str) -> bool:
        """Whether a context is open."""
        return anchor in self._opens

    def _open(self, event: Event, message: dict[str, Any]) -> dict[str, Any] | None:
        before = self._opens.get(event.anchor)
        if before is not None and before["id"] == event.id:
            return before if self._newest == event.id else None
        self._opens.pop(event.anchor, None)
        self._opens[event.anchor] = message = self._versioned(message)
        self._content.setdefault(event.anchor, Entries())
        self._current, self._home, self._newest = event.anchor, None, event.id
        return message

    def _update(self, event: Event, message: dict[str, Any]) -> dict[str, Any]:
        opened = self._opens.get(event.anchor)
        if opened is None:
            raise HubError(_CONFLICT, "expected an open context")
        version = opened["event"]["context.versionId"]
        if event.version != version:
            raise HubError(_CONFLICT, f"expected the current version {version}")
        self._content[event.anchor] = changed(self._content[event.anchor], event)
        message = self._versioned(message, prior=version)
        new = {**opened["event"], "context.versionId": message["event"]["context.versionId"]}
        self._opens[event.anchor] = {**opened, "event": new}
        return message

    def _versioned(self, message: dict[str, Any], **versions: str) -> dict[str, Any]:
        if not self._versions:
            return message
        given = {"context.versionId": str(uuid.uuid4())}
        if prior := versions.get("prior"):
            given["context.priorVersionId"] = prior
        inner = {name: value for name, value in message["event"].items() if not name.startswith("context.")}
        return {**message, "event": {**inner, **given}}
