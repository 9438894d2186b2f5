"""Login: where the console's page sends operators to log in, as found by the issuer's discovery (CSL-10).

The page is a public client with PKCE. The hub only names the endpoints, and never sees a code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import httpx
import msgspec

from fhircast_hub.auth.discovery import LOGIN_ENDPOINTS, FetchError, discover, fault_of, is_secure
from fhircast_hub.auth.issuer_health import About, IssuerHealth
from fhircast_hub.core.access.scopes import CONSOLE_READ, CONSOLE_WRITE

#: Seconds for which endpoints count, and for which a failure counts.
KEPT_SECONDS, FAILED_SECONDS = 3600.0, 15.0
#: Seconds for a discovery.
PATIENCE = 5.0


class LoginServer(msgspec.Struct, frozen=True, rename="camel"):
    """What the page needs to log an operator in."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    client_id: str
    scope: str
    #: The hub's URL: the resource (RFC 8707) that the token is for.
    resource: str
    #: Whether each answer of the server names the issuer (RFC 9207).
    names_itself: bool


class Login:
    """Finds the endpoints of one of the issuers whose tokens count: of `wanted`, or of the first where that is None.

    `issuers` are those that count now, for they may change (OPS-20). `client_id`: the page's. None: there is no login.
    """

    def __init__(
        self,
        wanted: str | None,
        issuers: Callable[[], Sequence[IssuerHealth]],
        client_id: str | None,
        hub_url: str,
        client: httpx.AsyncClient,
        *,
        allow_insecure: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wanted, self._issuers, self._client_id, self._hub_url = wanted, issuers, client_id, hub_url
        self._client, self._allow_insecure, self._clock = client, allow_insecure, clock
        self._asked: asyncio.Task[LoginServer | None] | None = None
        self._until = 0.0
        #: The issuer that was asked, and why its documents bring no login. "": they do.
        self._issuer, self._fault = "", ""

    @property
    def is_on(self) -> bool:
        """Whether operators may log in by an authorization server."""
        return bool(self._client_id and (self._wanted or self._issuers()))

    @property
    def fault(self) -> str:
        """Why `server` found no endpoints, for the operator: issuer and reason. "": it found some, or there is no login."""
        return f"{self._issuer} {self._fault}" if self.is_on and self._fault else ""

    async def server(self) -> LoginServer | None:
        """The issuer's endpoints. None: there is no login, or the issuer's documents bring none at the moment."""
        if not (self._client_id and self.is_on):
            return None
        health = self._present()
        if health is None:
            self._asked, self._issuer, self._fault = None, self._wanted or "", "is no issuer whose tokens count"
            return None
        changed = health.issuer != self._issuer
        if self._asked is None or changed or (self._asked.done() and self._clock() >= self._until):
            self._issuer = health.issuer
            self._asked = asyncio.create_task(self._ask(health, self._client_id))
        server = await asyncio.shield(self._asked)
        return server if self._issuer == health.issuer else await self.server()  # the settings changed meanwhile

    def _present(self) -> IssuerHealth | None:
        """The issuer of the login. None: its tokens do not count now."""
        issuers = self._issuers()
        return next((each for each in issuers if self._wanted in (None, each.issuer)), None)

    async def _ask(self, health: IssuerHealth, client_id: str) -> LoginServer | None:
        server, fault = None, ""
        try:
            async with asyncio.timeout(PATIENCE):
                server = await self._discover(health.issuer, client_id)
        except (FetchError, TimeoutError) as error:
            fault = fault_of(error)
            health.failed(About.LOGIN, fault)
        else:
            health.succeeded(About.LOGIN)
        if health.issuer == self._issuer:
            self._fault = fault
            self._until = self._clock() + (KEPT_SECONDS if server else FAILED_SECONDS)
        return server

    async def _discover(self, issuer: str, client_id: str) -> LoginServer:
        """The endpoints. Raises FetchError."""
        found = await discover(issuer, self._client, LOGIN_ENDPOINTS, allow_insecure=self._allow_insecure)
        for name in LOGIN_ENDPOINTS:
            if not is_secure(found[name], allow_insecure=self._allow_insecure):
                raise FetchError(f"names no https address as {name}")
        return LoginServer(
            issuer=issuer,
            authorization_endpoint=found["authorization_endpoint"],
            token_endpoint=found["token_endpoint"],
            client_id=client_id,
            scope=f"{CONSOLE_READ} {CONSOLE_WRITE}",
            resource=self._hub_url,
            names_itself=found.get("authorization_response_iss_parameter_supported") is True,
        )


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, as a Content-Security-Policy names them. "": a policy cannot name the URL."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return origin if all(each.isalnum() or each in ":/.-[]_" for each in origin) else ""
