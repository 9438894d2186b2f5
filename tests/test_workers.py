"""The first process of several workers: how long a worker that died waits. tests/process/test_workers.py runs real ones."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from fhircast_hub.workers import Workers, pause


@contextmanager
def two() -> Iterator[Workers]:
    """Two workers that were not started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        workers = Workers(2, listener, lambda _: 0)
        try:
            yield workers
        finally:
            workers.close()


@pytest.mark.req("NOD-16")
def test_pauses_grow_to_half_a_minute() -> None:
    """The first death of a worker that had worked costs nobody anything."""
    assert [pause(deaths) for deaths in range(1, 9)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert pause(5000) == 30.0


@pytest.mark.req("NOD-16")
def test_no_worker_waits_in_accept() -> None:
    """One socket is that of all: a worker that copies it while it starts must not make the others wait."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        workers = Workers(2, listener, lambda _: 0)
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
    assert [line["event"] for line in logs] == ["worker cannot be started"] * 2
