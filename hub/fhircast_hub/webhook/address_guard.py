"""The address guard (SEC-5): a callback is chosen by whoever subscribes, and must not lead into the hospital's own network.

The check stands where connections are made: the name is resolved once, every address that comes is checked, and the connection
goes to one of those. So no name can show one address to the check and another to the connection, and no spelling of an address
matters. TLS and the Host header keep the name of the URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Iterable, Sequence

import httpcore

from fhircast_hub.core.wire.callback_url import Address, Network, is_allowed, is_public
from fhircast_hub.webhook.resolver import Resolver
from fhircast_hub.webhook.shares import NOBODY, User

#: Ports of public addresses: those of https, and with ALLOW_INSECURE those of http. Behind others are services that nobody meant
#: to be asked.
SECURE_PORTS, INSECURE_PORTS = (443, 8443), (80, 8080)
_ALLOWED, _FORBIDDEN = "FHIRCAST_WEBHOOK_ALLOWED_NETWORKS", "FHIRCAST_WEBHOOK_FORBIDDEN_NETWORKS"


class ForbiddenAddress(Exception):
    """A callback's host is, or resolves to, an address that may not be connected to."""


class Guard:
    """Which addresses may be connected to: public ones by https at its ports, those of `networks` in any case, those of `forbidden`
    in none. Where an address is of both, the narrower network counts."""

    def __init__(self, networks: Sequence[Network], *, allow_insecure: bool, forbidden: Sequence[Network] = ()) -> None:
        self._allowed = networks
        self._forbidden = forbidden
        self._allow_insecure = allow_insecure
        self._resolver = Resolver()

    async def addresses(self, host: str, port: int, *, secure: bool, user: User = NOBODY) -> list[str]:
        """The addresses of `host`, all of which may be connected to.

        Raises ForbiddenAddress when one may not, and OSError when the name cannot be resolved.
        """
        if not self._allowed:
            self._check_port(port, secure=secure)  # no need to ask where that is
        addresses = await self._resolver.addresses(host, port, user)
        for address in addresses:
            self._check(ipaddress.ip_address(address.partition("%")[0]), port, secure=secure)
        return addresses

    def _check(self, address: Address, port: int, *, secure: bool) -> None:
        if is_allowed(address, self._allowed, self._forbidden):
            return
        if is_allowed(address, self._forbidden):
            raise ForbiddenAddress(f"an address of {_FORBIDDEN}")
        if not is_public(address):
            raise ForbiddenAddress(f"an address that is not public, and not of {_ALLOWED}")
        self._check_port(port, secure=secure)

    def _check_port(self, port: int, *, secure: bool) -> None:
        if not secure and not self._allow_insecure:
            raise ForbiddenAddress(f"http, outside {_ALLOWED}")
        ports = SECURE_PORTS if secure else INSECURE_PORTS
        if port not in ports:
            raise ForbiddenAddress(f"port {port} and not {ports[0]} or {ports[1]}, outside {_ALLOWED}")


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that the guard let pass, and to nothing else. `secure` is whether TLS will follow; the callbacks are those
    of `user`."""

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
        """Raises ForbiddenAddress, or httpcore.ConnectError as any backend does."""
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
        """No callback is a file."""
        raise ForbiddenAddress("a unix socket")

    async def sleep(self, seconds: float) -> None:
        """As any backend."""
        await self._backend.sleep(seconds)
