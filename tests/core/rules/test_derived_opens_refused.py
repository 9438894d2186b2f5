"""The hub sends a derived open again after a refusal."""

from __future__ import annotations

import pytest

from tests.core.rules.sync_error_world import opening, watched
from tests.core.world import (
    encounter,
    patient,
    study,
)


@pytest.mark.req("DER-3", "DER-16")
@pytest.mark.parametrize("status", [409, 500])
def test_a_derived_open_that_was_refused_is_sent_again(status: int) -> None:
    """The next event that implies the open sends it again. Followers of the first are not sent it twice."""
    world = watched()
    for subscription_id in ("a", "b"):
        world.join(subscription_id, "Patient-open", name=subscription_id)
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.answer("a", status)
    world.answer("b")
    world.publish("ImagingStudy-open", study("s2"), patient("p1"))
    assert world.news("a") == ["Patient-open p1"] * 2
    assert world.news("b") == ["Patient-open p1"]
    world.answer("a")
    world.publish("ImagingStudy-open", study("s3"), patient("p1"))
    assert world.news("a") == world.news("b") == []


@pytest.mark.req("DER-3", "DER-16")
def test_an_open_that_was_refused_is_derived_next_time() -> None:
    """An open that was an event of its own was not followed either."""
    world = watched()
    world.join("a", "Patient-open", name="A")
    opening(world)
    world.answer("a", 409)
    world.news("a")
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert world.news("a") == ["Patient-open p1"]


@pytest.mark.req("DER-3")
def test_a_refusal_of_something_else_forgets_nothing() -> None:
    """Of a close, of an older open after a newer was told, or of another type's open."""
    world = watched()
    world.join("a", "Patient-open,ImagingStudy-open,ImagingStudy-close", name="A")
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-open", patient("p2"))
    world.say("a", {"id": "event-1", "status": 409})
    world.publish("ImagingStudy-open", study("s1"))
    world.answer("a", 409)
    world.publish("ImagingStudy-close", study("s1"))
    world.answer("a", 409)
    world.news("a")
    world.publish("Encounter-open", encounter("e1"), patient("p2"))
    assert world.news("a") == []


@pytest.mark.req("DER-3", "DER-7")
def test_what_a_refused_event_named_was_not_followed_either() -> None:
    """A viewer that refuses a study of p1 stays on p2: the next that is about p1 tells it so."""
    world = watched()
    world.join("a", "Patient-open,ImagingStudy-open", name="A")
    world.publish("Patient-open", patient("p2"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.answer("a", 409)
    world.news("a")
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    assert world.news("a") == ["Patient-open p1"]


@pytest.mark.req("DER-3")
def test_audiences_become_one_again_after_a_refusal() -> None:
    """A refusing subscriber is in an audience of its own until it is sent what the others were sent."""
    world = watched()
    for number in range(5):
        world.join(f"v{number}", "Patient-open")
    opening(world)
    before = world.session.audiences if world.session else ()
    world.answer("v3", 409)
    assert world.session
    assert len(world.session.audiences) == len(before) + 1
    opening(world, number=2)
    assert len(world.session.audiences) == len(before)


@pytest.mark.req("SYN-1")
def test_a_refused_close_parts_nobody() -> None:
    """A close opens nothing, so no open is in doubt, and the subscribers stay one audience."""
    world = watched()
    for subscription_id in ("a", "b"):
        world.join(subscription_id, "Patient-open,Patient-close", name=subscription_id)
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-close", patient("p1"))
    assert world.session is not None
    before = world.session.audiences
    world.answer("a", 409)
    assert world.session.audiences == before
