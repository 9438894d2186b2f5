"""The direct way: a small POST under hub.url with a remembered token is answered in plain calls.

http/protocol.py hands over a request whose body is complete. `HubApi.answer` runs at once, as far as the commit. The same function
goes on within the store's call when the commit is written (waiter.py). So there is no task, no ASGI message, and no future.

A request that waits for anything else goes on in a task. Code before that moment must not need a task, as asyncio.timeout does.
All other requests take the way of ASGI, through the same `HubApi.answer`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from fhircast_hub.budgets.meter import MeteredCoroutine
from fhircast_hub.budgets.table import BIG_ANSWER
from fhircast_hub.budgets.turns import turn_key
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import HubError, Unauthenticated
from fhircast_hub.http.errors import refuse, stopping
from fhircast_hub.http.hub import HubApi
from fhircast_hub.http.rate_limit import Rates
from fhircast_hub.http.request import Headers, Message, Request, Response, bearer_token, closes, headers_of
from fhircast_hub.http.request_log import RequestLog
from fhircast_hub.service.ports import TokenVerifier
from fhircast_hub.service.request_id import REQUEST_ID
from fhircast_hub.waiter import Waiter

HeaderList = list[tuple[bytes, bytes]]
_log = structlog.get_logger()


class Connection(Protocol):
    """A connection of the server, as the direct way sees it: an `HttpProtocol` (http/protocol.py)."""

    #: Address and port of the other end.
    client: tuple[str, int] | None
    server_state: ServerState

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in a task, for which the server waits when it stops."""
        ...

    def cut(self) -> None:
        """End the connection without an answer."""
        ...

    def write_answer(self, answer: bytes, *, keep_alive: bool) -> None:
        """Write a whole answer. The connection is free for the next request then, or closes."""
        ...


class DirectWay:
    """Answers the requests of all connections. `address_of(peer, headers)` is the client's address."""

    def __init__(
        self,
        api: HubApi,
        verifier: TokenVerifier,
        request_log: RequestLog,
        rates: Rates,
        is_hub: Callable[[str], bool],
        address_of: Callable[[str, Iterable[tuple[bytes, bytes]]], str],
    ) -> None:
        self._api, self._rates = api, rates
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

    def waits_for_body(self, headers: HeaderList) -> bool:
        """Whether the body of a request is waited for. ASGI refuses a token of no use before the body (AUT-1, AUT-21)."""
        principal = self.recall(headers)
        if principal is None:
            return False
        try:
            self._api.service.check_scoped(principal)
        except HubError:
            return False
        return True

    def request(
        self, client: tuple[str, int] | None, path: bytes, headers: HeaderList, body: bytes, principal: Principal
    ) -> Request:
        """A POST begins. `client` is address and port of the connection's other end."""
        exchange = self.request_log.begin(self._address_of(client[0], headers) if client else "", headers)
        return Request("POST", path, Headers(headers), exchange, body, _no_more, principal)

    async def answer(self, request: Request) -> Response:
        """The answer to a request. Raises nothing."""
        return self._rates.refuse(request.exchange, request.headers) or await self._api.answer(request)

    def refuse(self, method: str, error: HubError, default_headers: HeaderList) -> bytes:
        """The whole answer to a request that was not read, whose line in the log tells the same. The connection closes afterwards.

        `method`: "" where the parser has read none.
        """
        exchange = self.request_log.begin("", ())
        response = refuse(error, exchange, Headers(()))
        self.request_log.end(exchange, method, response.status)
        REQUEST_ID.set(None)  # as after every answer of this way
        return self.head(response, exchange.request_id, default_headers, keep_alive=False) + response.body

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

    __slots__ = (
        "_connection",
        "_exchange",
        "_headers",
        "_steps",
        "_way",
        "disconnected",
        "keep_alive",
        "response_complete",
        "user",
    )

    # uvicorn asks each cycle for these. The body has come whole, and nobody waits for more.
    more_body = False
    message_event = asyncio.Event()

    def __init__(
        self, way: DirectWay, connection: Connection, request: Request, principal: Principal, *, keep_alive: bool
    ) -> None:
        self._way, self._connection, self._exchange = way, connection, request.exchange
        self._steps, self._headers = way.answer(request), request.headers
        #: The turn's key of the request's user.
        self.user = turn_key(principal, connection)
        self.keep_alive = keep_alive
        self.response_complete = False
        #: uvicorn sets this when the connection is lost.
        self.disconnected = False

    def begin(self) -> None:
        """Make the first step, within the connection's step that has read the request."""
        self._step(within_step=True)
        REQUEST_ID.set(None)  # the connection goes on in this context

    def _go_on(self) -> None:
        """Make the next step: the wait is over."""
        REQUEST_ID.set(self._exchange.request_id)
        self._step(within_step=False)

    def _step(self, *, within_step: bool) -> None:
        began, meter = time.perf_counter(), self._exchange.meter
        try:
            waits_for = self._steps.send(None)
        except StopIteration as end:
            self._answer(end.value)
        else:
            if isinstance(waits_for, Waiter):
                waits_for.then = self._go_on
            else:
                self._connection.spawn(self._finish(waits_for))
        finally:
            meter.add(time.perf_counter() - began, within_step=within_step)

    async def _finish(self, waits_for: object) -> None:
        """Make the other steps in a task."""
        try:
            self._answer(await MeteredCoroutine(self._steps, self._exchange.meter, waits_for))
        finally:
            if not self.response_complete:  # the server stops, and has cancelled the task
                self._answer(refuse(stopping(), self._exchange, self._headers))

    def _answer(self, response: Response) -> None:
        """Write the answer and its lines. An accepted event leaves an audit entry, also where the client is gone (AUD-1)."""
        assert len(response.body) <= BIG_ANSWER  # so the account counts no big answer
        self.keep_alive = self.keep_alive and not closes(response)
        self.response_complete = True
        del self._steps, self._headers  # the connection keeps this object, and shall keep no body
        try:
            try:
                self._write(response)
            finally:
                self._way.request_log.end(self._exchange, "POST", response.status)
        except Exception as error:  # else uvicorn would answer again
            _log.error("request failed", request_id=self._exchange.request_id, exc_info=error)
            self._connection.cut()

    def _write(self, response: Response) -> None:
        if not self.disconnected:
            headers = self._connection.server_state.default_headers
            head = self._way.head(response, self._exchange.request_id, headers, self.keep_alive)
            self._connection.write_answer(head + response.body, keep_alive=self.keep_alive)


def _lines(headers: HeaderList) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


async def _no_more() -> Message:
    """The `receive` of a request whose body is there."""
    return {"type": "http.disconnect"}
