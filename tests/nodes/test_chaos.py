"""A hub of three nodes under load, while nodes are killed and put to sleep, and their database is cut off and crashes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.nodes.clients import Ways
from tests.nodes.cluster import cluster
from tests.nodes.faults import Faults
from tests.nodes.load import Run, Size


async def _plan(faults: Faults) -> None:
    await asyncio.sleep(2)
    await faults.kill(0)
    await asyncio.sleep(1)
    await faults.sleep(1)
    await asyncio.sleep(2)
    await faults.lose_answers()
    await faults.cut()
    await asyncio.sleep(2)
    await faults.crash()
    await asyncio.sleep(3)
    await faults.fail_over()
    await asyncio.sleep(3)


@pytest.mark.req("NOD-1", "NOD-2", "EVT-13", "EVT-14", "EVT-17", "GET-2", "GET-3", "CON-3", "SUB-12", "SYN-7")
def test_any_node_and_the_database_may_fail(tmp_path: Path) -> None:
    with cluster(3, tmp_path) as made:
        # Most subscribers stay where they are, so that some are at the node that sleeps.
        run = Run(made, tmp_path / "history.jsonl", seed=1, size=Size(ways=Ways(stay=60)))
        asyncio.run(run.play(_plan))
        assert run.violations == []
        (sleep,) = [each for each in run.history.records if each["op"] == "fault" and each["kind"] == "stop"]
        connections = [each for each in run.history.records if each["op"] == "connection" and each["node"] == 1]
        slept = [each for each in connections if each["confirmed"] < sleep["begin"] and each["end"] > sleep["end"]]
        assert {each["code"] for each in slept} == {1012}
        assert any(each["confirmed"] > sleep["end"] for each in connections)
