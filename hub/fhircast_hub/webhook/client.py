"""HTTP to callbacks: guarded addresses, no redirects, no proxies, bounded time and memory."""

from __future__ import annotations

import asyncio
import itertools
import re
import ssl
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import httpcore
import httpx

from fhircast_hub.webhook.address_guard import Guard, GuardedBackend
from fhircast_hub.webhook.fair_slots import NOBODY, User

#: Bytes of an answer's body; a longer body counts as empty. A challenge has fifty.
MAX_ANSWER = 4096
#: Seconds to connect to a callback.
CONNECT_SECONDS = 3.0
#: Seconds for which an idle connection is kept.
KEPT_SECONDS = 30.0
#: Callbacks with a connection pool. Beyond it, idle pools are closed.
KEPT_CALLBACKS = 1024


class Answer(NamedTuple):
    """The answer of a callback."""

    #: The HTTP status; 0: none came in time.
    status: int
    body: bytes = b""
    #: Seconds, from the header Retry-After. None: not given.
    retry_after: float | None = None


NO_ANSWER = Answer(0)


class Client:
    """Sends requests to callbacks. `http2` needs the package h2.

    `certificates` returns the trusted ones, or raises httpx.ConnectError. The first connection to an https callback calls it.

    Each callback of each user has a pool of its own: httpcore searches all connections of a pool at each request.
    """

    def __init__(self, guard: Guard, certificates: Callable[[], ssl.SSLContext], *, http2: bool) -> None:
        self._guard = guard
        self._certificates = certificates
        self._http2 = http2
        #: User and callback -> the pool, and when it was last used. The pool used longest ago comes first.
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
        """Make one attempt for `user`, of at most `seconds`. Raises ForbiddenAddress; any other failure is NO_ANSWER."""
        limits = {"connect": min(CONNECT_SECONDS, seconds), "read": seconds, "write": seconds, "pool": seconds}
        status, retry_after = 0, None
        try:
            target, authority = _target(url)
            sent = [("Host", authority), ("User-Agent", "fhircast-hub"), *(headers or {}).items()]
            async with (
                asyncio.timeout(seconds),
                self._pool(user, url.partition("?")[0]).stream(
                    method, target, headers=sent, content=body, extensions={"timeout": limits}
                ) as response,
            ):
                status, retry_after = response.status, _retry_after(response)
                return Answer(status, await _body(response), retry_after)
        except (TimeoutError, OSError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
            return Answer(status, b"", retry_after)  # a status counts, even if its body did not come
        except (ValueError, httpcore.UnsupportedProtocol, httpx.ConnectError):
            return NO_ANSWER

    async def aclose(self) -> None:
        """Close all connections."""
        for pool, _ in self._pools.values():
            await pool.aclose()

    def _pool(self, user: User, callback: str) -> httpcore.AsyncConnectionPool:
        now = time.monotonic()
        self._close_idle_pools(now)
        pool, _ = self._pools.pop((user, callback), (None, now))
        if pool is None:
            secure = callback[:6].lower() == "https:"
            pool = httpcore.AsyncConnectionPool(
                ssl_context=self._certificates() if secure else None,
                max_keepalive_connections=1,
                keepalive_expiry=KEPT_SECONDS,
                http2=self._http2,
                network_backend=GuardedBackend(self._guard, secure=secure, user=user),
            )
        self._pools[user, callback] = pool, now
        return pool

    def _close_idle_pools(self, now: float) -> None:
        """Close expired pools among the first four. If there are too many, also the oldest of the user with the most."""
        first = itertools.islice(self._pools.items(), 4)
        closed = [key for key, (pool, used_at) in first if now - used_at > KEPT_SECONDS and _is_idle(pool)]
        if len(self._pools) > KEPT_CALLBACKS:
            ((most, _),) = Counter(user for user, _ in self._pools).most_common(1)
            idle = (key for key, (pool, _) in self._pools.items() if key[0] == most and _is_idle(pool))
            closed += itertools.islice((key for key in idle if key not in closed), 1)
        for key in closed:
            pool, _ = self._pools.pop(key)
            task = asyncio.get_running_loop().create_task(pool.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _is_idle(pool: httpcore.AsyncConnectionPool) -> bool:
    return all(connection.is_idle() for connection in pool.connections)


def _target(url: str) -> tuple[httpcore.URL, str]:
    """The URL of a callback, with path and query byte for byte; and its authority, for Host."""
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


async def _body(response: httpcore.Response) -> bytes:
    """The body of an answer; empty if it is too long. Then the connection is not used again."""
    body = b""
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > MAX_ANSWER:
            return b""
    return body


def _retry_after(response: httpcore.Response) -> float | None:
    """Retry-After in seconds: "HTTP-date / delay-seconds" (RFC 9110 section 10.2.3). None: neither of these."""
    for name, value in response.headers:
        if name.lower() == b"retry-after":
            if value.isdigit() and len(value) < 9:
                return float(value)
            try:
                return max(0.0, parsedate_to_datetime(value.decode("latin-1")).timestamp() - time.time())
            except (ValueError, OverflowError):
                return None
    return None
