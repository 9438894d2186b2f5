"""HTTP to callbacks: guarded addresses, no redirects, no proxies, bounded time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import httpcore

from fhircast_hub.webhook.guard import ForbiddenAddress, Guard, GuardedBackend

#: Bytes of an answer that are read: a challenge takes fifty.
MAX_ANSWER = 4096
#: Seconds to connect to a callback.
CONNECT_SECONDS = 3.0
#: Connections that are kept for reuse, of each scheme, and for how many seconds.
KEPT, KEPT_SECONDS = 256, 30.0


class Answer(NamedTuple):
    """What a callback answered; `status` 0 where nothing came in time. `retry_after` is in seconds, None where not said."""

    status: int
    body: bytes = b""
    retry_after: float | None = None


#: No answer.
NONE = Answer(0)


class Client:
    """Sends requests to callbacks. `http2` needs the package h2."""

    def __init__(self, guard: Guard, *, http2: bool) -> None:
        self._pools = {
            scheme: httpcore.AsyncConnectionPool(
                max_connections=None,
                max_keepalive_connections=KEPT,
                keepalive_expiry=KEPT_SECONDS,
                http2=http2,
                network_backend=GuardedBackend(guard, secure=scheme == b"https"),
            )
            for scheme in (b"http", b"https")
        }

    async def request(
        self, method: str, url: str, seconds: float, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One attempt, of at most so many seconds. Raises ForbiddenAddress; all else that can go wrong is no answer."""
        limits = {"connect": min(CONNECT_SECONDS, seconds), "read": seconds, "write": seconds, "pool": seconds}
        given = [("User-Agent", "fhircast-hub"), *(headers or {}).items()]
        try:
            target = httpcore.URL(url)
            async with (
                asyncio.timeout(seconds),
                self._pools[target.scheme].stream(
                    method, target, headers=given, content=body, extensions={"timeout": limits}
                ) as response,
            ):
                return Answer(response.status, await _start(response), _retry_after(response))
        except ForbiddenAddress:
            raise
        except (TimeoutError, OSError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
            return NONE
        except (ValueError, httpcore.UnsupportedProtocol):
            return NONE

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()


async def _start(response: httpcore.Response) -> bytes:
    """The first bytes of an answer: more than that is not read, and its connection not used again."""
    start = b""
    async for chunk in response.aiter_stream():
        start += chunk
        if len(start) > MAX_ANSWER:
            break
    return start[:MAX_ANSWER]


def _retry_after(response: httpcore.Response) -> float | None:
    """Retry-After in seconds; a date is not worth the parsing when all is over within ACK_TIMEOUT."""
    for name, value in response.headers:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 9:
            return float(value)
    return None
