"""Loopback ports for servers that the tests start in other processes.

Such a server listens some time after the test has chosen the port. Meanwhile, and while a server is down, neither an outgoing
connection nor another test run may take the port. So the ports lie below those that the kernel gives to outgoing connections.
Each test run has a block of ports for itself.
"""

from __future__ import annotations

import socket
import threading
from functools import cache
from pathlib import Path

PORTS = range(20000, 32000)
#: The ports of outgoing connections: the first and the last.
_KERNELS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_BLOCK = 200
_lock = threading.Lock()


def free_port() -> int:
    """A port on which nobody listens. No other test run is given this port. The block's other ports come before it is given again."""
    return free_ports(1)[0]


def free_ports(count: int) -> range:
    """As many ports, one after the other."""
    with _lock:
        return _block().take(count)


class _Block:
    """The block of this test run. Its first port is a guard's."""

    def __init__(self, guard: socket.socket) -> None:
        # The guard listens as long as this process lives. The kernel closes the guard of a test run that was killed.
        self._guard = guard
        self._ports = range(guard.getsockname()[1] + 1, guard.getsockname()[1] + _BLOCK)
        self._taken = 0

    def take(self, count: int) -> range:
        assert count < _BLOCK
        for _ in range(2 * _BLOCK):
            if self._taken + count > len(self._ports):
                self._taken = 0
            ports = self._ports[self._taken : self._taken + count]
            busy = [port for port in ports if not _is_free(port)]
            self._taken += ports.index(busy[-1]) + 1 if busy else count
            if not busy:
                return ports
        raise AssertionError(f"expected {count} free ports in {self._ports}, found none")


@cache
def _block() -> _Block:
    first = int(_KERNELS.read_text("ascii").split()[0])
    assert first >= PORTS.stop, (
        f"expected outgoing connections to have ports from {PORTS.stop} on, and they begin at {first}"
    )
    for port in PORTS[::_BLOCK]:
        try:
            return _Block(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
    raise AssertionError(f"expected a free block in {PORTS}, found none")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
