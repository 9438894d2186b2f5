"""Parsing of HTTP/1.1, and the refusal of what is none."""

from __future__ import annotations

from typing import Any

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fhircast_hub.core.errors import BadRequest, HubError
from fhircast_hub.http.connections import HttpContext

_log = structlog.get_logger()


class Parsing(HttpToolsProtocol):
    """uvicorn's protocol, whose malformed requests have an id and a line in the log as all other requests have (OPS-2).

    An upgrade to another protocol than WebSocket is ignored, and its request is answered: "A server MAY ignore a received
    Upgrade header field" (RFC 9110 section 7.8). Java's client sends `Upgrade: h2c` with each request.
    """

    def __init__(self, context: HttpContext, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._context = context
        #: Whether nothing is parsed any more.
        self._ended = False
        #: The reason of a 400, where the parser's own reason says too little.
        self._refusal = ""
        self.url = b""
        #: Whether the present request is parsed again, without its upgrade.
        self._again = False
        #: Whether the parser has bytes at present.
        self._parses = False
        #: What begins when the parser has no more bytes, unless the connection has ended by then.
        self._to_begin: list[tuple[RequestResponseCycle, ASGI3Application]] = []

    def _parse(self, data: bytes) -> None:
        """As uvicorn does. A malformed request is refused with a log line of its own, in place of uvicorn's."""
        self._unset_keepalive_if_required()
        self._parses = True
        while data and not self._ended:
            data = self._parse_on(data)
        self._parses = False
        waiting, self._to_begin = self._to_begin, []
        for cycle, app in () if self._ended else waiting:
            self._start_asgi_task(cycle, app)

    def _parse_on(self, data: bytes) -> bytes:
        """Returns what another parser must read: a request without the upgrade that ended this parser, and all behind it."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._again:
                self._again = False
                head = self._head_without_upgrade()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
                return head + data[upgrade.args[0] :]
            self.handle_websocket_upgrade()
        except httptools.HttpParserError as error:
            self._refuse(BadRequest(self._refusal) if self._refusal else _malformed(error))
        return b""

    def _ignores_upgrade(self) -> bool:
        """Whether the request whose headers are complete must be parsed again. Makes the parser fail for CONNECT."""
        if not self.parser.should_upgrade():
            return False
        self._refuse_if("the method must not be CONNECT: the hub is no proxy" if self._method() == "CONNECT" else "")
        self._again = not self._should_upgrade()
        return self._again

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self._method().encode(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join((*lines, b"", b""))

    def _method(self) -> str:
        return self.parser.get_method().decode()

    def _refuse(self, error: HubError) -> None:
        """Answer, and close. So a connection has one line of a malformed request at most."""
        if not self._may_answer():
            self.cut()  # the answer would be taken for that of an earlier request
            return
        self._ended = True
        method = self._method() if self.url else ""
        self.transport.write(self._context.direct.refuse(method, error, self.server_state.default_headers))
        self.transport.close()

    def _may_answer(self) -> bool:
        """Whether an answer can be taken for the answer to the malformed request alone, and this request does nothing."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn begins with None
        if cycle is None:
            return True
        if self.pipeline or cycle.response_complete == cycle.more_body:
            return False  # a request before is unanswered, or the malformed part is the body of an answered one
        if cycle.response_complete:
            return True
        if self._to_begin:  # has not begun, and never will
            return True
        # Requests that change something by POST wait for their body, and do nothing without.
        return cycle.scope["method"] == "POST" and not cycle.response_started

    def cut(self) -> None:
        """Cut the connection."""
        raise NotImplementedError

    def _refuse_if(self, reason: str) -> None:
        """Make the parser fail, and the hub answer 400 with this reason. "": there is none."""
        if reason:
            self._refusal = reason
            raise ValueError(reason)


def _malformed(error: httptools.HttpParserError) -> HubError:
    """Why the parser refuses a request, in words of the parser. They quote nothing of the request."""
    if isinstance(error, httptools.HttpParserCallbackError):
        if isinstance(error.__context__, httptools.HttpParserInvalidURLError):  # its text quotes the URL
            return BadRequest("the request is malformed: Invalid URL")
        _log.error("request failed", exc_info=error.__context__)
        return HubError("the hub failed to read the request; its log says where")
    return BadRequest(f"the request is malformed: {error}")
