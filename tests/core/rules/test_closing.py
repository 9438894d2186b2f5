"""Derived closes: what becomes of an open that was derived, once its source is closed."""

from __future__ import annotations

import uuid

import pytest

from fhircast_hub.core.limits import MAX_CONTEXTS
from fhircast_hub.core.wire.close_codes import NORMAL
from tests.core.world import CLOSES, OPENS, World, encounter, item, message, patient, report, study, token

PATIENTS = "Patient-open,Patient-close"
REPORTS = f"{PATIENTS},DiagnosticReport-open,DiagnosticReport-close"
VIEWER = "Patient-open,Patient-close,ImagingStudy-open,ImagingStudy-close"


def joined(world: World, events: str) -> list[str]:
    """What somebody with these events who joins now is told."""
    world.subscribe("joiner", events)
    world.connect("joiner")
    return world.news("joiner")[1:]


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
    """Another report of the same patient, or the patient's own open: nothing changes for who knows only patients."""
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
    """Its close says all to whoever is sent that; who was sent the report itself was told no derived open."""
    world = World()
    world.join("all", events)
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.news("all")
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("all") == (["DiagnosticReport-close r1"] if "DiagnosticReport-close" in events else [])


@pytest.mark.req("DER-9", "DER-17")
def test_whoever_moved_on_stays_there() -> None:
    """The derived open must still be the last that was told; a close of what was never told ends nothing."""
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
    """The hub cannot know what a chart shows that refused p2: it is told what is open, which it may show already."""
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
    """They are brought back to what is open, and told nothing where nothing is."""
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
    """A study was opened after the report: whoever goes back to p1 is told the study again, which a joiner is told last."""
    world = World()
    world.join("viewer", VIEWER)
    world.publish("Patient-open", patient("p1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("ImagingStudy-open", study("s1"))
    world.news("viewer")
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("viewer") == joined(world, VIEWER) == ["Patient-open p1", "ImagingStudy-open s1"]


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
    """Who joins is told a study that names p2, though p2 was closed. The open of p2 that is derived then is news."""
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
    """The oldest of too many is closed by the hub; whoever was told its encounter hears that it is closed."""
    world = World()
    world.join("encounters", "Encounter-open,Encounter-close")
    world.publish("Observation-open", item("observation", "Observation", "o1"), encounter("e1"))
    for number in range(MAX_CONTEXTS):
        world.publish("ImagingStudy-open", study(f"s{number}"))
    assert world.news("encounters") == ["Encounter-open e1"], "the newest of its type stays"
    world.publish("Observation-open", item("observation", "Observation", "o2"))
    assert world.news("encounters") == ["Encounter-close e1"]


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
    """Who was not told of Home-open still shows p2, until the report is closed. Who was shows nothing."""
    world = World()
    world.join("chart", f"{PATIENTS}{',Home-open' if heard else ''}")
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("Home-open")
    world.news("chart")
    world.publish("DiagnosticReport-close", report("r1"))
    assert world.news("chart") == ([] if heard else ["Patient-close p2"])


@pytest.mark.req("DER-9", "SUB-12", "DER-20")
@pytest.mark.parametrize(
    ("events", "missed"),
    [
        (PATIENTS, ["Patient-close p2"]),
        (f"{PATIENTS},DiagnosticReport-close", ["DiagnosticReport-close r1", "Patient-close p2"]),
        (f"{PATIENTS},DiagnosticReport-open", ["Patient-close p2"]),
        ("DiagnosticReport-open,DiagnosticReport-close", ["DiagnosticReport-close r1"]),
        ("Patient-open", []),
    ],
)
def test_whoever_was_away_hears_what_was_taken_back(events: str, missed: list[str]) -> None:
    """A viewer whose connection was cut when the report was closed must not stay on its patient."""
    world = World()
    world.join("chart", events)
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.news("chart")
    world.disconnect("chart", code=1006)
    world.wait(1)
    world.publish("DiagnosticReport-close", report("r1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", *missed]


@pytest.mark.req("DER-9", "SUB-12", "DER-20")
def test_what_another_context_still_names_is_not_closed_for_who_was_away() -> None:
    """p2 is open by another report: whoever is back is told p2, and no close."""
    world = World()
    world.join("chart", PATIENTS)
    for number in (1, 2):
        world.publish("DiagnosticReport-open", report(f"r{number}"), patient("p2"))
    world.news("chart")
    away(world, "DiagnosticReport-close", report("r2"))
    assert world.news("chart") == ["subscribe", "Patient-open p2"]


def away(world: World, name: str, *items: object) -> None:
    """Something happens while the chart has no socket; then it is back."""
    world.disconnect("chart", code=1006)
    world.wait(1)
    world.publish(name, *items)
    world.connect("chart")


def told_by_an_encounter_that_is_closed(world: World) -> None:
    """A chart that knows patients and reports is told p2 by an encounter. A report of p2 is opened, and the encounter closed."""
    world.join("chart", REPORTS)
    world.publish("Encounter-open", encounter("e2"), patient("p2"))
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.publish("Encounter-close", encounter("e2"))


def breaks(world: World, how: str, delivered_until: float) -> None:
    """The chart's socket breaks, on which all has arrived until `delivered_until`; the hub crashes; or another socket is about to take over."""
    if how == "lost":
        world.disconnect("chart", delivered_until=delivered_until, code=1006)
    elif how == "crash":
        world.restart()


@pytest.mark.req("DER-9", "SUB-12")
def test_a_source_that_names_another_while_somebody_is_away() -> None:
    """The report was opened with the wrong patient, then with the right one, and closed: nobody stays on the wrong one."""
    world = World()
    world.join("chart", PATIENTS)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.news("chart")
    world.disconnect("chart", code=1006)
    world.wait(1)
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("DiagnosticReport-close", report("r1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1", "Patient-close p2"]


@pytest.mark.req("DER-9", "SUB-12", "DER-20")
def test_what_was_told_before_is_closed_on_return_though_the_last_source_is_known() -> None:
    """An encounter told p2, a report named p2 when the encounter was closed, and the report is closed while somebody is away."""
    world = World()
    told_by_an_encounter_that_is_closed(world)
    world.news("chart")
    away(world, "DiagnosticReport-close", report("r2"))
    assert world.news("chart") == ["subscribe", "DiagnosticReport-close r2", "Patient-close p2"]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("how", ["lost", "taken over", "crash"])
def test_a_derived_close_is_told_again_that_was_sent_to_a_dead_socket(how: str) -> None:
    """An encounter told p2, a report of p2 was opened, the encounter closed. Both closes of the report's end are sent, and lost."""
    world = World()
    told_by_an_encounter_that_is_closed(world)
    world.wait(1)
    delivered_until = world.now
    world.wait(1)
    world.news("chart")
    world.publish("DiagnosticReport-close", report("r2"))
    closes = world.news("chart")
    assert closes == ["DiagnosticReport-close r2", "Patient-close p2"]
    breaks(world, how, delivered_until)
    world.wait(1)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", *closes]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("how", ["lost", "taken over", "crash"])
def test_a_close_that_was_missed_is_told_again_until_something_arrives(how: str) -> None:
    """The first return is cut too, before the application answers a ping; the second is not, and a third hears of nothing."""
    world = World()
    told_by_an_encounter_that_is_closed(world)
    world.wait(1)
    delivered_until = world.now
    away(world, "DiagnosticReport-close", report("r2"))
    closes = ["subscribe", "DiagnosticReport-close r2", "Patient-close p2"]
    assert world.news("chart")[-3:] == closes
    world.wait(1)
    breaks(world, how, delivered_until)
    world.connect("chart")
    assert world.news("chart") == closes
    world.wait(2)
    world.disconnect("chart", delivered_until=world.now, code=1006)
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("how", ["lost", "taken over", "crash"])
@pytest.mark.parametrize("stored", [False, True])
def test_an_open_that_was_lost_hides_no_derived_close(how: str, stored: bool) -> None:
    """The chart shows p2 when its socket dies; then p1 comes, the report of p2 is closed, and p1 too. Nothing is open at last."""
    world = World()
    if stored:
        world.publish("Patient-open", patient("p1"))
    told_by_an_encounter_that_is_closed(world)
    world.wait(2)
    delivered_until = world.now
    world.wait(1)
    world.news("chart")
    if not stored:
        world.publish("Patient-open", patient("p1"))
    world.publish("DiagnosticReport-close", report("r2"))
    world.publish("Patient-close", patient("p1"))
    assert world.news("chart")
    breaks(world, how, delivered_until)
    world.wait(1)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "DiagnosticReport-close r2", "Patient-close p2", "Patient-close p1"]


@pytest.mark.req("SUB-12", "SUB-37")
def test_an_acknowledgement_says_nothing_of_what_was_told_behind() -> None:
    """A report's close and the patient's are told at once. The first is acknowledged, and the second lost."""
    world = World()
    told_by_an_encounter_that_is_closed(world)
    world.wait(2)
    world.news("chart")
    world.publish("DiagnosticReport-close", report("r2"))
    first, _ = world.read("chart")
    world.say("chart", {"id": first["id"], "status": 200})
    world.disconnect("chart", delivered_until=world.tracker.delivered_until("chart"), code=1006)
    world.wait(1)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "DiagnosticReport-close r2", "Patient-close p2"]


@pytest.mark.req("DER-9", "SUB-12", "DER-20")
def test_who_is_told_another_hears_no_close_of_what_is_named_still() -> None:
    """Two reports are open. Whoever comes back to the second hears no close of the first's patient, as whoever stays."""
    world = World()
    world.join("chart", PATIENTS)
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.news("chart")
    world.disconnect("chart", code=1006)
    world.wait(1)
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.publish("Encounter-close", encounter("e1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-open p2"]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("how", ["stays", "lost", "left", "taken over", "crash", "renewed"])
@pytest.mark.parametrize("away", [False, True])
def test_what_is_shown_is_remembered_though_a_newer_event_names_nothing(how: str, away: bool) -> None:
    """An encounter told p1, and a study of p1 was opened; a newer study names nobody. p1 ends with the study, for all."""
    world = World()
    world.join("chart", VIEWER)
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("Encounter-close", encounter("e1"))
    world.wait(2)
    if not away:
        world.publish("ImagingStudy-open", study("s2"))
    match how:
        case "lost" | "left":
            world.disconnect("chart", code=1006 if how == "lost" else NORMAL)
        case "crash":
            world.restart()
        case "renewed":
            world.renew("chart", VIEWER)
    if away:
        world.publish("ImagingStudy-open", study("s2"))
    world.news("chart")
    if how not in ("stays", "renewed"):
        world.connect("chart")
        told = world.news("chart")
        assert told[-1] == "ImagingStudy-open s2"
    world.publish("ImagingStudy-close", study("s1"))
    world.publish("ImagingStudy-close", study("s2"))
    assert world.news("chart") == ["ImagingStudy-close s1", "Patient-close p1", "ImagingStudy-close s2"]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("held", [1, 256])
def test_a_close_is_told_of_whom_an_event_names_that_were_closed_before(held: int) -> None:
    """A report names p2, who was closed and opened by an encounter. The encounter is closed while the chart is away."""
    world = World(retained_messages=held)
    world.join("chart", REPORTS)
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.publish("Patient-close", patient("p2"))
    world.publish("Encounter-open", encounter("e2"), patient("p2"))
    world.wait(2)
    assert world.news("chart")[-1] == "Patient-open p2"
    away(world, "Encounter-close", encounter("e2"))
    assert world.news("chart") == ["subscribe", "Patient-close p2", "DiagnosticReport-open r2"]


@pytest.mark.req("DER-3", "CTX-7", "DER-16")
def test_what_is_named_after_a_close_that_was_missed_is_told_when_the_name_goes() -> None:
    """p1 was opened and closed while the viewer was away, and a study of p1 is open. A study of nobody comes, then an encounter of p1."""
    world = World()
    world.join("viewer", VIEWER)
    world.disconnect("viewer", code=1006)
    world.wait(1)
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-close", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.connect("viewer")
    assert world.news("viewer") == ["subscribe", "Patient-close p1", "ImagingStudy-open s1"]
    world.publish("ImagingStudy-open", study("s2"))
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    assert world.news("viewer") == joined(world, VIEWER) == ["ImagingStudy-open s2", "Patient-open p1"]


@pytest.mark.req("DER-3", "CTX-7", "DER-16")
def test_what_was_refused_and_named_is_told_when_the_name_goes() -> None:
    """The viewer refused p1 and followed a study of p1. A study of nobody comes, then an encounter of p1."""
    world = World()
    world.join("viewer", VIEWER)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.answer("viewer", 409)
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("DiagnosticReport-close", report("r1"))
    world.publish("ImagingStudy-open", study("s2"))
    world.news("viewer")
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    assert world.news("viewer") == ["Patient-open p1"]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("held", [1, 256])
def test_a_close_that_was_not_needed_on_return_is_told_when_the_name_goes(held: int) -> None:
    """The socket was dead when the report of p1 was closed and a study of p1 opened. p1 ends with the study."""
    world = World(retained_messages=held)
    world.join("viewer", VIEWER)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.news("viewer")
    world.wait(2)
    delivered_until = world.now
    world.wait(1)
    world.publish("DiagnosticReport-close", report("r1"))
    world.publish("DiagnosticReport-close", report("never"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.news("viewer")
    world.disconnect("viewer", delivered_until=delivered_until, code=1006)
    world.connect("viewer")
    assert world.news("viewer") == ["subscribe", "ImagingStudy-open s1"]
    world.publish("ImagingStudy-close", study("s1"))
    assert world.news("viewer") == ["ImagingStudy-close s1", "Patient-close p1"]


@pytest.mark.req("DER-9", "SUB-12", "SUB-37")
@pytest.mark.parametrize("held", [1, 256])
def test_an_acknowledgement_says_nothing_of_closes_that_were_too_much_to_hold(held: int) -> None:
    """A patient is closed, then a report. The report's close is acknowledged half a second after the patient's was accepted."""
    world = World(retained_messages=held)
    world.join("chart", REPORTS)
    world.publish("Patient-open", patient("p1"))
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.wait(5)
    world.publish("Patient-close", patient("p1"))
    world.wait(0.5)
    world.publish("DiagnosticReport-close", report("r2"))
    world.disconnect("chart", delivered_until=world.now, code=1006)
    world.news("chart")
    world.wait(1)
    world.connect("chart")
    assert set(world.news("chart")) == {
        "subscribe",
        "Patient-close p1",
        "DiagnosticReport-close r2",
        "Patient-close p2",
    }


@pytest.mark.req("SUB-12", "SUB-37")
@pytest.mark.parametrize("how", ["away", "taken over"])
def test_a_close_shortly_before_the_last_sign_of_life_is_kept(how: str) -> None:
    """Another close comes a minute later: what somebody may still have to be told is not forgotten."""
    world = World()
    world.join("chart", PATIENTS)
    world.wait(100)
    for number in (1, 2):
        world.publish("Patient-open", patient(f"p{number}"))
    world.publish("Patient-close", patient("p1"))
    world.wait(0.5)
    if how == "away":
        world.disconnect("chart", delivered_until=world.now, code=1006)
        world.wait(100)
    else:
        world.wait(45)
    world.publish("Patient-close", patient("p2"))
    world.news("chart")
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1", "Patient-close p2"]


@pytest.mark.req("DER-9", "SUB-12", "DER-20")
@pytest.mark.parametrize("held", [1, 256])
def test_no_close_is_made_of_what_is_told_or_named_still(held: int) -> None:
    """An encounter is closed while a report of the same patient is open, or a report of another patient besides."""
    world = World(retained_messages=held)
    world.join("chart", REPORTS)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.wait(2)
    world.news("chart")
    world.disconnect("chart", code=1006)
    world.publish("Encounter-close", encounter("e1"))
    away(world, "DiagnosticReport-close", report("never"))
    assert world.news("chart") == ["subscribe", "DiagnosticReport-close never", "DiagnosticReport-open r1"]


@pytest.mark.req("DER-9", "SUB-12")
def test_closes_that_are_made_come_in_the_order_of_the_last_ones() -> None:
    """The patient was closed before already; then a report of a study, an encounter and that patient came and went."""
    world = World(retained_messages=1)
    events = f"{VIEWER},Encounter-open,Encounter-close"
    world.join("chart", events)
    world.disconnect("chart", code=1006)
    world.wait(1)
    for number in (1, 2):
        world.publish("Patient-open", patient(f"p{number}"))
        world.publish("Patient-close", patient(f"p{number}"))
    world.publish("DiagnosticReport-open", report("r1"), study("s1"), encounter("e1"), patient("p1"))
    world.publish("DiagnosticReport-close", report("r1"))
    world.publish("DiagnosticReport-close", report("never"))
    world.connect("chart")
    closes = ["Patient-close p2", "ImagingStudy-close s1", "Encounter-close e1", "Patient-close p1"]
    assert world.news("chart") == ["subscribe", *closes]


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


@pytest.mark.req("DER-9", "DER-17")
def test_no_older_open_of_its_own_type_is_told_at_a_close() -> None:
    """Two studies of p1 are open. The close of the newer says all: nobody is brought back to a stored study."""
    world = World()
    world.join("viewer", VIEWER)
    for number in (1, 2):
        world.publish("ImagingStudy-open", study(f"s{number}"), patient("p1"))
    world.news("viewer")
    world.publish("ImagingStudy-close", study("s2"))
    assert world.news("viewer") == ["ImagingStudy-close s2"]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("held", [1, 256])
def test_closes_are_told_on_return_as_they_would_have_been(held: int) -> None:
    """Of what a report named the innermost is closed first, also where the closes must be made."""
    world = World(retained_messages=held)
    events = f"{VIEWER},Encounter-open,Encounter-close"
    world.join("chart", events)
    world.join("stays", events)
    world.publish("DiagnosticReport-open", report("r2"), study("s2"), encounter("e2"), patient("p2"))
    world.news("chart")
    world.news("stays")
    away(world, "DiagnosticReport-close", report("r2"))
    closes = ["ImagingStudy-close s2", "Encounter-close e2", "Patient-close p2"]
    assert world.news("chart") == ["subscribe", *closes]
    assert world.news("stays") == closes


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
    """An older study names p2 still, but a newer one is what is told."""
    world = World()
    world.join("chart", VIEWER)
    world.publish("ImagingStudy-open", study("s1"), patient("p2"))
    world.publish("ImagingStudy-open", study("s2"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    assert world.news("chart")[-1] == "Patient-open p2"
    away(world, "DiagnosticReport-close", report("r1"))
    assert world.news("chart") == ["subscribe", "Patient-close p2", "ImagingStudy-open s2"]


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


@pytest.mark.req("SUB-12", "DER-7")
def test_a_close_that_was_missed_is_told_though_another_event_names_the_context() -> None:
    """A report that names the encounter opens no encounter for whoever is sent the report."""
    world = World()
    world.join("chart", f"{OPENS},{CLOSES}")
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.news("chart")
    world.disconnect("chart", delivered_until=world.now - 10, code=1006)
    world.publish("Encounter-close", encounter("e1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"), encounter("e1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Encounter-close e1", "DiagnosticReport-open r1"]
