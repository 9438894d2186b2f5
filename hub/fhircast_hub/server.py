"""The hub as a process: uvicorn. SIGTERM stops it in order, with exit code 0 (OPS-3). SIGHUP reads the settings again (OPS-20)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import functools
import gc
import os
import random
import resource
import signal
import socket
import ssl
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import structlog
import uvicorn

from fhircast_hub.app import Hub
from fhircast_hub.budgets.table import ACCEPTED, STALLED
from fhircast_hub.http.connections import HttpContext
from fhircast_hub.http.protocol import HttpProtocol
from fhircast_hub.reloading import Reloading
from fhircast_hub.signals import hold_hangup, let_hangup
from fhircast_hub.versions import VERSION
from fhircast_hub.workers import Worker

_log = structlog.get_logger()

#: Seconds that requests and sockets have to end. Then they are cut.
GRACE_SECONDS = 6
#: The same of a worker, which may be told to end some seconds after the others.
WORKER_GRACE_SECONDS = 4
#: Seconds between two looks for connections that may be cut, while the server stops.
CUT_EVERY = 0.05
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


class Ending(Protocol):
    """A connection, while the server stops."""

    def ending(self, seconds: float) -> asyncio.Transport | None:
        """The transport, if nothing more is to be written. None: an answer or a close is not written yet.

        `seconds`: since the stop began. A WebSocket's peer has some of them to answer the close.
        """
        ...


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
        #: Called when the server begins to stop.
        self.on_stop: Callable[[], None] = _nothing
        #: Called at SIGHUP. None: the signal has its usual effect.
        self.on_hangup: Callable[[], None] | None = None

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
        self.on_stop()
        cutting = asyncio.get_running_loop().create_task(self._cut_ending())
        await super().shutdown(sockets)
        cutting.cancel()

    async def _cut_ending(self) -> None:
        """Cut connections whose peers have received all. A TLS connection would wait for the peer's end (close_notify)."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            await asyncio.sleep(CUT_EVERY)
            for each in list(self.server_state.connections):
                transport = cast(Ending, each).ending(loop.time() - began)
                if transport is not None and _is_received(transport):
                    transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        # A terminal sends SIGINT to all workers at once. The first process stops them in turn, by SIGTERM.
        for number in (signal.SIGTERM,) if self._worker else (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        if self._worker:
            loop.add_reader(self._worker.parent, self._end_alone, self._worker.parent)
        if self.on_hangup:
            loop.add_signal_handler(signal.SIGHUP, self.on_hangup)
            let_hangup()
        yield
        if self.on_hangup:
            hold_hangup()  # the loop gives the signal up when it closes, and the process has lines to write then

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


def _is_received(transport: asyncio.Transport) -> bool:
    """Whether the peer's machine has acknowledged all bytes that were written. False where the system does not know."""
    if transport.get_write_buffer_size():
        return False
    with contextlib.suppress(OSError):  # macOS knows no such request
        left = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return not any(left)
    return False


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
    server = Server(config, worker)
    server.on_stop = hub.begin_stop
    return server


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError if the address cannot be bound."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def _check_files(tls: Tls) -> None:
    """Raise OSError (or its ssl.SSLError) for files that cannot be used. A key with a passphrase is refused: nobody can be asked."""
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tls.certificate, tls.key, password="")


def _reload(server: Server, hub: Hub, tls: Tls | None, reloading: Reloading, worker: Worker | None) -> None:
    """Read the settings and the certificate again. The log tells what cannot be used, and that stays as it is."""
    if server.should_exit:
        return
    try:
        reloading.reload(hub.reload, worker.number if worker else None)
        if tls and server.config.ssl:
            _renew(server.config.ssl, tls)
    except Exception as error:  # the hub goes on, whatever the files hold
        _log.error("settings not reloaded", exc_info=error)


def _renew(context: ssl.SSLContext, tls: Tls) -> None:
    """Let new connections have the certificate that is now in the files."""
    try:
        _check_files(tls)  # a failure amid the next line would leave a certificate without its key
        context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        _log.error("certificate not reloaded", reason=error.strerror or str(error))
    else:
        _log.info("certificate reloaded")


def _give_memory_back() -> None:
    """Make glibc return freed large allocations to the system. By default, each of them raises glibc's threshold."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def _begin(listener: socket.socket, tls: Tls | None) -> None:
    """The hub serves."""
    _spare_collector()
    host, port, *_ = listener.getsockname()
    _log.info("listening", host=host, port=port, tls=tls is not None, version=VERSION)


def _spare_collector() -> None:
    """The objects of the start stay for good. Else each full garbage collection scans them, for a tenth of a second."""
    gc.collect()
    gc.freeze()


def serve(
    hub: Hub,
    listener: socket.socket,
    tls: Tls | None = None,
    worker: Worker | None = None,
    reloading: Reloading | None = None,
) -> bool:
    """Run the hub until a signal stops it, or the end of the process that started `worker`. Returns False if the hub could not start.

    `reloading` reads the settings again at SIGHUP. None: the signal has its usual effect.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection needs a file descriptor
    server = make_server(hub, tls, worker)
    server.on_start = functools.partial(_begin, listener, tls)
    if reloading:
        server.on_hangup = functools.partial(_reload, server, hub, tls, reloading, worker)
    _give_memory_back()
    gc.set_threshold(*COLLECTOR)
    try:
        # uvloop accepts one connection per listener and turn. With one listener, a crowd would wait for seconds.
        listeners = ACCEPTED_BY_WORKER if worker else int(ACCEPTED.most)
        server.run([listener, *(listener.dup() for _ in range(listeners - 1))])
    except SystemExit:  # uvicorn has logged a failure
        return False
    if server.started:
        _log.info("stopped", version=VERSION)
    return server.started
