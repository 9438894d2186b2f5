"""A run: clients of several topics work while a plan of faults is carried out, and the checker judges their histories."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from tests.nodes.checker import LATE, check
from tests.nodes.clients import Nodes, Subscriber, Ways, publish, read
from tests.nodes.cluster import GRACE, Cluster
from tests.nodes.editors import EVENTS as REPORT_EVENTS
from tests.nodes.editors import edit, open_report
from tests.nodes.faults import Faults
from tests.nodes.history import History
from tests.nodes.versions import check_versions

#: Seconds that everybody has to be connected again at the end.
PATIENCE = 20.0
#: The topic of the report that some clients share.
REPORT = "report"
#: Seconds between two subscribers that leave without a word.
LEAVING = 20.0
Plan = Callable[[Faults], Awaitable[None]]


class Size(NamedTuple):
    """How many clients of each topic there are."""

    topics: int = 3
    publishers: int = 2
    subscribers: int = 4
    ways: Ways = Ways()


class Run:
    """One run of the clients. `violations` are the checker's, a line each."""

    def __init__(self, cluster: Cluster, file: Path, seed: int, size: Size | None = None) -> None:
        self.size = size or Size()
        self.history = History(file)
        self.violations: list[str] = []
        chance = random.Random(seed)
        self.faults = Faults(cluster, self.history, chance)
        self._cluster = cluster
        self._nodes = Nodes(cluster.ports, cluster.issuer.idp.token(), self.history, chance)
        self._topics = [f"topic-{number}" for number in range(self.size.topics)]
        self._subscribers = [
            Subscriber(self._nodes, topic, f"{topic}-viewer-{number}", self.size.ways)
            for topic in self._topics
            for number in range(self.size.subscribers)
        ]
        self._subscribers += [
            Subscriber(self._nodes, REPORT, f"{REPORT}-viewer-{number}", self.size.ways, REPORT_EVENTS)
            for number in range(self.size.subscribers)
        ]

    async def play(self, plan: Plan) -> None:
        """Let the clients work until the plan is carried out, and judge what they saw."""
        stopping = asyncio.Event()
        following = [asyncio.create_task(each.run()) for each in self._subscribers]
        await self._all_connected()
        await open_report(self._nodes, REPORT)
        leaving = asyncio.create_task(self._leave(stopping))
        working = [
            asyncio.create_task(publish(self._nodes, topic, f"{topic}-{number}", self.size.ways, stopping))
            for topic in self._topics
            for number in range(self.size.publishers)
        ]
        working += [asyncio.create_task(read(self._nodes, topic, self.size.ways, stopping)) for topic in self._topics]
        working += [
            asyncio.create_task(edit(self._nodes, REPORT, f"{REPORT}-{number}", self.size.ways, stopping))
            for number in range(self.size.publishers)
        ]
        try:
            await plan(self.faults)
            stopping.set()
            await asyncio.gather(*working)
            await self._all_connected()
            await asyncio.sleep(LATE + 1)
        finally:
            for each in self._subscribers:
                await each.finish()
            for task in (leaving, *working):
                task.cancel()
            await asyncio.gather(*following, leaving, *working, return_exceptions=True)
            await self._nodes.http.aclose()
        orders = await asyncio.to_thread(self._cluster.orders)
        for topic, events in orders.items():
            self.history.write("order", topic=topic, events=events)
        self.history.close()
        self.violations += check(self.history.records, orders, GRACE)
        self.violations += check_versions(self.history.records, REPORT)

    async def _all_connected(self) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while absent := [each.name for each in self._subscribers if not each.is_connected]:
            if asyncio.get_running_loop().time() > deadline:
                self.violations.append(f"{absent} cannot connect again")
                return
            await asyncio.sleep(0.05)

    async def _leave(self, stopping: asyncio.Event) -> None:
        """Now and then, let a subscriber leave without a word."""
        number = 0
        async with asyncio.TaskGroup() as group:
            while not stopping.is_set():
                for topic in self._topics:
                    number += 1
                    group.create_task(
                        Subscriber(self._nodes, topic, f"{topic}-leaver-{number}", self.size.ways).leave()
                    )
                await asyncio.sleep(LEAVING)
