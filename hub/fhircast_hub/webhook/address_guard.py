"""The address guard (SEC-5): a subscriber chooses the callback, which must not lead into the hospital's own network.

Kept by hand for security: no HTTP client checks the address that it connects to. Here the name is resolved once, every
address is checked, and the connection goes to one of them. So a name cannot give one address to the check and another to the
connection, and an address's spelling does not matter. TLS and the Host header keep the name of the URL.
core/wire/callback_url.py says which addresses are public or allowed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Iterable, Sequence

import httpcore

from fhircast_hub.core.wire.callback_url import Address, Network, is_allowed, is_public
from fhircast_hub.webhook.fair_slots import NOBODY, User
from fhircast_hub.webhook.resolver import Resolver

#: Ports of public addresses for https; and for http, with ALLOW_INSECURE. Other ports may belong to services that expect no hub.
SECURE_PORTS, INSECURE_PORTS = (443, 8443), (80, 8080)
_ALLOWED, _FORBIDDEN = "FHIRCAST_WEBHOOK_ALLOWED_NETWORKS", "FHIRCAST_WEBHOOK_FORBIDDEN_NETWORKS"


class ForbiddenAddress(Exception):
    """The hub may not connect to this callback. The text gives the reason, as a clause."""


class Guard:
    """Decides which addresses the hub may connect to.

    Public addresses are allowed by https, at its ports. All of `networks` are allowed, and none of `forbidden`.
    If an address is in networks of both, the narrower network counts.
    """

    def __init__(self, networks: Sequence[Network], *, allow_insecure: bool, forbidden: Sequence[Network] = ()) -> None:
        self._allowed = networks
        self._forbidden = forbidden
        self._allow_insecure = allow_insecure
        self._resolver = Resolver()

    async def addresses(self, host: str, port: int, *, secure: bool, user: User = NOBODY) -> list[str]:
        """The addresses of `host`, all of them allowed. `secure`: by https. The look-up counts for `user`.

        Raises ForbiddenAddress if one is not allowed, and OSError if the name cannot be resolved.
        """
        if not self._allowed:
            self._check_port(port, secure=secure)  # holds for every address: no look-up is needed
        addresses = await self._resolver.addresses(host, port, user)
        for address in addresses:
            self._check(ipaddress.ip_address(address.partition("%")[0]), port, secure=secure)
        return addresses

    def _check(self, address: Address, port: int, *, secure: bool) -> None:
        if is_allowed(address, self._allowed, self._forbidden):
            return
        if is_allowed(address, self._forbidden):
            raise ForbiddenAddress(f"its address is in {_FORBIDDEN}")
        if not is_public(address):
            raise ForbiddenAddress(f"its address is neither public nor in {_ALLOWED}")
        self._check_port(port, secure=secure)

    def _check_port(self, port: int, *, secure: bool) -> None:
        if not secure and not self._allow_insecure:
            raise ForbiddenAddress(f"http is for addresses in {_ALLOWED} only")
        ports = SECURE_PORTS if secure else INSECURE_PORTS
        if port not in ports:
            raise ForbiddenAddress(f"its port must be {ports[0]} or {ports[1]}, not {port}, outside {_ALLOWED}")


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that the guard allows, and to nothing else.

    `secure`: TLS will follow. `user` is the user whose callbacks these are.
    """

    def __init__(self, guard: Guard, *, secure: bool, user: User = NOBODY) -> None:
        self._guard = guard
        self._secure = secure
        self._user = user
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers. Raises ForbiddenAddress, or httpcore.ConnectError as any backend."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._guard.addresses(host, port, secure=self._secure, user=self._user)
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from None
        for address in addresses[:-1]:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
        return await self._backend.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises ForbiddenAddress: a callback is never a file."""
        raise ForbiddenAddress("it is a unix socket")

    async def sleep(self, seconds: float) -> None:
        """Sleep, as any backend."""
        await self._backend.sleep(seconds)
