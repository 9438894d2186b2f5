"""After the close of its source, a derived open is followed by a derived close or by another open."""

from __future__ import annotations

import uuid

import pytest

from fhircast_hub.core.limits import MAX_CONTEXTS
from tests.core.rules.closing_world import joined
from tests.core.world import CLOSES, OPENS, World, encounter, item, message, patient, report, study, token

PATIENTS = "Patient-open,Patient-close"
REPORTS = f"{PATIENTS},DiagnosticReport-open,DiagnosticReport-close"
VIEWER = "Patient-open,Patient-close,ImagingStudy-open,ImagingStudy-close"


@pytest.mark.req("DER-9", "DER-17", "DER-18", "DER-21")
def test_whoever_was_told_a_derived_open_goes_back_to_what_is_open() -> None:
    """p1 is open; a report of p2 comes and goes: a chart that knows only patients is told p1 again, as a joiner is."""
    world = World()
    world.join("chart", PATIENTS)
    opened = world.publish("Patient-open", patient("p1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    assert world.news("chart") == ["Patient-open p1", "Patient-open p2"]
    world.publish("DiagnosticReport-close", report("r1"))
    (again,) = world.read("chart")
    assert (again["id"], again["timestamp"], again["event"]["context"]) == (
        opened["id"],
        opened["timestamp"],
        opened["event"]["context"],
    )
    assert "context.versionId" in again["event"]
    assert joined(world, PATIENTS) == ["Patient-open p1"]


@pytest.mark.req("DER-9", "DER-19")
def test_where_nothing_else_is_open_a_close_is_derived() -> None:
    """New id made of the close's id and its own name, the close's timestamp, the items of the derived open, no version."""
    world = World()
    world.join("chart", "patient-OPEN,Patient-close")
    p = patient("p2") | {"note": "stays"}
    world.publish("DiagnosticReport-open", report("r1"), p)
    ((opened),) = world.read("chart")
    world.post(message("DiagnosticReport-close", report("r1"), id_="the-close", at="2023-04-01T11:59:00Z"))
    (close,) = world.read("chart")
    assert close == {
        "timestamp": "2023-04-01T11:59:00Z",
        "id": close["id"],
        "event": {"hub.topic": "a-topic", "hub.event": "Patient-close", "context": [p]},
    }
    assert uuid.UUID(close["id"]).version == 5
    assert close["id"] != opened["id"]
    assert joined(world, PATIENTS) == []


@pytest.mark.req("DER-9", "DER-19")
def test_the_same_close_derives_the_same_id_on_every_node() -> None:
    """And another close another one."""
    ids = []
    for close in ("one", "one", "two"):
        world = World()
        world.join("chart", PATIENTS)
        world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
        world.post(message("DiagnosticReport-close", report("r1"), id_=close))
        ids.append(world.read("chart")[-1]["id"])
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.req("DER-9", "DER-18")
def test_what_another_context_implies_is_told_next() -> None:
    """Of two reports the newer is closed: the patient of the older one is the newest that is open."""
    world = World()
    world.join("chart", PATIENTS)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    first = world.read("chart")
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.news("chart")
    world.publish("DiagnosticReport-close", report("r2"))
    assert world.read("chart") == first


@pytest.mark.req("DER-9")
@pytest.mark.parametrize("other", ["report", "stored"])
def test_nobody_is_told_what_they_show_already(other: str) -> None:
    """Another report of the patient, or the patient's own open, is there. Subscribers of patients hear nothing."""
    world = World()
    world.join("chart", PATIENTS)
    if other == "stored":
        world.publish("Patient-open", patient("p2"))
    else:
        world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.news("chart")
    world.publish("DiagnosticReport-close", report("r2"))
    assert world.news("chart") == []


@pytest.mark.req("DER-9", "DER-17")
@pytest.mark.parametrize(
    "events", [f"{OPENS},{CLOSES}", f"{PATIENTS},DiagnosticReport-close", f"{PATIENTS},DiagnosticReport-open"]
)
def test_whoever_knows_the_source_is_told_nothing_besides(events: str) -> None:
    """The close suffices for its receivers. Receivers of the report were sent no derived open."""
    world = World()
    world.join("all", events)
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.news("all")
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("all") == (["DiagnosticReport-close r1"] if "DiagnosticReport-close" in events else [])


@pytest.mark.req("DER-9", "DER-17")
def test_whoever_moved_on_stays_there() -> None:
    """The derived open must still be the last open. The close of an open that was never sent ends nothing."""
    world = World()
    world.join("chart", PATIENTS)
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("Patient-open", patient("p3"))
    world.news("chart")
    world.publish("DiagnosticReport-close", report("r1"))
    world.publish("DiagnosticReport-close", report("never"))
    assert world.news("chart") == []
    world.publish("DiagnosticReport-open", report("r4"), patient("p4"))
    world.publish("Patient-close", patient("p4"))
    world.news("chart")
    world.publish("DiagnosticReport-close", report("r4"))
    assert world.news("chart") == [], "p4 was closed already"


@pytest.mark.req("DER-9", "DER-3", "DER-23")
def test_whoever_refused_it_is_brought_back_all_the_same() -> None:
    """The chart refused p2, so the hub cannot know what the chart shows. The chart is sent the open context."""
    world = World()
    world.join("chart", PATIENTS)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.answer("chart", 409)
    world.news("chart")
    world.publish("DiagnosticReport-close", report("r2"))
    assert world.news("chart") == ["Patient-open p1"]
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("chart") == ["Patient-close p1"], "it stayed on p1, and must not for ever"


@pytest.mark.req("DER-9", "DER-3", "DER-23")
def test_a_refused_study_leaves_the_patient_that_was_followed() -> None:
    """The viewer followed p2, and refused the study of p2."""
    world = World()
    world.join("viewer", VIEWER)
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("ImagingStudy-open", study("s2"), patient("p2"))
    world.answer("viewer", 409)
    world.publish("ImagingStudy-close", study("s2"))
    world.news("viewer")
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("viewer") == ["Patient-close p2"]


@pytest.mark.req("DER-9")
@pytest.mark.parametrize("open_besides", [False, True])
def test_a_study_takes_no_patient_over_that_was_told_before(open_besides: bool) -> None:
    """A viewer is told p2 by a report, opens a study of p2, and the report is closed: p2 goes with the study, not with nothing."""
    world = World()
    world.join("viewer", VIEWER)
    if open_besides:
        world.publish("Patient-open", patient("p1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("ImagingStudy-open", study("s2"), patient("p2"))
    world.news("viewer")
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("viewer") == [], "the study is of p2"
    world.publish("ImagingStudy-close", study("s2"))
    back = "Patient-open p1" if open_besides else "Patient-close p2"
    assert world.news("viewer") == ["ImagingStudy-close s2", back]
    world.publish("DiagnosticReport-open", report("r5"), patient("p2"))
    assert world.news("viewer") == ["Patient-open p2"]


@pytest.mark.req("DER-9")
def test_a_patient_that_was_closed_is_open_by_no_event_that_names_it() -> None:
    """A report still names p3, which was closed; an encounter of p3 comes and goes."""
    world = World()
    world.join("chart", REPORTS)
    world.publish("DiagnosticReport-open", report("r1"), patient("p3"))
    world.publish("Patient-open", patient("p3"))
    world.publish("Patient-close", patient("p3"))
    world.publish("Encounter-open", encounter("e2"), patient("p3"))
    world.news("chart")
    world.publish("Encounter-close", encounter("e2"))
    assert world.news("chart") == ["Patient-close p3"]


@pytest.mark.req("DER-9")
def test_whoever_knows_only_the_sources_close_hears_of_a_source_that_names_less() -> None:
    """There is no close then."""
    world = World()
    world.join("viewer", f"{PATIENTS},ImagingStudy-close")
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p2"))
    world.news("viewer")
    world.publish("ImagingStudy-open", study("s1"))
    assert world.news("viewer") == ["Patient-open p1"]


@pytest.mark.req("DER-9", "EVT-12", "DER-19")
def test_nobody_is_told_a_close_who_did_not_ask_for_closes() -> None:
    """The subscribers are sent the open context. Where nothing is open, nothing is sent."""
    world = World()
    world.join("opens", "Patient-open")
    world.join("limited", PATIENTS, by=token(read=["Patient-open"]))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("opens") == world.news("limited") == ["Patient-open p2"]
    world.publish("Patient-open", patient("p1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("opens") == world.news("limited") == ["Patient-open p1", "Patient-open p2", "Patient-open p1"]


@pytest.mark.req("DER-9", "DER-19")
def test_closes_come_first_and_the_innermost_before_the_others() -> None:
    """The study, then the encounter; then the patient that is open."""
    world = World()
    world.join("chart", "Patient-open,Encounter-open,ImagingStudy-open,Encounter-close,ImagingStudy-close")
    world.publish("Patient-open", patient("p1"))
    world.publish("DiagnosticReport-open", report("r1"), study("s2"), encounter("e2"), patient("p2"))
    world.news("chart")
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("chart") == ["ImagingStudy-close s2", "Encounter-close e2", "Patient-open p1"]


@pytest.mark.req("DER-9", "CTX-7", "DER-18", "DER-21")
def test_what_is_newest_is_told_last() -> None:
    """A study was opened after the report. Subscribers that return to p1 are sent the study again, as joiners are."""
    world = World()
    world.join("viewer", VIEWER)
    world.publish("Patient-open", patient("p1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("ImagingStudy-open", study("s1"))
    world.news("viewer")
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("viewer") == joined(world, VIEWER) == ["Patient-open p1", "ImagingStudy-open s1"]


@pytest.mark.req("DER-9")
def test_a_context_that_is_opened_again_with_less_takes_the_rest_back() -> None:
    """A report first with a study, then without: the study is not what the report is about any more."""
    world = World()
    world.join("studies", "ImagingStudy-open,ImagingStudy-close")
    world.publish("DiagnosticReport-open", report("r1"), study("s1"), patient("p1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    assert world.news("studies") == ["ImagingStudy-open s1", "ImagingStudy-close s1"]
    assert joined(world, "ImagingStudy-open,ImagingStudy-close") == []


@pytest.mark.req("DER-9", "LIM-1")
def test_a_context_that_had_to_go_takes_its_derived_opens_with_it() -> None:
    """The hub closes the oldest of too many. Subscribers that were sent its encounter hear that it is closed."""
    world = World()
    world.join("encounters", "Encounter-open,Encounter-close")
    world.publish("Observation-open", item("observation", "Observation", "o1"), encounter("e1"))
    for number in range(MAX_CONTEXTS):
        world.publish("ImagingStudy-open", study(f"s{number}"))
    assert world.news("encounters") == ["Encounter-open e1"], "the newest of its type stays"
    world.publish("Observation-open", item("observation", "Observation", "o2"))
    assert world.news("encounters") == ["Encounter-close e1"]


@pytest.mark.req("DER-9", "DER-17")
def test_no_older_open_of_its_own_type_is_told_at_a_close() -> None:
    """Two studies of p1 are open. The close of the newer suffices: nobody is sent a stored study."""
    world = World()
    world.join("viewer", VIEWER)
    for number in (1, 2):
        world.publish("ImagingStudy-open", study(f"s{number}"), patient("p1"))
    world.news("viewer")
    world.publish("ImagingStudy-close", study("s2"))
    assert world.news("viewer") == ["ImagingStudy-close s2"]


@pytest.mark.req("DER-9", "SYN-1", "SYN-21")
def test_a_refused_derived_close_is_reported_by_its_source() -> None:
    """As a derived open is: others know the source."""
    world = World()
    world.join("monitor", "SyncError")
    world.join("chart", PATIENTS, name="Chart")
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.post(message("DiagnosticReport-close", report("r1"), id_="the-close"))
    world.answer("chart", 409)
    (error,) = world.read("monitor")
    coding = error["event"]["context"][0]["resource"]["issue"][0]["details"]["coding"]
    assert [code["code"] for code in coding[:3]] == ["the-close", "DiagnosticReport-close", "Chart"]


@pytest.mark.req("DER-9", "DER-8", "DER-24")
@pytest.mark.parametrize("rules", [{"derive_closes": False}, {"derive_opens": False}])
def test_it_can_be_turned_off(rules: dict[str, bool]) -> None:
    """With DERIVE_CLOSES=false, or where no opens are derived, nothing is taken back, now or on return."""
    world = World(**rules)
    world.join("chart", PATIENTS)
    world.join("away", PATIENTS)
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.disconnect("away", code=1006)
    world.wait(1)
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("chart") == (["Patient-open p2"] if "derive_closes" in rules else [])
    world.news("away")
    world.connect("away")
    assert "Patient-close p2" not in world.news("away")


@pytest.mark.req("DER-9")
def test_a_repeated_close_takes_nothing_back_again() -> None:
    """The source is not open any more."""
    world = World()
    world.join("chart", PATIENTS)
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    close = message("DiagnosticReport-close", report("r1"), id_="the-close")
    for _ in range(2):
        world.post(close)
    assert world.news("chart") == ["Patient-open p2", "Patient-close p2"]
