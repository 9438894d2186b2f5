"""Sockets under /bind/, where the clients of 2018 choose their endpoint (`dev --legacy` only).

HL7's React client and sandbox.js's page publish events on their socket. The React client takes every message without the member
`bound` for an event, and fails where it is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import msgspec

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import Subscription
from fhircast_hub.core.wire.json import strip_bom
from fhircast_hub.edge.endpoints import BIND, without_empty_segments
from fhircast_hub.edge.names_of_2018 import LegacyNames
from fhircast_hub.ws.context import Headers, SocketContext
from fhircast_hub.ws.frames import Frame, text_frame, text_of
from fhircast_hub.ws.socket import HubSocket

#: Events of one socket that wait to be published.
MAX_WAITING = 16

#: Posts an event as the anonymous user, from this address: the HTTP status, and the hub's words.
Post = Callable[[bytes, tuple[str, int]], Awaitable[tuple[int, str]]]

_ACCEPTED = 202


class _Event(msgspec.Struct):
    event: msgspec.Raw
    id: msgspec.Raw = msgspec.Raw(b"null")


_EVENT = msgspec.json.Decoder(_Event)
_encode = msgspec.json.Encoder().encode


class LegacySocket(HubSocket):
    """A socket of `dev --legacy`. Outside of /bind/ it does what a HubSocket does."""

    def __init__(
        self, context: SocketContext, connections: set[Any], headers: Headers, legacy: LegacyNames, post: Post
    ) -> None:
        super().__init__(context, connections, headers)
        self._legacy = legacy
        self._post = post
        # Its subscription, and the endpoint as the client named it; "" outside of /bind/.
        self._sid = ""
        self._bound = ""
        self._events: set[asyncio.Task[None]] = set()  # tasks of those that came and are not published yet
        self._publishing = asyncio.Lock()  # held by one task at a time, in the order of the events

    async def _subscription(self, path: str) -> tuple[SessionKey, Subscription]:
        bound = without_empty_segments(path.partition("?")[0])
        if bound.startswith(BIND):
            self._sid = self._context.resolve(path) or ""
            self._bound = unquote(bound.removeprefix(BIND).rstrip("/"))
        return await super()._subscription(path)

    def write(self, frame: Frame, event_ref: EventRef | None) -> bool:
        if self._bound:
            frame = text_frame(self._legacy.translate_frame(self._sid, self._bound, text_of(frame)))
        return super().write(frame, event_ref)

    def _hear(self, message: bytes) -> None:
        event = _event(message) if self._bound else None
        if event is None:
            super()._hear(message)
        elif len(self._events) >= MAX_WAITING:
            self._refuse(event, 429, f"at most {MAX_WAITING} events of a socket wait to be published, and more came")
        else:
            task = self._loop.create_task(self._publish(event, message))
            self._events.add(task)
            task.add_done_callback(self._events.discard)
            task.add_done_callback(self._answered)

    async def _publish(self, event: _Event, message: bytes) -> None:
        """Publish an event as if it had been posted. Only a refusal is answered: these clients wait for nothing."""
        async with self._publishing:
            status, said = await self._post(message, self._transport.get_extra_info("peername"))
        if status != _ACCEPTED:
            self._refuse(event, status, said)

    def _refuse(self, event: _Event, status: int, said: str) -> None:
        refusal = {"bound": self._bound, "id": event.id, "status": status, "message": said}
        super().write(text_frame(_encode(refusal)), None)


def _event(message: bytes) -> _Event | None:
    """The message, if it is an event; None for an acknowledgement, or for what is no JSON object."""
    try:
        return _EVENT.decode(strip_bom(message))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
