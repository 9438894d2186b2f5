"""Names whose addresses a test decides, and a client that connects only to allowed addresses."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest

from fhircast_hub.webhook.address_guard import Guard
from fhircast_hub.webhook.client import Client

Found = list[tuple[Any, Any, int, str, tuple[Any, ...]]]


class Names:
    """A resolver of the test. Each name has addresses in turn, the last for ever. An address resolves to itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **addresses: list[list[str]]) -> None:
        self.addresses = addresses
        self.asked: list[str] = []
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._resolve)

    def _resolve(self, host: Any, port: Any, *options: int, **more: int) -> Found:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.addresses or socket.AI_NUMERICHOST in options:
            return list(self._real(host, port, *options, **more))
        self.asked.append(name)
        answers = self.addresses[name]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if not answer:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port)))
            for address in answer
        ]


@contextlib.asynccontextmanager
async def client(
    networks: Iterable[str] = (),
    *,
    allow_insecure: bool = False,
    forbidden: Iterable[str] = (),
    certificates: Callable[[], ssl.SSLContext] = httpx.create_ssl_context,
) -> AsyncIterator[Client]:
    """The client that posts to callbacks, without a hub."""
    allowed, none = ([ipaddress.ip_network(network) for network in given] for given in (networks, forbidden))
    guard = Guard(allowed, allow_insecure=allow_insecure, forbidden=none)
    made = Client(guard, certificates, http2=False)
    try:
        yield made
    finally:
        await made.aclose()


@contextlib.contextmanager
def silent_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names under slow.example whose servers never answer. Yields the names that were asked for."""
    real, gate, asked = socket.getaddrinfo, threading.Event(), list[str]()

    def slow(host: Any, port: Any, *options: int, **more: int) -> Any:
        if str(host).endswith("slow.example") and socket.AI_NUMERICHOST not in options:
            asked.append(host)
            assert gate.wait(20)
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return real(host, port, *options, **more)

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", slow)
        try:
            yield asked
        finally:
            gate.set()
