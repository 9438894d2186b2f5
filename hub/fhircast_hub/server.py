"""The hub as a process: uvicorn, which a signal stops in order, with exit code 0 (OPS-3)."""

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

#: Seconds that requests and sockets have to end. Then they are cut.
GRACE_SECONDS = 6
#: On every answer: browsers do not guess another type.
_NOSNIFF = ("X-Content-Type-Options", "nosniff")
#: On every answer of a hub that serves TLS: for a year, browsers do not come back without TLS (RFC 6797).
_HSTS = ("Strict-Transport-Security", "max-age=31536000")
#: mallopt(3): the parameter, and the bytes from which on an allocation is large.
_M_MMAP_THRESHOLD, _LARGE = -3, 32 << 10
#: Connections that may wait to be accepted: after an outage, all clients of a hospital reconnect at once.
BACKLOG = 4096


class Server(uvicorn.Server):
    """uvicorn's server without its last step: uvicorn raises the signal again, which would set the exit code."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


class Tls(NamedTuple):
    """Files in PEM."""

    #: The certificate with its chain.
    certificate: Path
    key: Path


def make_server(hub: Hub, tls: Tls | None = None) -> Server:
    """The hub's server, to be started on listening sockets. Raises OSError or ssl.SSLError if the files of `tls` are unusable."""
    context = HttpContext(hub.turns, hub.user_of, hub.addresses, hub.metrics)
    config = uvicorn.Config(
        hub,
        loop="uvloop",
        http=functools.partial(HttpProtocol, context),  # type: ignore[arg-type]  # called like a class
        ws=hub.socket,  # type: ignore[arg-type]  # called like a class
        lifespan="on",
        access_log=False,  # its lines would hold endpoints
        log_config=None,
        server_header=False,
        proxy_headers=False,  # see edge/client_addresses.py; no header changes the hub's own URL (SUB-1)
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
        headers=[_NOSNIFF, _HSTS] if tls else [_NOSNIFF],
        timeout_keep_alive=int(STALLED.most),  # then the rest of KEEP_ALIVE_SECONDS follows
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError if the address cannot be bound."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def _give_memory_back() -> None:
    """Make glibc return freed large allocations to the system. By default, each of them raises glibc's threshold."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def serve(hub: Hub, listener: socket.socket, tls: Tls | None = None) -> bool:
    """Run the hub until a signal stops it. Returns False if the hub could not start."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection needs a file descriptor
    server = make_server(hub, tls)
    _give_memory_back()
    # The objects of the start stay for good. Else each full garbage collection scans them, for a tenth of a second.
    gc.collect()
    gc.freeze()
    try:
        # uvloop accepts one connection per listener and turn. With one listener, a crowd would wait for seconds.
        server.run([listener, *(listener.dup() for _ in range(int(ACCEPTED.most) - 1))])
    except SystemExit:  # uvicorn has logged a failure
        return False
    return server.started
