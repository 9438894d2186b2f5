"""Rate limits (RAT-1): so many requests a minute of one token, and of one address.

A bucket that fills evenly: a burst of a minute's worth is taken, and then as many as the rate says.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import blake2b

from fhircast_hub.audit.event import Act
from fhircast_hub.core.errors import TooMany
from fhircast_hub.edge.client_addresses import address_key
from fhircast_hub.http.errors import to_response
from fhircast_hub.http.request import Headers, Receive, Scope, Send, respond
from fhircast_hub.http.request_log import AUDIT_FIELDS, LOG_FIELDS
from fhircast_hub.service.ports import Clock

#: Buckets held at a time, of tokens and addresses each; the one not used for longest goes, and is full when it comes back.
MAX_BUCKETS = 100_000
_MINUTE = 60.0
#: How base64 of a text that begins with { begins.
_BRACE = ("ew", "ex", "ey", "ez")


class Buckets:
    """One bucket for each name, of `rate` requests a minute."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def take(self, name: bytes, now: float) -> float:
        """Take one request of the bucket: 0, or the seconds until there will be one again."""
        left, at = self._buckets.pop(name, (float(self._rate), now))
        left = min(self._rate, left + max(0.0, now - at) * self._rate / _MINUTE)
        wait = 0.0 if left >= 1 else (1 - left) * _MINUTE / self._rate
        self._buckets[name] = (left if wait else left - 1), now
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return wait


class Rates:
    """What each token and address may send, and has; a rate of 0 is none.

    `is_system` says of a token whether it is a known one of a system client, which acts for everybody: only its address has a limit.
    """

    def __init__(
        self, per_token: int, per_address: int, clock: Clock, is_system: Callable[[str], bool] = lambda token: False
    ) -> None:
        self._is_system = is_system
        self._tokens = Buckets(per_token) if per_token else None
        self._addresses = Buckets(per_address) if per_address else None
        self._clock = clock

    def wait(self, scope: Scope, headers: Headers) -> float:
        """0 for a request that may pass; else the seconds until one may."""
        now = self._clock()
        client = scope.get("client")
        if client and (wait := self.wait_at(str(client[0]))):
            return wait
        if self._tokens and (token := headers.get(b"authorization")):
            # Held as a digest: raw tokens are kept nowhere.
            wait = self._tokens.take(blake2b(_bearer(token), digest_size=16).digest(), now)
            return wait if wait and not self._is_system(token.partition(" ")[2].strip()) else 0.0
        return 0.0

    def wait_at(self, address: str) -> float:
        """0 for a request from this address that may pass; else the seconds until one may."""
        return self._addresses.take(address_key(address), self._clock()) if self._addresses else 0.0


class RateLimit:
    """An ASGI application around another."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], rates: Rates) -> None:
        self._app = app
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope["headers"])
        wait = self._rates.wait(scope, headers)
        if not wait:
            await self._app(scope, receive, send)
            return
        error = TooMany("more requests came than one may send", retry_after=math.ceil(wait))
        scope[LOG_FIELDS]["reason"] = type(error).__name__
        scope[AUDIT_FIELDS].act = Act.OTHER
        await respond(send, to_response(error, headers))


def _bearer(authorization: str) -> bytes:
    """What counts as one token, however scheme and spaces are written: of a JWT what is signed, for signatures can be spelt anew."""
    token = authorization.partition(" ")[2].strip()
    signed = token.rpartition(".")[0]
    is_jwt = token[:2] in _BRACE and signed.count(".") == 1
    return (signed if is_jwt else token).encode(errors="replace")
