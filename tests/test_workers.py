"""The first process of several workers: how long a worker that died waits. tests/process/test_workers.py runs real ones."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from fhircast_hub.workers import END_SECONDS, FIRST_SECONDS, IN_TURN_SECONDS, NoFolderError, Workers, pause


@contextmanager
def two() -> Iterator[Workers]:
    """Two workers that were not started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        workers = Workers(2, listener, lambda _: 0, lambda: None)
        try:
            yield workers
        finally:
            workers.close()


@pytest.fixture(autouse=True)
def _nothing_stays_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """The objects of the tests are collected as before."""
    monkeypatch.setattr(gc, "freeze", lambda: None)


@pytest.mark.req("NOD-16")
def test_pauses_grow_to_half_a_minute() -> None:
    """The first death of a worker that had worked costs nobody anything."""
    assert [pause(deaths) for deaths in range(1, 9)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert pause(5000) == 30.0


@pytest.mark.req("NOD-16")
def test_no_worker_waits_in_accept() -> None:
    """One socket is that of all: a worker that copies it while it starts must not make the others wait."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        workers = Workers(2, listener, lambda _: 0, lambda: None)
        with listener.dup():
            assert not os.get_blocking(listener.fileno())
        workers.close()


@pytest.mark.req("NOD-16")
def test_a_worker_that_cannot_be_forked_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second failure is followed by a pause: a machine without memory is not asked again and again."""
    asked = []

    def fork() -> int:
        asked.append(1)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    with two() as workers, capture_logs() as logs:
        for _ in range(10):
            workers._start()
        assert len(asked) == 2
        assert 0.5 < (workers._timeout() or 0.0) <= 1.0
    assert [line["event"] for line in logs] == ["no process for a worker"] * 2


@pytest.mark.req("NOD-18")
def test_a_signal_does_not_end_the_removal_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM has no default action before the folder is gone, and has its own again afterwards."""
    at_removal = []

    class Folder(tempfile.TemporaryDirectory[str]):
        def cleanup(self) -> None:
            at_removal.append(signal.getsignal(signal.SIGTERM))
            super().cleanup()

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Folder)
    before = signal.getsignal(signal.SIGTERM)
    with two() as workers:
        workers._stops = 1
        assert workers.run() == 0
        assert not workers._folder.exists()
    assert len(at_removal) == 1
    assert at_removal[0] not in (before, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.req("NOD-17")
def test_without_a_folder_there_are_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator is told that, and of another error the place."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, two() as workers:
        patched.setattr(tempfile, "TemporaryDirectory", fails)
        with pytest.raises(NoFolderError, match="no temporary folder can be made: No space left on device"):
            workers.run()
    with monkeypatch.context() as patched, two() as workers:
        patched.setattr(workers, "_start", lambda: None)
        patched.setattr(select, "select", fails)
        with pytest.raises(OSError, match="No space left"):
            workers.run()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the first process."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.req("NOD-17")
def test_a_first_worker_that_does_not_serve_is_said_once(now: list[float]) -> None:
    """After half a minute, for which the first process sleeps: the others wait for this one."""
    with two() as workers, capture_logs() as logs:
        workers._places[0].begin(4711, os.dup(0))
        assert workers._timeout() == FIRST_SECONDS
        now[0] += FIRST_SECONDS - 1
        workers._warn()
        assert (logs, workers._timeout()) == ([], 1.0)
        for _ in range(3):
            now[0] += 1
            workers._warn()
        assert workers._timeout() is None
        workers._places[0].close()
    (said,) = logs
    assert (said["event"], said["log_level"]) == ("the first worker does not serve yet", "warning")
    assert (said["worker"], said["pid"]) == (0, 4711)


@pytest.mark.req("NOD-18")
def test_a_worker_is_killed_once(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the system takes to end it. Then the exit code is 1."""
    sent: list[tuple[int, signal.Signals]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    with two() as workers, capture_logs() as logs:
        for place in workers._places:
            place.begin(4711 + place.number, os.dup(0))
        workers._stops, workers._stopped_at = 1, now[0]
        for passed in (0.0, 0.0, IN_TURN_SECONDS, END_SECONDS, END_SECONDS + 1, END_SECONDS + 2):
            now[0] = workers._stopped_at + passed
            workers._stop()
        for place in workers._places:
            place.end()
        assert workers.run() == 1
    term, kill = signal.SIGTERM, signal.SIGKILL
    assert sent == [(4711, term), (4712, term), (4711, kill), (4712, kill)]
    assert [(line["event"], line["worker"]) for line in logs] == [("worker is killed", 0), ("worker is killed", 1)]
