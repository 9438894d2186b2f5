"""Event names: which may be published, which may be subscribed to, and how they are spelled."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.wire.event_names import Kind, anchor_keys, classify, never_matches, parse_events, spelling

CATALOGUE = (
    *("Patient-open", "Patient-close", "Encounter-open", "Encounter-close", "ImagingStudy-open", "ImagingStudy-close"),
    *("DiagnosticReport-open", "DiagnosticReport-close", "DiagnosticReport-update", "DiagnosticReport-select"),
    *("SyncError", "UserLogout", "UserHibernate", "Home-open", "heartbeat"),
)
NAMES = st.text("aB9._-", min_size=1, max_size=9).map("x".__add__) | st.sampled_from(CATALOGUE)


@pytest.mark.req("EVT-9")
@pytest.mark.parametrize(
    ("name", "kind", "type_"),
    [
        ("Patient-open", Kind.OPEN, "patient"),
        ("imagingSTUDY-Close", Kind.CLOSE, "imagingstudy"),
        ("MedicationRequest-open", Kind.OPEN, "medicationrequest"),
        ("DiagnosticReport-update", Kind.UPDATE, "diagnosticreport"),
        ("Observation-select", Kind.SELECT, "observation"),
    ],
)
def test_any_resource_may_be_opened_closed_updated_and_selected(name: str, kind: Kind, type_: str) -> None:
    """A name of the form Resource-verb says what it does and to what, in any case."""
    assert classify(name) == (kind, type_)


@pytest.mark.req("EVT-10")
@pytest.mark.parametrize("name", ["SyncError", "UserLogout", "UserHibernate"])
@pytest.mark.parametrize("change", [str, str.lower, str.upper])
def test_infrastructure_events_may_be_published_in_any_case(name: str, change: type[str]) -> None:
    """SyncError, UserLogout and UserHibernate are passed on."""
    assert classify(change(name)) == (Kind.PASSED_ON, "")


@pytest.mark.req("EVT-10")
@pytest.mark.parametrize("name", ["Home-open", "home-open", "HOME-OPEN"])
def test_home_open_is_no_resource(name: str) -> None:
    """Home-open has the form of a resource's event, and is none."""
    assert classify(name) == (Kind.HOME, "")


@pytest.mark.req("EVT-8")
@pytest.mark.parametrize("name", ["org.example.patient_transmogrify", "com.example", "a.b.C9", "org.example.open"])
def test_names_in_reverse_domain_notation_may_be_published(name: str) -> None:
    """Organizations make their own events, which the hub passes on."""
    assert classify(name) == (Kind.PASSED_ON, "")


@pytest.mark.req("EVT-5", "EVT-27")
@pytest.mark.parametrize(
    "name",
    [
        *("open-patient-chart", "switch-patient-chart", "Patient-opened", "Patient-", "-open", "Patient", "open", ""),
        *("heartbeat", "Heartbeat", "Patient-open ", "Patient open", "Patient_open", "Pätient-open", "Patient-open\n"),
        *("org.example.patient-open", "org.example.a-b", "org..example", "org.example.", ".org.example"),
        *("patient/open", "Patient-Open-Close", "Patient2-open", "*", "*-open", "a." + "b" * 128),
    ],
)
def test_other_names_may_not_be_published(name: str) -> None:
    """What is neither Resource-verb nor infrastructure nor reverse domain is refused with one line of reason."""
    with pytest.raises(BadRequest, match=r"\Ahub\.event: [^\n]+\Z"):
        classify(name)


@pytest.mark.req("SUB-18")
def test_events_are_a_set_in_the_order_asked() -> None:
    """Repetitions in any case, white space and empty items count for nothing."""
    assert parse_events([" Patient-open", "", "PATIENT-OPEN", "  ", "Home-open ", "patient-open"]) == (
        "Patient-open",
        "Home-open",
    )


@pytest.mark.req("SUB-18")
@pytest.mark.parametrize("name", CATALOGUE)
def test_a_name_comes_back_as_the_subscriber_spells_it(name: str) -> None:
    """Some clients compare texts; the same name in a second spelling counts for nothing."""
    assert parse_events([name.swapcase(), name]) == (name.swapcase(),)
    assert spelling(name.swapcase()) == name


@pytest.mark.req("SUB-5", "SUB-27")
@pytest.mark.parametrize("name", ["open-patient-chart", "DiagnosticReport-opened", "9", "a.b_c-d", "x" * 128])
def test_unknown_names_may_be_subscribed_to(name: str) -> None:
    """A name in the alphabet that nobody knows is accepted as it is."""
    assert parse_events([name]) == (name,)


@pytest.mark.req("SUB-5")
@pytest.mark.parametrize(
    "name",
    ["Patient open", "*", "-open", ".a", "_a", "Pätient-open", "a/b", "a\x00", "x" * 129, "\u0661", "a+b", '"a"'],
)
def test_names_outside_the_alphabet_are_refused(name: str) -> None:
    """One bad name refuses all, and the answer does not repeat it."""
    with pytest.raises(BadRequest, match=r"\Ahub\.events: [^\n]+\Z") as refused:
        parse_events(["Patient-open", name])
    assert len(name) < 3 or name not in str(refused.value)


@pytest.mark.req("SUB-5")
@pytest.mark.parametrize("items", [[], [""], [" ", "\t", ""]])
def test_no_event_left_is_refused(items: list[str]) -> None:
    """Somebody who subscribes wants to hear of something."""
    with pytest.raises(BadRequest, match=r"hub\.events"):
        parse_events(items)


@pytest.mark.req("EVT-9")
@pytest.mark.parametrize(
    ("type_", "keys"),
    [
        ("imagingstudy", {"study", "imagingstudy"}),
        ("patient", {"patient"}),
        ("medicationrequest", {"medicationrequest"}),
    ],
)
def test_the_anchor_stands_under_the_catalogues_key(type_: str, keys: set[str]) -> None:
    """The key is the lower-case type, or what the catalogue has for legacy reasons."""
    assert set(anchor_keys(type_)) == keys


@pytest.mark.req("SUB-18")
@settings(max_examples=40)
@given(st.lists(NAMES, min_size=1))
def test_reading_events_twice_is_reading_them_once(names: list[str]) -> None:
    """What was granted can be asked for again: same names, same order, no two alike."""
    granted = parse_events(names)
    assert parse_events(granted) == granted
    lower = [name.lower() for name in granted]
    assert len(set(lower)) == len(lower)
    assert set(lower) == {name.lower() for name in names}


@pytest.mark.req("SUB-5")
def test_names_are_bounded_in_number() -> None:
    """A subscription is held in memory: 256 names are plenty, and one more is refused."""
    assert len(parse_events(f"org.example.e{number}" for number in range(256))) == 256
    with pytest.raises(BadRequest, match="at most 256"):
        parse_events(f"org.example.e{number}" for number in range(257))


@pytest.mark.req("SES-6")
@pytest.mark.parametrize(
    "name",
    [
        *("Patient-open.v1.2", "ImagingStudy-zoom", "DiagnosticReport-opened", "open-patient-chart", "Patient", "9"),
        *("org.example.patient-open", "Patient2-open", "SyncErrors", "a.b_c-d"),
    ],
)
def test_names_that_no_event_can_have(name: str) -> None:
    """They may be subscribed to, and nothing ever comes under them."""
    assert len(parse_events([name])) == 1
    assert never_matches(name)


@pytest.mark.req("SES-6")
@pytest.mark.parametrize("name", [*CATALOGUE, "medicationrequest-SELECT", "org.example.mine", "a.b", "HEARTBEAT"])
def test_names_that_an_event_can_have(name: str) -> None:
    """Those of the catalogue, of any resource, of an organization; and the hub's own heartbeat."""
    assert not never_matches(name)
