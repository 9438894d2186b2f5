"""One log line for each HTTP request, and an id that its answer, its line and those of what it led to share (OPS-2)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import structlog

from fhircast_hub.api.http import Message, Receive, Scope, Send
from fhircast_hub.service import REQUEST_ID

_log = structlog.get_logger()
#: Where in its ASGI scope a request's log fields are; whoever answers it adds what it learns.
FIELDS = "fhircast.log"


class Counters(Protocol):
    """What is counted of requests."""

    requests: Counter[tuple[str, int]]


class RequestLog:
    """An ASGI application around another."""

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], request_ids: Iterator[str], counters: Counters
    ) -> None:
        self._app = app
        self._request_ids = request_ids
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request_id = next(self._request_ids)
        REQUEST_ID.set(request_id)
        fields = scope[FIELDS] = {"route": "other"}
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        await self._app(scope, receive, send_with_id)
        if status:  # else the client went away
            self._counters.requests[fields["route"], status] += 1
            milliseconds = round((time.perf_counter() - started) * 1000, 3)
            _log.info(
                "request", request_id=request_id, method=scope["method"], status=status, ms=milliseconds, **fields
            )
