"""Rate limits of one token and of one address (RAT-1), in requests a minute.

A burst of one minute's requests is accepted at once. After the burst the bucket refills evenly.
budgets/table.py has all other limits.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from hashlib import blake2b

from fhircast_hub.audit.event import Act
from fhircast_hub.budgets.leaky_bucket import LeakyBuckets
from fhircast_hub.core.errors import TooMany
from fhircast_hub.edge.client_addresses import address_key
from fhircast_hub.http.errors import refuse
from fhircast_hub.http.exchange import Exchange, exchange_of
from fhircast_hub.http.request import Headers, Receive, Response, Scope, Send, respond
from fhircast_hub.service.ports import Clock

_MINUTE = 60.0
#: The first two characters of a JWT: base64 of a text that begins with {.
_JWT_STARTS = ("ew", "ex", "ey", "ez")


def per_minute(requests: int) -> LeakyBuckets:
    """A bucket for each name: `requests` at once, then as many a minute."""
    return LeakyBuckets(requests, requests / _MINUTE)


class Rates:
    """The limits of tokens and addresses.

    A known token of a system client has no limit, because a system client acts for all users. Its address has one.
    """

    def __init__(
        self, per_token: int, per_address: int, clock: Clock, is_system: Callable[[str], bool] = lambda token: False
    ) -> None:
        #: Requests a minute. 0: no limit.
        self.per_token, self.per_address = per_token, per_address
        self._is_system = is_system
        self._tokens = per_minute(per_token) if per_token else None
        self._addresses = per_minute(per_address) if per_address else None
        self._clock = clock

    def wait(self, address: str, headers: Headers) -> float:
        """0: the request is within the limits. Otherwise the seconds until a request is. `address` may be "": no client is known."""
        if address and (wait := self.wait_at(address)):
            return wait
        if self._tokens and (token := headers.get(b"authorization")):
            # The bucket's name is a digest: raw tokens are kept nowhere.
            wait = self._tokens.take(blake2b(_token_identity(token), digest_size=16).digest(), self._clock())
            return wait if wait and not self._is_system(token.partition(" ")[2].strip()) else 0.0
        return 0.0

    def wait_at(self, address: str) -> float:
        """0: a request from this address is within the limit. Otherwise the seconds until a request is."""
        return self._addresses.take(address_key(address), self._clock()) if self._addresses else 0.0

    def near(self, part: float, most: int) -> tuple[int, int]:
        """How many tokens and addresses have used this part of their limit or more, of the `most` that came last."""
        tokens, addresses = (
            each.near(part, self._clock(), most) if each else 0 for each in (self._tokens, self._addresses)
        )
        return tokens, addresses

    def refuse(self, exchange: Exchange, headers: Headers) -> Response | None:
        """The answer 429 to a request beyond the limits. None: the request is within."""
        wait = self.wait(exchange.audit_fields.address, headers)
        if not wait:
            return None
        error = TooMany("too many requests", retry_after=math.ceil(wait))
        exchange.audit_fields.act = Act.OTHER
        return refuse(error, exchange, headers)


class RateLimit:
    """ASGI middleware that answers 429 beyond the limits."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], rates: Rates) -> None:
        self._app = app
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._rates.refuse(exchange_of(scope), Headers(scope["headers"]))
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await respond(send, refusal)


def _token_identity(authorization: str) -> bytes:
    """The bytes that identify a token, without scheme and spaces. Of a JWT only the signed part: a signature has many spellings."""
    token = authorization.partition(" ")[2].strip()
    signed = token.rpartition(".")[0]
    is_jwt = token[:2] in _JWT_STARTS and signed.count(".") == 1
    return (signed if is_jwt else token).encode(errors="replace")
