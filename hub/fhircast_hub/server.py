"""The hub as a process: uvicorn, which a signal stops in order, with exit code 0 (OPS-3)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import os
import random
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import uvicorn

from fhircast_hub.app import Hub
from fhircast_hub.budgets.table import ACCEPTED, STALLED
from fhircast_hub.http.connections import HttpContext
from fhircast_hub.http.protocol import HttpProtocol
from fhircast_hub.workers import Worker

#: Seconds that requests and sockets have to end. Then they are cut.
GRACE_SECONDS = 6
#: The same of a worker, which may be told to end some seconds after the others.
WORKER_GRACE_SECONDS = 4
#: On every answer: browsers do not guess another type.
_NOSNIFF = ("X-Content-Type-Options", "nosniff")
#: On every answer of a hub that serves TLS: for a year, browsers do not come back without TLS (RFC 6797).
_HSTS = ("Strict-Transport-Security", "max-age=31536000")
#: mallopt(3): the parameter, and the bytes from which on an allocation is large.
_M_MMAP_THRESHOLD, _LARGE = -3, 32 << 10
#: Connections that a worker accepts in a turn, at most. With few, a crowd is shared evenly.
ACCEPTED_BY_WORKER = 8
#: How often a worker is the first to hear of connections: a part of the ticks of 0.1 s.
FIRST_OFTEN = 0.2
#: Thresholds of the garbage collector: new objects, then collections of the younger generation. Events and sockets leave no garbage
#: in cycles, so the collector has little to find. Python's own (700, 10, 10) took 2 % of an event's CPU, and paused the hub for 30 ms.
COLLECTOR = (10_000, 20, 20)
#: Connections that may wait to be accepted: after an outage, all clients of a hospital reconnect at once.
BACKLOG = 4096


class Server(uvicorn.Server):
    """uvicorn's server without its last step: uvicorn raises the signal again, which would set the exit code.

    `worker` says when it serves, and ends with the process that started it.
    """

    def __init__(self, config: uvicorn.Config, worker: Worker | None) -> None:
        super().__init__(config)
        self._worker = worker
        self._bell: Bell | None = None
        #: Called when the server serves.
        self.on_start: Callable[[], None] = _nothing

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve."""
        await super().startup(sockets)
        self.on_start()
        if self._worker and self.started and sockets:
            self._bell = Bell(sockets[0])
            with contextlib.suppress(BrokenPipeError):  # the first process has just ended
                os.write(self._worker.ready, b".")
            os.close(self._worker.ready)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second. Returns whether the server is to stop."""
        if self._bell and random.random() < FIRST_OFTEN:  # noqa: S311  # no secret
            self._bell.hear_first()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to serve."""
        if self._bell:
            self._bell.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        # A terminal sends SIGINT to all workers at once. The first process stops them in turn, by SIGTERM.
        for number in (signal.SIGTERM,) if self._worker else (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        if self._worker:
            loop.add_reader(self._worker.parent, self._end_alone, self._worker.parent)
        yield

    def _end_alone(self, parent: int) -> None:
        """The first process has ended, which never writes: the descriptor is at its end."""
        asyncio.get_running_loop().remove_reader(parent)
        self.handle_exit(signal.SIGTERM, None)


class Bell:
    """Wakes this worker when a connection comes, from time to time before the other workers.

    All workers wait at one socket, so a connection waits for none of them: others accept while one is busy, stopped or dead.
    Linux wakes all, the last that began to wait first, and a worker that is woken first mostly wins. With connections one at a
    time, two workers shared them 20 to 80, and four 6 to 49. Here each worker begins anew now and then, at random.
    Sockets of their own (SO_REUSEPORT) would be even too, but what waits at the socket of a dead worker is lost.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener.dup()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener.fileno(), _nothing)

    def hear_first(self) -> None:
        """Begin to wait anew."""
        self._loop.remove_reader(self._listener.fileno())
        self._loop.add_reader(self._listener.fileno(), _nothing)

    def close(self) -> None:
        """Wait no more."""
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()


def _nothing() -> None:
    """For a bell: the server itself accepts, in the same turn."""


class Tls(NamedTuple):
    """Files in PEM."""

    #: The certificate with its chain.
    certificate: Path
    key: Path


def make_server(hub: Hub, tls: Tls | None = None, worker: Worker | None = None) -> Server:
    """The hub's server, to be started on listening sockets. Raises OSError or ssl.SSLError if the files of `tls` are unusable."""
    context = HttpContext(hub.turns, hub.user_of, hub.addresses, hub.metrics, hub.direct)
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
        backlog=BACKLOG,  # uvicorn listens again on the listener of listen()
        timeout_keep_alive=int(STALLED.most),  # then the rest of KEEP_ALIVE_SECONDS follows
        timeout_graceful_shutdown=WORKER_GRACE_SECONDS if worker else GRACE_SECONDS,
    )
    return Server(config, worker)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError if the address cannot be bound."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def _give_memory_back() -> None:
    """Make glibc return freed large allocations to the system. By default, each of them raises glibc's threshold."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def _spare_collector() -> None:
    """The objects of the start stay for good. Else each full garbage collection scans them, for a tenth of a second."""
    gc.collect()
    gc.freeze()


def serve(hub: Hub, listener: socket.socket, tls: Tls | None = None, worker: Worker | None = None) -> bool:
    """Run the hub until a signal stops it, or the end of the process that started `worker`. Returns False if the hub could not start."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection needs a file descriptor
    server = make_server(hub, tls, worker)
    server.on_start = _spare_collector
    _give_memory_back()
    gc.set_threshold(*COLLECTOR)
    try:
        # uvloop accepts one connection per listener and turn. With one listener, a crowd would wait for seconds.
        listeners = ACCEPTED_BY_WORKER if worker else int(ACCEPTED.most)
        server.run([listener, *(listener.dup() for _ in range(listeners - 1))])
    except SystemExit:  # uvicorn has logged a failure
        return False
    return server.started
