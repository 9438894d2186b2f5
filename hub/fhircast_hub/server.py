"""The hub as a process: uvicorn, started so that a signal to stop ends it in order and with exit code 0 (OPS-3)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import uvicorn

from fhircast_hub.app import Hub
from fhircast_hub.budgets.table import ACCEPTED, STALLED
from fhircast_hub.http.protocol import HttpContext, HttpProtocol

#: Seconds that requests and sockets have to end before they are ended.
GRACE_SECONDS = 6
#: On every answer: no browser guesses another type, and none comes back without TLS for a year where the hub serves it (RFC 6797).
_NOSNIFF = ("X-Content-Type-Options", "nosniff")
_HSTS = ("Strict-Transport-Security", "max-age=31536000")
#: mallopt(3): its parameter, and the bytes from which on something is large.
_M_MMAP_THRESHOLD, _LARGE = -3, 32 << 10
#: Connections that may wait to be accepted while the hub is busy: a hospital's clients come back all at once.
BACKLOG = 4096


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
    context = HttpContext(hub.turns, hub.user_of, hub.addresses, hub.metrics)
    config = uvicorn.Config(
        hub,
        loop="uvloop",
        http=functools.partial(HttpProtocol, context),  # type: ignore[arg-type]  # called as a class would be
        ws=hub.socket,  # type: ignore[arg-type]  # called as a class would be
        lifespan="on",
        access_log=False,  # its lines would hold endpoints
        log_config=None,
        server_header=False,
        proxy_headers=False,  # see edge/client_addresses.py; nothing a request says counts for where the hub is (SUB-1)
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
        headers=[_NOSNIFF, _HSTS] if tls else [_NOSNIFF],
        timeout_keep_alive=int(STALLED.most),  # and then the rest of KEEP_ALIVE_SECONDS
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError if it cannot."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def _give_memory_back() -> None:
    """Let what is large go back to the system when it is freed: of itself glibc keeps it, once something as large was freed."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def serve(hub: Hub, listener: socket.socket, tls: Tls | None = None) -> bool:
    """Run the hub until it is told to stop. False if it could not start."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each application is a file to the system
    server = make_server(hub, tls)
    _give_memory_back()
    # What is there by now stays: the collector of garbage would look at it again and again, for a tenth of a second.
    gc.collect()
    gc.freeze()
    try:
        # uvloop accepts one connection of each listener in a turn: who comes in a crowd would wait for seconds.
        server.run([listener, *(listener.dup() for _ in range(int(ACCEPTED.most) - 1))])
    except SystemExit:  # uvicorn's answer to a failure it has logged
        return False
    return server.started
