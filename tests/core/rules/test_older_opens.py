"""The hub reports an open that is older than the current context."""

from __future__ import annotations

import time

import pytest

from fhircast_hub.acknowledgements.tracker import Policy
from tests.core.rules.sync_error_world import errors, watched
from tests.core.world import (
    message,
    patient,
    study,
)


@pytest.mark.req("EVT-20", "EVT-34")
@pytest.mark.parametrize(
    ("before", "after", "age"),
    [
        ("2023-04-01T12:00:00Z", "2023-04-01T11:59:59Z", "1 second"),
        ("2023-04-01T12:00:00Z", "2023-04-01T11:00:00.5Z", "1 hour"),
        ("2023-04-01T12:00:00Z", "2023-04-01T13:59:00+02:00", "1 minute"),
        ("2023-04-01T14:00:00+02:00", "2023-04-01T11:59:58", "2 seconds"),
        ("2023-04-01T12:00:00", "2023-04-01T06:59:58-05:00", "2 seconds"),
        ("2023-04-01T12:00:00.25Z", "2023-04-01T12:00:00.14Z", "0.11 seconds"),
        ("2023-04-01T12:00:00.0030000Z", "2023-04-01T12:00:00.0010000Z", "0.002 seconds"),
        ("2023-04-01T12:00:00Z", "2023-03-31T12:00:00Z", "1 day"),
        ("2023-04-01T12:00:00Z", "2023-04-01T11:49:55.4Z", "10 minutes 5 seconds"),
        ("2023-04-01T12:00:00Z", "2016-05-03T15:11:55.355Z", "2523 days 20 hours"),
        ("2023-04-01T12:00:00Z", "2016-05-04T12:00:01Z", "2522 days 23 hours"),
        ("2023-04-01T12:00:00Z", "2023-03-30T11:59:00Z", "2 days"),
    ],
)
def test_an_open_that_is_older_than_the_current_context_is_told(before: str, after: str, age: str) -> None:
    """The open is accepted. After it all subscribers of SyncError are told by how much it is older."""
    world = watched()
    world.join("a", "Patient-open,SyncError", name="A")
    world.post(message("Patient-open", patient("p1"), id_="one", at=before))
    world.post(message("Patient-open", patient("p2"), id_="two", at=after))
    assert world.current() == "Patient p2"
    assert world.news("a") == ["Patient-open p1", "Patient-open p2", "SyncError"]
    (error,) = errors(world)
    assert error[:3] == ("two", "Patient-open", "unnamed")
    assert error.why.startswith("Patient-open was accepted, and its timestamp is ")
    assert f"timestamp is {age} older than that of the current context" in error.why


@pytest.mark.req("EVT-20", "EVT-25")
def test_a_timestamp_without_a_zone_is_utc_wherever_the_hub_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not of the machine's zone."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC+5")
        time.tzset()
        world = watched()
        world.post(message("Patient-open", patient("p1"), id_="one", at="2023-04-01T12:00:00Z"))
        world.post(message("Patient-open", patient("p2"), id_="two", at="2023-04-01T11:59:59"))
    time.tzset()
    (error,) = errors(world)
    assert " 1 second older " in error.why


@pytest.mark.req("EVT-20", "EVT-34")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("2023-04-01T12:00:00Z", "2023-04-01T12:00:00Z"),
        ("2023-04-01T12:00:00Z", "2023-04-01T12:00:00"),
        ("2023-04-01T12:00:00Z", "2023-04-01T14:00:00.0000000+02:00"),
        ("2023-04-01T12:00:00.14Z", "2023-04-01T12:00:00.1400000Z"),
        ("2023-04-01T12:00:00Z", "2023-04-01T08:00:01-04:00"),
        ("2023-04-01T12:00:00Z", "2023-04-01T12:00:00.001Z"),
    ],
)
def test_an_open_of_the_same_time_or_later_is_not(before: str, after: str) -> None:
    """However it is written."""
    world = watched()
    world.post(message("Patient-open", patient("p1"), id_="one", at=before))
    world.post(message("Patient-open", patient("p2"), id_="two", at=after))
    assert world.current() == "Patient p2"
    assert errors(world) == []


@pytest.mark.req("EVT-20", "EVT-34")
def test_it_is_the_current_context_that_counts() -> None:
    """Not one that is open besides, nor one that was closed; a Home-open counts, as what comes first and as what follows."""
    world, early, noon, late = (
        watched(),
        *(f"2023-04-01T{hour}:00:00Z" for hour in (10, 11, 12)),
    )

    def post(name: str, *items: object, at: str) -> list[str]:
        world.post(message(name, *items, id_=f"{name}{at}{items}"[:256], at=at))
        return [error.name for error in errors(world)]

    assert post("Patient-open", patient("p1"), at=late) == []
    assert post("Patient-open", patient("p2"), at=noon) == ["Patient-open"]
    assert post("ImagingStudy-open", study("s1"), at=noon) == [], "that of p2 counts now, though p1's is later"
    assert post("Patient-close", patient("p1"), at=early) == [], "a close overtakes nothing"
    assert post("org.example.thing", at=early) == []
    assert post("UserLogout", at=early) == []
    assert post("ImagingStudy-close", study("s1"), at=late) == []
    assert post("Patient-open", patient("p3"), at=early) == [], "nothing is current"
    assert post("Home-open", at=late) == []
    assert post("Patient-open", patient("p4"), at=noon) == ["Patient-open"]
    assert post("Home-open", at=early) == ["Home-open"]
    assert post("Patient-open", patient("p5"), at=early) == []


@pytest.mark.req("EVT-20", "EVT-17")
def test_a_repeat_is_not_older_than_itself() -> None:
    """The comparison is with the event that made the current context."""
    world = watched()
    world.post(message("Patient-open", patient("p1"), id_="one"))
    posted = message("Patient-open", patient("p2"), id_="two", at="2023-04-01T11:00:00Z")
    world.post(posted)
    assert len(errors(world)) == 1
    world.post(posted)
    assert errors(world) == []


@pytest.mark.req("EVT-20", "SYN-10", "EVT-34")
def test_the_warning_is_no_event_that_matters() -> None:
    """Nobody need answer the warning, and latecomers are not sent it."""
    world = watched(Policy.STRICT)
    world.post(message("Patient-open", patient("p1"), id_="one"))
    world.post(message("Patient-open", patient("p2"), id_="two", at="2023-04-01T11:00:00Z"))
    world.join("late", "SyncError")
    world.answer("monitor", 409)
    world.wait(99)
    assert len(errors(world)) == 1
    assert world.news("late") == []
