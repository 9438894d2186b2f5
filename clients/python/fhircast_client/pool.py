"""The HTTP connections of a client, in whichever event loop the client is used."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator

import httpx

from fhircast_client.proxies import http_client


class Pool:
    """Connections of the client's own, made anew for each event loop, or those of the httpx client that is `given`.

    `timeout` is in seconds. `tls` says whom they trust, by default whom the system trusts.
    """

    def __init__(self, given: httpx.AsyncClient | None, timeout: float, tls: ssl.SSLContext | None) -> None:
        self._given, self._timeout, self._tls = given, timeout, tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http: httpx.AsyncClient | None = None
        self._held: AsyncGenerator[httpx.AsyncClient] | None = None

    def enter(self) -> None:
        """Raises RuntimeError where a given client was used in another loop than the one that runs."""
        loop = asyncio.get_running_loop()
        if self._given is not None:
            if self._loop not in (None, loop):
                raise RuntimeError(
                    "expected http in one event loop, and another loop used it before: leave the option out"
                )
            self._loop = loop

    async def http(self) -> httpx.AsyncClient:
        """The connections of the loop that runs. Raises RuntimeError as `enter`."""
        self.enter()
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._loop, self._held = loop, self._hold()
            self._http = await anext(self._held)
        return self._http

    async def close(self) -> None:
        """Close the connections that are the client's own; they may be opened again."""
        held, self._held, self._http = self._held, None, None
        if held is not None and self._loop is asyncio.get_running_loop():
            await held.aclose()

    async def _hold(self) -> AsyncGenerator[httpx.AsyncClient]:
        """`asyncio.run` ends its generators, and so closes what this one holds."""
        if self._tls is None:
            self._tls = ssl.create_default_context()  # once: loading takes as long as some requests
        http = http_client(self._timeout, self._tls)
        try:
            yield http
        finally:
            await http.aclose()
