"""Who and what the open context is about stays so: no update gives its resources another identity (IHE IRA, RAD-150)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.wire.resource_identity import changed_identity
from tests.core.rules.content_world import Reading, delete, put
from tests.core.world import body, item, message, patient, report, resource, spec, study

MR, ACSN, AN = "MR", "ACSN", "AN"
HOSPITAL, PACS, UID = "urn:oid:1.2.3", "urn:oid:4.5.6", "urn:dicom:uid"
STUDY, SERIES = "urn:oid:1.2.840.99.1", "urn:oid:1.2.840.99.2"
V2 = "http://terminology.hl7.org/CodeSystem/v2-0203"


def of(value: object, system: str = "", *codes: str, code_system: str = V2, **members: object) -> dict[str, Any]:
    """An identifier."""
    type_ = {"type": {"coding": [{"system": code_system, "code": code} for code in codes]}} if codes else {}
    return ({"system": system} if system else {}) | type_ | {"value": value} | members


def changed(before: list[object], after: list[object]) -> bool:
    """Whether a resource that was opened with these identifiers is another one with those; for orders it is the same."""
    found = [
        changed_identity([_item(before)], _resource(after)),
        changed_identity([_item(None, before)], _resource(None, after)),
    ]
    assert found in (["", ""], ["identifier", "basedOn"])
    return found[0] != ""


def _item(identifiers: object, orders: list[object] | None = None) -> bytes:
    return b'{"key":"study","resource":%b}' % _resource(identifiers, orders)


def _resource(identifiers: object, orders: list[object] | None = None) -> bytes:
    based_on = [{"type": "ServiceRequest", "identifier": each} for each in orders] if orders else []
    members = {"identifier": identifiers} | ({"basedOn": based_on} if orders is not None else {})
    return body(resource("ImagingStudy", "s1", **members))


@pytest.mark.req("CON-17", "CON-27")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([of("1", HOSPITAL)], [of("2", HOSPITAL)]),
        ([of("1", HOSPITAL, MR)], [of("2", HOSPITAL)]),
        ([of("1", HOSPITAL, MR)], [of("2", HOSPITAL, "PI")]),
        ([of("1", HOSPITAL), of("7", PACS)], [of("1", HOSPITAL), of("8", PACS)]),
        ([of("1", HOSPITAL), of("2", HOSPITAL)], [of("3", HOSPITAL), of("4", HOSPITAL)]),
        ([of("1", HOSPITAL, MR), of("7", HOSPITAL, AN)], [of("2", HOSPITAL, MR), of("7", HOSPITAL, AN)]),
        ([of(STUDY, UID), of("a1", "", ACSN)], [of(SERIES, UID), of("a1", "", ACSN)]),
        ([of(STUDY, UID), of("a1", "", ACSN)], [of(STUDY, UID), of("a2", "", ACSN)]),
        ([of("a1", "", ACSN)], [of("a2", PACS, ACSN)]),
        ([of("a1", PACS, ACSN)], [of("a2", "", ACSN)]),
        ([of("a1", "", ACSN)], [of("a2", "", ACSN, code_system="http://hl7.org/fhir/v2/0203")]),
        ([of("1")], [of("2")]),
        ([of("1", HOSPITAL)], [of("1", HOSPITAL, use="old"), of("2", HOSPITAL, use="official")]),
        ([of("1", HOSPITAL, use="old"), of("2", HOSPITAL)], [of("1", HOSPITAL)]),
        ([of("1", HOSPITAL)], [of(1.10, HOSPITAL)]),
    ],
)
def test_another_value_in_what_the_open_gave_is_another_identity(before: list[object], after: list[object]) -> None:
    """An MRN, an accession number, a Study Instance UID, whatever stays beside it."""
    assert changed(before, after)


@pytest.mark.req("CON-17", "CON-28")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [of("1", HOSPITAL)]),
        ([of("1", HOSPITAL)], []),
        ([of("1", HOSPITAL)], [of("1", HOSPITAL)]),
        ([of("1", HOSPITAL)], [of("1", HOSPITAL, MR)]),
        ([of("1", HOSPITAL, MR)], [of("9", PACS, MR)]),
        ([of("1", HOSPITAL, MR)], [of("9", PACS)]),
        ([of("1", HOSPITAL)], [of("1", HOSPITAL), of("2", HOSPITAL)]),
        ([of("1", HOSPITAL), of("2", HOSPITAL)], [of("2", HOSPITAL)]),
        ([of("1", HOSPITAL, MR), of("7", HOSPITAL, AN)], [of("7", HOSPITAL)]),
        ([of("1", HOSPITAL, MR), of("2", PACS, MR)], [of("2", "", MR)]),
        ([of("a1", "", ACSN)], [of("p1", "", MR)]),
        ([of("a1", "", ACSN)], [of("a1", PACS, ACSN)]),
        ([of("a1", "", ACSN)], [of("p1", PACS)]),
        ([of("1")], [of("2", HOSPITAL, MR)]),
        ([of(STUDY, UID)], [of("1.2.840.99.1", UID)]),
        ([of("1.2.840.99.1\0", UID)], [of(STUDY, UID)]),
        ([of("1", HOSPITAL)], [of(" 1 ", HOSPITAL)]),
        ([of("1", HOSPITAL)], [of("", HOSPITAL)]),
        ([of("1", HOSPITAL)], [{"system": HOSPITAL}]),
        ([of("1", HOSPITAL)], [of("0", HOSPITAL, use="old")]),
        ([of("1", HOSPITAL, period={"end": "1999"})], [of("1", HOSPITAL)]),
    ],
)
def test_what_is_left_out_or_added_is_no_other_identity(before: list[object], after: list[object]) -> None:
    """Nor is what another party numbers, nor another way to write the same."""
    assert not changed(before, after)


@pytest.mark.req("CON-17")
@pytest.mark.parametrize(
    "odd", [None, 7, "1", [], {}, [None], ["1"], [[of("2", HOSPITAL)]], [of(["2"], HOSPITAL)], [of(2, "")]]
)
def test_what_cannot_be_read_identifies_nothing(odd: object) -> None:
    """The hub validates no resources; what fits no pattern is passed on."""
    assert changed_identity([_item([of("1", HOSPITAL)])], _resource(odd)) == ""
    assert changed_identity([_item(odd)], _resource([of("1", HOSPITAL)])) == ""
    assert changed_identity([], _resource([of("1", HOSPITAL)])) == ""
    assert changed_identity([_item(of("1", HOSPITAL))], _resource(of("2", HOSPITAL))) == "identifier"


@pytest.mark.req("CON-17")
def test_studies_in_the_manner_of_stu3_are_compared_too() -> None:
    """They have a uid and an accession, also beside those of today."""
    members: dict[str, Any] = {"uid": STUDY, "accession": of("a1", "", ACSN)}
    old = body(item("study", "ImagingStudy", "s1", **members))
    assert changed_identity([old], body(resource("ImagingStudy", "s1", **members))) == ""
    for members in ({"uid": SERIES}, {"accession": of("a2", "", ACSN)}, {"identifier": [of(SERIES, UID)]}):
        assert changed_identity([old], body(resource("ImagingStudy", "s1", **members))) == "identifier"


@pytest.mark.req("CON-17")
def test_a_resource_that_stands_twice_in_the_open_has_the_identifiers_of_both() -> None:
    """Under two keys, say."""
    opened = [_item([of("1", HOSPITAL)]), _item([of("2", HOSPITAL)])]
    assert changed_identity(opened, _resource([of("2", HOSPITAL)])) == ""
    assert changed_identity(opened, _resource([of("3", HOSPITAL)])) == "identifier"


# In the hub


class Identified(Reading):
    """A world in which r1 is open, with a patient and a study that have numbers."""

    def __init__(self) -> None:
        super().__init__()
        opened = [patient("p1"), study("s1"), report("r1")]
        for each, identifiers in zip(
            opened, ([of("1", HOSPITAL, MR)], [of(STUDY, UID), of("a1", "", ACSN)], []), strict=True
        ):
            each["resource"]["identifier"] = identifiers
        opened[2]["resource"]["basedOn"] = [{"identifier": of("a1", "", ACSN)}]
        self.publish("DiagnosticReport-open", *opened)
        self.heard("viewer")


@pytest.mark.req("CON-17", "CON-19")
@pytest.mark.parametrize(
    ("entry", "member"),
    [
        (put("Patient", "p1", identifier=[of("2", HOSPITAL, MR)]), "identifier"),
        (put("Patient", "p1", identifier=[of("2", HOSPITAL, MR)]) | {"fullUrl": "urn:uuid:1"}, "identifier"),
        (put("ImagingStudy", "s1", identifier=[of(SERIES, UID)]), "identifier"),
        (put("ImagingStudy", "s1", identifier=[of("a2", "", ACSN)]), "identifier"),
        (put("DiagnosticReport", "r1", basedOn=[{"identifier": of("a2", "", ACSN)}]), "basedOn"),
    ],
)
def test_an_update_does_not_make_another_of_what_is_open(entry: object, member: str) -> None:
    """400 naming the entry and the member; nothing is applied, nobody is told, and no value is repeated."""
    world = Identified()
    reason = world.refuses(world.update(put("Observation", "o1"), entry), BadRequest)
    assert f"entry[1].resource.{member} must have the values that the open gave" in reason
    assert "close the context" in reason
    for value in (HOSPITAL, SERIES, "a2"):
        assert value not in reason


@pytest.mark.req("CON-17", "CON-6", "CON-28")
def test_an_update_of_what_is_open_that_keeps_its_identity_is_taken() -> None:
    """A status, a birth date, one more number; and other resources have what numbers they like."""
    world = Identified()
    world.share(
        put("Patient", "p1", identifier=[of("1", HOSPITAL, MR), of("9", PACS, MR)], birthDate="1978-11-03"),
        put("ImagingStudy", "s1", identifier=[of("1.2.840.99.1", UID)], status="available"),
        put("DiagnosticReport", "r1", status="final"),
        put("Patient", "p2", identifier=[of("2", HOSPITAL, MR)]),
        put("Group", "p1", identifier=[of("2", HOSPITAL, MR)]),
    )
    assert len(world.shared()) == 5
    world.share(
        put("Patient", "p1"), put("Patient", "p2", identifier=[of("3", HOSPITAL, MR)]), delete("ImagingStudy/s1")
    )


@pytest.mark.req("CON-17")
def test_the_identity_is_that_of_the_last_open() -> None:
    """Opened again with another number, that one stays."""
    world = Identified()
    corrected = patient("p1")
    corrected["resource"]["identifier"] = [of("2", HOSPITAL, MR)]
    world.publish("DiagnosticReport-open", report("r1"), corrected)
    world.share(put("Patient", "p1", identifier=[of("2", HOSPITAL, MR)]))
    world.refuses(world.update(put("Patient", "p1", identifier=[of("1", HOSPITAL, MR)])), BadRequest)


@pytest.mark.req("CON-17", "CON-1", "CON-30")
def test_a_copy_that_contradicts_a_later_open_is_gone() -> None:
    """A patient was opened, shared, and opened again with the right number: the context has one identity; the rest stays shared."""
    world = Identified()
    world.share(put("Patient", "p1", identifier=[of("1", HOSPITAL, MR)]), put("Observation", "o1"))
    opened = patient("p1")
    opened["resource"]["identifier"] = [of("1", HOSPITAL, MR)]
    world.publish("DiagnosticReport-open", report("r1"), opened)
    assert sorted(world.shared()) == ["Observation/o1", "Patient/p1"]
    opened["resource"]["identifier"] = [of("2", HOSPITAL, MR)]
    world.publish("DiagnosticReport-open", report("r1"), opened)
    assert world.shared() == ["Observation/o1"]
    assert world.session
    (content,) = world.session.contents.values()
    assert content.size == sum(len(shared.entry) for shared in content.resources.values())


@pytest.mark.req("CON-17")
@pytest.mark.parametrize("name", ["Patient", "ImagingStudy", "DiagnosticReport"])
def test_the_resources_of_the_specifications_example_keep_their_numbers(name: str) -> None:
    """Each may be shared as it was opened, and not with another number."""
    world = Reading()
    opened = json.loads(spec("DiagnosticReport-open"))
    opened["event"]["hub.topic"] = message("x")["event"]["hub.topic"]
    world.post(opened)
    of_ = f"DiagnosticReport/{opened['event']['context'][0]['resource']['id']}"
    (again,) = [i["resource"] for i in opened["event"]["context"] if i["resource"]["resourceType"] == name]
    entry = {"request": {"method": "PUT"}, "resource": again}
    world.share(entry, of=of_)
    changed = json.loads(json.dumps(entry).replace(again["identifier"][0]["value"], "another"))
    world.refuses(world.update(changed, of=of_), BadRequest)
