"""The first process of several workers: how long a worker that died waits. tests/process/test_workers.py runs real ones."""

from __future__ import annotations

import os
import socket

import pytest

from fhircast_hub.workers import Workers, pause


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
