"""Requests and responses over ASGI, as little of it as the hub's paths need: an event's way in must be short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from fhircast_hub.budgets.accounts import Account
from fhircast_hub.budgets.table import BIG_ANSWER, BODY_SECONDS
from fhircast_hub.core.errors import BadRequest, RequestTimeout, TooLarge, TooMany, Unauthenticated

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: Bytes and seconds that a body that is refused is still read for, and thrown away: a client that is cut off while it sends
#: never sees why.
_DRAIN_BYTES, _DRAIN_SECONDS = 64 << 20, 5.0


class Response(NamedTuple):
    """What goes back."""

    status: int
    body: bytes = b""
    media_type: bytes = b""
    headers: Iterable[tuple[bytes, bytes]] = ()


class ClientGone(Exception):
    """The client went away while it was sending."""


class Headers:
    """A request's headers by lower-case name, as ASGI gives them."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def get(self, name: bytes) -> str:
        """The first value, "" without one."""
        for key, value in self._raw:
            if key == name:
                return value.decode("latin-1")
        return ""

    def count(self, name: bytes) -> int:
        """How many times the header was sent."""
        return sum(key == name for key, _ in self._raw)


def media_type(headers: Headers) -> str:
    """The Content-Type in lower case, without its parameters; "" without one."""
    return headers.get(b"content-type").partition(";")[0].strip().lower()


def bearer_token(headers: Headers) -> str:
    """The token of the Authorization header, the only place that counts (AUT-2). Raises Unauthenticated without one."""
    authorization = headers.get(b"authorization")
    if not authorization:
        raise Unauthenticated("expected a header Authorization: Bearer with a token, got none", presented=False)
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated(
            "expected a header Authorization: Bearer with a token, got another scheme", presented=False
        )
    if headers.count(b"authorization") > 1:
        raise Unauthenticated("expected one header Authorization, got several")
    return token.strip()


def topics_in(rest: bytes) -> tuple[str, ...]:
    """The topics that a path may name, the likeliest first; none where it names none. Raises BadRequest for bytes that are no UTF-8.

    `rest` is what stands behind hub.url, as it came; it is decoded once (EVT-3). Empty segments at its ends name nothing
    (GET-10). But a topic may itself begin or end with a slash, such as a URL that its client did not escape.
    """
    topic = rest.strip(b"/")
    if not topic:
        return ()
    readings = (topic,) if rest[1:] == topic else (topic, rest.lstrip(b"/"), rest[1:].rstrip(b"/"), rest[1:])
    try:
        return tuple(dict.fromkeys(unquote_to_bytes(each).decode() for each in readings))
    except UnicodeDecodeError:
        raise BadRequest("the path: expected UTF-8 after percent-decoding, got something else") from None


async def read_body(headers: Headers, receive: Receive, limit: int, account: Account) -> bytes:
    """The request's body. Raises TooLarge as soon as it is known to be over `limit` bytes, and keeps none of it (EVT-7).

    `account` is charged for it as it comes, and is to be given it back: `account.bodies -= len(body)`. Raises RequestTimeout when it
    takes longer than BODY_SECONDS, and TooMany where the account's bodies are too many bytes.
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
        raise RequestTimeout(f"the body: expected it within {BODY_SECONDS.most} seconds, and it did not end") from None


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
                    await _drain(receive)  # a client that is cut off while it sends never sees why
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
    return TooLarge(f"the body: expected at most {limit} bytes, got more")


async def respond(send: Send, response: Response) -> None:
    """Send the response. Nothing the hub says may be kept by a cache (GET-9)."""
    headers = [
        (b"content-length", b"%d" % len(response.body)),
        (b"cache-control", b"no-store"),
        *response.headers,
    ]
    if response.media_type:
        headers.append((b"content-type", response.media_type))
    if response.status in (RequestTimeout.status, TooLarge.status):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    body, start = response.body, 0
    while len(body) - start > BIG_ANSWER:
        await send({"type": "http.response.body", "body": body[start : start + BIG_ANSWER], "more_body": True})
        await asyncio.sleep(0)  # others have their turn
        start += BIG_ANSWER
    await send({"type": "http.response.body", "body": body[start:]})
