"""Sockets under /bind/, where clients of 2018 choose their endpoint (`dev --legacy` only).

HL7's React client and the page of sandbox.js publish events on their socket. The React client takes every message without the
member `bound` for an event, and fails if the message is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import msgspec

from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import Subscription
from fhircast_hub.core.wire.json import unmarked
from fhircast_hub.edge.endpoints import BIND, without_empty_segments
from fhircast_hub.edge.names_of_2018 import Legacy
from fhircast_hub.ws.frames import Frame, text_frame, text_of
from fhircast_hub.ws.services import Headers, SocketServices
from fhircast_hub.ws.socket import HubSocket

#: Events of one socket that may wait to be published.
MAX_WAITING = 16

#: Publishes an event as the anonymous user. The arguments are the body, and address and port of the client.
#: Returns the HTTP status and the text of the answer.
Post = Callable[[bytes, tuple[str, int]], Awaitable[tuple[int, str]]]

_ACCEPTED = 202


class _Event(msgspec.Struct):
    event: msgspec.Raw
    id: msgspec.Raw = msgspec.Raw(b"null")


_EVENT = msgspec.json.Decoder(_Event)
_encode = msgspec.json.Encoder().encode


class LegacySocket(HubSocket):
    """A socket of `dev --legacy`. Outside of /bind/, a plain HubSocket."""

    def __init__(
        self, services: SocketServices, connections: set[Any], headers: Headers, legacy: Legacy, post: Post
    ) -> None:
        super().__init__(services, connections, headers)
        self._legacy = legacy
        self._post = post
        #: The endpoint as the client named it; "" outside of /bind/.
        self._bound = ""
        #: Tasks of events that are not published yet.
        self._publishing: set[asyncio.Task[None]] = set()
        #: Keeps the events in their order: one task at a time publishes.
        self._publish_lock = asyncio.Lock()

    async def _connect(self, path: str) -> Subscription:
        plain = without_empty_segments(path.partition("?")[0])
        if plain.startswith(BIND):
            self._bound = unquote(plain.removeprefix(BIND).rstrip("/"))
        return await super()._connect(path)

    def write(self, frame: Frame, event_ref: EventRef | None) -> bool:
        if self._bound:
            frame = text_frame(self._legacy.written(self._subscription_id, self._bound, text_of(frame)))
        return super().write(frame, event_ref)

    def _receive_message(self, message: bytes) -> None:
        event = _event(message) if self._bound else None
        if event is None:
            super()._receive_message(message)
        elif len(self._publishing) >= MAX_WAITING:
            self._refuse(event, 429, f"at most {MAX_WAITING} events of a socket may wait to be published")
        else:
            task = self._loop.create_task(self._publish(event, message))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)
            task.add_done_callback(self._log_failure)

    async def _publish(self, event: _Event, message: bytes) -> None:
        """Publish an event as if posted. Only a refusal is answered: these clients expect no other answer."""
        async with self._publish_lock:
            status, text = await self._post(message, self._transport.get_extra_info("peername"))
        if status != _ACCEPTED:
            self._refuse(event, status, text)

    def _refuse(self, event: _Event, status: int, text: str) -> None:
        refusal = {"bound": self._bound, "id": event.id, "status": status, "message": text}
        super().write(text_frame(_encode(refusal)), None)


def _event(message: bytes) -> _Event | None:
    """The message as an event. None: an acknowledgement, or not a JSON object."""
    try:
        return _EVENT.decode(unmarked(message))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
