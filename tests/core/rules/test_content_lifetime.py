"""Shared content lives as long as its context is open."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_hub.core.errors import Conflict
from tests.core.rules.content_world import EVENTS, R1, R2, Reading, anchor, put
from tests.core.world import (
    World,
    message,
    patient,
    report,
    resource,
)


@pytest.mark.req("CON-9")
def test_a_close_disposes_of_the_content() -> None:
    """A reopened report is empty, and its former version is stale. Content of other contexts stays."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.share(put("Observation", "o1"), of=R1)
    world.share(put("Observation", "o2"), of=R2)
    version = world.version(R1)
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.shared() == ["Observation/o2"]
    assert world.session
    assert list(world.session.contents) == ["diagnosticreport/r2"]
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    assert world.shared() == []
    world.refuses(world.update(version=version), Conflict)


@pytest.mark.req("CON-9", "EVT-16")
def test_closing_what_is_not_open_disposes_of_nothing() -> None:
    """The other context may be a patient with the same id."""
    world = Reading()
    world.share(put("Observation", "o1"))
    world.publish("Patient-close", patient("r1"))
    assert world.shared() == ["Observation/o1"]


@pytest.mark.req("CON-10")
def test_another_report_in_between_disposes_of_nothing() -> None:
    """The context was opened, updated and closed, or Home-open came."""
    world = Reading()
    world.share(put("Observation", "o1"))
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.share(put("Observation", "o2"), of=R2)
    assert world.shared() == ["Observation/o2"]
    world.publish("DiagnosticReport-close", report("r2"))
    world.publish("Home-open")
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    assert world.shared() == ["Observation/o1"]


@pytest.mark.req("CON-11")
@pytest.mark.parametrize("of", [R2, "DiagnosticReport/R1", "Patient/r1", "Patient/p1"])
def test_what_is_not_open_is_neither_updated_nor_selected_in(of: str) -> None:
    """The context was never opened, was closed, has another type, or is only implied by an open one."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.publish("DiagnosticReport-close", report("r2"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    assert "not open" in world.refuses(world.update(of=of, version=world.version()), Conflict)
    name = f"{of.partition('/')[0]}-select"
    assert "not open" in world.refuses(message(name, anchor(of)), Conflict)


@pytest.mark.req("CON-11")
def test_no_session_is_made_for_what_is_refused() -> None:
    """Nothing was opened, and the topic still belongs to nobody."""
    world = World()
    updates = {"key": "updates", "resource": resource("Bundle", "b")}
    for posted in (
        message("DiagnosticReport-update", anchor(R1), updates),
        message("DiagnosticReport-select", anchor(R1)),
    ):
        with pytest.raises(Conflict):
            world.post(posted)
        assert world.session is None


@pytest.mark.req("CON-14")
def test_a_context_that_is_not_current_is_updated() -> None:
    """The current context keeps its version and content. The other context has its content when it is opened again."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.heard("viewer")
    before = world.raw()
    prior = world.version(R1)
    world.share(put("Observation", "o1"), of=R1)
    told = world.told()
    assert (told["event"]["context.priorVersionId"], told["event"]["context.versionId"]) == (prior, world.version(R1))
    assert world.raw() == before
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    assert world.shared() == ["Observation/o1"]


@pytest.mark.req("CON-14", "GET-7")
def test_at_home_what_is_open_is_updated() -> None:
    """GET stays empty, at its own version. A joiner is sent the open at its current version, and then Home-open."""
    world = Reading()
    world.publish("Home-open")
    before = world.raw()
    world.share(put("Observation", "o1"))
    assert world.raw() == before
    world.subscribe("late", f"{EVENTS},Home-open")
    world.connect("late")
    _, opened, home = world.read("late")
    assert opened["event"]["context.versionId"] == world.version()
    assert home["event"]["hub.event"] == "Home-open"


@pytest.mark.req("CON-14")
@pytest.mark.parametrize(
    "now", [("DiagnosticReport-open", report("r2"), patient("p1")), ("Patient-open", patient("p1")), ("Home-open",)]
)
def test_nothing_is_selected_in_what_is_not_current(now: tuple[Any, ...]) -> None:
    """The update gets 409. Once the context is opened again, the update is accepted."""
    world = Reading()
    world.publish(*now)
    select = message("DiagnosticReport-select", anchor(R1))
    assert "not current" in world.refuses(select, Conflict)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.post(select)
    assert world.news("viewer")[-1] == "DiagnosticReport-select"
