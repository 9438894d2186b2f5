"""After a close, subscribers show the same context as a joiner."""

from __future__ import annotations

import pytest

from fhircast_hub.core.limits import MAX_CONTEXTS
from tests.core.rules.closing_world import away, joined
from tests.core.world import World, encounter, item, patient, report, study

PATIENTS = "Patient-open,Patient-close"
VIEWER = "Patient-open,Patient-close,ImagingStudy-open,ImagingStudy-close"


@pytest.mark.req("CTX-7", "DER-3")
def test_a_joiner_is_told_who_is_open_though_an_older_open_named_the_same_before_a_close() -> None:
    """A report named p2 and s2, p2 was closed, another report named p2, and a study of nobody came: p2 is open to all."""
    world = World()
    world.join("viewer", VIEWER)
    world.publish("DiagnosticReport-open", report("r2"), study("s2"), patient("p2"))
    world.publish("Patient-close", patient("p2"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("ImagingStudy-open", study("s1"))
    assert world.news("viewer")[-2:] == joined(world, VIEWER) == ["Patient-open p2", "ImagingStudy-open s1"]


@pytest.mark.req("CTX-7", "DER-3")
def test_a_joiner_is_not_left_with_whom_an_open_names_that_were_closed_since() -> None:
    """The study of p2 came between two opens of p1, and p2 was closed: behind the study a joiner is told p1 again."""
    world = World()
    world.join("viewer", VIEWER)
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p2"))
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.publish("Patient-close", patient("p2"))
    assert world.news("viewer")[-2:] == ["Patient-open p1", "Patient-close p2"]
    assert joined(world, VIEWER) == ["ImagingStudy-open s1", "Patient-open p1"]


@pytest.mark.req("DER-3", "CTX-7", "DER-14")
def test_an_open_is_told_of_whom_an_older_one_named_before_a_close() -> None:
    """A joiner is sent a study that names p2, though p2 was closed. The later derived open of p2 is news."""
    world = World()
    world.publish("ImagingStudy-open", study("s1"), patient("p2"))
    world.publish("Patient-close", patient("p2"))
    world.join("viewer", VIEWER)
    world.publish("Encounter-open", encounter("e1"), patient("p2"))
    assert world.news("viewer") == ["Patient-open p2"]


@pytest.mark.req("DER-9", "DER-7", "DER-18")
def test_whoever_read_the_patient_in_a_study_goes_back_to_the_study() -> None:
    """The viewer opened s1 of p1 before the report of p2 came: a joiner ends with that study, and so does the viewer."""
    world = World()
    world.join("viewer", VIEWER)
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    assert world.news("viewer") == ["ImagingStudy-open s1", "Patient-open p2"]
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("viewer") == joined(world, VIEWER) == ["ImagingStudy-open s1"]


@pytest.mark.req("DER-9", "DER-7", "DER-22")
def test_what_a_study_kept_from_being_told_is_told_at_its_close() -> None:
    """A report of the study's patient tells a viewer nothing new; when the study is closed, the patient is."""
    world = World()
    world.join("viewer", VIEWER)
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("DiagnosticReport-open", report("r1"), study("s1"), patient("p1"))
    assert world.news("viewer") == ["ImagingStudy-open s1"]
    world.publish("ImagingStudy-close", study("s1"))
    assert world.news("viewer") == ["ImagingStudy-close s1", "Patient-open p1"]
    assert joined(world, VIEWER) == ["Patient-open p1"]


@pytest.mark.req("LIM-1", "CTX-7", "LIM-4")
def test_what_the_newest_open_names_does_not_go_for_it() -> None:
    """Each open context is the newest of its type, and one is too many. The patient of the study that comes is the oldest."""
    world = World()
    world.join("viewer", PATIENTS)
    world.publish("Patient-open", patient("p1"))
    for number in range(1, MAX_CONTEXTS):
        type_ = f"A{chr(97 + number // 26)}{chr(97 + number % 26)}"
        world.publish(f"{type_}-open", item(type_.lower(), type_, "x"), patient("p9"))
    world.news("viewer")
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert world.session is not None
    assert len(world.session.contexts) == MAX_CONTEXTS
    assert world.news("viewer") == joined(world, PATIENTS) == ["Patient-open p1"]


@pytest.mark.req("DER-9")
@pytest.mark.parametrize("heard", [True, False])
def test_a_home_open_that_was_not_heard_takes_nothing_away(heard: bool) -> None:
    """A viewer without Home-open still shows p2, until the report is closed. Receivers of Home-open show nothing."""
    world = World()
    world.join("chart", f"{PATIENTS}{',Home-open' if heard else ''}")
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("Home-open")
    world.news("chart")
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("chart") == ([] if heard else ["Patient-close p2"])


@pytest.mark.req("DER-9", "CTX-6")
@pytest.mark.parametrize("renews", [False, True])
def test_whoever_is_told_a_home_open_shows_nothing(renews: bool) -> None:
    """On return, or at a renewal that adds Home-open: a study is open, and its close takes no patient back."""
    world = World()
    world.join("chart", VIEWER if renews else f"{VIEWER},Home-open")
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("ImagingStudy-open", study("s2"))
    world.wait(2)
    if not renews:
        world.disconnect("chart", code=1006)
    world.publish("Home-open")
    world.news("chart")
    if renews:
        world.renew("chart", f"{VIEWER},Home-open")
    else:
        world.connect("chart")
    assert world.news("chart")[-1] == "Home-open"
    world.publish("ImagingStudy-close", study("s1"))
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("chart") == ["ImagingStudy-close s1"]


@pytest.mark.req("DER-9", "CTX-7", "DER-18")
def test_an_encounter_that_goes_back_takes_nobody_to_its_patient() -> None:
    """p2 is open, and an older encounter of p1 is told again: p2 is told behind the encounter, as to a joiner."""
    events = f"{VIEWER},Encounter-open,Encounter-close"
    world = World()
    world.join("viewer", events)
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.publish("Patient-open", patient("p2"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"), encounter("e2"))
    world.publish("ImagingStudy-open", study("s1"))
    world.news("viewer")
    world.publish("DiagnosticReport-close", report("r1"))
    told = ["Encounter-open e1", "Patient-open p2", "ImagingStudy-open s1"]
    assert world.news("viewer") == joined(world, events) == told


@pytest.mark.req("DER-9", "CTX-7", "DER-22")
def test_what_a_study_kept_from_being_told_is_told_as_a_joiner_is() -> None:
    """Two reports name one encounter, the newer with a patient that was closed: the older report's encounter is told."""
    events = f"{VIEWER},Encounter-open,Encounter-close"
    world = World()
    world.join("viewer", events)
    world.publish("ImagingStudy-open", study("s1"), encounter("e2"))
    world.publish("DiagnosticReport-open", report("ra"), patient("p2"), encounter("e2"))
    world.publish("DiagnosticReport-open", report("rb"), patient("p1"), encounter("e2"))
    world.publish("Patient-close", patient("p1"))
    world.news("viewer")
    world.publish("ImagingStudy-close", study("s1"))
    close, again = world.read("viewer")
    assert close["event"]["hub.event"] == "ImagingStudy-close"
    assert [each["resource"]["id"] for each in again["event"]["context"]] == ["e2", "p2"]


@pytest.mark.req("DER-9", "DER-3", "DER-16")
def test_what_was_told_before_an_unheard_home_open_is_told_by_that_open_still() -> None:
    """A study names the encounter once more after a Home-open, then no more. The encounter ends with its report."""
    world = World()
    world.join("viewer", "Encounter-open,Encounter-close,ImagingStudy-open,ImagingStudy-close")
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"), encounter("e1"))
    world.publish("Home-open")
    world.publish("ImagingStudy-open", study("s1"), encounter("e1"))
    world.publish("ImagingStudy-open", study("s1"))
    world.news("viewer")
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("viewer") == ["Encounter-close e1"]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("crash", [False, True])
def test_what_an_event_names_is_still_shown_by_who_was_told_an_open_of_it(crash: bool, closed: bool) -> None:
    """A report told p2, the study of p2 was opened, the report closed. After a reconnection the study is closed, and p2 with it.

    After a crash too, though the hub knows no more who was told what.
    """
    world = World()
    world.join("chart", VIEWER)
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("ImagingStudy-open", study("s2"), patient("p2"))
    world.publish("DiagnosticReport-close", report("r1"))
    world.news("chart")
    if crash:
        world.restart()
    else:
        world.disconnect("chart", code=1006)
    world.wait(1)
    if closed:
        world.publish("ImagingStudy-close", study("s2"))
    world.connect("chart")
    if closed:
        assert world.news("chart") == ["subscribe", "ImagingStudy-close s2", "Patient-close p2"]
    else:
        assert world.news("chart") == ["subscribe", "ImagingStudy-open s2"]
        world.publish("ImagingStudy-close", study("s2"))
        assert world.news("chart") == ["ImagingStudy-close s2", "Patient-close p2"]


@pytest.mark.req("DER-9", "SUB-12", "DER-20")
def test_what_a_joiner_is_not_told_does_not_keep_a_close_from_being_told() -> None:
    """An older study still names p2, but joiners are sent a newer study."""
    world = World()
    world.join("chart", VIEWER)
    world.publish("ImagingStudy-open", study("s1"), patient("p2"))
    world.publish("ImagingStudy-open", study("s2"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    assert world.news("chart")[-1] == "Patient-open p2"
    away(world, "DiagnosticReport-close", report("r1"))
    assert world.news("chart") == ["subscribe", "Patient-close p2", "ImagingStudy-open s2"]
