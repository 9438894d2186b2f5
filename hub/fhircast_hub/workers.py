"""Several workers on one machine: processes of `serve --workers` that accept from one socket, each of them a node (NOD-15).

The first process only watches. It holds the listening socket, forks each worker, replaces a worker that died, and stops the
workers one after the other. It has no thread and no event loop, for a fork copies neither.
"""

from __future__ import annotations

import gc
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

import structlog

from fhircast_hub.signals import hold_hangup, let_hangup

#: Seconds after which a worker that dies counts as one that worked: it is started at once.
WORKED_SECONDS = 60.0
#: Seconds between the death of a worker and its start, at most.
MAX_PAUSE_SECONDS = 30.0
#: Seconds for stopping one worker after the other. Then all that are left are told at once.
IN_TURN_SECONDS = 3.0
#: Seconds from the first SIGTERM until workers that are left are killed: all end within 10 s (OPS-3).
END_SECONDS = 9.5
#: Seconds after which the log says that the first worker does not serve yet.
FIRST_SECONDS = 30.0
#: The exit code of workers of which one did not end, and was killed.
KILLED = 1
#: The exit code of a worker that cannot start. The first worker says why by one line on stderr, a later one in the log.
REFUSED = 2
#: The exit code of a worker that cannot start now, and may later. No worker that dies by itself has this code.
NOT_NOW = 75
#: What the workers' exit code is then.
_ENDS = {REFUSED: REFUSED, NOT_NOW: 1}

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)
_log = structlog.get_logger()


class Worker(NamedTuple):
    """What a worker gets of the first process."""

    #: From 0 on. A worker that is started anew has the number of the one that died.
    number: int
    #: How many workers there are.
    total: int
    #: A folder that only the workers' user may enter.
    folder: Path
    #: A descriptor, for one byte when the worker serves.
    ready: int
    #: A descriptor, at its end when the first process has ended.
    parent: int
    #: Whether a worker has served before.
    is_later: bool = False


def pause(deaths: int) -> float:
    """Seconds until a worker is started that died so many times, each time soon after its start."""
    return min(2.0 ** min(deaths - 2, 10), MAX_PAUSE_SECONDS) if deaths > 1 else 0.0  # 2.0 ** 1024 overflows


class NoFolderError(Exception):
    """No temporary folder can be made. The message says why."""


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder that only this user may enter. It is removed at the end. Raises NoFolderError."""
    try:
        made = tempfile.TemporaryDirectory(prefix="fhircast-workers-")
    except OSError as error:
        raise NoFolderError(f"no temporary folder can be made: {error.strerror or error}") from None
    with made as name:
        yield Path(name)


class _Place:
    """The place of one worker: the process that has it now, or the time of the next one's start."""

    def __init__(self, number: int) -> None:
        self.number = number
        #: None: no process has the place.
        self.pid: int | None = None
        #: Whether the process was told to end, and whether it was killed.
        self.told = self.killed = False
        #: Where the process says that it serves, until it has said so.
        self.ready: int | None = None
        #: Of time.monotonic(): when the process was started, and when the next one may be.
        self.began, self.due = 0.0, 0.0
        self.deaths = 0

    def begin(self, pid: int, ready: int) -> None:
        """A process has the place."""
        self.pid, self.ready, self.began, self.told = pid, ready, time.monotonic(), False

    def end(self) -> None:
        """The process has ended, or was not made."""
        now = time.monotonic()
        self.deaths = 1 if now - self.began >= WORKED_SECONDS else self.deaths + 1
        self.pid, self.due = None, now + pause(self.deaths)
        self.close()

    def close(self) -> None:
        """Nothing more is said about the start."""
        if self.ready is not None:
            os.close(self.ready)
            self.ready = None


class Workers:
    """So many processes that run `work`, whose result is the exit code. `listener`: closed when the last is told to end.

    `reload` is called at SIGHUP, before the workers get the signal.
    """

    def __init__(
        self, count: int, listener: socket.socket, work: Callable[[Worker], int], reload: Callable[[], None]
    ) -> None:
        self._count, self._listener, self._work, self._reload = count, listener, work, reload
        # dup() gives the copy this timeout, and so all copies: they are one socket. Without a timeout of 0, a worker that starts
        # would make the others wait in accept().
        listener.setblocking(False)
        self._places = [_Place(number) for number in range(count)]
        self._folder = Path()
        #: The number of SIGTERM and SIGINT so far, and the time of the first.
        self._stops, self._stopped_at = 0, 0.0
        #: Whether a worker has served.
        self._served = False
        #: The exit code, where the first worker has refused to start.
        self._refused = 0
        #: Whether the log says that the first worker does not serve yet.
        self._is_late = False
        #: What signals write to, and what wakes the process.
        self._wake, self._woken = socket.socketpair()
        #: A pipe that nobody writes to. The first process alone holds the end for writing.
        self._parent, self._alive = os.pipe()

    def close(self) -> None:
        """Close what the workers were to share, but for the listener."""
        self._wake.close()
        self._woken.close()
        os.close(self._parent)
        os.close(self._alive)

    def run(self) -> int:
        """Run the workers until a signal ends all of them. The exit code: 0, KILLED, or that of a first worker that cannot start.

        The second worker starts when the first one serves. So a refusal is printed once, and one worker makes the tables.
        Raises NoFolderError where no temporary folder can be made.
        """
        # The objects of the start stay for good, in memory that the workers share.
        gc.collect()
        gc.freeze()
        # The folder goes first: a signal meanwhile does not leave the rest of it.
        with self._signals(), _temporary_folder() as self._folder:
            while not self._refused:
                self._start()
                self._stop()
                if self._stops and not any(place.pid for place in self._places):
                    break
                self._wait()
                self._reap()
                self._warn()
        return self._refused or (KILLED if any(place.killed for place in self._places) else 0)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals come as bytes of a socket, which wakes the process."""
        for end in (self._wake, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, lambda *_: None) for number in _HANDLED}
        let_hangup()
        try:
            yield
        finally:
            hold_hangup()  # the process has lines to write
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _waiting(self) -> list[_Place]:
        """Places without a process that are to have one."""
        if self._stops:
            return []
        places = self._places if self._served else self._places[:1]
        return [place for place in places if place.pid is None]

    def _start(self) -> None:
        """Start the workers that are due."""
        for place in self._waiting():
            if place.due <= time.monotonic():
                try:
                    self._fork(place)
                except OSError as error:  # of memory, processes or descriptors
                    place.began = time.monotonic()  # else this is taken for the end of a worker that worked
                    place.end()
                    _log.error("no process for a worker", worker=place.number, exc_info=error)

    def _fork(self, place: _Place) -> None:
        ready, writer = os.pipe()
        # A signal that comes now is the worker's, and must not be taken by the handlers of this process.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(ready)
                worker = Worker(place.number, self._count, self._folder, writer, self._parent, self._served)
                self._become(worker, mask)
            place.begin(pid, ready)
        except OSError:
            os.close(ready)
            raise
        finally:
            os.close(writer)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _log.info("worker started", worker=place.number, pid=pid)

    def _become(self, worker: Worker, mask: set[int | signal.Signals]) -> NoReturn:
        """Go on as a worker, in the new process."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, {*mask, signal.SIGHUP})  # waits until the server can take it
            self._wake.close()
            self._woken.close()
            os.close(self._alive)
            for place in self._places:
                place.close()
            code = self._work(worker)
            self._clear_away()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)  # nothing of the first process is cleaned up here

    def _clear_away(self) -> None:
        """In a worker: remove the folder, if the first process has ended and cannot."""
        if select.select([self._parent], [], [], 0)[0]:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _stop(self) -> None:
        """Once stopped: tell the next worker to end, or all where that has taken too long."""
        if not self._stops:
            return
        left = [place for place in self._places if place.pid]
        passed = time.monotonic() - self._stopped_at
        for place in left if self._stops > 1 or passed >= IN_TURN_SECONDS else left[:1]:
            if not place.told:
                self._kill(place, signal.SIGTERM)
                place.told = True
        if all(place.told for place in left):
            # The kernel refuses new connections from now on. An open listener would keep them waiting for nobody.
            self._listener.close()
        for place in left if passed >= END_SECONDS else ():
            if not place.killed:
                _log.error("worker is killed", worker=place.number, pid=place.pid, reason="it did not end")
                self._kill(place, signal.SIGKILL)
                place.killed = True

    @staticmethod
    def _kill(place: _Place, number: signal.Signals) -> None:
        assert place.pid
        os.kill(place.pid, number)  # the process exists: its end was not reaped yet

    def _timeout(self) -> float | None:
        """Seconds until there is something to do without a signal. None: there is nothing."""
        times = [place.due for place in self._waiting()]
        if self._stops:
            times = [self._stopped_at + each for each in (IN_TURN_SECONDS, END_SECONDS)]
            times = [each for each in times if each > time.monotonic()] or [time.monotonic() + 1.0]
        elif self._is_awaited():
            times.append(self._places[0].began + FIRST_SECONDS)
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def _is_awaited(self) -> bool:
        """Whether the first worker runs and does not serve, and the log does not say so yet."""
        return not (self._served or self._stops or self._is_late) and self._places[0].pid is not None

    def _warn(self) -> None:
        """Say once that the first worker does not serve yet: the others wait for it."""
        first = self._places[0]
        if self._is_awaited() and time.monotonic() >= first.began + FIRST_SECONDS:
            _log.warning("the first worker does not serve yet", worker=first.number, pid=first.pid)
            self._is_late = True

    def _wait(self) -> None:
        """Until a signal comes, a worker serves, or something is due."""
        starting = {place.ready: place for place in self._places if place.ready is not None}
        woken = self._woken.fileno()
        for each in select.select([woken, *starting], [], [], self._timeout())[0]:
            if each == woken:
                self._take_signals()
            else:
                self._served |= os.read(each, 1) != b""  # else the worker has ended
                starting[each].close()

    def _take_signals(self) -> None:
        came = self._woken.recv(4096)
        if signal.SIGHUP in came and not self._stops:
            self._reload()
            for place in self._places:
                if place.pid:
                    self._kill(place, signal.SIGHUP)
        stops = [number for number in came if number not in (signal.SIGCHLD, signal.SIGHUP)]
        if stops and not self._stops:
            self._stopped_at = time.monotonic()
        self._stops += len(stops)

    def _reap(self) -> None:
        """Take note of workers that ended."""
        for place in self._places:
            if place.pid is None:
                continue
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if pid == 0:
                continue
            code = os.waitstatus_to_exitcode(status)
            place.end()
            if self._stops:
                _log.info("worker ended", worker=place.number, pid=pid)
            elif code in _ENDS and not self._served:
                self._refused = _ENDS[code]
            else:
                how = {"signal": -code} if code < 0 else {"code": code}
                _log.error("worker died", worker=place.number, pid=pid, seconds=pause(place.deaths), **how)
