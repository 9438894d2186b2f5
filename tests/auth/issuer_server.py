"""A real authorization server on the loopback interface: what it publishes, how often it was asked."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from typing import Any, NamedTuple, Self

SMART = "/.well-known/smart-configuration"
OPENID = "/.well-known/openid-configuration"
JWKS = "/jwks"


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    body: bytes = b""
    headers: tuple[str, ...] = ()


class IssuerServer:
    """Answers GET with what `publish` and `answer` put at a path, else 404.

    `asked` counts requests by path, `heads` are their first lines and headers; while `open` is cleared, requests are counted and then kept waiting.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.answers: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()
        self.heads: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.arrived = asyncio.Semaphore(0)
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def publish(self, path: str, document: Any) -> None:
        """Put a JSON document at `path`."""
        self.answers[path] = Answer(200, json.dumps(document).encode())

    def publish_keys(self, jwks: dict[str, Any]) -> None:
        """Put a key set at /jwks, and the discovery document that leads to it."""
        self.publish(OPENID, {"issuer": self.url, "jwks_uri": self.url + JWKS})
        self.publish(JWKS, jwks)

    async def start(self) -> None:
        """Listen, again on the same port after `stop`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, ssl=self._tls)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections."""
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            path = head.split(" ")[1]
            self.asked[path] += 1
            self.arrived.release()
            await self.open.wait()
            status, body, headers = self.answers.get(path, Answer(404))
            lines = [f"HTTP/1.1 {status} X", "Connection: close", f"Content-Length: {len(body)}", *headers, "", ""]
            writer.write("\r\n".join(lines).encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the hub hung up, as it may
        finally:
            writer.close()
