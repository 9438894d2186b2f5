"""AckTimer: acknowledgements and timeouts become commands and metrics. One timer is set and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from fhircast_hub.acknowledgements import timer
from fhircast_hub.acknowledgements.timer import MIN_WAIT, AckTimer
from fhircast_hub.acknowledgements.tracker import TOGETHER, AckTracker, Policy
from fhircast_hub.budgets.table import REFUSALS
from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.commands import Acknowledged, AcksTimedOut, Command, MissedAck, Rejected
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import Subscription
from fhircast_hub.service.request_id import REQUEST_ID
from fhircast_hub.service.service import Service
from fhircast_hub.telemetry.metrics import Metrics
from tests.counted import counted
from tests.running import Clock

KEY = SessionKey("a-realm", "a-topic")


class Timer:
    """A call that was asked for in this many seconds."""

    def __init__(self, wait: float, then: Callable[[], None]) -> None:
        self.wait, self.then, self.off = wait, then, False

    def cancel(self) -> None:
        self.off = True


class Bench:
    """An AckTimer with a strict policy, a service that records commands, and a loop that does nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.metrics = Clock(1000.0), Metrics()
        self.submitted: list[tuple[SessionKey, Command]] = []
        self.requests: list[str | None] = []
        self.timers: list[Timer] = []
        self.sures: list[tuple[str, float]] = []
        tracker = AckTracker(Policy.STRICT, 10)
        self.ack_timer = AckTimer(cast(Service, self), tracker, self.clock, self.metrics)
        monkeypatch.setattr(timer, "asyncio", self)
        asyncio.run(self.ack_timer.connected("a", "a'"))

    # stands for the service, for asyncio, and for its loop

    async def connected(
        self, subscription_id: str, connection: str, delivered_until: float
    ) -> tuple[SessionKey, Subscription]:
        self.sures.append((connection, delivered_until))
        return KEY, Subscription(subscription_id, "ann", subscription_id, ("Patient-open",), 9e9, 0)

    def submit_soon(self, key: SessionKey, command: Command) -> None:
        self.submitted.append((key, command))
        self.requests.append(REQUEST_ID.get())

    def get_running_loop(self) -> Any:
        return self

    def call_later(self, wait: float, then: Callable[[], None]) -> Timer:
        self.timers.append(Timer(wait, then))
        return self.timers[-1]

    # the actions of a test

    def send(self, id_: str, *, later: bool = False) -> EventRef:
        event_ref = EventRef(id_, id_, "Patient-open")
        self.ack_timer.sent(event_ref, ("a'",), ["a'"] if later else [])
        return event_ref


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.mark.req("SYN-4")
def test_there_is_one_timer_for_what_was_sent_first(bench: Bench) -> None:
    """The first frame sets the timer. Later frames do not move it. Then the next due frame sets it."""
    bench.send("one")
    bench.clock.now += 4
    bench.send("two")
    (timer,) = bench.timers
    assert timer.wait == pytest.approx(10 + TOGETHER)
    bench.clock.now += 6 + TOGETHER
    timer.then()
    assert [command for _, command in bench.submitted] == [
        AcksTimedOut((MissedAck("a", "a'", EventRef("one", "one", "Patient-open")),))
    ]
    assert bench.timers[1].wait == pytest.approx(4)
    bench.clock.now += 4
    bench.timers[1].then()
    assert len(bench.submitted) == 2
    assert len(bench.timers) == 2, "nothing waits, so nobody looks"
    bench.send("three")
    assert len(bench.timers) == 3
    assert counted(bench.metrics.unanswered) == 2


def test_a_clock_that_was_set_makes_no_haste(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that becomes overdue during a check is checked soon after."""
    bench.send("one")

    def slow_look() -> None:
        bench.clock.now += 3600

    monkeypatch.setattr(bench.ack_timer, "check", slow_look)
    bench.timers[0].then()
    assert bench.timers[1].wait == MIN_WAIT


@pytest.mark.req("OPS-3")
def test_after_its_stop_there_is_no_timer(bench: Bench) -> None:
    """A timer that was set is cancelled. Frames that are sent after the stop set none."""
    bench.ack_timer.stop()
    bench.send("one")
    bench.ack_timer.stop()
    bench.send("two")
    assert [timer.off for timer in bench.timers] == [True]


@pytest.mark.req("SYN-1", "SYN-15")
def test_what_is_heard_is_counted(bench: Bench) -> None:
    """Acknowledgements, refusals and ignored texts are each counted. Each command goes to its session."""
    event_ref = bench.send("one")
    for said in (b'{"id":"one","status":202}', b'{"id":"one","status":409}', b'{"id":"two"}', b""):
        bench.ack_timer.heard("a'", said)
    assert bench.submitted == [(KEY, Acknowledged("a")), (KEY, Rejected("a", "a'", event_ref, 409))]
    metrics = bench.metrics
    seen = metrics.acknowledgements, metrics.refusals, metrics.frames_ignored
    assert [*map(counted, seen)] == [2, 1, 2]


@pytest.mark.req("OPS-2")
def test_silence_is_nobodys_request(bench: Bench) -> None:
    """Log lines of the timer do not name the request that set the timer."""
    token = REQUEST_ID.set("a-1")
    try:
        bench.send("one")
        bench.clock.now += 11
        bench.timers[0].then()
    finally:
        REQUEST_ID.reset(token)
    assert bench.requests == [None]


@pytest.mark.req("SUB-12", "SUB-11", "SUB-36")
def test_what_has_arrived_is_told_to_who_takes_over(bench: Bench) -> None:
    """A pong shows that all frames before it were delivered. The connection's end reports the same time."""
    bench.clock.now += 5
    bench.ack_timer.alive("a'", bench.clock.now - 1)
    asyncio.run(bench.ack_timer.connected("a", "a''"))
    assert bench.sures == [("a'", 0), ("a''", 1004.0)]
    assert bench.ack_timer.disconnected("a'") == 1004.0


@pytest.mark.req("SYN-4")
def test_what_waits_for_the_socket_is_not_timed(bench: Bench) -> None:
    """A frame is not timed until the socket takes it."""
    bench.send("one", later=True)
    bench.clock.now += 11
    bench.ack_timer.check()
    assert bench.submitted == []
    bench.send("one")
    bench.clock.now += 10
    bench.ack_timer.check()
    assert len(bench.submitted) == 1


@pytest.mark.req("SYN-17", "SYN-31")
def test_refusals_without_end_are_counted_and_not_told(bench: Bench) -> None:
    """Each refusal is counted. At first each is reported, later only as many as people can read."""
    for number in range(100):
        bench.send(f"e{number}")
        bench.ack_timer.heard("a'", b'{"id":"e%d","status":409}' % number)
    told = [command for _, command in bench.submitted if isinstance(command, Rejected)]
    assert (len(told), counted(bench.metrics.refusals)) == (REFUSALS.most, 100)
    bench.clock.now += 1
    for number in range(100):
        bench.send(f"f{number}")
        bench.ack_timer.heard("a'", b'{"id":"f%d","status":409}' % number)
    told = [command for _, command in bench.submitted if isinstance(command, Rejected)]
    assert len(told) == REFUSALS.most + REFUSALS.most // 4
