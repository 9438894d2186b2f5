"""Faults: what happens to nodes and their database while clients work. Each is written down with its begin and end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.nodes.cluster import Cluster
from tests.nodes.history import History, now
from tests.nodes.proxy import Proxy

#: Seconds after which a sleeping node is dead for certain: its last sign of life is 10 s old, and others have looked.
LONG_SLEEP = 13.0


class Faults:
    """Does things to a cluster. Each method returns when the fault is over."""

    def __init__(self, cluster: Cluster, history: History, chance: random.Random) -> None:
        self.cluster, self._history, self._chance = cluster, history, chance

    async def kill(self, node: int, seconds: float = 1.0) -> None:
        """SIGKILL, and a new process after some seconds."""
        with self._fault("kill", node):
            await asyncio.to_thread(self.cluster.kill, node)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.cluster.start, node)

    async def terminate(self, node: int) -> None:
        """SIGTERM, and a new process at once."""
        with self._fault("terminate", node):
            code = await asyncio.to_thread(self.cluster.terminate, node)
            assert code == 0, f"node {node} ended with {code}"
            await asyncio.to_thread(self.cluster.start, node)

    async def sleep(self, node: int, seconds: float = LONG_SLEEP) -> None:
        """SIGSTOP, and SIGCONT after some seconds."""
        with self._fault("stop", node):
            self.cluster.stop(node)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.cluster.cont(node)

    async def lose_answers(self, seconds: float = 0.5, *nodes: int) -> None:
        """The database's answers do not arrive for some seconds. Then all connections are cut, and the answers are lost."""
        with self._fault("answers", *nodes):
            self._do(lambda proxy: proxy.hold(requests=False), nodes)
            await asyncio.sleep(seconds)
            self._do(lambda proxy: proxy.cut(), nodes)
            self._do(lambda proxy: proxy.release(), nodes)

    async def cut(self, seconds: float = 1.0, *nodes: int) -> None:
        """Nodes have no connection to the database for some seconds."""
        with self._fault("cut", *nodes):
            self._do(lambda proxy: proxy.cut(refusing=True), nodes)
            await asyncio.sleep(seconds)
            self._do(lambda proxy: proxy.release(), nodes)

    async def vanish(self, seconds: float = 1.0, *nodes: int) -> None:
        """Nothing goes between nodes and the database for some seconds, and no connection ends."""
        with self._fault("vanish", *nodes):
            self._do(lambda proxy: proxy.hold(), nodes)
            await asyncio.sleep(seconds)
            self._do(lambda proxy: proxy.release(), nodes)

    async def slow(self, seconds: float = 2.0, *nodes: int) -> None:
        """The way to the database takes longer, for some seconds."""
        with self._fault("slow", *nodes):
            self._do(lambda proxy: proxy.delay(self._chance.uniform(0.02, 0.2)), nodes)
            await asyncio.sleep(seconds)
            self._do(lambda proxy: proxy.release(), nodes)

    async def crash(self, seconds: float = 0.5) -> None:
        """The database's processes are killed. After some seconds the server starts again, and recovers."""
        with self._fault("crash"):
            await asyncio.to_thread(self.cluster.server.crash)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.cluster.server.start)

    async def fail_over(self) -> None:
        """The database's primary is killed, and the synchronous standby takes over."""
        with self._fault("failover"):
            await asyncio.to_thread(self.cluster.fail_over)

    def _do(self, act: Callable[[Proxy], None], nodes: tuple[int, ...]) -> None:
        self.cluster.on_the_way(act, nodes or range(len(self.cluster.ports)))

    @contextmanager
    def _fault(self, kind: str, *nodes: int) -> Iterator[None]:
        """Write down a fault of these nodes, or of all."""
        begin = now()
        yield
        concerned = list(nodes) or list(range(len(self.cluster.ports)))
        self._history.write("fault", kind=kind, nodes=concerned, begin=begin, end=now())
