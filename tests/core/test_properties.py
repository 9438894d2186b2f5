"""Properties that hold whatever comes in: names, scopes, forms, events, and shared content against a model of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st

from fhircast_hub.core.access.scopes import Scopes
from fhircast_hub.core.errors import BadRequest, Conflict, HubError
from fhircast_hub.core.rules.contexts import current_context
from fhircast_hub.core.wire.acknowledgement import readable
from fhircast_hub.core.wire.event import parse_event
from fhircast_hub.core.wire.event_names import Kind, classify, parse_events
from fhircast_hub.core.wire.subscription_request import (
    SubscriptionRequest,
    parse_json_subscription_request,
    parse_subscription_request,
)
from fhircast_hub.core.wire.timestamps import instant
from tests.core.world import CLOSES, OPENS, TOPIC, World, body, frozen, message, patient, report, resource, spec, token

settings: Callable[..., of_hypothesis] = partial(of_hypothesis, deadline=None, derandomize=True)

ALPHABET = "abzABZ019._-"
KNOWN = [*OPENS.split(","), *CLOSES.split(","), "DiagnosticReport-update", "SyncError", "heartbeat", "Home-open"]
names = st.one_of(st.sampled_from(KNOWN), st.text(ALPHABET, max_size=127).map("x".__add__))
cases = st.sampled_from([str, str.lower, str.upper, str.swapcase])
verbs = st.sampled_from(["read", "write", "*"])

#: Text of any characters that JSON and UTF-8 can say.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def check_reason(error: HubError) -> None:
    """A reason is one line, fit for a log and a developer's eyes."""
    assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]+", str(error))


# Names


@pytest.mark.req("SUB-18", "EVT-4")
@settings(max_examples=60)
@given(st.lists(st.tuples(names, cases), min_size=1, max_size=8))
def test_events_are_the_same_in_any_case_and_when_read_again(asked: list[tuple[str, Callable[[str], str]]]) -> None:
    """Each once, in the order asked, and spelled as it was asked for first."""
    granted = parse_events(change(name) for name, change in asked)
    assert parse_events(granted) == granted
    assert [name.lower() for name in granted] == list(dict.fromkeys(name.lower() for name, _ in asked))
    spelled = [change(name) for name, change in asked]
    assert all(
        name in spelled and name.lower() not in map(str.lower, spelled[: spelled.index(name)]) for name in granted
    )


@pytest.mark.req("EVT-4", "EVT-5")
@settings(max_examples=150)
@given(
    st.one_of(
        texts,
        names,
        st.text("Ppatient-openclosupdatesrc.İK", max_size=20),
        st.tuples(
            st.text("Az\u212a9", max_size=4), st.sampled_from(["-open", "-Close", "-update", "-select", ".x"])
        ).map("".join),
    )
)
@example("\u212aind-open")
@example("Home-open")
def test_any_text_is_an_event_or_a_bad_request(name: str) -> None:
    """Nothing else is raised; the kind and the type do not depend on the case, and the type is that of the name."""
    try:
        kind, type_ = classify(name)
    except BadRequest as error:
        check_reason(error)
        for change in (str.lower, str.upper):
            if name.isascii():
                with pytest.raises(BadRequest):
                    classify(change(name))
        return
    assert name.isascii()
    assert classify(name.lower()) == classify(name.upper()) == (kind, type_)
    if type_:
        assert name.lower() == f"{type_}-{kind.value}"
    else:
        assert kind in (Kind.HOME, Kind.PASSED_ON)


# Scopes


@pytest.mark.req("AUT-6")
@settings(max_examples=60)
@given(st.lists(st.tuples(names, verbs, cases), max_size=6), st.lists(texts, max_size=4), names)
def test_a_token_may_do_what_a_scope_grants_and_no_more(
    granted: list[tuple[str, str, Callable[[str], str]]], others: list[str], name: str
) -> None:
    """In any case and order, and whatever other scopes stand beside."""
    written = [change(f"fhircast/{event}.{verb}") for event, verb, change in granted]
    scopes = Scopes.parse([*others, *reversed(written)])
    assert scopes == Scopes.parse(written)
    for asked in (name, *(event for event, _, _ in granted)):
        key = asked.lower()
        assert scopes.may_read(key) == any(event.lower() == key and verb != "write" for event, verb, _ in granted)
        assert scopes.may_write(key) == any(event.lower() == key and verb != "read" for event, verb, _ in granted)


@pytest.mark.req("AUT-6")
@settings(max_examples=60)
@given(
    st.one_of(texts, st.text("fhircast/*.readwit-", max_size=24), st.text("*.-r", max_size=6).map("fhircast/{}".format))
)
def test_what_is_alike_grants_nothing(scope: str) -> None:
    """A scope that is not of the form grants nothing at all."""
    if not re.fullmatch(r"(?i)fhircast/(\*|[a-z0-9][a-z0-9._-]*)\.(read|write|\*)", scope):
        assert Scopes.parse([scope]) == Scopes()


# Forms

topics = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=30).filter(
    lambda topic: bool(topic.strip()) and topic.strip() not in (".well-known", "metadata", "ws")
)


class Given(NamedTuple):
    """What a client means, and its notation."""

    subscribe: bool
    topic: str
    events: list[str]
    lease: int | None
    name: str | None
    endpoint: str | None

    def parameters(self) -> dict[str, str]:
        """Its form."""
        optional = {
            "hub.lease_seconds": None if self.lease is None else str(self.lease),
            "subscriber.name": self.name,
            "hub.channel.endpoint": self.endpoint,
        }
        return {
            "hub.channel.type": "websocket",
            "hub.mode": "subscribe" if self.subscribe else "unsubscribe",
            "hub.topic": self.topic,
            "hub.events": ",".join(self.events),
            **{name: value for name, value in optional.items() if value is not None},
        }


meant = st.builds(
    Given,
    st.booleans(),
    topics,
    st.lists(names, min_size=1, max_size=5),
    st.none() | st.integers(1, 10**12),
    st.none() | st.just("") | topics,
    st.none() | st.just("wss://hub.example/ws/1"),
)


@pytest.mark.req("SUB-4", "SUB-16")
@settings(max_examples=60)
@given(meant, st.randoms(use_true_random=False), st.sampled_from(["", " ", "\t "]))
def test_a_form_is_read_as_it_was_meant(given_: Given, random: Any, space: str) -> None:
    """In either notation, in any order of its parameters, escaped as much as one likes, with white space at the ends."""
    parameters = list(given_.parameters().items())
    random.shuffle(parameters)
    expected = SubscriptionRequest(
        subscribe=given_.subscribe,
        topic=given_.topic.strip(),
        events=parse_events(given_.events) if given_.subscribe else (),
        lease=given_.lease if given_.subscribe else None,
        name=None if given_.name is None else readable(given_.name.strip()),
        endpoint=given_.endpoint,
    )
    spaced = [(name, f"{space}{value}{space}") for name, value in parameters]
    everything_escaped = "&".join(
        "".join(f"%{byte:02x}" for byte in name.encode()) + "=" + quote(value, safe="") for name, value in spaced
    )
    assert parse_subscription_request(urlencode(spaced).encode()) == expected
    assert parse_subscription_request(everything_escaped.encode()) == expected
    assert parse_json_subscription_request(json.dumps(dict(spaced)).encode()) == expected
    assert parse_json_subscription_request(json.dumps(dict(spaced), ensure_ascii=False).encode()) == expected


GOOD_FORM = Given(True, "t", ["Patient-open"], 5, None, None).parameters()
odd_parameters = st.tuples(
    st.sampled_from([*GOOD_FORM, "hub.lease", "hub.%07", "%", "a", "\udcff"]),
    st.sampled_from(["subscribe", "websocket", "t", "%zz", "%ff", "1", "-1", "\udcff", "", "%00", "%e2%80%a8", "x%20"]),
)
odd_forms = st.tuples(st.sets(st.sampled_from([*GOOD_FORM]), max_size=2), st.lists(odd_parameters, max_size=3)).map(
    lambda change: "&".join(
        "=".join(pair) for pair in [*((k, v) for k, v in GOOD_FORM.items() if k not in change[0]), *change[1]]
    ).encode("utf-8", "surrogateescape")
)


@pytest.mark.req("SUB-5")
@settings(max_examples=150)
@given(odd_forms | st.binary(max_size=40))
@example(urlencode(GOOD_FORM).encode() + b"&a=%ff")
def test_any_bytes_are_a_form_or_refused(form: bytes) -> None:
    """With one line of reason, and nothing worse."""
    try:
        read = parse_subscription_request(form)
    except HubError as error:
        check_reason(error)
    else:
        parameters = dict(parse_qsl(form.decode(), keep_blank_values=True, errors="strict"))
        assert read.topic == parameters["hub.topic"].strip()


@pytest.mark.req("SUB-16", "SUB-5")
@settings(max_examples=120)
@given(
    st.one_of(
        st.binary(max_size=20).map(b'{"hub.mode":'.__add__),
        st.dictionaries(st.sampled_from(["hub.mode", "hub.topic", "hub.events", "hub.channel.type", "x"]), values).map(
            body
        ),
        st.tuples(
            st.sampled_from(["hub.mode", "hub.topic", "hub.events", "hub.lease", "hub.channel.type", "x"]), values
        ).map(lambda change: body(GOOD_FORM | dict([change]))),
    )
)
def test_any_json_is_a_form_or_none_or_refused(form: bytes) -> None:
    """None is what may still be an event."""
    try:
        read = parse_json_subscription_request(form)
    except HubError as error:
        check_reason(error)
    else:
        assert read is None or isinstance(read, SubscriptionRequest)


# Events


def check_strict(text: bytes) -> None:
    """Raise unless any reader of JSON reads it."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    json.loads(text.decode(), parse_constant=refuse)


def check_event_or_refused(text: bytes) -> None:
    """What is accepted can be read by everybody it is sent to; all else is a BadRequest."""
    try:
        event = parse_event(text)
    except BadRequest as error:
        check_reason(error)
        return
    check_strict(text.removeprefix(b"\xef\xbb\xbf"))  # a byte order mark is ignored (EVT-23), and never passed on
    check_strict(event.frame())
    instant(event.timestamp)
    posted, sent = json.loads(text), json.loads(event.frame())
    for of in (posted, posted["event"]):
        of.pop("context.versionId", None)
        of.pop("context.priorVersionId", None)
    assert sent == posted


POSTED = ["Patient-open", "DiagnosticReport-update.request", "DiagnosticReport-update.delete", "SyncError"]
pieces = st.one_of(
    st.binary(max_size=2),
    st.sampled_from(
        [b"\\ud800", b"\\q", b"NaN", b"-Infinity", b"01", b"1.", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x00", b"[[["]
    ),
    st.sampled_from([b'"', b",", b":", b"{", b"}", b"[", b"]", b"\\", b" ", b'"id":"1",', b'"event":{},', b"null"]),
)


@pytest.mark.req("EVT-5", "EVT-6")
@settings(max_examples=100)
@given(values | texts | st.lists(values))
def test_any_json_is_an_event_or_a_bad_request(value: object) -> None:
    """Whatever its type."""
    check_event_or_refused(body(value))


@pytest.mark.req("EVT-6")
@settings(max_examples=100)
@given(st.binary(max_size=30))
def test_any_bytes_are_an_event_or_a_bad_request(text: bytes) -> None:
    """Neither text nor JSON."""
    check_event_or_refused(text)


@pytest.mark.req("EVT-5", "EVT-6", "EVT-15")
@settings(max_examples=250)
@given(st.sampled_from(POSTED), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), pieces), min_size=1, max_size=2))
def test_a_damaged_event_is_still_good_or_refused(name: str, damages: list[tuple[float, int, bytes]]) -> None:
    """Bytes of the specification's messages put in, taken out or changed, anywhere."""
    text = body(json.loads(spec(name)))
    for place, count, piece in damages:
        start = int(place * len(text))
        text = text[:start] + piece + text[start + count :]
    check_event_or_refused(text)


def places(of: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values in JSON."""
    inner = of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ()
    return [path, *(each for key, value in inner for each in places(value, (*path, key)))]


UPDATE = json.loads(spec("DiagnosticReport-update.delete"))
PLACES = [path for path in places(UPDATE) if path and len(path) < 9]


@pytest.mark.req("EVT-5", "CON-19")
@settings(max_examples=200)
@given(st.sampled_from(PLACES), values)
def test_any_value_anywhere_is_an_event_or_a_bad_request(path: tuple[Any, ...], value: object) -> None:
    """A member of an update replaced by something of any other type."""
    changed = json.loads(json.dumps(UPDATE))
    into = changed
    for step in path[:-1]:
        into = into[step]
    into[path[-1]] = value
    check_event_or_refused(body(changed))


@pytest.mark.req("EVT-5", "EVT-20")
@settings(max_examples=120)
@given(
    st.one_of(
        st.text("0123456789-:.,TZ+ ", max_size=26),
        st.datetimes().map(str),
        st.from_regex(r"\A[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9](Z|[+-][0-2][0-9]:[0-9]{2})?\Z"),
    )
)
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59.999999-23:59")
def test_any_timestamp_is_an_instant_or_a_bad_request(timestamp: str) -> None:
    """What is accepted can be compared."""
    check_event_or_refused(body(message("Patient-open", patient("p1"), at=timestamp)))


# Content

REFS = ["Observation/a", "Observation/b", "Patient/a", "Patient/p1", "DiagnosticReport/r1"]


class Entry(NamedTuple):
    """One entry of an update: what it does to which resource."""

    method: str
    ref: str
    value: int

    def written(self) -> dict[str, Any]:
        type_, _, id_ = self.ref.partition("/")
        if self.method == "DELETE":
            return {"fullUrl": self.ref, "request": {"method": "DELETE"}}
        return {"request": {"method": self.method}, "resource": resource(type_, id_, value=self.value)}


class Update(NamedTuple):
    """One update: its entries, and whether it names the current version."""

    entries: list[Entry]
    current: bool

    def fault(self, shared: dict[str, int]) -> tuple[type[HubError], int] | None:
        """Why it cannot be applied to what is shared, if it cannot, and which entry it is."""
        for index, entry in enumerate(self.entries):
            if entry.method not in ("PUT", "DELETE") or entry.ref in (other.ref for other in self.entries[:index]):
                return BadRequest, index
        if not self.current:
            return Conflict, 0
        for index, entry in enumerate(self.entries):
            if entry.method == "DELETE" and entry.ref not in shared:
                return BadRequest, index
        return None


entries = st.builds(
    Entry, st.sampled_from(["PUT", "PUT", "PUT", "DELETE", "DELETE", "POST"]), st.sampled_from(REFS), st.integers(0, 9)
)
good_entries = st.lists(
    st.builds(Entry, st.sampled_from(["PUT"] * 4 + ["DELETE"]), st.sampled_from(REFS), st.integers(0, 9)),
    unique_by=lambda entry: entry.ref,
    max_size=3,
)
updates = st.builds(
    Update,
    st.one_of(good_entries, good_entries, good_entries, st.lists(entries, max_size=4)),
    st.sampled_from([True] * 6 + [False]),
)


def shown(world: World) -> dict[str, int]:
    """What GET says is shared."""
    resources = [entry["resource"] for entry in world.content().get("entry", [])]
    return {f"{each['resourceType']}/{each['id']}": each["value"] for each in resources}


@pytest.mark.req("CON-2", "CON-3", "CON-6", "CON-18", "CON-19")
@settings(max_examples=100)
@given(st.lists(updates, min_size=3, max_size=12))
def test_what_is_shared_is_what_a_dict_would_hold(sequence: list[Update]) -> None:
    """After any updates; one that cannot be applied anywhere changes nothing at all, and its first fault is named."""
    world = World()
    world.join("viewer", "DiagnosticReport-update")
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    model: dict[str, int] = {}
    for number, update in enumerate(sequence):
        version = world.get()["context.versionId"]
        bundle = resource("Bundle", "b", entry=[entry.written() for entry in update.entries])
        reference = {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}}
        posted = message("DiagnosticReport-update", reference, {"key": "updates", "resource": bundle}, id_=str(number))
        posted["event"]["context.versionId"] = version if update.current else "stale"
        if fault := update.fault(model):
            before = frozen(world.session)
            with pytest.raises(fault[0]) as error:
                world.post(posted)
            assert fault[0] is Conflict or f"entry[{fault[1]}]" in str(error.value)
            assert frozen(world.session) == before
            assert world.news("viewer") == []
        else:
            world.post(posted)
            for entry in update.entries:
                if entry.method == "PUT":
                    model[entry.ref] = entry.value
                else:
                    del model[entry.ref]
            (told,) = world.read("viewer")
            assert told["event"]["context.priorVersionId"] == version != world.get()["context.versionId"]
        assert list(shown(world).items()) == list(model.items())
        assert world.session
        for content in world.session.contents.values():
            assert content.size == sum(len(each.entry) for each in content.resources.values())


@pytest.mark.req("EVT-15", "CON-4")
@settings(max_examples=80)
@given(
    st.dictionaries(texts.filter(lambda name: name not in ("resourceType", "id")), values, max_size=4),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")]),
    st.none() | texts,
)
def test_any_resource_is_shared_as_the_bytes_that_came(
    members: dict[str, Any], escaped: bool, separators: tuple[str, str], full_url: str | None
) -> None:
    """Escaped or not, spaced or not: the same bytes in GET's content and in the broadcast."""
    dumps = partial(json.dumps, ensure_ascii=escaped, separators=separators)
    raw = dumps(members | {"id": "o1", "resourceType": "Observation"}).encode()
    world = World()
    world.join("viewer", "DiagnosticReport-update")
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    entry = {"request": {"method": "PUT"}} | ({} if full_url is None else {"fullUrl": full_url})
    text = dumps(
        message(
            "DiagnosticReport-update",
            {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}},
            {"key": "updates", "resource": resource("Bundle", "b", entry=[entry | {"resource": "HERE"}])},
        )
    )
    version = dumps({"context.versionId": world.get()["context.versionId"]})[1:-1] + separators[0]
    text = text.replace(dumps("hub.topic"), version + dumps("hub.topic"))
    world.post(text.encode().replace(b'"HERE"', raw))
    answer = current_context(world.session, token(), TOPIC, world.rules)
    assert b'"resource":%b}]' % raw in answer
    (frame,) = world.heard("viewer")
    assert separators[1].encode() + raw + b"}]" in frame
    check_strict(answer)
    check_strict(frame)
    (shared,) = world.content()["entry"]
    assert shared.get("fullUrl", "") == (full_url or "")
