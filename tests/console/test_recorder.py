"""The recorder: the last events and SyncErrors of a session, without anything of a patient."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.console import recorder as recorder_module
from fhircast_hub.console.recorder import EVENTS, Recorder, SeenEvent, SeenProblem
from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.commands import Command, EndSession, PostFinished, Publish
from fhircast_hub.core.state.effects import EventRef, Send
from fhircast_hub.core.state.session import Outcome
from fhircast_hub.core.wire.event import parse_event
from tests.core.rules.webhook_world import Hooked
from tests.core.world import KEY, NOON, OPENS, body, message, outcome, patient, study, token


class Recorded(Hooked):
    """A world whose session is recorded."""

    def __init__(self, policy: Policy = Policy.LENIENT) -> None:
        super().__init__(policy)
        self.recorder = Recorder(lambda: self.now, self.rules.ack_timeout)

    def do(self, command: Command, node: str | None = None) -> Outcome:
        before = self.session
        outcome = super().do(command, node)
        if outcome.session is not before or outcome.effects:
            self.recorder.committed(KEY, command, before, outcome)
        return outcome

    @property
    def events(self) -> list[SeenEvent]:
        """The newest first."""
        assert self.session
        return self.recorder.of(KEY, self.session)[0]

    @property
    def problems(self) -> list[SeenProblem]:
        """The newest first."""
        assert self.session
        return self.recorder.of(KEY, self.session)[1]


@pytest.mark.req("CSL-6")
def test_an_event_is_kept_with_name_time_sender_and_number_told() -> None:
    """Each subscriber is counted once, though a derived open comes too; a callback as well."""
    world = Recorded()
    world.join("chart", "Patient-open")
    world.join("viewer", OPENS)
    world.hook("hook", "ImagingStudy-open")
    world.publish("ImagingStudy-open", study("s1"), patient("p1"), by=token(client="ehr"))
    (seen,) = world.events
    assert (seen.at, seen.name, seen.told) == (NOON, "ImagingStudy-open", 3)
    assert seen.sender == token(client="ehr").application
    world.publish("ImagingStudy-close", study("s1"))
    assert [each.name for each in world.events] == ["ImagingStudy-close", "ImagingStudy-open"]


@pytest.mark.req("CSL-6")
def test_joining_and_acknowledging_are_no_events() -> None:
    """A late comer is sent the current context; that is not an event again."""
    world = Recorded()
    world.publish("Patient-open", patient("p1"))
    world.join("chart", "Patient-open")
    world.answer("chart")
    world.disconnect("chart")
    assert len(world.events) == 1
    assert not world.problems


@pytest.mark.req("CSL-6")
def test_a_refusal_is_kept_whether_or_not_anybody_is_told() -> None:
    """With the subscriber's reason, and the number of others that were told."""
    world = Recorded()
    world.join("chart", "Patient-open", name="Chart")
    world.publish("Patient-open", patient("p1"))
    world.say("chart", {"id": "event-1", "status": 409, "reason": "a note is not signed"})
    words = "refused to follow Patient-open (status 409): … note is not signed"
    assert world.problems == [SeenProblem(NOON, "Patient-open", "Chart", words, 0, client="an-app")]
    world.join("monitor", "SyncError")
    world.publish("Patient-open", patient("p2"))
    world.say("chart", {"id": "event-2", "status": 409, "reason": "a note is not signed"})
    assert world.problems[0] == SeenProblem(NOON, "Patient-open", "Chart", words, 1, client="an-app")
    assert len(world.problems) == 2


@pytest.mark.req("CSL-6")
@pytest.mark.parametrize("watched", [False, True])
def test_silence_and_loss_are_kept(watched: bool) -> None:
    """The words are those of the SyncError."""
    world = Recorded(Policy.STRICT)
    world.join("chart", "Patient-open", name="Chart")
    if watched:
        world.join("monitor", "SyncError")
    world.publish("Patient-open", patient("p1"))
    world.wait(world.rules.ack_timeout + 1)
    (silent,) = world.problems
    assert silent.words == f"did not acknowledge Patient-open within {world.rules.ack_timeout} seconds"
    world.disconnect("chart", code=1006)
    world.wait(world.rules.reconnect_grace + 1)
    assert [each.words for each in world.problems] == ["lost its connection and has not come back", silent.words]
    assert (world.problems[0].event, world.problems[0].told) == ("", int(watched))


@pytest.mark.req("CSL-6")
@pytest.mark.parametrize(
    ("status", "words"), [(409, "refused to follow"), (500, "could not follow"), (0, "did not ack")]
)
def test_a_callback_that_fails_is_kept(status: int, words: str) -> None:
    world = Recorded()
    world.hook("hook", name="Hook")
    world.publish("Patient-open", patient("p1"))
    (post,) = world.posts()
    world.do(PostFinished(post.number, status))
    assert world.problems[0].words.startswith(words)
    assert world.problems[0].event == "Patient-open"


@pytest.mark.req("CSL-5", "CSL-6")
def test_a_published_sync_error_is_an_event_and_its_words_are_not_kept() -> None:
    """An application wrote them."""
    world = Recorded()
    world.join("monitor", "SyncError")
    world.publish("SyncError", outcome())
    assert [(each.name, each.told) for each in world.events] == [("SyncError", 1)]
    assert not world.problems


@pytest.mark.req("CSL-6")
def test_an_older_open_is_an_event_with_a_sync_error() -> None:
    """The hub's SyncError about it is not counted among those that were told the event."""
    world = Recorded()
    world.join("chart", "Patient-open,SyncError")
    world.publish("Patient-open", patient("p1"))
    world.post(message("Patient-open", patient("p2"), id_="old", at="2023-04-01T11:00:00Z"))
    assert (world.events[0].told, len(world.problems)) == (1, 1)
    assert "older than that of the current context" in world.problems[0].words


@pytest.mark.req("CSL-6")
def test_what_is_kept_is_bounded_and_goes_with_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many events, so many sessions; a later session of the same topic begins with none."""
    monkeypatch.setattr(recorder_module, "SESSIONS", 2)
    world = Recorded()
    for number in range(EVENTS + 5):
        world.publish("Patient-open", patient(f"p{number}"))
    assert len(world.events) == EVENTS
    session = world.session
    assert session
    world.publish("Patient-open", patient("last"))
    for topic in ("a", "b"):
        command = Publish(token(), parse_event(body(message("Patient-open", patient("p")))))
        world.recorder.committed(SessionKey("r", topic), command, None, Outcome(session))
    assert len(world.recorder) == 2
    assert not world.events
    world.publish("Patient-open", patient("again"))
    assert world.recorder.of(KEY, session)[0]
    assert world.recorder.of(KEY, replace(session, owner="somebody else")) == ([], [])
    world.do(EndSession("over"))
    assert world.recorder.of(KEY, session) == ([], [])


@pytest.mark.req("CSL-13")
def test_what_another_node_committed_is_an_event_without_a_sender() -> None:
    """What a new connection is sent of the past is none; the end of the session is heard, too."""
    world = Recorded()
    world.join("chart", "Patient-open")
    session = world.session
    assert session
    (name,) = (each.connection for each in session.subscriptions.values())
    ref = EventRef("e1", "e1", "Patient-open")
    world.recorder.heard(KEY, session, session, [Send((name,), b"", ref), Send(("new",), b"", ref)])
    assert world.events == [SeenEvent(NOON, "Patient-open", None, 1)]
    world.recorder.heard(KEY, session, None, [])
    assert world.recorder.of(KEY, session) == ([], [])


@pytest.mark.req("CSL-5")
@pytest.mark.parametrize("watched", [False, True])
def test_only_the_subscribers_own_words_are_looked_at(watched: bool) -> None:
    """The hub's sentence and the status stay, though the open context has these words."""
    world = Recorded()
    world.join("chart", "Patient-open", name="Nordmann, refused")
    if watched:
        world.join("monitor", "SyncError")
    context = patient("p-17")
    context["resource"]["name"] = [{"family": "Nordmann", "given": ["refused", "follow", "409"]}]
    world.publish("Patient-open", context)
    reason = "nordmann (mrn 4711, p-17) has refused an unsigned note"
    world.say("chart", {"id": "event-1", "status": 409, "reason": reason})
    (problem,) = world.problems
    words = "refused to follow Patient-open (status 409): … (mrn …, …-…) has … … unsigned note"
    assert (problem.subscriber, problem.words, problem.is_named) == ("…, …", words, True)


@pytest.mark.req("CSL-5", "CSL-6")
def test_a_refusal_beside_a_large_context_costs_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The context is not read, the whole reason is left out, and the client stands for the name."""
    world = Recorded()
    world.join("chart", "Patient-open", name="Chart")
    context = patient("p-17")
    context["resource"]["text"] = {"div": "x" * (64 << 10)}
    world.publish("Patient-open", context)
    monkeypatch.setattr("fhircast_hub.console.without_patients.OpenContext.context", property(lambda _: 1 / 0))
    world.say("chart", {"id": "event-1", "status": 409, "reason": "a note is not signed"})
    (problem,) = world.problems
    words = "refused to follow Patient-open (status 409): …"
    assert (problem.subscriber, problem.words) == ("an-app", words)


@pytest.mark.req("CSL-6")
def test_a_users_many_sessions_cost_the_history_of_none_of_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner's own session that was silent for longest goes."""
    monkeypatch.setattr(recorder_module, "OF_OWNER", 2)
    world = Recorded()
    world.publish("Patient-open", patient("p"))
    session = world.session
    assert session
    other = replace(session, owner="somebody else")
    command = Publish(token(), parse_event(body(message("Patient-open", patient("p")))))
    for topic in ("a", "b", "a", "c"):
        world.recorder.committed(SessionKey("r", topic), command, other, Outcome(other))
    kept = [topic for topic in "abc" if world.recorder.of(SessionKey("r", topic), other)[0]]
    assert (kept, len(world.events)) == (["a", "c"], 1)
    for topic in "ac":
        world.recorder.committed(SessionKey("r", topic), EndSession("over"), other, Outcome(None))
    world.do(EndSession("over"))
    assert (len(world.recorder), world.recorder._owned) == (0, {})


@pytest.mark.req("CSL-6")
def test_a_new_session_begins_without_a_history() -> None:
    """Its owner is the same; the end of the one before was not heard here."""
    world = Recorded()
    world.publish("Patient-open", patient("p1"))
    session = world.session
    assert session
    command = Publish(token(), parse_event(body(message("Patient-close", patient("p1")))))
    world.recorder.committed(KEY, command, None, Outcome(session))
    assert [each.name for each in world.events] == ["Patient-close"]


@pytest.mark.req("CSL-13")
def test_a_fault_with_what_another_node_committed_is_logged_only() -> None:
    world = Recorded()
    world.publish("Patient-open", patient("p1"))
    with capture_logs() as logs:
        world.recorder.heard(KEY, world.session, world.session, [None])  # type: ignore[list-item]
        world.recorder.heard(KEY, world.session, world.session, None)  # type: ignore[arg-type]
    assert [line["event"] for line in logs] == ["console failed"]


@pytest.mark.req("CSL-6")
def test_a_fault_of_the_recorder_stops_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log has it."""

    def fail(name: str) -> str:
        raise RuntimeError(name)

    monkeypatch.setattr(recorder_module, "shown_name", fail)
    world = Recorded()
    with capture_logs() as logs:
        world.publish("Patient-open", patient("p1"))
    assert not world.events
    assert [line["event"] for line in logs] == ["console failed"]
