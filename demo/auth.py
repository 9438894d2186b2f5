"""The authorization server: a key made at start, and what the hub needs to find it (SMART App Launch 2.2, "Conformance")."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from demo.screen import say
from fhircast_hub.dev import DevIssuer


@asynccontextmanager
async def running_issuer() -> AsyncIterator[DevIssuer]:
    """An issuer on a free loopback port. Its tokens are asked for in this process; its key is found over HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))
    issuer = DevIssuer.make(f"http://127.0.0.1:{listener.getsockname()[1]}")
    async with await asyncio.start_server(_Server(issuer).answer, sock=listener):
        yield issuer


class _Server:
    """Answers GET with one of its documents, else 404."""

    def __init__(self, issuer: DevIssuer) -> None:
        path = urlsplit(issuer.issuer).path
        configuration = {"issuer": issuer.issuer, "jwks_uri": f"{issuer.issuer}/jwks"}
        self._documents: dict[str, Any] = {
            f"{path}/.well-known/smart-configuration": configuration,
            f"{path}/.well-known/openid-configuration": configuration,
            f"{path}/jwks": issuer.jwks(),
        }

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request to a connection."""
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ", 2)[1].decode("latin-1")
            found = path in self._documents
            body = json.dumps(self._documents.get(path, {})).encode()
            say("auth", "200 OK" if found else "404 Not Found", f"the hub asks for {path}")
            head = f"HTTP/1.1 {200 if found else 404} \r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever asked has gone
        finally:
            writer.close()
