"""Content sharing: updates in versions, all or nothing; what GET shows, what is broadcast, and what is refused."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.decide import decide
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import BadRequest, Conflict, Forbidden, HubError, InsufficientScope, TooLarge
from fhircast_hub.core.rules.contexts import current_context
from fhircast_hub.core.state.commands import Publish
from fhircast_hub.core.state.effects import Send
from fhircast_hub.core.wire.event import parse_event
from tests.core.world import (
    TOPIC,
    World,
    body,
    encounter,
    frozen,
    item,
    label,
    message,
    patient,
    report,
    resource,
    spec,
    study,
    token,
)

R1, R2 = "DiagnosticReport/r1", "DiagnosticReport/r2"
REPORTS = ",".join(f"DiagnosticReport-{verb}" for verb in ("open", "close", "update", "select"))
EVENTS = REPORTS + "," + REPORTS.replace("DiagnosticReport", "Patient")
MAX_CONTENT = 8 << 20
#: Bytes of an entry that holds a resource: {"resource":...}
AROUND = 13


def put(type_: str, id_: str, **members: object) -> dict[str, Any]:
    """An entry that shares a resource."""
    return {"request": {"method": "PUT"}, "resource": resource(type_, id_, **members)}


def delete(ref: str) -> dict[str, Any]:
    """An entry that takes one back."""
    return {"fullUrl": ref, "request": {"method": "DELETE"}}


def anchor(ref: str) -> dict[str, Any]:
    """The context item by which an update or select names its context."""
    type_ = ref.partition("/")[0]
    return {"key": {"DiagnosticReport": "report"}.get(type_, type_.lower()), "reference": {"reference": ref}}


def of_size(id_: str, size: int) -> dict[str, Any]:
    """An entry whose resource takes so many bytes of the content."""
    entry = put("Binary", id_, data="")
    entry["resource"]["data"] = "x" * (size - AROUND - len(body(entry["resource"])))
    return entry


class Reading(World):
    """A world in which r1 is open, and a viewer hears of all that happens to reports and patients."""

    def __init__(self, **rules: Any) -> None:
        super().__init__(**rules)
        self.join("viewer", EVENTS)
        self.publish("DiagnosticReport-open", report("r1"), patient("p1"))
        self.heard("viewer")

    def version(self, ref: str = R1) -> str:
        """The current version of an open context."""
        assert self.session
        type_, _, id_ = ref.partition("/")
        return self.session.contexts[f"{type_.lower()}/{id_}"].version

    def update(self, *entries: object, of: str = R1, version: str | None = None) -> dict[str, Any]:
        """An update of an open context, made on its current version unless told otherwise, with a new id; not posted yet."""
        self._events += 1
        bundle = resource("Bundle", "a-bundle", type="transaction", entry=list(entries))
        name = f"{of.partition('/')[0]}-update"
        posted = message(name, anchor(of), {"key": "updates", "resource": bundle}, id_=f"event-{self._events}")
        posted["event"]["context.versionId"] = self.version(of) if version is None else version
        return posted

    def share(self, *entries: object, of: str = R1, by: Principal | None = None) -> dict[str, Any]:
        """Post an update that is accepted; the message."""
        posted = self.update(*entries, of=of)
        self.post(posted, by)
        return posted

    def told(self) -> dict[str, Any]:
        """The one message that the viewer was sent."""
        (one,) = self.read("viewer")
        return one

    def refuses(self, posted: object, error: type[HubError], by: Principal | None = None) -> str:
        """Post what is refused, and see that nothing at all has changed; the reason."""
        before, frames = frozen(self.session), copy.deepcopy(self.frames)
        with pytest.raises(error) as refused:
            self.post(posted, by)
        assert type(refused.value) is error
        assert (frozen(self.session), self.frames) == (before, frames)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    def shared(self, by: Principal | None = None) -> list[str]:
        """What GET says is shared in the current context, in short."""
        resources = [entry["resource"] for entry in self.content(by).get("entry", [])]
        return [f"{each['resourceType']}/{each['id']}" for each in resources]

    def raw(self, by: Principal | None = None) -> bytes:
        """GET's answer as bytes."""
        return current_context(self.session, by or token(), TOPIC, self.rules)


# Versions


@pytest.mark.req("CON-1")
def test_every_open_and_update_has_a_version_that_was_never_used() -> None:
    """UUIDs, whichever context is opened, opened again or updated; GET says the newest."""
    world = Reading()
    versions = [world.version()]
    for number in range(5):
        world.publish("DiagnosticReport-open", report("r2"), patient("p1"), {"key": "n", "number": number})
        versions.append(world.told()["event"]["context.versionId"])
        assert world.get()["context.versionId"] == versions[-1]
        for of in (R1, R2):
            world.share(put("Observation", "o1"), of=of)
            versions.append(world.told()["event"]["context.versionId"])
    world.publish("DiagnosticReport-close", report("r2"))
    versions.append(world.get()["context.versionId"])
    assert len({uuid.UUID(version) for version in versions}) == len(versions) == 17


@pytest.mark.req("CON-1")
def test_opening_again_keeps_the_content() -> None:
    """With a new version; an update on the old one is refused."""
    world = Reading()
    world.share(put("Observation", "o1"))
    old = world.version()
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    assert world.version() != old
    assert (world.shared(), world.content()["id"]) == (["Observation/o1"], world.version())
    world.refuses(world.update(version=old), Conflict)
    world.share(put("Observation", "o2"))
    assert world.shared() == ["Observation/o1", "Observation/o2"]


@pytest.mark.req("CON-2")
def test_the_specifications_update_is_broadcast_as_the_specification_has_it() -> None:
    """Its DiagnosticReport example from open to DELETE, but for the versions, which are the hub's."""
    world = World()
    world.join("viewer", REPORTS)
    world.post(spec("DiagnosticReport-open"))
    (opened,) = world.read("viewer")
    version = opened["event"]["context.versionId"]
    for name, example in (("request", "broadcast"), ("delete", "delete")):
        posted, expected = (json.loads(spec(f"DiagnosticReport-update.{of}")) for of in (name, example))
        posted["event"]["context.versionId"] = version
        world.post(posted)
        (told,) = world.read("viewer")
        versions = {"context.priorVersionId": version, "context.versionId": told["event"]["context.versionId"]}
        assert told == expected | {"event": expected["event"] | versions}
        version = told["event"]["context.versionId"]
        assert version != versions["context.priorVersionId"]
    entries = world.content()["entry"]
    put_report = json.loads(spec("DiagnosticReport-update.delete"))["event"]["context"][2]["resource"]["entry"][1]
    assert [entry["resource"]["resourceType"] for entry in entries] == ["ImagingStudy", "DiagnosticReport"]
    assert entries[1] == {"resource": put_report["resource"]}


@pytest.mark.req("CON-2", "EVT-1")
def test_an_update_is_sent_once_to_every_subscriber() -> None:
    """The same bytes to all, the sender's own too, with the Bundle as it came and the version before."""
    world = Reading()
    world.join("sender", "DiagnosticReport-update")
    before = world.version()
    posted = world.share(put("Observation", "o1"), put("Patient", "p"))
    (frame,), (other,) = world.heard("viewer"), world.heard("sender")
    assert frame == other
    told = json.loads(frame)
    assert told["event"].pop("context.priorVersionId") == before
    assert told["event"].pop("context.versionId") == world.version() != before
    del posted["event"]["context.versionId"]
    assert told == posted


@pytest.mark.req("CON-2", "EVT-15")
def test_the_senders_own_versions_are_taken_out() -> None:
    """Each member is there once, and says what the hub says; others stay."""
    world = Reading()
    before = world.version()
    posted = world.update(put("Observation", "o1"))
    posted["event"] |= {"context.priorVersionId": "mine", "note": 1}
    world.post(posted | {"context.versionId": "outer", "context.priorVersionId": "outer", "more": 2})
    (frame,) = world.heard("viewer")
    pairs = json.loads(frame, object_pairs_hook=list)
    event = dict(pairs)["event"]
    names = [name for name, _ in event]
    assert sorted(names) == sorted(
        ("hub.topic", "hub.event", "context.versionId", "context.priorVersionId", "context", "note")
    )
    assert (dict(event)["context.versionId"], dict(event)["context.priorVersionId"]) == (world.version(), before)
    assert [name for name, _ in pairs] == ["timestamp", "id", "event", "more"]


@pytest.mark.req("CON-2", "CON-14")
def test_the_versions_form_a_chain() -> None:
    """Each update's prior version is the one that the context's last open or update was given."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.heard("viewer")
    last = {R1: world.version(R1), R2: world.version(R2)}
    for number in range(6):
        of = (R1, R2, R2)[number % 3]
        world.share(put("Observation", str(number)), of=of)
        event = world.told()["event"]
        assert event["context.priorVersionId"] == last[of]
        last[of] = event["context.versionId"]


@pytest.mark.req("CON-3")
@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ("b9574cb0-e9e5-4be1-8957-5fcb51ef33c1", "not b9574cb0-e9e5-4be1-8957-5fcb51ef33c1"),
        ("0", "not 0"),
        ("", "and the event has none"),
        (None, "and the event has none"),
        (..., "and the event has none"),
        ("x" * 64, "not " + "x" * 64),
        ("x" * 65, "not 65 characters of something else"),
        ("line\n", "not 5 characters of something else"),
        ("é", "not 1 characters of something else"),
    ],
)
def test_another_version_is_refused(version: object, shown: str) -> None:
    """Or none: 409 with the current one, and nobody is told. The one that came is quoted when it is short and plain."""
    world = Reading()
    world.share(put("Observation", "o1"))
    posted = world.update(put("Observation", "o2"))
    if version is ...:
        del posted["event"]["context.versionId"]
    else:
        posted["event"]["context.versionId"] = version
    reason = world.refuses(posted, Conflict)
    assert f"must be the current version {world.version()}" in reason
    assert reason.endswith(shown)
    assert Conflict.status == 409


@pytest.mark.req("CON-3")
@pytest.mark.parametrize("change", [str.upper, lambda version: version + " ", lambda version: version[:-1]])
def test_a_version_is_compared_as_it_is(change: Any) -> None:
    """Nothing is cut, and case counts: what the hub said is to be said again."""
    world = Reading()
    while world.version() == world.version().upper():
        world.share()
    world.refuses(world.update(version=change(world.version())), Conflict)


@pytest.mark.req("CON-3")
def test_a_version_that_is_no_string_is_refused() -> None:
    """It is malformed, not stale."""
    world = Reading()
    posted = world.update()
    posted["event"]["context.versionId"] = 7
    assert "context.versionId" in world.refuses(posted, BadRequest)


@pytest.mark.req("CON-3")
def test_another_contexts_version_is_refused() -> None:
    """Though it is the session's current one."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    assert world.version(R1) in world.refuses(world.update(of=R1, version=world.version(R2)), Conflict)
    assert world.version(R2) in world.refuses(world.update(of=R2, version=world.version(R1)), Conflict)


@pytest.mark.req("CON-8")
def test_of_updates_on_one_version_the_first_is_accepted() -> None:
    """Whoever sends the others is told the version that it made."""
    world = Reading()
    updates = [world.update(put("Observation", f"o{number}")) for number in range(3)]
    world.post(updates[0], by=token(client="one"))
    for number, late in enumerate(updates[1:]):
        assert world.version() in world.refuses(late, Conflict, by=token(client=f"other-{number}"))
    assert world.shared() == ["Observation/o0"]


# GET


@pytest.mark.req("CON-4", "GET-2")
def test_get_shows_the_opens_context_and_then_the_content() -> None:
    """One collection Bundle whose id is the version, without any request; a resource of the open stays as it was opened."""
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
    """Byte for byte, however it was written; the content is put behind its last item."""
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
    """It is there for every anchor, without an array, which would be empty; also when all was taken back."""
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


@pytest.mark.req("CON-4", "EVT-12")
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
    """Others read the open's context, and nothing else has changed about it."""
    world = Reading()
    world.share(put("Observation", "o1"))
    answer = json.loads(world.raw(token(read=read, write=())))
    assert [each["key"] for each in answer["context"]] == ["report", "patient", "content"][: 2 + shown]
    assert answer["context.versionId"] == world.version()
    assert answer["context"][0] == report("r1")


@pytest.mark.req("GET-8", "EVT-12")
def test_the_updates_scope_alone_reads_nothing() -> None:
    """Nor does a derived open show the content of the context that it comes from."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.share(put("Observation", "o1"))
    with pytest.raises(InsufficientScope):
        world.raw(token(read=["DiagnosticReport-update"]))
    answer = json.loads(world.raw(token(read=["DiagnosticReport-update", "Patient-update", "Patient-open"])))
    assert answer["context"] == [patient("p1")]


# What an update does


@pytest.mark.req("CON-6")
def test_put_adds_or_replaces_and_delete_removes() -> None:
    """What is replaced keeps its place, what is new comes last, also if it was there before; nothing else changes."""
    world = Reading()
    world.share(put("Observation", "o1", value=1), put("ImagingStudy", "s1"), put("Observation", "o3"))
    world.share(put("Observation", "o3", value=3), put("Patient", "p9"), put("Observation", "o1", note="new"))
    assert world.content()["entry"] == [
        {"resource": resource("Observation", "o1", note="new")},
        {"resource": resource("ImagingStudy", "s1")},
        {"resource": resource("Observation", "o3", value=3)},
        {"resource": resource("Patient", "p9")},
    ]
    world.share(delete("Observation/o1"), put("Observation", "o5"), delete("Patient/p9"))
    assert world.shared() == ["ImagingStudy/s1", "Observation/o3", "Observation/o5"]
    world.share(put("Observation", "o1"))
    assert world.shared()[-1] == "Observation/o1"


@pytest.mark.req("CON-6")
def test_type_and_id_say_which_resource_it_is() -> None:
    """Types in any case, ids in their own."""
    world = Reading()
    world.share(put("Observation", "a"), put("Observation", "A"), put("Patient", "a"))
    assert world.shared() == ["Observation/a", "Observation/A", "Patient/a"]
    world.share(put("OBSERVATION", "a"))
    assert world.shared() == ["OBSERVATION/a", "Observation/A", "Patient/a"]
    world.share(delete("https://ehr.example/Observation/A"))
    assert world.shared() == ["OBSERVATION/a", "Patient/a"]


@pytest.mark.req("CON-2")
def test_an_update_may_change_nothing() -> None:
    """An empty Bundle makes a version as any."""
    world = Reading()
    before = world.version()
    world.share()
    assert world.told()["event"]["context.priorVersionId"] == before
    assert world.version() != before


@pytest.mark.req("CON-19")
@pytest.mark.parametrize(
    "bad",
    [
        put("Observation", "o9") | {"request": {"method": "POST"}},
        {"request": {"method": "PUT"}, "resource": {"resourceType": "Observation"}},
        {"request": {"method": "PUT"}},
        put("Observation", "new"),
        delete("Observation/o9"),
        delete("Observation/new"),
        delete("DiagnosticReport/r1"),
        delete("Patient/p1"),
        delete("https://ehr.example/fhir/Patient/p1"),
        delete("nowhere"),
        None,
    ],
)
def test_all_of_an_update_or_nothing(bad: object) -> None:
    """One bad entry refuses all: nothing is applied, nobody told, the version stays; the answer says which entry it was."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.share(put("Observation", "o1"))
    good = [put("Observation", "new"), delete("Observation/o1")]
    reason = world.refuses(world.update(*good, bad), BadRequest)
    assert "entry[2]" in reason
    world.share(*good)
    assert world.shared() == ["Observation/new"]


@pytest.mark.req("CON-19")
def test_the_entry_that_is_refused_may_be_any() -> None:
    """Its index is the sender's, whatever stands before it."""
    world = Reading()
    for index in range(4):
        entries = [put("Observation", f"o{number}") for number in range(3)]
        entries.insert(index, delete("Observation/absent"))
        assert f"entry[{index}]" in world.refuses(world.update(*entries), BadRequest)


@pytest.mark.req("CON-18", "CON-19")
def test_what_the_context_was_opened_with_stays() -> None:
    """A copy of it may be shared and taken back: what is left is the open's, of which no DELETE is taken, and GET says so."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    for ref in ("Patient/p1", R1):
        reason = world.refuses(world.update(delete(ref)), BadRequest)
        assert "opened with this one, and nobody has shared it since" in reason
        type_, _, id_ = ref.partition("/")
        world.share(put(type_, id_, status="final"))
        assert world.shared() == [ref]
        world.share(delete(ref))
        assert world.shared() == []
        assert "opened with" in world.refuses(world.update(delete(ref)), BadRequest)
    assert json.loads(world.raw())["context"][:2] == [report("r1"), patient("p1")]


@pytest.mark.req("CON-18")
def test_a_copy_of_what_the_context_was_opened_with_goes_beside_others() -> None:
    """In one update with what else is changed; another open of the context does not change that."""
    world = Reading()
    world.share(put("DiagnosticReport", "r1", status="final"), put("Patient", "p2"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.share(delete(R1), delete("Patient/p2"), put("Observation", "o1"))
    assert world.shared() == ["Observation/o1"]


@pytest.mark.req("CON-19", "CON-10")
def test_deletes_are_about_their_own_context() -> None:
    """What another was opened with, or was shared in another, is not there; what another was opened with may be deleted here."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.share(put("Observation", "o2"), of=R2)
    assert "not there" in world.refuses(world.update(delete("Observation/o2"), of=R1), BadRequest)
    world.share(put("Patient", "p2"), of=R1)
    world.share(delete("Patient/p2"), of=R1)


@pytest.mark.req("EVT-5", "CON-19")
@pytest.mark.parametrize(
    "items",
    [
        [],
        [{"key": "updates", "resource": resource("Bundle", "b")}] * 2,
        [{"key": "updates", "resource": resource("Parameters", "b")}],
        [{"key": "updates", "reference": {"reference": "Bundle/b"}}],
        [{"key": "Updates", "resource": resource("Bundle", "b")}],
    ],
)
def test_an_update_has_one_bundle(items: list[object]) -> None:
    """None, two, or something else is refused."""
    world = Reading()
    posted = world.update()
    posted["event"]["context"] = [anchor(R1), *items]
    assert "updates" in world.refuses(posted, BadRequest)


@pytest.mark.req("CON-2")
def test_the_bundle_may_stand_anywhere() -> None:
    """Before the anchor, or behind others; the anchor may be a resource."""
    world = Reading()
    posted = world.update(put("Observation", "o1"))
    posted["event"]["context"] = [posted["event"]["context"][1], {"key": "odd"}, report("r1")]
    world.post(posted)
    assert world.shared() == ["Observation/o1"]
    assert world.told()["event"]["context"] == posted["event"]["context"]


@pytest.mark.req("CON-9")
def test_a_close_disposes_of_the_content() -> None:
    """Opened again, the report is empty, and the version before it is stale; another's content stays."""
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
    """A patient of the same id, say."""
    world = Reading()
    world.share(put("Observation", "o1"))
    world.publish("Patient-close", patient("r1"))
    assert world.shared() == ["Observation/o1"]


@pytest.mark.req("CON-10")
def test_another_report_in_between_disposes_of_nothing() -> None:
    """Opened, updated and closed; or Home-open."""
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
    """Never opened, closed, of another type, or only implied by what is open."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.publish("DiagnosticReport-close", report("r2"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    assert "not open" in world.refuses(world.update(of=of, version=world.version()), Conflict)
    name = f"{of.partition('/')[0]}-select"
    assert "not open" in world.refuses(message(name, anchor(of)), Conflict)


@pytest.mark.req("CON-11")
def test_no_session_is_made_for_what_is_refused() -> None:
    """Nobody has opened anything; the topic still belongs to nobody."""
    world = World()
    updates = {"key": "updates", "resource": resource("Bundle", "b")}
    for posted in (
        message("DiagnosticReport-update", anchor(R1), updates),
        message("DiagnosticReport-select", anchor(R1)),
    ):
        with pytest.raises(Conflict):
            world.post(posted)
        assert world.session is None


@pytest.mark.req("CON-12")
def test_a_select_is_broadcast_and_changes_nothing() -> None:
    """The specification's example, and one that selects nothing, which clears; no version is made by it."""
    world = World()
    world.join("viewer", EVENTS)
    world.join("chart", "DiagnosticReport-update")
    world.post(spec("DiagnosticReport-open"))
    world.heard("viewer")
    before = world.get()
    cleared = json.loads(spec("DiagnosticReport-select"))
    cleared["event"]["context"] = cleared["event"]["context"][:1]
    for posted in (json.loads(spec("DiagnosticReport-select")), cleared, cleared):
        world.post(posted)
        assert world.read("viewer") == [posted]
    assert world.get() == before
    assert world.news("chart") == []


@pytest.mark.req("CON-12", "CON-3")
def test_a_select_needs_no_version() -> None:
    """Whatever it says, selecting changes nothing; and what it says is not passed on."""
    world = Reading()
    posted = message("DiagnosticReport-select", anchor(R1))
    posted["event"]["context.versionId"] = "stale"
    world.post(posted)
    assert "context.versionId" not in world.told()["event"]


@pytest.mark.req("CON-16")
def test_the_entries_are_applied_and_passed_on_in_their_order() -> None:
    """As they came, with and without request.url."""
    world = Reading()
    entries = [put("Observation", id_) for id_ in ("o9", "o10", "o1")]
    entries[1]["request"]["url"] = "Observation/o10"
    entries.insert(1, put("Patient", "p1"))
    world.share(*entries)
    assert world.shared() == ["Observation/o9", "Patient/p1", "Observation/o10", "Observation/o1"]
    assert world.told()["event"]["context"][1]["resource"]["entry"] == entries


@pytest.mark.req("CON-14")
def test_a_context_that_is_not_current_is_updated() -> None:
    """What is current stays so, with its version and content; the other's is there when it is opened again."""
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
    """GET stays empty, at its own version; a joiner is told the context at the version that is current, and then Home-open."""
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
    """409; once it is opened again, it is taken."""
    world = Reading()
    world.publish(*now)
    select = message("DiagnosticReport-select", anchor(R1))
    assert "not current" in world.refuses(select, Conflict)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.post(select)
    assert world.news("viewer")[-1] == "DiagnosticReport-select"


@pytest.mark.req("CON-15")
def test_too_many_entries_are_refused() -> None:
    """413, of whatever kind they are; as many as are allowed are taken, and the content may have more."""
    world = Reading(max_entries=3)
    world.share(*(put("Observation", f"o{number}") for number in range(3)))
    world.share(*(put("Observation", f"p{number}") for number in range(3)))
    reason = world.refuses(
        world.update(put("Patient", "p"), *(delete(f"Observation/o{n}") for n in range(3))), TooLarge
    )
    assert "at most 3 entries, and this Bundle has 4" in reason
    assert TooLarge.status == 413
    assert len(world.shared()) == 6


@pytest.mark.req("CON-17")
def test_identifiers_of_64_kib_at_most_are_compared() -> None:
    """413 for more, in all entries together; of what the open did not bring none is compared."""
    world = Reading()
    many = [{"system": "urn:x", "value": f"{number:050}"} for number in range(300)]
    world.share(put("Observation", "o1", identifier=many * 9))
    world.share(put("Patient", "p1", identifier=many))
    reason = world.refuses(world.update(put("Patient", "p1", identifier=many * 3)), TooLarge)
    assert "entry[0]: an update may have at most 65536 bytes of identifiers" in reason
    half = many + many[:150]
    both = world.update(put("Patient", "p1", identifier=half), put("DiagnosticReport", "r1", identifier=half))
    assert "entry[1]: an update may have at most 65536 bytes" in world.refuses(both, TooLarge)


@pytest.mark.req("CON-17")
def test_a_copy_that_is_too_much_to_compare_goes_when_the_context_is_opened_again() -> None:
    """As one that contradicts the open."""
    world = Reading()
    many = [{"system": "urn:x", "value": f"{number:050}"} for number in range(500)]
    world.share(put("Patient", "p1", identifier=many))
    for count, left in ((1, 1), (500, 0)):
        again = item("patient", "Patient", "p1", identifier=many[:count])
        world.publish("DiagnosticReport-open", report("r1"), again)
        assert len(world.shared()) == left


@pytest.mark.req("CON-2", "CON-6", "CON-9", "CON-12")
@pytest.mark.parametrize("type_", ["Patient", "ImagingStudy", "MedicationRequest"])
def test_any_anchor_has_content(type_: str) -> None:
    """With the reference under the key that its open has, or under the type in lower case."""
    world = Reading()
    key = "study" if type_ == "ImagingStudy" else type_.lower()
    reader = token(read=[f"{type_}-open", f"{type_}-update"])
    world.join("chart", f"{type_}-update,{type_}-select")
    world.publish(f"{type_}-open", item(key, type_, "x"))
    for place, name in enumerate({key, type_.lower()}):
        posted = world.update(put("Observation", f"o{place}"), of=f"{type_}/x")
        posted["event"]["context"][0]["key"] = name
        world.post(posted)
        assert world.shared(reader)[-1] == f"Observation/o{place}"
        assert world.news("chart") == [f"{type_}-update a-bundle"]
    world.publish(f"{type_}-select", anchor(f"{type_}/x") | {"key": key})
    assert world.news("chart") == [f"{type_}-select"]
    world.publish(f"{type_}-close", item(key, type_, "x"))
    world.publish(f"{type_}-open", item(key, type_, "x"))
    assert world.shared() == []


@pytest.mark.req("CON-2", "EVT-4")
def test_names_and_references_are_read_as_everywhere() -> None:
    """Names and types in any case, references by their last two segments, ids of any script."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("ø☃"), patient("p1"))
    posted = world.update(put("Observation", "o1"), of="DiagnosticReport/ø☃")
    posted["event"]["hub.event"] = "DIAGNOSTICREPORT-update"
    posted["event"]["context"][0]["reference"]["reference"] = "https://ehr.example/fhir/diagnosticReport/ø☃"
    world.post(posted)
    assert world.shared() == ["Observation/o1"]
    assert world.read("viewer")[-1]["event"]["hub.event"] == "DIAGNOSTICREPORT-update"


@pytest.mark.req("AUT-5", "AUT-9")
@pytest.mark.parametrize("verb", ["update", "select"])
def test_updates_and_selects_need_their_own_write_scope(verb: str) -> None:
    """Any other is not enough, that of the right name is; and another user has no say in it."""
    world = Reading()
    name = f"DiagnosticReport-{verb}"
    posted = world.update(put("Observation", "o1")) if verb == "update" else message(name, anchor(R1))
    others = [f"DiagnosticReport-{other}" for other in ("open", "close", "update", "select") if other != verb]
    assert name in world.refuses(posted, InsufficientScope, by=token(write=others))
    world.refuses(posted, Forbidden, by=token("bob"))
    world.post(posted, by=token(read=(), write=[name]))
    assert world.told()["id"] == posted["id"]


@pytest.mark.req("EVT-12")
def test_an_update_is_sent_to_those_who_asked_for_it_and_may_read_it() -> None:
    """An open's subscriber is not told of updates, nor one for another type."""
    world = Reading()
    world.join("a", "DiagnosticReport-open,DiagnosticReport-select,Patient-update")
    world.join("b", "DiagnosticReport-open,DiagnosticReport-update", by=token(read=["DiagnosticReport-open"]))
    world.join("c", "diagnosticreport-UPDATE")
    world.share(put("Observation", "o1"))
    assert [world.news(subscription_id) for subscription_id in ("a", "b", "c")] == [
        [],
        [],
        ["DiagnosticReport-update a-bundle"],
    ]


@pytest.mark.req("SYN-11")
def test_no_sync_error_is_due_for_an_update_or_select() -> None:
    """The frame is marked as one whose refusal matters to nobody."""
    world = Reading()
    for posted in (world.update(), message("DiagnosticReport-select", anchor(R1))):
        (send,) = world.post(posted).effects
        assert isinstance(send, Send)
        assert send.event_ref
        assert not send.event_ref.reportable


# Resources come out as they went in

RAW = (
    b'{ "x" : 1.10, "id":"o1","resourceType" :"Observation","n":123456789012345678901234567890,"e":-1.50E+02,'
    b'"s":"\\u00e9\\/\\u2028 \xc3\xa9\xf0\x9d\x84\x9e","extension":[{"b":null,"a":[ ],"b":1}]}'
)


def raw_update(version: str, resource_: bytes) -> bytes:
    return (
        b'{"timestamp":"2023-04-01T12:00:00Z","odd":[1.10],"id":"1","event":{"hub.topic":"a-topic","zz":{"b":1,"a":2.50},'
        b'"context":[{"key":"report","reference":{"reference":"DiagnosticReport/r1"}},{"key":"updates","resource":'
        b'{"type":"transaction","entry":[{"note":1.0,"request":{"method":"PUT","x":1},"resource":%b}],"resourceType":"Bundle"}}],'
        b'"hub.event":"DiagnosticReport-update","context.versionId":"%b"}}' % (resource_, version.encode())
    )


@pytest.mark.req("EVT-15", "CON-4")
def test_a_shared_resource_is_the_bytes_that_came() -> None:
    """In GET's content and in the broadcast: member order, unknown members, numbers, escapes, white space, even a member twice further in."""
    world = Reading()
    world.post(raw_update(world.version(), RAW))
    assert b'"entry":[{"resource":%b}]' % RAW in world.raw()
    (frame,) = world.heard("viewer")
    assert b'"entry":[{"note":1.0,"request":{"method":"PUT","x":1},"resource":%b}]' % RAW in frame


@pytest.mark.req("EVT-15", "CON-2")
def test_an_updates_envelope_comes_out_as_it_went_in() -> None:
    """But for the two versions, before the context."""
    world = Reading()
    before = world.version()
    posted = raw_update(before, RAW)
    world.post(posted)
    (frame,) = world.heard("viewer")
    versions = b'"context.versionId":"%b","context.priorVersionId":"%b",' % (
        world.version().encode(),
        before.encode(),
    )
    bare = posted.replace(b',"context.versionId":"%b"' % before.encode(), b"")
    assert frame == bare.replace(b'"context":[', versions + b'"context":[')


# Who joins


@pytest.mark.req("CTX-1")
def test_a_joiner_is_told_the_version_that_is_current() -> None:
    """The open's own frame, byte for byte, but for its version; ready to be updated on."""
    world = World()
    world.join("viewer", REPORTS)
    posted = message("DiagnosticReport-open", report("r1"), patient("p1"))
    posted["event"] |= {"context.versionId": "mine", "note": "context.versionId"}
    world.post(posted | {"more": [1.1]})
    (opened,) = world.heard("viewer")
    first = json.loads(opened)["event"]["context.versionId"]
    for number in range(3):
        updates = {"key": "updates", "resource": resource("Bundle", "b", entry=[put("Observation", f"o{number}")])}
        update = message("DiagnosticReport-update", anchor(R1), updates, id_=str(number))
        update["event"]["context.versionId"] = world.get()["context.versionId"]
        world.post(update)
        world.subscribe(f"late-{number}", "DiagnosticReport-open")
        world.connect(f"late-{number}")
        _, told = world.heard(f"late-{number}")
        current = world.get()["context.versionId"]
        assert told == opened.replace(first.encode(), current.encode())
        assert told.count(current.encode()) == 1


@pytest.mark.req("CTX-1", "CON-14")
def test_each_open_is_told_at_its_own_version() -> None:
    """Of two types one was updated while the other was current."""
    world = Reading()
    world.publish("Patient-open", patient("p1"))
    world.share(put("Observation", "o1"))
    world.subscribe("late", EVENTS)
    world.connect("late")
    told = {each["event"]["hub.event"]: each["event"]["context.versionId"] for each in world.read("late")[1:]}
    assert told == {"DiagnosticReport-open": world.version(R1), "Patient-open": world.version("Patient/p1")}


# Repeats


@pytest.mark.req("EVT-17")
@pytest.mark.parametrize("between", ["nothing", "an update", "an open", "home"])
def test_a_repeated_update_is_accepted_and_does_nothing(between: str) -> None:
    """As the first time, though its version is stale by now: neither applied nor sent, whatever has happened since."""
    world = Reading()
    world.share(put("Observation", "o0"))
    posted = world.share(put("Observation", "o1", value=1), delete("Observation/o0"))
    if between == "an update":
        world.share(put("Observation", "o1", value=2))
    elif between == "an open":
        world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    elif between == "home":
        world.publish("Home-open")
    before = frozen(world.session)
    world.heard("viewer")
    for _ in range(2):
        outcome = world.post(posted)
        assert (outcome.effects, outcome.reply) == ((), None)
        assert frozen(world.session) == before
    assert world.news("viewer") == []


@pytest.mark.req("EVT-17")
@pytest.mark.parametrize("change", [{"id": "other"}, {"timestamp": "2023-04-01T12:00:01Z"}, {"note": 1}])
def test_another_update_on_the_same_version_is_no_repeat(change: dict[str, object]) -> None:
    """Of another id, time or body: it is stale."""
    world = Reading()
    posted = world.share(put("Observation", "o1"))
    world.refuses(posted | change, Conflict)


@pytest.mark.req("EVT-17")
def test_a_refused_update_is_not_remembered() -> None:
    """Refused once, it is refused again; and one of the same id and time, but on the current version, is taken."""
    world = Reading()
    stale = world.update(put("Observation", "o1"), version="stale")
    for _ in range(2):
        world.refuses(stale, Conflict)
    stale["event"]["context.versionId"] = world.version()
    world.post(stale)
    assert world.shared() == ["Observation/o1"]


@pytest.mark.req("EVT-17", "LIM-1")
def test_the_last_256_updates_of_a_context_are_remembered() -> None:
    """Those of another context count for that."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    first, second = world.share(of=R1), world.share(of=R1)
    for _ in range(254):
        world.share(of=R1)
        world.share(of=R2)
    for _ in range(3):
        world.share(of=R2)
    assert world.post(first).effects == ()
    world.share(of=R1)
    world.refuses(first, Conflict)
    assert world.post(second).effects == ()


@pytest.mark.req("EVT-17", "CON-9")
def test_after_a_close_an_update_is_no_repeat() -> None:
    """What it said is gone, with the memory of it."""
    world = Reading()
    posted = world.share(put("Observation", "o1"))
    world.publish("DiagnosticReport-close", report("r1"))
    world.refuses(posted, Conflict)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.refuses(posted, Conflict)


@pytest.mark.req("EVT-17", "CON-1")
def test_after_an_update_the_open_is_not_the_newest_change() -> None:
    """Its repeat is accepted, sent to nobody, and takes the context to no other version."""
    world = Reading()
    posted = world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.share(put("Observation", "o1"))
    world.heard("viewer")
    before = world.raw()
    world.post(posted)
    assert world.news("viewer") == []
    assert world.raw() == before


@pytest.mark.req("EVT-17")
def test_neither_a_select_nor_a_refused_update_makes_a_repeat_old() -> None:
    """They change nothing: the open is still the newest change, and is sent again as it was."""
    world = Reading()
    posted = world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    (opened,) = world.heard("viewer")
    world.publish("DiagnosticReport-select", anchor(R1))
    world.refuses(world.update(version="stale"), Conflict)
    world.heard("viewer")
    world.post(posted)
    assert world.heard("viewer") == [opened]


# Bounds


@pytest.mark.req("LIM-1")
def test_a_sessions_content_takes_at_most_8_mib() -> None:
    """In all its contexts together, to the byte: 413, and what is smaller is taken."""
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
    """The bound is about what is there, not about what was ever sent."""
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


@pytest.mark.req("LIM-1")
def test_an_evicted_context_goes_with_its_content() -> None:
    """The oldest of too many is closed for all: its content is gone, the others' stays."""
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


# What somebody without a socket misses


def back(world: World, subscription_id: str = "viewer") -> list[str]:
    """Connect again; what is told after the confirmation."""
    world.connect(subscription_id)
    confirmed, *news = world.news(subscription_id)
    assert confirmed == "subscribe"
    return news


def named(world: Reading, *ids: str, of: str = R1) -> Iterator[str]:
    """Updates whose Bundles have these ids, one second after the other; what they are in short."""
    for id_ in ids:
        world.wait(1)
        posted = world.update(put("Observation", id_), of=of)
        posted["event"]["context"][1]["resource"]["id"] = id_
        world.post(posted)
        yield f"DiagnosticReport-update {id_}"


@pytest.mark.req("SUB-12", "CTX-1")
def test_missed_updates_are_told_in_order_with_the_closes() -> None:
    """Then what is open, at the version that is current: the very messages that the others were sent."""
    world = Reading()
    world.join("other", "DiagnosticReport-update,DiagnosticReport-close")
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.disconnect("viewer")
    list(named(world, "u1"))
    list(named(world, "u2", of=R2))
    world.wait(1)
    world.publish("DiagnosticReport-close", report("r2"))
    list(named(world, "u3"))
    sent = world.heard("other")
    world.connect("viewer")
    _, *missed, opened = world.heard("viewer")
    assert missed == sent
    assert [label(frame) for frame in missed] == [
        "DiagnosticReport-update u1",
        "DiagnosticReport-update u2",
        "DiagnosticReport-close r2",
        "DiagnosticReport-update u3",
    ]
    last = json.loads(missed[-1])["event"]["context.versionId"]
    assert json.loads(opened)["event"]["context.versionId"] == last == world.version()


@pytest.mark.req("SUB-12")
def test_missed_updates_are_told_once() -> None:
    """Not again at the next reconnection, and never to who had a socket, or comes for the first time."""
    world = Reading()
    world.subscribe("late", "DiagnosticReport-update")
    world.join("other", "DiagnosticReport-update")
    world.disconnect("viewer")
    expected = list(named(world, "u1", "u2"))
    world.wait(1)
    assert world.news("other") == expected
    assert back(world) == [*expected, "DiagnosticReport-open r1"]
    world.disconnect("viewer")
    world.disconnect("other")
    world.wait(1)
    assert back(world) == ["DiagnosticReport-open r1"]
    assert back(world, "other") == back(world, "late") == []


@pytest.mark.req("SUB-12", "EVT-12")
def test_missed_updates_are_not_told_to_who_did_not_subscribe_to_them() -> None:
    """Nor to who may not read them."""
    world = Reading()
    world.join("chart", "DiagnosticReport-open,DiagnosticReport-close,Patient-update")
    world.join("guest", "DiagnosticReport-open,DiagnosticReport-update", by=token(read=["DiagnosticReport-open"]))
    for subscription_id in ("chart", "guest"):
        world.disconnect(subscription_id)
    list(named(world, "u1"))
    assert back(world, "chart") == back(world, "guest") == ["DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12")
def test_missed_updates_are_bounded_in_number() -> None:
    """The newest are told, and no older one between them; a close that went with the others is made."""
    world = Reading(retained_messages=2)
    world.publish("Patient-open", patient("p1"))
    world.heard("viewer")
    world.disconnect("viewer")
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    expected = list(named(world, "u1", "u2", "u3"))
    assert back(world) == ["Patient-close p1", *expected[-2:], "DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12")
@pytest.mark.parametrize(("room", "told"), [(3, 3), (2.9, 2), (1, 1), (0.9, 0)])
def test_missed_updates_are_bounded_in_bytes(room: float, told: int) -> None:
    """Of their frames."""
    world = Reading()
    list(named(world, "u0"))
    (frame,) = world.heard("viewer")
    world = Reading(retained_bytes=int(room * len(frame)))
    world.disconnect("viewer")
    expected = list(named(world, "u1", "u2", "u3"))
    assert back(world) == [*expected[3 - told :], "DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12")
def test_what_the_last_socket_may_not_have_received_is_told_again() -> None:
    """Its updates after the last sign of life; one that it had, and may apply only once, is not."""
    world = Reading()
    (arrived,) = named(world, "u1")
    delivered_until = world.now
    in_doubt = list(named(world, "u2", "u3"))
    world.wait(1)
    assert world.news("viewer") == [arrived, *in_doubt]
    world.disconnect("viewer", delivered_until=delivered_until)
    in_doubt += named(world, "u4")
    assert back(world) == [*in_doubt, "DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12", "SUB-11")
def test_who_takes_over_is_told_what_the_old_socket_may_not_have_received() -> None:
    """It may have been dead for a minute; not for an hour."""
    world = Reading()
    list(named(world, "u1"))
    world.wait(61)
    expected = list(named(world, "u2"))
    world.wait(1)
    assert back(world) == [*expected, "DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12", "CON-9")
def test_updates_before_a_close_are_not_told_again_when_it_is_open_again() -> None:
    """Their content is gone; told behind it, they would bring it back. Those since then are told."""
    world = Reading()
    delivered_until = world.now
    list(named(world, "u1"))
    world.publish("DiagnosticReport-close", report("r1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    expected = list(named(world, "u2"))
    world.wait(1)
    world.heard("viewer")
    world.disconnect("viewer", delivered_until=delivered_until)
    assert back(world) == [*expected, "DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12", "EVT-17")
def test_a_repeated_update_is_missed_once() -> None:
    """It was accepted once."""
    world = Reading()
    world.disconnect("viewer")
    expected = list(named(world, "u1"))
    repeated = world.update(put("Observation", "o1"))
    repeated["event"]["context"][1]["resource"]["id"] = "u2"
    for _ in range(3):
        world.wait(1)
        world.post(repeated)
    assert back(world) == [*expected, "DiagnosticReport-update u2", "DiagnosticReport-open r1"]


@pytest.mark.req("SUB-12")
def test_refused_updates_and_selects_are_not_missed() -> None:
    """Nobody was sent the former, and what is selected is of the moment."""
    world = Reading()
    world.disconnect("viewer")
    world.wait(1)
    world.refuses(world.update(version="stale"), Conflict)
    world.publish("DiagnosticReport-select", anchor(R1))
    assert back(world) == ["DiagnosticReport-open r1"]


# The decision itself


@pytest.mark.req("EVT-13", "CON-8")
def test_a_decision_changes_nothing_in_place() -> None:
    """On one session two updates can be decided; each sees what was there before, and of two nodes one commits."""
    world = Reading()
    world.share(put("Observation", "o1"))
    before = frozen(world.session)
    posted = [world.update(delete("Observation/o1")), world.update(put("Observation", "o2"))]
    commands = [Publish(token(), parse_event(body(each))) for each in posted]
    outcomes = [decide(world.session, command, Env(world.now, world.ids, world.rules)) for command in commands]
    assert frozen(world.session) == before
    contents = [outcome.session.contents["diagnosticreport/r1"] for outcome in outcomes if outcome.session]
    assert [list(content.resources) for content in contents] == [[], ["observation/o1", "observation/o2"]]
    assert len({frozen(outcome.session) for outcome in outcomes}) == 2


@pytest.mark.req("CON-2", "EVT-11")
def test_another_contexts_resources_are_its_own() -> None:
    """The same resource in two reports is two, which change apart."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), encounter("e1"), study("s1"), patient("p1"))
    world.share(put("Observation", "o1", value=1), of=R1)
    world.share(put("Observation", "o1", value=2), of=R2)
    world.share(delete("Observation/o1"), of=R1)
    assert world.content()["entry"] == [{"resource": resource("Observation", "o1", value=2)}]


@pytest.mark.req("SUB-12")
def test_what_alone_is_too_much_to_hold_costs_the_others_nothing() -> None:
    """The small updates before and after it are told; by its priorVersionId the next one says that one is missing."""
    world = Reading(retained_bytes=2000)
    world.disconnect("viewer")
    before = list(named(world, "u1"))
    world.share(put("Observation", "large", text="x" * 3000))
    assert back(world) == [*before, "DiagnosticReport-open r1"]


@pytest.mark.req("CON-4")
def test_a_content_that_the_open_brought_gives_way() -> None:
    """Whoever opens with what GET answered is not shown two: "one and only one Bundle"."""
    world = World()
    old = {"key": "content", "resource": resource("Bundle", "old", type="collection")}
    world.publish("DiagnosticReport-open", report("r1"), old, patient("p1"))
    answer = json.loads(current_context(world.session, token(), TOPIC, world.rules))
    assert [each["key"] for each in answer["context"]] == ["report", "patient", "content"]
    assert answer["context"][2]["resource"]["id"] == answer["context.versionId"]
