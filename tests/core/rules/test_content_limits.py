"""Entries, identifiers and bytes of shared content have limits."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_hub.core.errors import Conflict, TooLarge
from tests.core.rules.content_world import R1, R2, Reading, delete, put
from tests.core.world import (
    body,
    item,
    patient,
    report,
)

MAX_CONTENT = 8 << 20
#: Bytes of an entry that holds a resource: {"resource":...}
AROUND = 13


def of_size(id_: str, size: int) -> dict[str, Any]:
    """An entry whose resource takes so many bytes of the content."""
    entry = put("Binary", id_, data="")
    entry["resource"]["data"] = "x" * (size - AROUND - len(body(entry["resource"])))
    return entry


@pytest.mark.req("CON-15")
def test_too_many_entries_are_refused() -> None:
    """Too many entries of any kind get 413. The limit itself is accepted, and the content may have more."""
    world = Reading(max_entries=3)
    world.share(*(put("Observation", f"o{number}") for number in range(3)))
    world.share(*(put("Observation", f"p{number}") for number in range(3)))
    reason = world.refuses(
        world.update(put("Patient", "p"), *(delete(f"Observation/o{n}") for n in range(3))), TooLarge
    )
    assert "at most 3 entries, and this Bundle has 4" in reason
    assert TooLarge.status == 413
    assert len(world.shared()) == 6


@pytest.mark.req("CON-17", "CON-29")
def test_identifiers_of_64_kib_at_most_are_compared() -> None:
    """More bytes of identifiers in all entries together get 413. Resources that the open lacks are not compared."""
    world = Reading()
    many = [{"system": "urn:x", "value": f"{number:050}"} for number in range(300)]
    world.share(put("Observation", "o1", identifier=many * 9))
    world.share(put("Patient", "p1", identifier=many))
    reason = world.refuses(world.update(put("Patient", "p1", identifier=many * 3)), TooLarge)
    assert "entry[0]: an update may have at most 65536 bytes of identifiers" in reason
    half = many + many[:150]
    both = world.update(put("Patient", "p1", identifier=half), put("DiagnosticReport", "r1", identifier=half))
    assert "entry[1]: an update may have at most 65536 bytes" in world.refuses(both, TooLarge)


@pytest.mark.req("CON-17", "CON-30")
def test_a_copy_that_is_too_much_to_compare_goes_when_the_context_is_opened_again() -> None:
    """The copy is dropped, like a copy that contradicts the open."""
    world = Reading()
    many = [{"system": "urn:x", "value": f"{number:050}"} for number in range(500)]
    world.share(put("Patient", "p1", identifier=many))
    for count, left in ((1, 1), (500, 0)):
        again = item("patient", "Patient", "p1", identifier=many[:count])
        world.publish("DiagnosticReport-open", report("r1"), again)
        assert len(world.shared()) == left


@pytest.mark.req("LIM-1")
def test_a_sessions_content_takes_at_most_8_mib() -> None:
    """Contexts share the limit, to the byte. A larger update gets 413, and a smaller one is accepted."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.share(of_size("a", MAX_CONTENT - 1000), of=R1)
    world.share(of_size("b", 900), of=R2)
    for of in (R1, R2):
        reason = world.refuses(world.update(of_size("c", 101), of=of), TooLarge)
        assert f"at most {MAX_CONTENT} bytes" in reason
        assert str(MAX_CONTENT + 1) in reason
    world.share(of_size("c", 100), of=R2)
    world.refuses(world.update(of_size("b", 901), of=R2), TooLarge)


@pytest.mark.req("LIM-1", "CON-6", "CON-9")
def test_what_is_replaced_deleted_or_closed_makes_room() -> None:
    """The limit is about present content, not about all content ever sent."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    full = of_size("a", MAX_CONTENT)
    world.share(full, of=R1)
    world.share(of_size("a", MAX_CONTENT - 100), of=R1)
    world.share(of_size("b", 100), of=R2)
    world.share(delete("Binary/b"), of=R2)
    world.share(full, of=R1)
    world.share(delete("Binary/a"), of_size("b", MAX_CONTENT), of=R1)
    world.publish("DiagnosticReport-close", report("r1"))
    world.share(full, of=R2)
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.share(full, of=R2)


@pytest.mark.req("LIM-1", "LIM-4")
def test_an_evicted_context_goes_with_its_content() -> None:
    """The oldest context beyond the limit is closed for all. Its content is gone, and others keep theirs."""
    world = Reading()
    world.share(put("Observation", "o1"))
    for number in range(63):
        world.publish("DiagnosticReport-open", report(f"n{number}"), patient("p1"))
        world.share(put("Observation", f"o-{number}"), of=f"DiagnosticReport/n{number}")
    world.heard("viewer")
    world.publish("DiagnosticReport-open", report("one too many"), patient("p1"))
    assert world.news("viewer") == ["DiagnosticReport-open one too many", "DiagnosticReport-close r1"]
    assert world.session
    assert set(world.session.contents) == {f"diagnosticreport/n{number}" for number in range(63)}
    world.refuses(world.update(version="any"), Conflict)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    assert world.shared() == []
