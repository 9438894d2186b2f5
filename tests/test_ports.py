"""tests/ports.py: no two servers of the tests are given one port."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.ports import PORTS, free_port, free_ports

PROGRAM = "from tests.ports import free_ports; print(*free_ports(100))"


def test_threads_are_given_different_ports() -> None:
    with ThreadPoolExecutor(8) as pool:
        ports = list(pool.map(lambda _: free_port(), range(100)))
    assert len(set(ports)) == 100
    assert set(ports) <= set(PORTS)


def test_another_test_run_has_other_ports() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    ours = free_ports(100)
    assert not {int(port) for port in run.stdout.split()} & set(ours)
    assert list(ours) == list(range(ours[0], ours[0] + 100))


def test_a_port_on_which_somebody_listens_is_left_out() -> None:
    """Also where the block begins again."""
    first = free_port()
    with socket.create_server(("127.0.0.1", first)):
        assert first not in {free_port() for _ in range(400)}
