"""The hub sends a repeat again only while the repeated change is the newest."""

from __future__ import annotations

import pytest

from tests.core.world import (
    CLOSES,
    OPENS,
    World,
    encounter,
    message,
    outcome,
    patient,
    study,
)


@pytest.mark.req("EVT-17")
@pytest.mark.parametrize(
    ("name", "items"), [("Patient-open", [patient("p1")]), ("Patient-close", [patient("p1")]), ("Home-open", [])]
)
def test_a_repeat_of_the_newest_change_is_sent_again(name: str, items: list[object]) -> None:
    """The same bytes may come often. The open keeps its version, and nothing changes."""
    world = World()
    world.join("viewer", f"{OPENS},{CLOSES},Home-open")
    world.publish("Patient-open", patient("p1"))
    posted = world.publish(name, *items)
    before = world.get()
    last = world.heard("viewer")[-1]
    for _ in range(2):
        world.post(posted)
        assert world.heard("viewer") == [last]
    assert world.get() == before


@pytest.mark.req("EVT-17", "EVT-31")
@pytest.mark.parametrize(
    ("newer", "items"),
    [
        ("Patient-open", [patient("p2")]),
        ("ImagingStudy-open", [study("s1")]),
        ("Patient-close", [patient("p1")]),
        ("Encounter-close", [encounter("e1")]),
        ("Home-open", []),
    ],
)
@pytest.mark.parametrize("old", ["Patient-open", "Patient-close", "Home-open"])
def test_a_repeat_of_an_older_change_is_nothing(newer: str, items: list[object], old: str) -> None:
    """Once something newer was accepted, a repeat is accepted, sent to nobody, and changes nothing."""
    world = World()
    world.join("viewer", f"{OPENS},{CLOSES},Home-open")
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-open", patient("p0"))
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    posted = world.publish(old, *([] if old == "Home-open" else [patient("p0")]))
    world.publish(newer, *items)
    before = world.get()
    world.news("viewer")
    for _ in range(2):
        world.post(posted)
        assert world.news("viewer") == []
        assert world.get() == before


@pytest.mark.req("EVT-17")
def test_what_changes_no_context_makes_no_repeat_old() -> None:
    """Events that are only passed on, and closes of what is not open, are no newer change."""
    world = World()
    world.join("viewer", "Patient-open")
    posted = world.publish("Patient-open", patient("p1"))
    world.publish("SyncError", outcome())
    world.publish("Patient-close", patient("p2"))
    world.post(posted)
    assert world.news("viewer") == ["Patient-open p1"] * 2


@pytest.mark.req("EVT-17")
@pytest.mark.parametrize("change", [{"id": "other"}, {"timestamp": "2023-04-01T12:00:01Z"}, {"note": "other"}])
def test_what_differs_is_no_repeat(change: dict[str, str]) -> None:
    """Another id, timestamp or body is another event, and makes its context the current one."""
    world = World()
    posted = message("Patient-open", patient("p1"))
    world.post(posted)
    world.publish("Patient-open", patient("p2"))
    world.post(posted | change)
    assert world.current() == "Patient p1"


@pytest.mark.req("EVT-17", "EVT-31")
def test_who_keeps_repeating_never_takes_the_session_back() -> None:
    """A sender whose socket is lost repeats its open every ten seconds, while the others move on a hundred times."""
    world = World()
    posted = world.publish("Patient-open", patient("old"))
    for number in range(100):
        world.publish("Patient-open", patient(f"p{number}"))
        world.wait(10)
        world.post(posted)
        assert world.current() == f"Patient p{number}"
