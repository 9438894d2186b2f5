"""The pure parts: the order of timestamps, what is followed, what is shared, what is out of step."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_client.engine import Engine
from fhircast_client.events import Event, Kind, context_of, kind_of, make_event, parse_event, reference_in
from fhircast_client.frames import heartbeat_period, read_confirmation
from fhircast_client.lease import Lease
from fhircast_client.sync_errors import make_sync_error
from fhircast_client.timestamps import instant, timestamp_now
from fhircast_client.timings import Backoff
from fhircast_client.update_bundle import update_context
from tests.clients.fakes import patient, report, study

#: The own clock, long after what is told here.
NOW = instant("2026-11-23T00:00:00Z") or 0


def event(name: str, *resources: dict[str, Any], at: int = 0, id_: str | None = None, **more: Any) -> Event:
    """An event at this second of a certain minute."""
    stamp = f"2026-11-22T10:00:{at:02}.000Z"
    return make_event("session", name, context_of(resources), id=id_, timestamp=stamp, own=False, **more)


def opened(id_: str, at: int, **more: Any) -> Event:
    """A patient was opened."""
    return event("Patient-open", patient(id_), at=at, **more)


def closed(id_: str, at: int, **more: Any) -> Event:
    """A patient was closed."""
    return event("Patient-close", patient(id_), at=at, **more)


@pytest.mark.req("CLT-26")
@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("2026-01-31T09:30:00", "2026-01-31T09:30:00.01Z"),
        ("2026-01-31T09:30:00.1234561Z", "2026-01-31T09:30:00.1234562Z"),
        ("2026-01-31T09:30:00.12Z", "2026-01-31T09:30:00.1200001Z"),
        ("2026-01-31T10:30:00+02:00", "2026-01-31T09:30:00Z"),
        ("2026-01-31T09:30:00+0000", "2026-01-31T04:30:01-05"),
        ("2026-01-31T09:30Z", "2026-01-31T09:30:00,5"),
    ],
)
def test_timestamps_are_compared_as_instants(older: str, newer: str) -> None:
    first, second = instant(older), instant(newer)
    assert first is not None
    assert second is not None
    assert first < second


@pytest.mark.req("CLT-26")
def test_forms_of_one_instant_are_equal() -> None:
    forms = (
        "2026-01-31T09:30:00",
        "2026-01-31T09:30:00Z",
        "2026-01-31T11:30:00.00+02:00",
        "2026-01-31 04:30:00.0000000-0500",
    )
    assert len({instant(form) for form in forms}) == 1


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-01-31", "2026-13-01T00:00:00Z", "2026-01-31T09:30:00.Z", "\N{FULLWIDTH DIGIT NINE}"]
)
def test_what_is_no_timestamp_has_no_instant(text: str) -> None:
    assert instant(text) is None


def test_a_timestamp_is_never_before_what_it_follows_unless_a_clock_is_days_ahead() -> None:
    ahead = instant(timestamp_now())
    assert ahead is not None
    ahead += 3600 * 10**12
    made = instant(timestamp_now(ahead))
    assert made is not None
    assert ahead < made <= ahead + 2 * 10**9
    days = ahead + 72 * 3600 * 10**12
    made = instant(timestamp_now(days))
    assert made is not None
    assert made < ahead


def test_what_is_remembered_is_bounded() -> None:
    engine = Engine()
    for number in range(2000):
        one = event("Patient-open", patient(f"p{number}"), at=1)
        engine.received(one)
        engine.followed(one, NOW)
        if number % 2:
            engine.followed(closed(f"p{number}", 1), NOW)
    assert len(engine.contexts) <= 64
    sizes = [len(value) for value in vars(engine).values() if hasattr(value, "__len__")]
    assert max(sizes) <= 512


# Content


def shared_at(engine: Engine, anchor: str = "DiagnosticReport/r1") -> tuple[str | None, list[str] | None]:
    """Version and references of what is shared."""
    known = engine.content.get(anchor)
    assert known is not None
    return known.version, None if known.content is None else sorted(known.content)


def update(prior: str, version: str, *changes: Any) -> Event:
    """The hub's broadcast of an update."""
    made = make_event("session", "DiagnosticReport-update", update_context("DiagnosticReport/r1", changes), own=False)
    inner = {**made.body["event"], "context.versionId": version, "context.priorVersionId": prior}
    return parse_event({**made.body, "event": inner})


def engine_with_report(*, told: bool = True) -> Engine:
    """A report is open at version v1; `told`: since this client listens."""
    engine = Engine()
    if told:
        engine.content.replay_ended()
    engine.received(event("DiagnosticReport-open", report("r1"), version="v1"))
    engine.content.replay_ended()
    return engine


@pytest.mark.req("CLT-6")
def test_the_content_of_what_was_open_before_joining_is_not_known() -> None:
    engine = engine_with_report(told=False)
    assert shared_at(engine) == ("v1", None)
    engine.received(event("DiagnosticReport-open", report("r2"), version="w1"))
    assert shared_at(engine, "DiagnosticReport/r2") == ("w1", None), "it may have been open before as well"


# Status


def sync_error(engine: Engine, about: Event, subscriber: str = "chart") -> None:
    """Somebody did not follow."""
    told = parse_event(make_sync_error("session", about, subscriber, "unsaved notes").body)
    engine.received(told)
    engine.sync_error(told)


def connected() -> Engine:
    """A state that is in sync."""
    engine = Engine()
    engine.sync.connected()
    assert engine.sync.status.in_sync
    return engine


# Names, frames, delays


@pytest.mark.req("CLT-1")
def test_names_are_matched_without_regard_to_case() -> None:
    assert kind_of("patient-OPEN") is Kind.OPEN
    assert kind_of("syncError") is Kind.SYNC_ERROR
    assert kind_of("HOME-open") is Kind.HOME
    assert kind_of("org.example.reopen") is Kind.OTHER
    assert event("patient-open", patient("p1")).anchor == "Patient/p1"


def test_anchors_are_found_under_their_key_or_type_as_resource_or_reference() -> None:
    assert event("ImagingStudy-open", patient("p1"), study("s1")).anchor == "ImagingStudy/s1"
    inner = {
        "hub.event": "ImagingStudy-close",
        "context": [{"key": "imagingstudy", "reference": {"reference": "https://x/f/ImagingStudy/s2"}}],
    }
    assert parse_event({"id": "1", "event": inner}).anchor == "ImagingStudy/s2"
    assert reference_in("p1") == ""


@pytest.mark.parametrize(
    "body", [None, [], {}, {"id": "1"}, {"id": 1, "event": {"hub.event": "x"}}, {"event": {"hub.event": "x"}}]
)
def test_what_is_no_event_is_not_read(body: Any) -> None:
    with pytest.raises(ValueError, match="required"):
        parse_event(body)


def test_the_confirmation_is_known_by_its_mode_or_its_topic() -> None:
    by_mode = read_confirmation({"hub.mode": "subscribe", "hub.events": "a, b,", "hub.lease_seconds": "60"})
    assert by_mode is not None
    assert (by_mode.events, by_mode.lease_seconds) == (("a", "b"), 60)
    assert read_confirmation({"hub.topic": "t", "hub.events": ["a"], "hub.lease_seconds": -1}) is not None
    assert read_confirmation({"hub.mode": "denied", "hub.topic": "t"}) is None
    assert read_confirmation([]) is None
    assert heartbeat_period(event("heartbeat")) is None


@pytest.mark.req("CLT-9")
def test_delays_double_up_to_the_most_and_vary() -> None:
    longest = Backoff(0.5, 30, chance=lambda: 1.0)
    assert [longest.next() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    shortest = Backoff(0.5, 30, chance=lambda: 0.0)
    assert [shortest.next() for _ in range(3)] == [0.25, 0.5, 1]
    shortest.reset()
    assert shortest.next() == 0.25


@pytest.mark.req("CLT-10")
@pytest.mark.parametrize(("seconds", "left"), [(7200, 60), (100, 20), (5, 1)])
async def test_a_lease_is_renewed_before_a_fifth_or_a_minute_is_left(seconds: float, left: float) -> None:
    now = 1000.0
    lease = Lease(lambda: now)
    lease.asking()
    lease.granted(seconds, new_socket=True)
    assert lease.renew_at is not None
    assert 0.7 * seconds <= lease.renew_at - now < seconds - left
    # After a reconnection the hub says what is left of the same lease.
    lease.granted(left / 2, new_socket=True)
    assert lease.renew_at == now


# Events


@pytest.mark.req("CLT-15")
@pytest.mark.parametrize(("study", "report"), [("study", "report"), ("imagingstudy", "diagnosticreport")])
def test_a_study_and_a_report_are_found_under_both_their_keys(study: str, report: str) -> None:
    """Whichever is asked for."""
    context = [
        {"key": report, "resource": {"resourceType": "DiagnosticReport", "id": "r1"}},
        {"key": study, "resource": {"resourceType": "ImagingStudy", "id": "s1"}},
    ]
    event = make_event("a-topic", "DiagnosticReport-open", context)
    for name in ("study", "imagingstudy", "ImagingStudy"):
        assert (event.resource(name) or {}).get("id") == "s1"
    for name in ("report", "diagnosticreport"):
        assert (event.resource(name) or {}).get("id") == "r1"
    assert event.resource("patient") is None
