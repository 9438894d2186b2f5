"""GET answers with the context of the open and with the shared content."""

from __future__ import annotations

import json

import pytest

from fhircast_hub.core.errors import InsufficientScope
from fhircast_hub.core.rules.contexts import current_context
from tests.core.rules.content_world import Reading, delete, put
from tests.core.world import (
    TOPIC,
    World,
    item,
    patient,
    report,
    resource,
    token,
)


@pytest.mark.req("CON-4", "GET-2")
def test_get_shows_the_opens_context_and_then_the_content() -> None:
    """The content is one collection Bundle, whose id is the version, without requests. The open's resources stay."""
    world = Reading()
    opened = [report("r1"), patient("p1"), {"key": "odd", "x": [1]}]
    world.publish("DiagnosticReport-open", *opened)
    world.share(put("DiagnosticReport", "r1", status="final") | {"fullUrl": "urn:uuid:1"}, put("Observation", "o1"))
    answer = json.loads(world.raw())
    assert answer == {
        "context.type": "DiagnosticReport",
        "context.versionId": world.version(),
        "context": [
            *opened,
            {
                "key": "content",
                "resource": {
                    "resourceType": "Bundle",
                    "id": world.version(),
                    "type": "collection",
                    "entry": [
                        {
                            "fullUrl": "urn:uuid:1",
                            "resource": resource("DiagnosticReport", "r1", status="final"),
                        },
                        {"resource": resource("Observation", "o1")},
                    ],
                },
            },
        ],
    }


@pytest.mark.req("CON-4", "EVT-15")
@pytest.mark.parametrize("space", [b"", b" ", b"\n \t"])
def test_the_opens_context_is_untouched(space: bytes) -> None:
    """GET gives the open's context byte for byte. The content stands behind its last item."""
    world = World()
    patient_ = b'{"key":"patient","resource":{"resourceType":"Patient","id":"p1"}}'
    report_ = b'{"key" : "report","resource":{"resourceType":"DiagnosticReport","id":"r","x":1.10}}'
    items = b"[%b%b,%b%b" % (space, patient_, report_, space)
    world.post(
        b'{"timestamp":"2023-04-01T12:00:00Z","id":"1","event":{"hub.topic":"a-topic","hub.event":"DiagnosticReport-open",'
        b'"context":%b%b]%b}}' % (items, space, space)
    )
    raw = current_context(world.session, token(), TOPIC, world.rules)
    assert b'"context":' + items.rstrip() + b',{"key":"content"' in raw
    assert json.loads(raw)["context"][1] == item("report", "DiagnosticReport", "r", x=1.1)


@pytest.mark.req("CON-5")
def test_where_nothing_was_shared_the_bundle_is_empty() -> None:
    """Each anchor has content. Empty content has no entry array, also after deletes of all resources."""
    world = Reading()
    for _ in range(2):
        assert world.content() == {"resourceType": "Bundle", "id": world.version(), "type": "collection"}
        world.share(put("Observation", "o1"))
        assert world.shared() == ["Observation/o1"]
        world.share(delete("Observation/o1"))
    world.publish("Patient-open", patient("p1"))
    assert world.content() == {"resourceType": "Bundle", "id": world.version("Patient/p1"), "type": "collection"}


@pytest.mark.req("CON-5")
def test_where_nothing_is_current_there_is_no_content() -> None:
    """GET's context is empty then."""
    world = Reading()
    world.share(put("Observation", "o1"))
    world.publish("Home-open")
    assert json.loads(world.raw())["context"] == []


@pytest.mark.req("CON-4", "EVT-12", "CON-22")
@pytest.mark.parametrize(
    ("read", "shown"),
    [
        (("*",), True),
        (("DiagnosticReport-open", "diagnosticreport-UPDATE"), True),
        (("DiagnosticReport-open",), False),
        (("DiagnosticReport-open", "DiagnosticReport-select", "Patient-update"), False),
    ],
)
def test_only_who_may_read_updates_reads_the_content(read: tuple[str, ...], shown: bool) -> None:
    """Others read only the open's context, as before."""
    world = Reading()
    world.share(put("Observation", "o1"))
    answer = json.loads(world.raw(token(read=read, write=())))
    assert [each["key"] for each in answer["context"]] == ["report", "patient", "content"][: 2 + shown]
    assert answer["context.versionId"] == world.version()
    assert answer["context"][0] == report("r1")


@pytest.mark.req("GET-8", "EVT-12")
def test_the_updates_scope_alone_reads_nothing() -> None:
    """A derived open does not show the content of its source either."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.share(put("Observation", "o1"))
    with pytest.raises(InsufficientScope):
        world.raw(token(read=["DiagnosticReport-update"]))
    answer = json.loads(world.raw(token(read=["DiagnosticReport-update", "Patient-update", "Patient-open"])))
    assert answer["context"] == [patient("p1")]


@pytest.mark.req("CON-4")
def test_a_content_that_the_open_brought_gives_way() -> None:
    """A client may open a context with GET's answer. Only one Bundle is shown: "one and only one Bundle"."""
    world = World()
    old = {"key": "content", "resource": resource("Bundle", "old", type="collection")}
    world.publish("DiagnosticReport-open", report("r1"), old, patient("p1"))
    answer = json.loads(current_context(world.session, token(), TOPIC, world.rules))
    assert [each["key"] for each in answer["context"]] == ["report", "patient", "content"]
    assert answer["context"][2]["resource"]["id"] == answer["context.versionId"]
