"""The names of 2018: read as today's, written back as they were, and not a byte else changed."""

from __future__ import annotations

import json

import pytest

from fhircast_hub.core.wire.event_names import NAMES_OF_2018, classify, modern_name, never_matches
from fhircast_hub.edge.names_of_2018 import LegacyNames
from fhircast_hub.ws.frames import text_frame, text_of

BODY = (
    b'{ "id" : "1", "timestamp":"2018-12-13T01:37:05.14Z",\n "cast-session":"s","event":{"hub.topic":"t",'
    b' "hub.event" : "%s", "context":[{"key":"patient","resource":{"resourceType":"Patient","id":"p1",'
    b'"multipleBirthInteger":1.10,"comment":"\\"hub.event\\":\\"open-patient-chart\\" \\u00e9 open-patient-chart"}}]}}'
)


def frame(name: str, id_: str = "1") -> bytes:
    """A message of the hub's about this event."""
    inner = {"hub.topic": "t", "hub.event": name, "context": []}
    return json.dumps({"timestamp": "2018-12-13T01:37:05.14Z", "id": id_, "event": inner}).encode()


def name_of(message: bytes) -> str:
    """The name of the event in a message."""
    return str(json.loads(message)["event"]["hub.event"])


@pytest.mark.req("AUT-18", "AUT-37")
def test_all_names_of_2018_may_be_published_today() -> None:
    """Each has a name that the hub takes, and is itself none."""
    assert len(NAMES_OF_2018) == 8
    for name, today in NAMES_OF_2018.items():
        assert never_matches(name)
        assert classify(today)
        assert modern_name(name.upper()) == modern_name(today) == today


@pytest.mark.req("AUT-18", "EVT-15")
def test_only_the_name_is_replaced() -> None:
    """White space, numbers, escapes, and the same words in a resource stay as they came; and so they come back."""
    legacy = LegacyNames()
    posted = BODY % b"switch-patient-chart"
    assert legacy.translate_event(posted) == BODY % b"Patient-open"
    with legacy.translate_subscription("sid", ("switch-patient-chart",)):
        pass
    written = legacy.translate_frame("sid", "me", BODY % b"Patient-open")
    assert json.loads(written) == json.loads(posted)
    assert b"1.10" in written
    assert list(json.loads(written)) == ["id", "timestamp", "cast-session", "event"]


@pytest.mark.req("AUT-18", "EVT-23")
def test_a_byte_order_mark_before_an_event_hides_no_name() -> None:
    """The hub cuts it when it reads the event."""
    mark = b"\xef\xbb\xbf"
    assert LegacyNames().translate_event(mark + BODY % b"switch-patient-chart") == mark + BODY % b"Patient-open"


@pytest.mark.req("AUT-18")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(BODY % b"Patient-open", id="a name of today"),
        pytest.param(b"hub.mode=subscribe&hub.events=open-patient-chart", id="a form"),
        pytest.param(b'{"event":{"hub.event":"open-patient-chart","hub.event":"logout-user"}}', id="twice"),
        pytest.param(b'{"event":{"hub.event":"open-patient-chart"}}', id="without id and timestamp"),
        pytest.param(b'{"event":{"hub.event":"open-patient-chart"', id="no JSON"),
        pytest.param(b'{"id":"\xff","event":{"hub.event":"open-patient-chart"}}', id="no UTF-8"),
    ],
)
def test_what_is_no_event_of_2018_stays_as_it_came(body: bytes) -> None:
    """The hub says what is wrong with it."""
    assert LegacyNames().translate_event(body) == body


@pytest.mark.req("AUT-18")
def test_todays_name_is_asked_for_once() -> None:
    """Two names for one event, in any spelling, are one."""
    events = ("open-patient-chart", "Switch-Patient-Chart", "patient-open", "logout-user", "org.example.mine")
    with LegacyNames().translate_subscription("sid", events) as asked:
        assert [name.lower() for name in asked] == ["patient-open", "userlogout", "org.example.mine"]


@pytest.mark.req("AUT-18", "AUT-38")
def test_who_asked_for_todays_names_is_sent_the_frame_itself() -> None:
    """Nothing is made anew where nothing is to be changed."""
    legacy = LegacyNames()
    with legacy.translate_subscription("sid", ("Patient-open", "open-patient-chart")):
        pass
    message = frame("Patient-open", "2")
    assert legacy.translate_frame("sid", "me", message) is message
    assert legacy.translate_frame("another", "me", message) is message


@pytest.mark.req("AUT-18")
def test_a_subscription_that_failed_has_the_names_from_before() -> None:
    """A renewal that the hub refuses changes nothing."""
    legacy = LegacyNames()
    with legacy.translate_subscription("sid", ("open-patient-chart",)):
        pass
    with pytest.raises(ValueError, match="refused"), legacy.translate_subscription("sid", ("switch-patient-chart",)):
        raise ValueError("refused")
    assert name_of(legacy.translate_frame("sid", "me", frame("Patient-open"))) == "open-patient-chart"


@pytest.mark.req("AUT-18", "AUT-4")
def test_only_what_was_granted_is_confirmed() -> None:
    """In the names that were asked for, and everything that is no event says who is bound."""
    legacy = LegacyNames()
    with legacy.translate_subscription(
        "sid", ("logout-user", "open-patient-chart", "switch-patient-chart", "Home-open")
    ):
        pass
    confirmation = {"hub.mode": "subscribe", "hub.topic": "t", "hub.events": "Patient-open,Home-open"}
    written = json.loads(legacy.translate_frame("sid", "me", json.dumps(confirmation).encode()))
    asked = "open-patient-chart,switch-patient-chart,Home-open"
    assert written == confirmation | {"hub.events": asked, "bound": "me"}


@pytest.mark.req("AUT-18")
def test_what_is_remembered_is_bounded() -> None:
    """Of events and subscriptions without end the last ones are remembered."""
    legacy = LegacyNames()
    for number in range(10_001):
        assert legacy.translate_event(frame("switch-patient-chart", str(number))) != frame(
            "switch-patient-chart", str(number)
        )
        with legacy.translate_subscription(f"sid-{number}", ("open-patient-chart", "switch-patient-chart")):
            pass
    assert name_of(legacy.translate_frame("sid-10000", "me", frame("Patient-open", "10000"))) == "switch-patient-chart"
    assert name_of(legacy.translate_frame("sid-10000", "me", frame("Patient-open", "0"))) == "open-patient-chart"
    assert name_of(legacy.translate_frame("sid-0", "me", frame("Patient-open", "10000"))) == "Patient-open"


@pytest.mark.req("AUT-18")
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_the_text_of_a_frame_is_found_whatever_its_length(size: int) -> None:
    """In each of the three ways in which a length is written."""
    assert text_of(text_frame(b"x" * size)) == b"x" * size


@pytest.mark.req("AUT-18")
@pytest.mark.parametrize("member", ["id", "timestamp"])
def test_what_will_be_refused_is_not_remembered(member: str) -> None:
    """An id of a megabyte is refused by the hub; it costs no memory."""
    legacy = LegacyNames()
    event = {"id": "1", "timestamp": "2018-01-08T01:40:05Z", "event": {"hub.event": "open-patient-chart"}} | {
        member: "x" * 1000
    }
    assert b"Patient-open" in legacy.translate_event(json.dumps(event).encode())
    assert legacy._published == {}
