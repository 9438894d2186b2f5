"""The direct way: a small POST under hub.url with a remembered token is answered in plain calls.

http/protocol.py hands over a request whose body is complete. `HubApi.answer` runs at once, as far as the commit. It goes on within
the store's call when the commit is written (waiter.py). So there is no task, no ASGI message, and no future.

A request that waits for anything else (its user's turn, another node) goes on in a task. Before that moment nothing may need a task,
as asyncio.timeout does. All other requests take the way of ASGI, through the same `HubApi.answer`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from fhircast_hub.budgets.meter import MeteredCoroutine
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Unauthenticated
from fhircast_hub.http.hub import HubApi
from fhircast_hub.http.rate_limit import Rates
from fhircast_hub.http.request import Headers, Message, Request, Response, bearer_token, closes, headers_of
from fhircast_hub.http.request_log import RequestLog
from fhircast_hub.service.ports import TokenVerifier
from fhircast_hub.service.request_id import REQUEST_ID
from fhircast_hub.waiter import Waiter

HeaderList = list[tuple[bytes, bytes]]


class Connection(Protocol):
    """A connection of the server, as the direct way sees it: an `HttpProtocol` (http/protocol.py)."""

    #: Address and port of the other end.
    client: tuple[str, int] | None
    server_state: ServerState
    loop: asyncio.AbstractEventLoop
    #: Tasks that the server waits for when it stops.
    tasks: set[asyncio.Task[None]]

    def write_answer(self, answer: bytes, *, keep_alive: bool) -> None:
        """Write a whole answer. The connection is free for the next request then, or closes."""
        ...


class DirectWay:
    """What all connections need to answer requests. `address_of(peer, headers)` is the client's address."""

    def __init__(
        self,
        api: HubApi,
        verifier: TokenVerifier,
        request_log: RequestLog,
        rates: Rates,
        is_hub: Callable[[str], bool],
        address_of: Callable[[str, Iterable[tuple[bytes, bytes]]], str],
    ) -> None:
        self.answer = api.answer
        self.refuse = rates.refuse
        self.request_log = request_log
        self._verifier = verifier
        self._is_hub = is_hub
        self._address_of = address_of
        #: The last default headers of a connection, and the same as bytes. uvicorn makes new ones each second, for Date.
        self._default: HeaderList = []
        self._default_bytes = b""
        #: The last response, and its headers as bytes.
        self._last: Response | None = None
        self._last_bytes = b""

    def leads_to(self, path: bytes) -> bool:
        """Whether a POST to this path may go here. A path with a query goes by ASGI."""
        return b"?" not in path and b"#" not in path and self._is_hub(path.decode("latin-1"))

    def recall(self, headers: HeaderList) -> Principal | None:
        """The bearer of a remembered token. None: the request goes by ASGI."""
        try:
            return self._verifier.recall(bearer_token(Headers(headers)))
        except Unauthenticated:
            return None

    def request(
        self, client: tuple[str, int] | None, path: bytes, headers: HeaderList, body: bytes, principal: Principal
    ) -> Request:
        """A POST begins. `client` is address and port of the connection's other end."""
        exchange = self.request_log.begin(self._address_of(client[0], headers) if client else "")
        return Request("POST", path, Headers(headers), exchange, body, _no_more, principal)

    def head(self, response: Response, request_id: str, default_headers: HeaderList, keep_alive: bool) -> bytes:
        """Status line and headers of an answer. Without `keep_alive` the connection closes afterwards."""
        if default_headers is not self._default:
            self._default = default_headers
            self._default_bytes = _lines(default_headers)
        if response is not self._last:  # nearly all answers are one object
            self._last, self._last_bytes = response, _lines(headers_of(response))
        close = b"" if keep_alive or closes(response) else b"connection: close\r\n"
        return b"%b%b%bx-request-id: %b\r\n%b\r\n" % (
            STATUS_LINE[response.status],
            self._default_bytes,
            self._last_bytes,
            request_id.encode(),
            close,
        )


class DirectAnswer:
    """The answer to one request, in steps. uvicorn's protocol sees a cycle of request and response in it."""

    __slots__ = ("_connection", "_request", "_steps", "_way", "disconnected", "keep_alive", "response_complete", "user")

    # What uvicorn asks of a cycle. The body has come whole, and nobody waits for more.
    more_body = False
    message_event = asyncio.Event()

    def __init__(
        self, way: DirectWay, connection: Connection, request: Request, principal: Principal, *, keep_alive: bool
    ) -> None:
        self._way, self._connection, self._request = way, connection, request
        #: The turn's key of the request's user.
        self.user: Hashable = principal.realm, principal.subscriber, connection if principal.system else None
        self.keep_alive = keep_alive
        self.response_complete = False
        #: uvicorn sets this when the connection is lost.
        self.disconnected = False

    def begin(self) -> None:
        """Answer now, or begin. This is a part of the connection's step, which has read the request."""
        request = self._request
        if (refusal := self._way.refuse(request.exchange, request.headers)) is not None:
            self._answer(refusal)
        else:
            self._steps = self._way.answer(request)
            self._step(within_step=True)

    def _go_on(self) -> None:
        """The commit is settled."""
        REQUEST_ID.set(self._request.exchange.request_id)
        self._step(within_step=False)

    def _step(self, *, within_step: bool) -> None:
        began, meter = time.perf_counter(), self._request.exchange.meter
        try:
            waits_for = self._steps.send(None)
        except StopIteration as end:
            meter.add(time.perf_counter() - began, within_step=within_step)
            self._answer(end.value)
            return
        meter.add(time.perf_counter() - began, within_step=within_step)
        if isinstance(waits_for, Waiter):
            waits_for.then = self._go_on
        else:
            task, tasks = self._connection.loop.create_task(self._finish(waits_for)), self._connection.tasks
            task.add_done_callback(tasks.discard)
            tasks.add(task)

    async def _finish(self, waits_for: object) -> None:
        """Make the other steps in a task."""
        self._answer(await MeteredCoroutine(self._steps, self._request.exchange.meter, waits_for))

    def _answer(self, response: Response) -> None:
        if self.disconnected:
            return
        exchange = self._request.exchange
        self.keep_alive = self.keep_alive and not closes(response)
        head = self._way.head(
            response, exchange.request_id, self._connection.server_state.default_headers, self.keep_alive
        )
        self.response_complete = True
        self._connection.write_answer(head + response.body, keep_alive=self.keep_alive)
        self._way.request_log.end(exchange, self._request.method, response.status)


def _lines(headers: HeaderList) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


async def _no_more() -> Message:
    """The `receive` of a request whose body is there."""
    return {"type": "http.disconnect"}
