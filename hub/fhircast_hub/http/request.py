"""Requests and responses under hub.url. Starlette's stay for the root (http/root.py).

An event's way in must be short: Starlette's Request and Response would add about a dozen calls to each event. The hub
answers a request by one function from Request to Response, and each server needs a thin adapter around that function.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from fhircast_hub.budgets.accounts import Account
from fhircast_hub.budgets.table import BIG_ANSWER, BODY_SECONDS
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import BadRequest, RequestTimeout, TooLarge, TooMany, Unauthenticated
from fhircast_hub.http.exchange import Exchange

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: A refused body is still read, up to these bytes and seconds, and dropped. A client never reads the answer if the
#: connection ends while the client still sends.
_DRAIN_BYTES, _DRAIN_SECONDS = 64 << 20, 5.0


class Response(NamedTuple):
    """An answer, and an ASGI application: Starlette's exception handlers can return a Response of ours."""

    status: int
    body: bytes = b""
    #: b"": no Content-Type
    media_type: bytes = b""
    headers: Iterable[tuple[bytes, bytes]] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.all_headers()})
        await send({"type": "http.response.body", "body": self.body})

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers with Content-Length and Content-Type."""
        headers = [(b"content-length", b"%d" % len(self.body)), *self.headers]
        if self.media_type:
            headers.append((b"content-type", self.media_type))
        return headers


class Request(NamedTuple):
    """One request under hub.url."""

    method: str
    #: The whole path, not decoded.
    path: bytes
    headers: Headers
    exchange: Exchange
    #: The whole body. None: `receive` brings the body.
    body: bytes | None
    receive: Receive
    #: The bearer of a remembered token that is valid. None: the token is to be verified.
    principal: Principal | None = None


class ClientGone(Exception):
    """The client disconnected before the end of its body."""


class Headers:
    """A request's headers by lower-case name. Starlette's class is slower: a missing header costs an exception."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def get(self, name: bytes) -> str:
        """The first value. "" without the header."""
        for key, value in self._raw:
            if key == name:
                return value.decode("latin-1")
        return ""

    def count(self, name: bytes) -> int:
        """How many times the client sent the header."""
        return sum(key == name for key, _ in self._raw)


def media_type(headers: Headers) -> str:
    """The Content-Type in lower case, without its parameters. "" without the header."""
    return headers.get(b"content-type").partition(";")[0].strip().lower()


def bearer_token(headers: Headers) -> str:
    """The token of the Authorization header. No other place counts (AUT-2). Raises Unauthenticated without a token."""
    authorization = headers.get(b"authorization")
    if not authorization:
        raise Unauthenticated("the header Authorization is required: Bearer and a token", has_token=False)
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("the header Authorization must be Bearer and a token", has_token=False)
    if headers.count(b"authorization") > 1:
        raise Unauthenticated("a request may have one header Authorization, not several")
    return token.strip()


def topics_in(path: bytes) -> tuple[str, ...]:
    """The topics that a path may name, the most likely first. Empty without a topic. Raises BadRequest for other than UTF-8.

    `path` is the part after hub.url, not decoded. Each topic is decoded once (EVT-3). Empty segments at the ends name
    nothing (GET-10). But a topic may begin or end with a slash, such as a URL that the client did not escape.
    """
    topic = path.strip(b"/")
    if not topic:
        return ()
    readings = (topic,) if path[1:] == topic else (topic, path.lstrip(b"/"), path[1:].rstrip(b"/"), path[1:])
    try:
        return tuple(dict.fromkeys(unquote_to_bytes(each).decode() for each in readings))
    except UnicodeDecodeError:
        raise BadRequest("the path must be UTF-8 after percent-decoding") from None


async def read_body(headers: Headers, receive: Receive, limit: int, account: Account) -> bytes:
    """Read the request's body. Its bytes are added to `account.bodies`; the caller subtracts them at the end.

    Raises TooLarge above `limit` bytes, as soon as the size is known (EVT-7), RequestTimeout after BODY_SECONDS, TooMany if
    the account's bodies are too many bytes, and ClientGone. After an error no bytes are kept.
    """
    declared = headers.get(b"content-length")
    if declared.isdigit() and int(declared) > limit:
        if not headers.get(b"expect"):
            await _drain(receive)
        raise _too_large(limit)
    try:
        async with asyncio.timeout(BODY_SECONDS.most):
            return await _read(receive, limit, account)
    except TimeoutError:
        raise RequestTimeout(f"the body must end within {BODY_SECONDS.most} seconds") from None


def take_body(body: bytes, limit: int, account: Account) -> bytes:
    """As `read_body`, of a body that is there. Raises TooLarge or TooMany."""
    if len(body) > limit:
        raise _too_large(limit)
    account.add_body(len(body))
    return body


async def _read(receive: Receive, limit: int, account: Account) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    try:
        while more:
            message = await _next(receive)
            part = message.get("body", b"")
            more = message.get("more_body", False)
            try:
                if size + len(part) > limit:
                    raise _too_large(limit)
                account.add_body(len(part))
            except (TooLarge, TooMany):
                account.bodies -= size
                size = 0
                parts.clear()
                if more:
                    await _drain(receive)
                raise
            size += len(part)
            parts.append(part)
    except BaseException:
        account.bodies -= size
        raise
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _next(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


async def _drain(receive: Receive) -> None:
    left = _DRAIN_BYTES
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                message = await _next(receive)
                left -= len(message.get("body", b""))
                if not message.get("more_body"):
                    return
    except TimeoutError:
        pass


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body may have at most {limit} bytes")


def headers_of(response: Response) -> list[tuple[bytes, bytes]]:
    """The headers of an answer of hub.url. No cache may keep the answer (GET-9)."""
    headers = response.all_headers()
    headers.append((b"cache-control", b"no-store"))
    if closes(response):
        headers.append((b"connection", b"close"))
    return headers


def closes(response: Response) -> bool:
    """Whether the connection closes after this answer: the client may send the rest of a body that nobody reads."""
    return response.status in (RequestTimeout.status, TooLarge.status)


async def respond(send: Send, response: Response) -> None:
    """Send an answer of hub.url."""
    await send({"type": "http.response.start", "status": response.status, "headers": headers_of(response)})
    body, start = response.body, 0
    while len(body) - start > BIG_ANSWER:
        await send({"type": "http.response.body", "body": body[start : start + BIG_ANSWER], "more_body": True})
        await asyncio.sleep(0)  # other requests run now
        start += BIG_ANSWER
    await send({"type": "http.response.body", "body": body[start:]})
