"""clients/scenarios.json, which the libraries of both languages play: at a real hub, and at a fake one in the manner of STU2."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from clients.places import DevHub, FakePlace, RealPlace, scenarios
from clients.player import Player

_ALL = scenarios()


def _cases(*, stu2: bool) -> list[Any]:
    return [
        pytest.param(one["steps"], id=one["name"], marks=pytest.mark.req(*one["proves"]))
        for one in _ALL["scenarios"]
        if not stu2 or one["stu2"]
    ]


@pytest.mark.parametrize("steps", _cases(stu2=False))
async def test_at_a_real_hub(steps: list[dict[str, Any]], hub: DevHub) -> None:
    async with RealPlace(hub) as place:
        await Player(place, copy.deepcopy(_ALL["resources"]), tells=True).play(steps)


@pytest.mark.parametrize("steps", _cases(stu2=True))
async def test_at_a_hub_of_stu2(steps: list[dict[str, Any]]) -> None:
    async with FakePlace() as place:
        await Player(place, copy.deepcopy(_ALL["resources"]), tells=False).play(steps)
