"""The hub accepts a repeated update and does nothing."""

from __future__ import annotations

import pytest

from fhircast_hub.core.errors import Conflict
from tests.core.rules.content_world import R1, R2, Reading, anchor, delete, put
from tests.core.world import (
    frozen,
    patient,
    report,
)


@pytest.mark.req("EVT-17", "EVT-32")
@pytest.mark.parametrize("between", ["nothing", "an update", "an open", "home"])
def test_a_repeated_update_is_accepted_and_does_nothing(between: str) -> None:
    """A repeat is answered like the first, though its version is stale. The hub neither applies nor sends it."""
    world = Reading()
    world.share(put("Observation", "o0"))
    posted = world.share(put("Observation", "o1", value=1), delete("Observation/o0"))
    if between == "an update":
        world.share(put("Observation", "o1", value=2))
    elif between == "an open":
        world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    elif between == "home":
        world.publish("Home-open")
    before = frozen(world.session)
    world.heard("viewer")
    for _ in range(2):
        outcome = world.post(posted)
        assert (outcome.effects, outcome.reply) == ((), None)
        assert frozen(world.session) == before
    assert world.news("viewer") == []


@pytest.mark.req("EVT-17")
@pytest.mark.parametrize("change", [{"id": "other"}, {"timestamp": "2023-04-01T12:00:01Z"}, {"note": 1}])
def test_another_update_on_the_same_version_is_no_repeat(change: dict[str, object]) -> None:
    """An update with another id, timestamp or body is no repeat, but stale."""
    world = Reading()
    posted = world.share(put("Observation", "o1"))
    world.refuses(posted | change, Conflict)


@pytest.mark.req("EVT-17")
def test_a_refused_update_is_not_remembered() -> None:
    """A refused update is refused again. The same update on the current version is accepted."""
    world = Reading()
    stale = world.update(put("Observation", "o1"), version="stale")
    for _ in range(2):
        world.refuses(stale, Conflict)
    stale["event"]["context.versionId"] = world.version()
    world.post(stale)
    assert world.shared() == ["Observation/o1"]


@pytest.mark.req("EVT-17", "LIM-1")
def test_the_last_256_updates_of_a_context_are_remembered() -> None:
    """Updates of other contexts do not push out those of this one."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    first, second = world.share(of=R1), world.share(of=R1)
    for _ in range(254):
        world.share(of=R1)
        world.share(of=R2)
    for _ in range(3):
        world.share(of=R2)
    assert world.post(first).effects == ()
    world.share(of=R1)
    world.refuses(first, Conflict)
    assert world.post(second).effects == ()


@pytest.mark.req("EVT-17", "CON-9", "EVT-32")
def test_after_a_close_an_update_is_no_repeat() -> None:
    """A close forgets the content and the remembered repeats."""
    world = Reading()
    posted = world.share(put("Observation", "o1"))
    world.publish("DiagnosticReport-close", report("r1"))
    world.refuses(posted, Conflict)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.refuses(posted, Conflict)


@pytest.mark.req("EVT-17", "CON-1", "EVT-31")
def test_after_an_update_the_open_is_not_the_newest_change() -> None:
    """The repeat is accepted, sent to nobody, and makes no version."""
    world = Reading()
    posted = world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.share(put("Observation", "o1"))
    world.heard("viewer")
    before = world.raw()
    world.post(posted)
    assert world.news("viewer") == []
    assert world.raw() == before


@pytest.mark.req("EVT-17")
def test_neither_a_select_nor_a_refused_update_makes_a_repeat_old() -> None:
    """Repeated updates change nothing. The open is still the newest change, and is sent again unchanged."""
    world = Reading()
    posted = world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    (opened,) = world.heard("viewer")
    world.publish("DiagnosticReport-select", anchor(R1))
    world.refuses(world.update(version="stale"), Conflict)
    world.heard("viewer")
    world.post(posted)
    assert world.heard("viewer") == [opened]
