"""The pure parts: the order of timestamps, what is followed, what is shared, what is out of step."""

from __future__ import annotations

from typing import Any

import pytest

from clients.fakes import observation, patient, report, study
from fhircast_client.events import Event, Kind, context_of, kind_of, make_event, parse_event, short_reference
from fhircast_client.following import Following, Verdict
from fhircast_client.frames import heartbeat_period, read_confirmation
from fhircast_client.lease import Lease
from fhircast_client.outcomes import make_sync_error, read_sync_error
from fhircast_client.sharing import Entries, update_context
from fhircast_client.state import SessionState
from fhircast_client.timing import Backoff, instant, timestamp_now


def event(name: str, *resources: dict[str, Any], at: int = 0, id_: str | None = None, **more: Any) -> Event:
    """An event at this second of a certain minute."""
    stamp = f"2026-11-22T10:00:{at:02}.000Z"
    return make_event("topic", name, context_of(resources), id=id_, timestamp=stamp, own=False, **more)


def opened(id_: str, at: int, **more: Any) -> Event:
    """A patient was opened."""
    return event("Patient-open", patient(id_), at=at, **more)


def closed(id_: str, at: int, **more: Any) -> Event:
    """A patient was closed."""
    return event("Patient-close", patient(id_), at=at, **more)


@pytest.mark.req("CLT-5", "CLT-9")
@pytest.mark.parametrize("missed", [False, True])
def test_what_is_told_again_is_followed_where_something_missed_was_followed_before_it(missed: bool) -> None:
    """A study that was left for a patient, and an open that was missed, are told before the patient: the last is what is shown."""
    following = Following()
    left, shown, between = event("ImagingStudy-open", study("s1"), at=1), opened("p1", 2), event("Encounter-open", at=1)
    following.refused(left)
    following.followed(shown)
    following.followed(event("DiagnosticReport-open", report("r1"), at=3))
    following.followed(event("DiagnosticReport-close", report("r1"), at=4))
    following.joining()
    assert following.verdict(left) is Verdict.OLD
    if missed:
        assert following.verdict(between) is Verdict.FOLLOW
        following.followed(between)
    assert following.verdict(shown) is (Verdict.FOLLOW if missed else Verdict.OLD)


@pytest.mark.req("CLT-3")
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


@pytest.mark.req("CLT-3")
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


@pytest.mark.req("CLT-3")
def test_what_is_older_than_what_made_the_current_context_is_not_followed() -> None:
    following = Following()
    following.followed(opened("p1", 10))
    assert following.verdict(opened("p2", 9)) is Verdict.OLD
    assert following.verdict(closed("p1", 9)) is Verdict.OLD
    assert following.verdict(opened("p2", 10)) is Verdict.FOLLOW
    following.followed(event("Home-open", at=20))
    assert following.current is None
    assert following.verdict(opened("p2", 19)) is Verdict.OLD


@pytest.mark.req("CLT-3", "CLT-5")
def test_after_a_close_whatever_is_opened_next_is_newer() -> None:
    following = Following()
    first = opened("p1", 10)
    following.followed(first)
    following.followed(closed("p1", 30))
    assert following.current is None
    assert following.verdict(opened("p2", 20)) is Verdict.FOLLOW
    assert following.verdict(first) is Verdict.REPEAT, "a late repeat must not open again what was closed"


@pytest.mark.req("CLT-5")
def test_closing_what_is_not_current_leaves_the_current_context() -> None:
    following = Following()
    following.followed(opened("p1", 1))
    following.followed(event("ImagingStudy-open", study("s1"), at=2))
    following.followed(closed("p1", 3))
    assert following.current is not None
    assert following.current.anchor == "ImagingStudy/s1"
    assert list(following.opens) == ["ImagingStudy/s1"]


@pytest.mark.req("CLT-4")
def test_a_repeat_of_what_is_shown_is_no_news_and_one_that_was_refused_is() -> None:
    following = Following()
    shown, refused = opened("p1", 1), opened("p2", 2)
    following.followed(shown)
    following.refused(refused)
    assert following.verdict(shown) is Verdict.REPEAT
    assert following.verdict(refused) is Verdict.FOLLOW


@pytest.mark.req("CLT-4")
def test_opens_that_an_own_open_implies_do_not_take_its_place() -> None:
    following = Following()
    following.followed(event("ImagingStudy-open", study("s1"), patient("p1"), at=5))
    assert following.verdict(opened("p1", 5)) is Verdict.REPEAT
    assert following.verdict(opened("p2", 5)) is Verdict.FOLLOW


@pytest.mark.req("CLT-4")
def test_own_events_of_equal_time_come_back_while_another_is_shown() -> None:
    following = Following()
    own, other = opened("p1", 5), opened("p2", 5)
    following.followed(own)
    following.followed(other)
    assert following.verdict(own) is Verdict.FOLLOW, "everybody else ends at it"


def test_what_is_remembered_is_bounded() -> None:
    state = SessionState()
    for number in range(2000):
        one = event("Patient-open", patient(f"p{number}"), at=1)
        state.arrived(one)
        state.followed(one)
        if number % 2:
            state.followed(closed(f"p{number}", 1))
    assert len(state.contexts) <= 64
    sizes = [len(value) for value in vars(state).values() if hasattr(value, "__len__")]
    assert max(sizes) <= 512


# Content


def shared_at(state: SessionState, anchor: str = "DiagnosticReport/r1") -> tuple[str | None, list[str] | None]:
    """Version and references of what is shared."""
    known = state.contents.get(anchor)
    assert known is not None
    return known.version, None if known.content is None else sorted(known.content)


def update(prior: str, version: str, *changes: Any) -> Event:
    """The hub's broadcast of an update."""
    made = make_event("topic", "DiagnosticReport-update", update_context("DiagnosticReport/r1", changes), own=False)
    inner = {**made.body["event"], "context.versionId": version, "context.priorVersionId": prior}
    return parse_event({**made.body, "event": inner})


def state_with_report(*, told: bool = True) -> SessionState:
    """A report is open at version v1; `told`: since this client listens."""
    state = SessionState()
    if told:
        state.contents.joined()
    state.arrived(event("DiagnosticReport-open", report("r1"), version="v1"))
    state.contents.joined()
    return state


@pytest.mark.req("CLT-6")
def test_an_update_of_the_known_version_is_applied() -> None:
    state = state_with_report()
    state.arrived(update("v1", "v2", observation("o1"), observation("o2")))
    assert shared_at(state) == ("v2", ["Observation/o1", "Observation/o2"])
    state.arrived(update("v2", "v3", "Observation/o1"))
    assert shared_at(state) == ("v3", ["Observation/o2"])


@pytest.mark.req("CLT-6")
def test_where_an_update_does_not_fit_nothing_is_claimed_until_it_was_fetched() -> None:
    state = state_with_report()
    state.arrived(update("v7", "v8", observation("o8")))
    assert shared_at(state)[1] is None
    state.arrived(update("v8", "v9", observation("o9")))
    state.contents.fetched("DiagnosticReport/r1", "v8", Entries({"Observation/o8": observation("o8")}), asked=0)
    assert shared_at(state) == ("v9", ["Observation/o8", "Observation/o9"])


@pytest.mark.req("CLT-6")
def test_updates_that_the_fetched_content_has_already_change_nothing() -> None:
    state = state_with_report()
    state.arrived(update("v7", "v8", observation("o8")))
    state.contents.fetched("DiagnosticReport/r1", "v9", Entries({"Observation/o9": observation("o9")}), asked=0)
    state.arrived(update("v8", "v9", observation("other")))
    assert shared_at(state) == ("v9", ["Observation/o9"])


@pytest.mark.req("CLT-6")
def test_the_content_of_what_was_open_before_joining_is_not_known() -> None:
    state = state_with_report(told=False)
    assert shared_at(state) == ("v1", None)
    state.arrived(event("DiagnosticReport-open", report("r2"), version="w1"))
    assert shared_at(state, "DiagnosticReport/r2") == ("w1", None), "it may have been open before as well"


@pytest.mark.req("CLT-6")
def test_after_a_lost_connection_only_the_same_version_proves_the_content() -> None:
    state = state_with_report()
    first = event("DiagnosticReport-open", report("r1"), version="v1", id_="e1")
    state.arrived(first)
    state.contents.joining()
    state.arrived(first)
    assert shared_at(state) == ("v1", [])
    state.contents.joining()
    state.arrived(event("DiagnosticReport-open", report("r1"), version="v5", id_="e1"))
    assert shared_at(state) == ("v5", None)


@pytest.mark.req("CLT-6")
def test_opening_again_keeps_the_content_and_closing_disposes_of_it() -> None:
    state = state_with_report()
    state.arrived(update("v1", "v2", observation("o1")))
    state.arrived(event("DiagnosticReport-open", report("r1"), version="v3"))
    assert shared_at(state) == ("v3", ["Observation/o1"])
    state.arrived(event("DiagnosticReport-close", report("r1")))
    assert state.contents.get("DiagnosticReport/r1") is None


# Status


def sync_error(state: SessionState, about: Event, subscriber: str = "chart") -> None:
    """Somebody did not follow."""
    told = make_sync_error("topic", about, subscriber, "unsaved notes")
    state.arrived(told)
    state.sync_error(told, read_sync_error(told))


def connected() -> SessionState:
    """A state that is in sync."""
    state = SessionState()
    state.sync.connected()
    assert state.sync.status.in_sync
    return state


@pytest.mark.req("CLT-13")
def test_a_failure_here_is_over_with_an_open_that_is_not_older() -> None:
    state = connected()
    failed = opened("p1", 10)
    state.arrived(failed)
    state.not_followed(failed, "unsaved notes")
    assert (state.sync.status.in_sync, state.sync.status.why) == (False, "unsaved notes")
    older, newer = opened("p0", 9), opened("p2", 10)
    state.arrived(older)
    state.followed(older)
    assert not state.sync.status.in_sync
    state.arrived(newer)
    state.followed(newer)
    assert state.sync.status.in_sync


@pytest.mark.req("CLT-13")
def test_who_is_behind_is_named_until_a_newer_open_or_a_repeat_is_followed() -> None:
    state = connected()
    first = opened("p1", 10)
    for number in range(2):
        state.arrived(first)
        state.followed(first)
        sync_error(state, first)
        assert state.sync.status.behind == ("chart",), number
        assert "unsaved notes" in state.sync.status.why
    state.arrived(first)
    state.repeated(first)
    assert state.sync.status.in_sync


@pytest.mark.req("CLT-13")
def test_an_own_open_proves_nothing_of_those_who_did_not_follow_it() -> None:
    state = connected()
    own = opened("p1", 10)
    state.sending(own)
    sync_error(state, own)
    state.sent(own)
    assert state.sync.status.behind == ("chart",)
    state.sync.quiet(own.id)
    assert state.sync.status.in_sync


@pytest.mark.req("CLT-13")
def test_a_sync_error_about_what_everybody_has_left_is_no_news() -> None:
    state = connected()
    first, second = opened("p1", 10), opened("p2", 20)
    for one in (first, second):
        state.arrived(one)
        state.followed(one)
    sync_error(state, first)
    assert state.sync.status.in_sync
    sync_error(state, second)
    assert not state.sync.status.in_sync


@pytest.mark.req("CLT-13")
def test_a_sync_error_about_an_old_open_that_came_late_is_news() -> None:
    state = connected()
    current, late = opened("p1", 10), opened("p2", 5)
    state.arrived(current)
    state.followed(current)
    state.arrived(late)
    sync_error(state, late, subscriber="unnamed")
    assert state.sync.status.behind == ("unnamed",)


@pytest.mark.req("CLT-14")
def test_nothing_is_caught_up_with_once_something_newer_came() -> None:
    for newer in (opened("p2", 11), closed("p1", 5)):
        state = connected()
        failed = opened("p1", 10)
        state.arrived(failed)
        state.not_followed(failed, "unsaved notes")
        assert state.to_catch_up() is failed
        state.arrived(newer)
        assert state.to_catch_up() is None


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
    assert short_reference("p1") == ""


@pytest.mark.parametrize(
    "body", [None, [], {}, {"id": "1"}, {"id": 1, "event": {"hub.event": "x"}}, {"event": {"hub.event": "x"}}]
)
def test_what_is_no_event_is_not_read(body: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
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
