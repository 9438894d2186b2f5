"""HTTP to callbacks: guarded addresses, no redirects, no proxies, bounded time and memory."""

from __future__ import annotations

import asyncio
import itertools
import re
import ssl
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import httpcore
import httpx

from fhircast_hub.webhook.address_guard import Guard, GuardedBackend
from fhircast_hub.webhook.shares import NOBODY, User

#: Bytes of an answer that are read: a challenge takes fifty.
MAX_ANSWER = 4096
#: Seconds to connect to a callback.
CONNECT_SECONDS = 3.0
#: Seconds for which a connection is kept for reuse, and callbacks that have one beside those at work.
KEPT_SECONDS, KEPT_CALLBACKS = 30.0, 1024


class Answer(NamedTuple):
    """What a callback answered; `status` 0 where nothing came in time. `retry_after` is in seconds, None where not said."""

    status: int
    body: bytes = b""
    retry_after: float | None = None


#: No answer.
NONE = Answer(0)


class Client:
    """Sends requests to callbacks. `http2` needs the package h2.

    Each callback of each user has connections of its own: one pool for all would look through all of them at each request.
    """

    def __init__(self, guard: Guard, *, http2: bool) -> None:
        self._guard = guard
        self._http2 = http2
        self._tls: ssl.SSLContext | None = None
        self._pools: OrderedDict[tuple[User, str], tuple[httpcore.AsyncConnectionPool, float]] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    async def request(
        self,
        method: str,
        url: str,
        seconds: float,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        user: User = NOBODY,
    ) -> Answer:
        """One attempt for `user`, of at most so many seconds. Raises ForbiddenAddress; all else that can go wrong is no answer."""
        limits = {"connect": min(CONNECT_SECONDS, seconds), "read": seconds, "write": seconds, "pool": seconds}
        status, retry_after = 0, None
        try:
            target, authority = _target(url)
            given = [("Host", authority), ("User-Agent", "fhircast-hub"), *(headers or {}).items()]
            async with (
                asyncio.timeout(seconds),
                self._pool(user, url.partition("?")[0]).stream(
                    method, target, headers=given, content=body, extensions={"timeout": limits}
                ) as response,
            ):
                status, retry_after = response.status, _retry_after(response)
                return Answer(status, await _start(response), retry_after)
        except (TimeoutError, OSError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
            return Answer(status, b"", retry_after)  # a status that came counts, whatever became of its body
        except (ValueError, httpcore.UnsupportedProtocol):
            return NONE

    async def aclose(self) -> None:
        """Close all connections."""
        for pool, _ in self._pools.values():
            await pool.aclose()

    def _pool(self, user: User, callback: str) -> httpcore.AsyncConnectionPool:
        now = time.monotonic()
        self._forget(now)
        pool, _ = self._pools.pop((user, callback), (None, now))
        if pool is None:
            secure = callback[:6].lower() == "https:"
            pool = httpcore.AsyncConnectionPool(
                ssl_context=self._context() if secure else None,
                max_keepalive_connections=1,
                keepalive_expiry=KEPT_SECONDS,
                http2=self._http2,
                network_backend=GuardedBackend(self._guard, secure=secure, user=user),
            )
        self._pools[user, callback] = pool, now
        return pool

    def _context(self) -> ssl.SSLContext:
        """Whose certificates count, which takes a tenth of a second to read: once for all connections.

        As for issuers, SSL_CERT_FILE and SSL_CERT_DIR name those of a hospital's own authority.
        """
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        return self._tls

    def _forget(self, now: float) -> None:
        """Let pools go that are not in use: those that were not used for a while, and of too many the oldest of who has the most."""
        first = itertools.islice(self._pools.items(), 4)
        old = [key for key, (pool, at) in first if now - at > KEPT_SECONDS and _is_idle(pool)]
        if len(self._pools) > KEPT_CALLBACKS:
            ((most, _),) = Counter(user for user, _ in self._pools).most_common(1)
            theirs = (key for key, (pool, _) in self._pools.items() if key[0] == most and _is_idle(pool))
            old += itertools.islice((key for key in theirs if key not in old), 1)
        for key in old:
            pool, _ = self._pools.pop(key)
            task = asyncio.get_running_loop().create_task(pool.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _is_idle(pool: httpcore.AsyncConnectionPool) -> bool:
    return all(connection.is_idle() for connection in pool.connections)


def _target(url: str) -> tuple[httpcore.URL, str]:
    """A callback's URL, its path and query byte for byte; and its authority, for Host."""
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    target = rest[len(authority) :]
    parts = urlsplit(f"{scheme}://{authority}")
    path = target if target.startswith("/") else f"/{target}"
    return (
        httpcore.URL(
            scheme=scheme.lower().encode(), host=(parts.hostname or "").encode(), port=parts.port, target=path.encode()
        ),
        authority.lower(),
    )


async def _start(response: httpcore.Response) -> bytes:
    """The body of an answer; nothing of one that is too long, and its connection is not used again."""
    start = b""
    async for chunk in response.aiter_stream():
        start += chunk
        if len(start) > MAX_ANSWER:
            return b""
    return start


def _retry_after(response: httpcore.Response) -> float | None:
    """Retry-After in seconds: "HTTP-date / delay-seconds" (RFC 9110 section 10.2.3); None where it is neither."""
    for name, value in response.headers:
        if name.lower() == b"retry-after":
            if value.isdigit() and len(value) < 9:
                return float(value)
            try:
                return max(0.0, parsedate_to_datetime(value.decode("latin-1")).timestamp() - time.time())
            except (ValueError, OverflowError):
                return None
    return None
