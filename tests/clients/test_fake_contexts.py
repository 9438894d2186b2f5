"""The contexts of JavaScript's fake hub, which has no core of a hub, beside those of the hub's core."""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.hub_contexts import HubContexts, RandomEvents
from tests.node import NODE

_PLAYER = Path(__file__).parents[2] / "clients" / "javascript" / "test" / "contexts-player.js"
_SEQUENCES, _EVENTS = 200, 40
_ACCEPTED, _MALFORMED, _CONFLICT = 202, 400, 409


@pytest.fixture
def played() -> Iterator[Callable[[Any], Any]]:
    """What JavaScript makes of a message; of None a new session."""
    process = subprocess.Popen(
        [NODE, _PLAYER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdin
    assert process.stdout

    def play(message: Any) -> Any:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield play
    process.stdin.close()
    process.wait()
    process.stdout.close()


@pytest.mark.req("CLT-27", "CLT-58")
def test_they_are_those_of_the_hub(played: Callable[[Any], Any]) -> None:
    statuses: Counter[int] = Counter()
    for seed in range(_SEQUENCES):
        hub, events = HubContexts(), RandomEvents(random.Random(seed))
        played(None)
        for number in range(_EVENTS):
            message = events.next()
            expected = hub.accept(message)
            statuses[expected["status"]] += 1
            events.heard(expected)
            assert played(message) == expected, f"seed {seed}, event {number}: {json.dumps(message)}"
    assert min(statuses[status] for status in (_ACCEPTED, _MALFORMED, _CONFLICT)) > _SEQUENCES / 2
