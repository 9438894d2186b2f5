"""The engine without a hub: clients/following.json, and what must hold whatever happens. JavaScript runs the same table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clients.engine_driver import Driver
from tests.clients.engine_hub import SimpleHub
from tests.clients.fuzz import differences, random_sequence

_TABLE = json.loads((Path(__file__).parents[2] / "clients" / "following.json").read_text(encoding="utf-8"))
#: Random sequences that both engines play in each run of the tests; `make fuzz-clients` plays more.
_FUZZED = 600


def table() -> list[dict[str, Any]]:
    """The sequences of clients/following.json."""
    sequences: list[dict[str, Any]] = _TABLE["sequences"]
    return sequences


def differs(sequence: dict[str, Any]) -> str:
    """Where the engine makes something else of a sequence than the table says, "" where it does not."""
    driver = Driver(sequence)
    for step in sequence["steps"]:
        seen = driver.step(step)
        for name, expected in step.get("is", {}).items():
            if seen.get(name) != expected:
                return f"after {step}: {name} is {seen.get(name)!r}"
    return ""


@pytest.mark.parametrize(
    "sequence",
    [pytest.param(one, id=one["name"], marks=pytest.mark.req(*one["proves"])) for one in _TABLE["sequences"]],
)
def test_what_the_engine_makes_of_a_sequence(sequence: dict[str, Any]) -> None:
    assert not differs(sequence)


@pytest.mark.req("CLT-22")
def test_both_engines_make_the_same_of_random_sequences() -> None:
    assert not differences(range(_FUZZED))


@pytest.mark.req("CLT-5", "CLT-13")
@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_what_can_be_seen_agrees_with_itself(seed: int) -> None:
    sequence = random_sequence(seed)
    driver = Driver(sequence)
    for step in sequence["steps"]:
        seen = driver.step(step)
        assert seen["current"] is None or seen["current"] in seen["open"]
        assert not (seen["in_step"] and (seen["behind"] or seen["unsent"] or seen["connection"] != "connected"))


@pytest.mark.req("CLT-5", "CLT-9", "CLT-13", "CLT-18", "CLT-20")
@given(st.data(), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=400, deadline=None)
def test_who_is_in_step_shows_what_the_hub_shows(
    data: st.DataObject, ordered: bool, replays: bool, closes: bool
) -> None:
    """Whatever is opened, lost and cut: once nothing is on its way, the client shows the hub's current context, or says that it may not."""
    hub = SimpleHub(ordered=ordered, replays=replays, closes=closes)
    for _ in range(data.draw(st.integers(1, 25))):
        data.draw(st.sampled_from(hub.possible()))()
        hub.check()
    hub.finish()
    hub.check()
    assert hub.seen["in_step"] or "did not follow" in hub.seen["why"] or "was shown here after" in hub.seen["why"]
