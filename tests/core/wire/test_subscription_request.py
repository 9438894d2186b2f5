"""Subscription forms: what is read, what is refused, and that both notations say the same."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fhircast_hub.core.errors import BadRequest, TooLarge
from fhircast_hub.core.wire.acknowledgement import displayable
from fhircast_hub.core.wire.subscription_request import (
    SubscriptionRequest,
    parse_json_subscription_request,
    parse_subscription_request,
)

GOOD = {
    "hub.channel.type": "websocket",
    "hub.mode": "subscribe",
    "hub.topic": "fdb2f928-5546-4f52-87a0-0648e9ded065",
    "hub.events": "Patient-open,Patient-close",
}
ENDPOINT = "wss://hub.example.com/ee30d3b9-1558-464f-a299-cbad6f8135de"


def read(without: str = "", **changes: str) -> SubscriptionRequest:
    """A good form with some parameters changed (`hub_mode` for hub.mode) and one left out, read in both notations."""
    given_ = GOOD | {name.replace("_", ".", 2 if "channel" in name else 1): value for name, value in changes.items()}
    given_.pop(without, None)
    form = parse_subscription_request(urlencode(given_).encode())
    assert as_json(given_) == form
    return form


def as_json(members: object) -> SubscriptionRequest | None:
    """The same form in JSON."""
    return parse_json_subscription_request(json.dumps(members).encode())


def refused(body: bytes) -> str:
    with pytest.raises(BadRequest) as error:
        parse_subscription_request(body)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.req("SUB-4")
def test_the_specifications_form_is_read() -> None:
    """What is not given is None, what is given comes out."""
    assert read() == SubscriptionRequest(True, GOOD["hub.topic"], ("Patient-open", "Patient-close"), None, None, None)


@pytest.mark.req("SUB-4")
@pytest.mark.parametrize("name", GOOD)
def test_a_missing_parameter_is_named(name: str) -> None:
    """Each of the four parameters that subscribing needs is asked for by name."""
    assert name in refused(urlencode({k: v for k, v in GOOD.items() if k != name}).encode())
    if name != "hub.mode":  # without which an object is no form
        with pytest.raises(BadRequest, match=name):
            as_json({k: v for k, v in GOOD.items() if k != name})


@pytest.mark.req("SUB-4")
@pytest.mark.parametrize("name", GOOD)
def test_an_empty_parameter_is_no_better_than_a_missing_one(name: str) -> None:
    """`hub.topic=` says nothing."""
    assert name in refused(urlencode(GOOD | {name: "  "}).encode())


@pytest.mark.req("SUB-4")
def test_no_type_and_a_callback_is_a_webhook() -> None:
    """It is not taken for a websocket, nor told that the type is missing."""
    form = {k: v for k, v in GOOD.items() if k != "hub.channel.type"} | {"hub.callback": "https://example.com/"}
    assert parse_subscription_request(urlencode(form).encode()).callback == "https://example.com/"
    assert "hub.channel.type" in refused(urlencode(form | {"hub.callback": " "}).encode())


@pytest.mark.req("WHK-2", "WHK-16")
@pytest.mark.parametrize("type_", ["webhook", "rest-hook", "websub"])
def test_the_webhook_channel_has_three_names(type_: str) -> None:
    """Its callback and secret are read, in both notations; the events and all else as ever."""
    form = GOOD | {"hub.channel.type": type_, "hub.callback": "https://example.com/?a=b", "hub.secret": "s"}
    expected = replace(read(), callback="https://example.com/?a=b", secret="s")
    assert parse_subscription_request(urlencode(form).encode()) == as_json(form) == expected
    assert parse_subscription_request(urlencode(form | {"hub.secret": ""}).encode()).secret is None


@pytest.mark.req("WHK-5")
def test_a_webhook_is_unsubscribed_by_its_callback() -> None:
    """No events are needed."""
    form = {"hub.channel.type": "webhook", "hub.callback": "https://example.com/", "hub.mode": "unsubscribe"}
    assert parse_subscription_request(urlencode(form | {"hub.topic": "t"}).encode()) == SubscriptionRequest(
        False, "t", (), None, None, None, "https://example.com/"
    )


@pytest.mark.req("WHK-10", "SUB-4")
@pytest.mark.parametrize("mode", ["subscribe", "unsubscribe"])
def test_a_webhook_needs_a_callback(mode: str) -> None:
    """The refusal names what is missing, or why it is none."""
    form = GOOD | {"hub.channel.type": "webhook", "hub.mode": mode}
    for callback in ({}, {"hub.callback": ""}, {"hub.callback": "ftp://example.com/"}):
        assert "hub.callback" in refused(urlencode(form | callback).encode())


@pytest.mark.req("WHK-4")
@pytest.mark.parametrize(
    ("secret", "good"), [("x" * 199, True), ("x" * 200, False), ("é" * 99, True), ("é" * 100, False)]
)
def test_a_secret_has_less_than_200_bytes(secret: str, good: bool) -> None:
    """Bytes, not characters; beside a websocket it is not looked at."""
    form = GOOD | {"hub.channel.type": "webhook", "hub.callback": "https://example.com/", "hub.secret": secret}
    if good:
        assert parse_subscription_request(urlencode(form).encode()).secret == secret
    else:
        assert refused(urlencode(form).encode()) == "hub.secret may have at most 199 bytes, and this one has 200"
    assert parse_subscription_request(urlencode(GOOD | {"hub.secret": secret}).encode()).secret is None


@pytest.mark.req("SUB-4")
@pytest.mark.parametrize("callback", ["", "https://example.com/"])
def test_a_callback_beside_websocket_is_ignored(callback: str) -> None:
    """Many clients send hub.callback and hub.secret whatever the channel."""
    form = GOOD | {"hub.callback": callback, "hub.secret": callback}
    assert parse_subscription_request(urlencode(form).encode()) == read()


@pytest.mark.req("SUB-4", "UNS-5")
def test_unsubscribing_needs_no_events() -> None:
    """hub.events is asked for on subscribe only, and not looked at otherwise."""
    form = read("hub.events", hub_mode="unsubscribe", hub_channel_endpoint=ENDPOINT)
    assert form == SubscriptionRequest(False, GOOD["hub.topic"], (), None, None, ENDPOINT)


@pytest.mark.req("SUB-5")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("hub.mode", mode) for mode in ("Subscribe", "resubscribe", "denied", "x" * 5000)),
        *(("hub.channel.type", type_) for type_ in ("WebSocket", "webhook", "carrier-pigeon", "x" * 5000)),
        *(("hub.lease_seconds", lease) for lease in ("0", "-1", "1.5", "1e3", "abc", "+5", "1 2", "٣", "0x10", "1_0")),
        *(("hub.lease", lease) for lease in ("0", "-1", "1.5")),
        *(("hub.events", events) for events in (",", " , ,", "Patient open", "Patient-open,*", "x" * 129, "é")),
        *(("hub.topic", topic) for topic in ("x" * 1025, ".well-known", "metadata", "ws", " ws ")),
        *((name, "a\x00b") for name in (*GOOD, "subscriber.name", "hub.channel.endpoint", "anything")),
        *((name, "a\nb") for name in ("hub.topic", "subscriber.name")),
        *((name, "a\x7fb") for name in ("hub.topic", "subscriber.name")),
    ],
)
def test_a_bad_value_is_refused_in_both_notations(name: str, value: str) -> None:
    """What makes no sense is a 400 of one line; only modes, types, events and numbers are repeated."""
    text = refused(urlencode(GOOD | {name: value}).encode())
    assert len(text) < 300
    with pytest.raises(BadRequest):
        as_json({**GOOD, name: value})


@pytest.mark.req("SUB-5", "SUB-13")
@pytest.mark.parametrize("name", ["hub.topic", "subscriber.name", "hub.channel.endpoint"])
def test_a_refusal_does_not_repeat_what_came(name: str) -> None:
    """Topics, names and endpoints do not get into messages, which get into logs."""
    assert "secret" not in refused(urlencode(GOOD | {name: "secret\x00" + "x" * 2000}).encode())


@pytest.mark.req("SUB-5")
@pytest.mark.parametrize(
    "topic", ["x" * 1024, "https://example.com/a?b=c&d#e", "Ünïcödé ☃ 𝄞", "a/b/ws", ".well-known2", "a b"]
)
def test_other_topics_are_taken(topic: str) -> None:
    """A topic is any text of up to 1,024 characters."""
    assert read(hub_topic=topic).topic == topic


@pytest.mark.req("SUB-5")
@pytest.mark.parametrize("name", ["hub.mode", "hub.topic", "hub.events", "hub.channel.type", "subscriber.name"])
def test_white_space_at_both_ends_is_cut_first(name: str) -> None:
    """A blank or a line's end around a value changes nothing."""
    form = GOOD | {"subscriber.name": "OHIF"}
    assert parse_subscription_request(
        urlencode(form | {name: f" \t{form[name]}\r\n"}).encode()
    ) == parse_subscription_request(urlencode(form).encode())


@pytest.mark.req("UNS-6")
def test_the_specifications_own_unsubscribe_request_is_read() -> None:
    """Its endpoint ends with an encoded line feed."""
    form = parse_subscription_request(
        b"hub.channel.type=websocket&hub.channel.endpoint=wss%3A%2F%2Fhub.example.com%2Fee30d3b9-1558-464f-a299-cbad6f8135de%0A"
        b"&hub.mode=unsubscribe&hub.topic=fdb2f928-5546-4f52-87a0-0648e9ded065"
    )
    assert form.endpoint == ENDPOINT


@pytest.mark.req("SUB-5", "LEA-1")
@pytest.mark.parametrize(
    ("value", "lease"), [("1", 1), ("3600", 3600), (" 60 ", 60), ("007", 7), ("0" * 30 + "60", 60)]
)
@pytest.mark.parametrize("name", ["hub.lease_seconds", "hub.lease"])
def test_a_lease_is_read_under_both_names(name: str, value: str, lease: int) -> None:
    """Many clients say hub.lease."""
    assert parse_subscription_request(urlencode(GOOD | {name: value}).encode()).lease == lease
    assert as_json({**GOOD, name: value}) == parse_subscription_request(urlencode(GOOD | {name: value}).encode())


@pytest.mark.req("LEA-1")
@pytest.mark.parametrize("digits", [19, 100, 5000])
def test_a_lease_of_any_length_is_only_a_long_one(digits: int) -> None:
    """It is beyond every maximum, and no reason to fail."""
    lease = parse_subscription_request(urlencode(GOOD | {"hub.lease_seconds": "9" * digits}).encode()).lease
    assert lease is not None
    assert lease > 10**9


@pytest.mark.req("SUB-16", "EVT-23")
def test_a_byte_order_mark_before_json_is_ignored() -> None:
    """.NET writes one."""
    assert parse_json_subscription_request(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()) == as_json(GOOD)


@pytest.mark.req("SUB-16", "LEA-1")
@pytest.mark.parametrize("digits", [30, 5000])
def test_a_json_number_of_any_length_is_only_a_long_lease(digits: int) -> None:
    """JSON has no largest number."""
    text = json.dumps({**GOOD, "hub.lease_seconds": 0}).replace(": 0", f": 1{'0' * digits}")
    form = parse_json_subscription_request(text.encode())
    assert form is not None
    assert form.lease is not None
    assert form.lease > 10**9


@pytest.mark.req("SUB-13", "SUB-38")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("PACS\u202e draob", "PACS draob"),
        ("PACS\u2066\u2069", "PACS"),
        ("PA\u200bCS", "PA CS"),
        ("\ufeffPACS", "PACS"),
        ("PACS\u061c\u200e\u200f 2", "PACS 2"),
        ("Ward\xa0\u20037\u3000  B", "Ward 7 B"),
        ("PACS\U000e0041\U000e007f", "PACS"),
        ("\u2060\u200b", ""),
        ("Avdeling Å · 👩\u200d⚕️ · a\u200cb", "Avdeling Å · 👩\u200d⚕️ · a\u200cb"),
    ],
)
def test_a_name_is_kept_as_people_are_shown_it(name: str, shown: str) -> None:
    """Two names that look alike are alike, as far as white space and what cannot be seen go; no name turns a line around."""
    assert parse_subscription_request(urlencode(GOOD | {"subscriber.name": name}).encode()).name == shown
    form = as_json({**GOOD, "subscriber.name": name})
    assert form is not None
    assert form.name == shown


@pytest.mark.req("SUB-6")
@pytest.mark.parametrize("name", [*GOOD, "subscriber.name", "anything"])
def test_a_parameter_twice_is_refused(name: str) -> None:
    """Even with the same value: somebody else might read the other one."""
    pairs = [*(GOOD | {name: GOOD.get(name, "x")}).items(), (name, GOOD.get(name, "x"))]
    refused(urlencode(pairs).encode())


@pytest.mark.req("SUB-6", "SUB-16")
@pytest.mark.parametrize("name", ["hub.topic", "hub\\u002etopic"])
def test_a_member_twice_is_refused(name: str) -> None:
    """The same goes for JSON, where most readers silently take the last."""
    twice = json.dumps(GOOD)[:-1] + f', "{name}": "another"}}'
    with pytest.raises(BadRequest, match=r"hub\.topic"):
        parse_json_subscription_request(twice.encode())


@pytest.mark.req("SUB-16")
@pytest.mark.parametrize("name", ["hub.topic", "subscriber.name", "hub.channel.endpoint"])
def test_half_a_character_is_refused(name: str) -> None:
    """JSON can write half of a surrogate pair, which is no text: it could never be sent or stored."""
    with pytest.raises(BadRequest):
        as_json(GOOD | {name: "a\ud800"})


@pytest.mark.req("SUB-16")
@pytest.mark.parametrize(
    "text", ["", "[]", "1", "{}", '"hub.mode"', '["hub.mode"]', '{"event": {"hub.mode": 1}}', '{"hub.mode"', "[" * 9999]
)
def test_what_has_no_mode_is_no_form(text: str) -> None:
    """A body without hub.mode at its top is an event, or no JSON at all, and somebody else's to judge."""
    assert parse_json_subscription_request(text.encode()) is None


@pytest.mark.req("SUB-18")
@pytest.mark.parametrize("events", ["patient-OPEN,, Patient-close ,", " Patient-open ,patient-close,PATIENT-OPEN"])
def test_events_are_read_as_a_set(events: str) -> None:
    """Spaces, trailing commas, case and repetition do not matter; the first spelling of a name is kept."""
    first = tuple(name.strip() for name in events.split(",") if name.strip())
    assert read(hub_events=events).events == first[:2]


@pytest.mark.req("SUB-13")
@pytest.mark.parametrize("name", ["OHIF", "Ünïcödé ☃ 𝄞", "x" * 256])
def test_a_name_is_kept(name: str) -> None:
    """subscriber.name is text of up to 256 characters."""
    assert read(subscriber_name=name).name == name


@pytest.mark.req("SUB-13")
def test_a_longer_name_is_refused() -> None:
    """257 characters are too many."""
    assert "subscriber.name" in refused(urlencode(GOOD | {"subscriber.name": "x" * 257}).encode())


@pytest.mark.req("SUB-16")
@pytest.mark.parametrize("events", [["Patient-open", "Patient-close"], [" Patient-open ", "", "Patient-close"]])
def test_events_may_be_an_array(events: list[str]) -> None:
    """In JSON, hub.events is a text or an array, and a lease a text or a number."""
    assert as_json({**GOOD, "hub.events": events, "hub.lease_seconds": 60}) == read(hub_lease_seconds="60")


ODD: dict[str, list[object]] = {
    "hub.events": [{}, {"Patient-open": 1}, [["Patient-open"]], [{}], [None], [], True],
    "hub.topic": [["a"], {}, [], True, None],
    "hub.lease_seconds": [0, -1, 1.5, True, [60]],
    "hub.mode": [None, ["subscribe"], True],
}


@pytest.mark.req("SUB-16")
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ODD.items() for value in values])
def test_json_of_other_types_is_refused(name: str, value: object) -> None:
    """A value that is no text, number or list of names makes no sense."""
    with pytest.raises(BadRequest):
        as_json({**GOOD, name: value})


@pytest.mark.req("UNS-5")
def test_endpoint_is_read_as_hub_channel_endpoint_when_unsubscribing() -> None:
    """Medplum's client says it so."""
    form = GOOD | {"hub.mode": "unsubscribe", "endpoint": ENDPOINT}
    assert parse_subscription_request(urlencode(form).encode()).endpoint == ENDPOINT
    assert as_json(form) == parse_subscription_request(urlencode(form).encode())


@pytest.mark.req("SUB-20")
@pytest.mark.parametrize(("endpoint", "read_as"), [(ENDPOINT, ENDPOINT), ("", None)])
def test_an_endpoint_makes_it_a_renewal(endpoint: str, read_as: str | None) -> None:
    """An empty one is none."""
    assert read(hub_channel_endpoint=endpoint).endpoint == read_as


@pytest.mark.req("SUB-5")
@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b"hub.topic=%ff%fe", b"", b"&&&", b"&".join(b"a%d=1" % n for n in range(5000)), b'{"a":1}']
)
def test_what_is_no_form_is_refused(body: bytes) -> None:
    """Bytes that are no UTF-8, too many parameters, and nothing at all are a 400."""
    refused(body)


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=20).map(str.strip)


@pytest.mark.req("SUB-16", "SUB-18")
@settings(max_examples=30)
@given(
    topic=TEXTS.filter(lambda topic: topic not in ("", "ws", "metadata", ".well-known")),
    name=TEXTS,
    lease=st.integers(1, 10**9),
    events=st.lists(st.text("aB9._-", min_size=1, max_size=9).map("x".__add__), min_size=1, max_size=5),
)
def test_forms_round_trip(topic: str, name: str, lease: int, events: list[str]) -> None:
    """What was read and is written again is read the same, in both notations."""
    given_ = GOOD | {"hub.topic": topic, "subscriber.name": name, "hub.lease_seconds": str(lease)}
    form = parse_subscription_request(urlencode(given_ | {"hub.events": " ,".join(events)}).encode())
    assert (form.topic, form.name, form.lease) == (topic, displayable(name), lease)
    again = given_ | {"hub.events": ",".join(form.events)}
    assert parse_subscription_request(urlencode(again).encode()) == form
    assert as_json({**again, "hub.events": list(form.events), "hub.lease_seconds": lease}) == form


@pytest.mark.req("SUB-5")
@settings(max_examples=30)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Nothing that is sent as a form makes the hub fail."""
    with pytest.raises(BadRequest):
        parse_subscription_request(body)


@pytest.mark.req("SUB-5", "SUB-26")
def test_a_form_is_short() -> None:
    """Over 64 KiB it is refused unread; a JSON body of that size is no form."""
    with pytest.raises(TooLarge, match="65536"):
        parse_subscription_request(b"hub.mode=subscribe&x=" + b"y" * 65536)
    assert parse_json_subscription_request(b'{"hub.mode":"subscribe","x":"' + b"y" * 65536 + b'"}') is None
