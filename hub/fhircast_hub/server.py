"""The hub as a process: uvicorn, started so that a signal to stop ends it in order and with exit code 0 (OPS-3)."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fhircast_hub.app import Hub

#: Seconds that requests and sockets have to end before they are ended.
GRACE_SECONDS = 6
#: Bytes of a request's line and headers; a token has at most 16 KiB of them.
MAX_HEADER_BYTES, MAX_HEADERS = 64 << 10, 256
#: Seconds that they may take.
HEADER_SECONDS = 15
#: Requests that may wait on one connection for the answers to those before them.
MAX_PIPELINE = 16
#: Seconds that a client may reuse its connection after a request; longer than a proxy's own patience of a minute.
KEEP_ALIVE_SECONDS = 65
#: Connections that may wait to be accepted while the hub is busy: a hospital's clients come back all at once.
BACKLOG = 4096


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, which of itself takes headers and pipelined requests without end, and waits for ever."""

    _header_bytes = 0
    _in_headers = True
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        self._in_headers = True
        self._await_headers()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too, behind the body.
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADERS:
            self.transport.abort()
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._stop_waiting()
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINE:
            self.transport.abort()

    def _await_headers(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn's server, which of itself ends by the signal that stopped it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


class Tls(NamedTuple):
    """Files of PEM: the certificate with its chain, and its key."""

    certificate: Path
    key: Path


def make_server(hub: Hub, tls: Tls | None = None) -> Server:
    """The server of this hub, to be started on sockets that listen. Raises OSError or ssl.SSLError for files that it cannot use."""
    config = uvicorn.Config(
        hub,
        loop="uvloop",
        http=HttpProtocol,
        ws=hub.socket,  # type: ignore[arg-type]  # called as a class would be
        lifespan="on",
        access_log=False,  # its lines would hold endpoints
        log_config=None,
        server_header=False,
        proxy_headers=False,  # see addresses.py; nothing a request says counts for where the hub is (SUB-1)
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError if it cannot."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def serve(hub: Hub, listener: socket.socket, tls: Tls | None = None) -> bool:
    """Run the hub until it is told to stop. False if it could not start."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each application is a file to the system
    server = make_server(hub, tls)
    try:
        server.run([listener])
    except SystemExit:  # uvicorn's answer to a failure it has logged
        return False
    return server.started
