"""GET answers with the current context. The number and the bytes of open contexts have limits."""

from __future__ import annotations

import json

import pytest

from fhircast_hub.core.errors import Forbidden, InsufficientScope
from fhircast_hub.core.limits import MAX_CONTEXT_BYTES
from fhircast_hub.core.rules.contexts import View, current_context
from tests.core.rules.joining_world import joined
from tests.core.world import (
    CLOSES,
    OPENS,
    TOPIC,
    World,
    body,
    item,
    message,
    outcome,
    patient,
    resource,
    spec,
    study,
    token,
)

EMPTY = {"context.type": "", "context": []}

# GET


@pytest.mark.req("GET-1")
def test_a_session_that_does_not_exist_has_no_context() -> None:
    """The version is "0", and GET creates no session."""
    world = World()
    assert world.get() == EMPTY | {"context.versionId": "0"}
    assert world.session is None


@pytest.mark.req("GET-1")
def test_a_session_without_context_says_so() -> None:
    """A subscriber is there, and nothing was opened."""
    world = World()
    world.join("chart")
    answer = world.get()
    assert isinstance(answer.pop("context.versionId"), str)
    assert answer == EMPTY


@pytest.mark.req("GET-2")
@pytest.mark.parametrize("name", ["Patient", "Encounter", "ImagingStudy", "DiagnosticReport"])
def test_the_current_context_is_the_newest_open(name: str) -> None:
    """GET has type, version, and the context array as received."""
    world = World()
    world.join("chart", OPENS)
    world.publish("Observation-open", item("observation", "Observation", "o1"))
    text = spec(f"{name}-open").replace(b'"hub.event": "', b'"hub.event": "').replace(b"-open", b"-OPEN")
    world.post(text)
    version = world.read("chart")[-1]["event"]["context.versionId"]
    posted = json.loads(text)["event"]["context"]
    assert world.get() == {"context.type": name, "context.versionId": version, "context": posted}


@pytest.mark.req("GET-2", "EVT-15")
def test_the_context_array_is_untouched() -> None:
    """White space, order, repeated members and 1.10 stay byte for byte."""
    array = b'[ {"key" : "patient","resource":{"id":"p1","resourceType":"Patient","x":[1.10,1e9999,{"y":1,"y":"\\u00e9"} ]}}\n]'
    world = World()
    world.post(body(message("Patient-open", 0)).replace(b"[0]", array))
    assert b'"context":' + array[:-2] + b',{"key":"content",' in current_context(
        world.session, token(), TOPIC, world.rules
    )


@pytest.mark.req("GET-3")
@pytest.mark.parametrize("name", ["Patient-close", "patient-close"])
def test_what_is_closed_is_not_current(name: str) -> None:
    """After the only context was closed there is none."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.publish(name, {"key": "patient", "resource": resource("Patient", "p1", active=False)})
    assert world.current() == ""


@pytest.mark.req("GET-4")
def test_closing_the_newest_leaves_nothing_current() -> None:
    """Older contexts stay open, and none becomes current."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"))
    world.publish("ImagingStudy-close", study("s1"))
    assert world.current() == ""
    assert joined(world) == ["Patient-open p1"]


@pytest.mark.req("GET-5")
def test_closing_another_changes_nothing() -> None:
    """Type, version and context stay the same."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"))
    before = world.get()
    world.publish("Patient-close", patient("p1"))
    assert world.get() == before


@pytest.mark.req("GET-6", "GET-7")
def test_every_change_has_a_new_version() -> None:
    """Opens, reopens, closes and Home-open: no version occurs twice."""
    world = World()
    versions = [world.get()["context.versionId"]]
    for name, item_ in [
        ("Patient-open", patient("p1")),
        ("Patient-open", patient("p1")),
        ("ImagingStudy-open", study("s1")),
        ("ImagingStudy-close", study("s1")),
        ("Patient-open", patient("p1")),
        ("Home-open", {"key": "x"}),
        ("Patient-open", patient("p1")),
        ("Patient-close", patient("p1")),
    ]:
        world.publish(name, item_)
        versions.append(world.get()["context.versionId"])
    assert len(set(versions)) == len(versions)


@pytest.mark.req("GET-6")
@pytest.mark.parametrize("name", ["SyncError", "UserHibernate", "org.example.thing"])
def test_what_changes_no_context_changes_no_version(name: str) -> None:
    """Events that are only passed on leave GET's answer unchanged."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    before = world.get()
    world.publish(name, outcome())
    assert world.get() == before


@pytest.mark.req("GET-7")
def test_home_is_no_context() -> None:
    """After Home-open nothing is current, though contexts stay open."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.publish("Home-open")
    assert world.current() == ""
    assert joined(world, OPENS) == ["Patient-open p1"]


@pytest.mark.req("GET-8")
def test_who_may_not_read_the_newest_gets_what_it_implies() -> None:
    """A chart that may read patients gets the study's patient, without the study."""
    world = World()
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    answer = world.get(by=token(read=["Patient-open"]))
    assert (answer["context.type"], answer["context"]) == ("Patient", [patient("p1")])
    assert world.get(by=token(read=["ImagingStudy-open", "Patient-open"]))["context.type"] == "ImagingStudy"


@pytest.mark.req("GET-8")
@pytest.mark.parametrize("read", [(), ("Encounter-open",), ("ImagingStudy-close",), ("Patient-close",)])
def test_who_may_read_nothing_of_it_is_refused(read: tuple[str, ...]) -> None:
    """The reader gets 403 insufficient_scope. An empty answer would say that nothing is open."""
    world = World()
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    with pytest.raises(InsufficientScope):
        world.get(by=token(read=read))


@pytest.mark.req("GET-8")
def test_an_older_context_is_no_answer() -> None:
    """Only contexts that the newest one implies count. An older patient may be another one."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"))
    with pytest.raises(InsufficientScope):
        world.get(by=token(read=["Patient-open"]))


@pytest.mark.req("GET-8", "AUT-9")
def test_the_owner_is_asked_before_the_scope() -> None:
    """Another user is not told which scope would suffice."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    with pytest.raises(Forbidden) as refused:
        world.get(by=token("bob", read=()))
    assert not isinstance(refused.value, InsufficientScope)


# LIM


@pytest.mark.req("LIM-1", "LIM-4")
def test_at_most_64_contexts_are_open() -> None:
    """The 65th open closes the oldest context. Subscribers of closes are sent the close, with its resource."""
    world = World()
    world.join("chart", CLOSES)
    for number in range(64):
        world.publish("Patient-open", patient(f"p{number}"))
    assert world.news("chart") == []
    world.publish("Patient-open", patient("p64"))
    (close,) = world.read("chart")
    assert close["event"] == {"hub.topic": TOPIC, "hub.event": "Patient-close", "context": [patient("p0")]}
    assert world.session is not None
    assert len(world.session.contexts) == 64
    assert world.current() == "Patient p64"


@pytest.mark.req("LIM-1", "LIM-4")
def test_the_newest_of_a_type_does_not_go() -> None:
    """A study opened first is the newest study, and stays while patients come and go."""
    world = World()
    world.publish("ImagingStudy-open", study("s1"))
    for number in range(70):
        world.publish("Patient-open", patient(f"p{number}"))
    assert joined(world) == ["ImagingStudy-open s1", "Patient-open p69"]


@pytest.mark.req("LIM-1")
def test_opening_again_needs_no_room() -> None:
    """The 65th open of 64 contexts closes nothing, and makes its context the youngest."""
    world = World()
    world.join("chart", CLOSES)
    for number in [*range(64), 0]:
        world.publish("Patient-open", patient(f"p{number}"))
    assert world.news("chart") == []
    world.publish("Patient-open", patient("new"))
    assert world.news("chart") == ["Patient-close p1"]


@pytest.mark.req("LIM-1", "LIM-4")
def test_64_types_are_no_way_around_it() -> None:
    """When each is the newest of its type, the oldest is closed. The close spells the type as the open did."""
    world = World()
    names = [f"Type{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(65)]
    world.join("chart", f"{names[0]}-close")
    for name in names:
        world.publish(f"{name}-open", item(name.lower(), name, "x"))
    assert world.session is not None
    assert len(world.session.contexts) == 64
    assert [frame["event"]["hub.event"] for frame in world.read("chart")] == [f"{names[0]}-close"]


@pytest.mark.req("LIM-1")
def test_what_went_is_closed() -> None:
    """A later close of the context changes nothing, and a later open opens the context."""
    world = World()
    for number in range(65):
        world.publish("Patient-open", patient(f"p{number}"))
    before = world.get()
    world.publish("Patient-close", patient("p0"))
    assert world.get() == before
    world.publish("Patient-open", patient("p0"))
    assert world.current() == "Patient p0"


@pytest.mark.req("LIM-1")
def test_contexts_are_bounded_in_bytes_too() -> None:
    """Each open has a megabyte. As many as fit stay, the oldest are closed, and the newest is current."""
    world = World()
    world.join("chart", CLOSES)
    for number in range(12):
        world.publish("Patient-open", patient(f"p{number}"), {"key": "extension", "data": "x" * 1_000_000})
    assert world.session is not None
    assert sum(len(context.frame) for context in world.session.contexts.values()) <= MAX_CONTEXT_BYTES
    assert world.current() == "Patient p11"
    assert world.news("chart") == [f"Patient-close p{number}" for number in range(4)]


@pytest.mark.req("LIM-1", "DER-7", "LIM-4")
def test_the_patient_of_the_current_study_does_not_go() -> None:
    """64 patients are open, and a study of the oldest is opened. A chart shows that patient, as a joiner does."""
    world = World()
    for number in range(64):
        world.publish("Patient-open", patient(f"p{number}"))
    world.join("chart", "Patient-open,Patient-close")
    world.publish("ImagingStudy-open", study("s1"), patient("p0"))
    assert world.news("chart") == ["Patient-open p0", "Patient-close p1"]
    assert joined(world, "Patient-open") == ["Patient-open p0"]


@pytest.mark.req("GET-7")
def test_views_of_two_versions_differ_though_nothing_is_current() -> None:
    """After each close GET has another version."""
    assert View("one").is_same(View("one"))
    assert not View("one").is_same(View("two"))
