"""Any bytes are a subscription request or a bad request."""

from __future__ import annotations

import json
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fhircast_hub.core.errors import HubError
from fhircast_hub.core.wire.acknowledgement import displayable
from fhircast_hub.core.wire.event_names import parse_events
from fhircast_hub.core.wire.subscription_request import (
    SubscriptionRequest,
    parse_json_subscription_request,
    parse_subscription_request,
)
from tests.core.properties import check_reason, names, settings, values
from tests.core.world import body

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
        name=None if given_.name is None else displayable(given_.name.strip()),
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
