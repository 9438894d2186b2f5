"""The HTTP connections of a client, for the running event loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator

import httpx

from fhircast_client.proxies import http_client


class Pool:
    """Connections that are made for each event loop, or those of the httpx client `given` by the application.

    `timeout` is in seconds. `tls`: the trusted certificates, by default those of the system.
    """

    def __init__(self, given: httpx.AsyncClient | None, timeout: float, tls: ssl.SSLContext | None) -> None:
        self._given, self._timeout, self._tls = given, timeout, tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http: httpx.AsyncClient | None = None
        self._held: AsyncGenerator[httpx.AsyncClient] | None = None

    def enter(self) -> None:
        """Raises RuntimeError where `given` was used in another event loop."""
        loop = asyncio.get_running_loop()
        if self._given is not None:
            if self._loop not in (None, loop):
                raise RuntimeError("the given http was used in another event loop: leave the option out")
            self._loop = loop

    async def http(self) -> httpx.AsyncClient:
        """The httpx client of the running loop. Raises RuntimeError, the same as `enter`."""
        self.enter()
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._loop, self._held = loop, self._hold()
            self._http = await anext(self._held)
        return self._http

    async def close(self) -> None:
        """Close the client's own connections. They can be opened again."""
        held, self._held, self._http = self._held, None, None
        if held is not None and self._loop is asyncio.get_running_loop():
            await held.aclose()

    async def _hold(self) -> AsyncGenerator[httpx.AsyncClient]:
        """`asyncio.run` closes its async generators, and so closes these connections."""
        http = http_client(self._timeout, self._certificates)
        try:
            yield http
        finally:
            await http.aclose()

    def _certificates(self) -> ssl.SSLContext:
        """Read once, for all event loops."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls
