"""Messages of the specification, changed and refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import strategies as st

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.wire.event import parse_event
from tests.core.world import message, patient

VERSIONS = ("context.versionId", "context.priorVersionId")


def refused(text: bytes) -> str:
    with pytest.raises(BadRequest) as error:
        parse_event(text)
    assert "\n" not in str(error.value), "one line of reason"
    assert len(str(error.value)) < 400
    return str(error.value)


def changed(**members: object) -> dict[str, Any]:
    """A Patient-open with members of its event (`hub_event` for hub.event) or its envelope changed; ... takes one out."""
    posted = message("Patient-open", patient("p1"))
    for name, value in members.items():
        of = posted["event"] if name in ("hub_topic", "hub_event", "context") else posted
        if value is ...:
            del of[name.replace("_", ".")]
        else:
            of[name.replace("_", ".")] = value
    return posted


def raw(value: str, resource: str = '"resourceType":"Patient","id":"p1"') -> bytes:
    """A Patient-open whose patient has one more member, of this JSON text."""
    return (
        f'{{"timestamp":"2023-04-01T12:00:00Z","id":"1","event":{{"hub.topic":"t","hub.event":"Patient-open",'
        f'"context":[{{"key":"patient","resource":{{{resource},"x":{value}}}}}]}}}}'
    ).encode()


SHARED = {
    "fullUrl": "urn:uuid:1",
    "request": {"method": "PUT"},
    "resource": {"resourceType": "Observation", "id": "o1", "status": "final"},
}
UPDATE = message(
    "DiagnosticReport-update",
    {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}},
    {"key": "updates", "resource": {"resourceType": "Bundle", "type": "transaction", "entry": [SHARED]}},
)
#: What makes a text so long that it is read in another way; beside it, a member whose value is neither text nor object.
FILLED = ["", "x" * 40_000, 1]


def texts() -> st.SearchStrategy[str]:
    """JSON texts of any shape, whose members, numbers and characters a decoder could change."""
    strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    string = st.builds(json.dumps, strings, ensure_ascii=st.booleans())
    numbers = st.builds(
        "{}{}{}".format, st.integers(), st.sampled_from(["", ".10", ".0"]), st.sampled_from(["", "e+05"])
    )
    leaf = string | numbers | st.sampled_from(["1.10", "true", "null", "9" * 5000, '"\\/\\u00e9"', "-0", "1E400"])

    def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        arrays = st.lists(inner, max_size=3).map(lambda of: f"[ {' ,'.join(of)}]")
        objects = st.lists(st.tuples(string, inner), max_size=3).map(
            lambda of: "{" + ",\t".join(f"{name} :\n{value}" for name, value in of) + "}"
        )
        return arrays | objects

    return st.recursive(leaf, deeper, max_leaves=6)
