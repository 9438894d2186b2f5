"""Sessions as they are administered: begun for a user, looked at, ended."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.scopes import SESSIONS, Scopes
from fhircast_hub.core.decide import decide
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import Conflict, Forbidden, InsufficientScope, NotFound
from fhircast_hub.core.rules.administration import check_administrator, participants, state
from fhircast_hub.core.state.commands import (
    Acknowledged,
    BeginSession,
    Command,
    Connected,
    EndSession,
    Rejected,
    Revoked,
)
from fhircast_hub.core.state.effects import EndWebhook, EventRef
from fhircast_hub.core.wire.close_codes import NORMAL, SERVICE_RESTART
from tests.core.world import KEY, NOON, OPENS, TOPIC, World, outcome, patient, token

PATIENT = "Patient-open,Patient-close"
SYSTEM = token(None, client="ehr", system=True)
ADMINISTRATOR = replace(SYSTEM, scopes=Scopes.parse([SESSIONS]))


class Hooked(World):
    """A world that says whether there is a session."""

    def alive(self) -> bool:
        """Whether there is a session."""
        return self.session is not None

    def settle(self, command: Command) -> None:
        """A callback answered."""
        self.session = decide(self.session, command, Env(self.now, self.ids, self.rules)).session


def begun(**rules: Any) -> Hooked:
    """A session that was begun for Ann."""
    world = Hooked(**rules)
    world.do(BeginSession("a-realm", TOPIC, "ann"))
    return world


def states(world: World) -> dict[str, str]:
    """State of each participant, by subscription_id."""
    return {each.subscription_id: each.state for each in participants(world.session, token())}


# Begun


@pytest.mark.req("SES-1", "AUT-9")
def test_a_session_that_was_begun_is_its_users() -> None:
    """Nobody has subscribed yet. Another user is refused. A system client and Ann may subscribe."""
    world = begun()
    with pytest.raises(Forbidden):
        world.subscribe("bob", OPENS, token("bob"))
    with pytest.raises(Forbidden):
        world.publish("Patient-open", patient("p1"), by=token("bob"))
    world.join("pacs", OPENS, SYSTEM)
    world.join("chart", OPENS)
    assert world.session is not None
    assert (world.session.owner, world.session.created_at) == ("ann", NOON)


@pytest.mark.req("SES-1")
def test_a_topic_that_is_taken_is_not_begun_again() -> None:
    """Another user's session is a Conflict, and so is one that a subscriber began. Nothing changes."""
    for world in (begun(), World()):
        world.join("chart", PATIENT)
        before = world.session
        with pytest.raises(Conflict):
            world.do(BeginSession("a-realm", TOPIC, "ann" if before and not before.created_at else "bob"))
        assert world.session is before


@pytest.mark.req("SES-2", "LIM-1")
def test_a_session_that_is_begun_again_counts_as_used() -> None:
    """The existing session stays with all its contexts, and ends later."""
    world = begun(session_ttl=100)
    world.wait(99)
    before = world.session
    world.do(BeginSession("a-realm", TOPIC, "ann"))
    assert before is not None
    assert world.session == replace(before, last_used_at=NOON + 99, deadline=NOON + 199)


@pytest.mark.req("SES-1", "LIM-1")
def test_a_session_that_nobody_uses_goes() -> None:
    """An unused session ends after SESSION_TTL. Subscriptions and open contexts keep a session."""
    world = begun(session_ttl=100)
    world.wait(99)
    assert world.alive()
    world.wait(1)
    assert not world.alive()
    world = begun(session_ttl=100)
    world.wait(99)
    world.join("chart", PATIENT, lease=50)
    world.wait(149)
    assert world.alive()
    world.wait(1)
    assert not world.alive()


# Ended


@pytest.mark.req("SES-4")
def test_a_session_that_is_ended_is_gone() -> None:
    """Connected subscribers get a denial and a close. Callbacks are told. Contexts and owner are gone."""
    world = begun()
    chart = world.join("chart", PATIENT)
    world.subscribe("late", PATIENT)
    world.subscribe("hook", PATIENT, callback="https://viewer.example/hook")
    world.do(Connected("hook", "hook-hook"))
    world.news("chart")
    assert world.session is not None
    hook = world.session.subscriptions["hook"]
    world.do(EndSession("it is over"))
    assert world.webhook_effects[-1] == EndWebhook(
        KEY, "hook", frozenset(), hook.callback, hook.events, "it is over", hook.subscriber
    )
    assert not world.alive()
    (denied,) = world.read("chart")
    assert (denied["hub.mode"], denied["hub.reason"]) == ("denied", "it is over")
    assert denied["hub.events"] == PATIENT
    assert world.closed == {chart: NORMAL}
    with pytest.raises(NotFound):
        world.connect("late")
    world.subscribe("bob", OPENS, token("bob"))
    assert world.get(token("bob"))["context"] == []


@pytest.mark.req("SES-4")
def test_ending_what_is_not_there_changes_nothing() -> None:
    """Two requests may end a session at once. The second changes nothing."""
    world = World()
    assert world.do(EndSession("again")).effects == ()
    assert world.session is None


@pytest.mark.req("SES-5")
@pytest.mark.parametrize("ends", [True, False])
def test_a_logout_may_end_the_session(ends: bool) -> None:
    """Subscribers of UserLogout are sent the event, and then the denial. Otherwise the event is like any other."""
    world = begun(logout_ends_session=ends)
    world.join("chart", "UserLogout,Patient-open")
    world.join("viewer", "Patient-open")
    world.publish("UserLogout")
    assert world.news("chart") == ["UserLogout", *["denied"] * ends]
    assert world.news("viewer") == ["denied"] * ends
    assert (world.session is None) is ends


@pytest.mark.req("SES-5")
def test_other_events_end_no_session() -> None:
    """A refused logout ends no session either."""
    world = begun(logout_ends_session=True)
    world.join("chart", "UserLogout,UserHibernate")
    world.publish("UserHibernate")
    with pytest.raises(Forbidden):
        world.publish("UserLogout", by=token("bob"))
    with pytest.raises(InsufficientScope):
        world.publish("UserLogout", by=token(write=["Patient-open"]))
    assert world.session is not None
    assert world.news("chart") == ["UserHibernate"]


@pytest.mark.req("AUT-14")
def test_a_subscription_whose_token_was_revoked_ends() -> None:
    """Only the subscription of the revoked token ends, with a reason. Its user may subscribe with another token."""
    world = World()
    chart = world.join("chart", PATIENT, replace(token(), opaque=True))
    world.join("viewer", PATIENT)
    world.do(Revoked("chart"))
    (denied,) = world.read("chart")
    assert (denied["hub.mode"], denied["hub.reason"]) == ("denied", "the token was revoked")
    assert world.closed == {chart: NORMAL}
    assert world.news("viewer") == []
    assert world.do(Revoked("chart")).effects == ()
    world.join("chart", PATIENT)


@pytest.mark.req("AUT-14")
def test_a_token_that_is_not_the_subscriptions_any_more_ends_nothing() -> None:
    """A renewal with a signed token frees the subscription from the opaque token."""
    world = World()
    world.join("chart", PATIENT, replace(token(), opaque=True))
    world.renew("chart", PATIENT)
    world.news("chart")
    world.do(Revoked("chart"))
    assert world.news("chart") == []
    assert world.session is not None
    assert set(world.session.subscriptions) == {"chart"}


@pytest.mark.req("AUT-14", "SUB-23", "AUT-34")
def test_after_a_restart_opaque_tokens_are_not_vouched_for() -> None:
    """After a restart, subscriptions of opaque tokens end in 60 seconds unless renewed. Others stay."""
    world = World()
    opaque = replace(token(), opaque=True)
    world.join("opaque", PATIENT, opaque)
    world.join("renewed", PATIENT, opaque)
    world.join("signed", PATIENT)
    world.subscribe("short", PATIENT, opaque, lease=10)
    for subscription_id in ("opaque", "renewed", "signed"):
        world.disconnect(subscription_id, code=SERVICE_RESTART)
    world.restart()
    for subscription_id in ("opaque", "renewed", "signed"):
        world.connect(subscription_id)
    world.wait(30)
    world.renew("renewed", PATIENT, opaque)
    assert world.session is not None
    assert set(world.session.subscriptions) == {"opaque", "renewed", "signed"}
    world.news("opaque")
    world.wait(29)
    assert world.news("opaque") == []
    world.wait(1)
    assert world.news("opaque") == ["denied"]
    assert set(world.session.subscriptions) == {"renewed", "signed"}


# Access


@pytest.mark.req("SES-1", "AUT-8")
@pytest.mark.parametrize(
    ("principal", "error"),
    [
        (token(), Forbidden),
        (replace(token(), scopes=Scopes.parse([SESSIONS])), Forbidden),
        (SYSTEM, InsufficientScope),
        (replace(ADMINISTRATOR, topics=frozenset()), Forbidden),
        (replace(ADMINISTRATOR, topics=frozenset({"another"})), Forbidden),
    ],
)
def test_who_may_not_administer(principal: Principal, error: type[Exception]) -> None:
    """Refused: any user, a system client without the scope, and one that is limited to other topics."""
    with pytest.raises(error) as raised:
        check_administrator(principal, TOPIC)
    assert isinstance(raised.value, InsufficientScope) is (error is InsufficientScope)


@pytest.mark.req("SES-1", "AUT-8")
def test_who_may_administer() -> None:
    """A system client with the scope may, without limit or limited to this topic. No limit has a new topic."""
    check_administrator(ADMINISTRATOR)
    check_administrator(ADMINISTRATOR, TOPIC)
    limited = replace(ADMINISTRATOR, topics=frozenset({TOPIC}))
    check_administrator(limited, TOPIC)
    with pytest.raises(Forbidden):
        check_administrator(limited)


@pytest.mark.req("SES-3", "AUT-8")
def test_who_may_look() -> None:
    """Subscribers and system clients may look. An absent owner may not, nor a token for another topic."""
    world = begun()
    with pytest.raises(NotFound):
        participants(None, SYSTEM)
    assert participants(world.session, SYSTEM) == []
    with pytest.raises(Forbidden):
        participants(world.session, token())
    world.subscribe("chart", PATIENT)
    world.subscribe("reports", PATIENT, token(None, client="ann", topics=[TOPIC]))
    for principal in (token(), token(client="another"), SYSTEM, token(topics=[TOPIC])):
        assert len(participants(world.session, principal)) == 2
    for principal in (token("bob"), token(topics=["another"]), token(topics=[]), replace(SYSTEM, topics=frozenset())):
        with pytest.raises(Forbidden):
            participants(world.session, principal)
    with pytest.raises(Forbidden):
        participants(world.session, token(None, client="bob", topics=[TOPIC]))


# States


@pytest.mark.req("SES-3")
def test_what_is_told_of_a_participant() -> None:
    """The answer has name, events, channel and time. No part of it lets a reader act as the subscriber."""
    world = begun()
    world.subscribe("chart", PATIENT, name="Chart")
    world.wait(5)
    world.connect("chart")
    world.subscribe("hook", "UserLogout", callback="https://viewer.example/hook", secret=b"sealed")
    chart, hook = participants(world.session, SYSTEM)
    assert (chart.name, chart.events, chart.channel, chart.connected_or_lost_at) == (
        "Chart",
        ("Patient-open", "Patient-close"),
        "websocket",
        NOON + 5,
    )
    assert (hook.name, hook.channel, hook.state) == ("", "webhook", "not connected yet")
    assert "viewer.example" not in repr(hook)
    assert "sealed" not in repr(hook)


@pytest.mark.req("SES-3", "SYN-1", "SYN-5", "SES-7", "SES-8")
def test_a_state_follows_what_a_subscriber_answers() -> None:
    """Not connected, connected, does not acknowledge, in sync, refused, silent, lost. Coming back clears some of the states."""
    world = World(ack_strikes=3)
    world.subscribe("a", PATIENT)
    assert states(world) == {"a": "not connected yet"}
    world.connect("a")
    assert states(world) == {"a": "connected"}
    world.publish("Patient-open", patient("p1"))
    assert states(world) == {"a": "does not acknowledge"}
    world.answer("a")
    assert states(world) == {"a": "in sync"}
    world.publish("Patient-open", patient("p2"))
    world.answer("a", 409)
    assert states(world) == {"a": "refused Patient-open"}
    world.publish("Patient-close", patient("p2"))
    world.answer("a", "200 OK")
    assert states(world) == {"a": "in sync"}
    world.publish("Patient-open", patient("p3"))
    world.wait(11)
    assert states(world) == {"a": "silent"}
    world.publish("Patient-open", patient("p4"))
    world.answer("a")
    assert states(world) == {"a": "in sync"}
    world.answer("a", 409)
    world.disconnect("a", code=1006)
    assert states(world) == {"a": "lost"}
    world.connect("a")
    assert states(world) == {"a": "in sync"}


@pytest.mark.req("SES-3", "SYN-11")
def test_what_does_not_matter_makes_nobody_follow() -> None:
    """An answer to an event that is not reportable does not hide an earlier refusal."""
    world = World()
    world.join("a", "Patient-open,SyncError")
    world.publish("Patient-open", patient("p1"))
    world.answer("a", 409)
    world.publish("SyncError", outcome())
    world.answer("a")
    assert states(world) == {"a": "refused Patient-open"}


@pytest.mark.req("SES-3", "SES-7")
def test_what_is_said_first_of_several_states() -> None:
    """A refusal is shown before silence, and a lost connection before both."""
    world = World()
    world.join("a", PATIENT)
    assert world.session is not None
    subscription = world.session.subscriptions["a"]
    both = replace(subscription, refused_event="Patient-open", missed_acks=1, acknowledges=True)
    assert state(world.session, both) == "refused Patient-open"
    assert state(world.session, replace(both, refused_event="")) == "silent"
    assert state(world.session, replace(both, connection="")) == "lost"
    assert state(world.session, replace(both, connection="", left=True)) == "left"
    assert state(world.session, replace(both, connection="", never_connected=True)) == "not connected yet"


@pytest.mark.req("SES-8", "SYN-1")
@pytest.mark.parametrize("events", ["Patient-open", "Patient-select", "org.example.mine", "heartbeat", "SyncError"])
def test_whoever_was_sent_an_event_is_not_only_connected(events: str) -> None:
    """Any event counts, also one that no SyncError is about. Events for others do not count."""
    world = World()
    world.join("a", events)
    world.join("other", "Patient-open,org.example.other")
    world.publish("org.example.other")
    assert states(world)["a"] == "connected"
    world.publish("Patient-open", patient("p1"))
    if events == "Patient-select":
        world.publish("Patient-select", patient("p1"), {"key": "select", "reference": []})
    elif events == "org.example.mine":
        world.publish("org.example.mine")
    elif events == "heartbeat":
        world.wait(world.rules.heartbeat_seconds)
    elif events == "SyncError":
        assert states(world)["a"] == "connected"
        world.answer("other", 409)
    assert states(world)["a"] == "does not acknowledge"
    assert world.session is not None
    assert world.session.sent_nothing == frozenset()


@pytest.mark.req("SES-8", "CTX-1")
def test_a_replay_is_something_sent() -> None:
    """A joiner of an open context is sent its open. A joiner of an empty session is sent nothing, however often it returns."""
    world = World()
    world.join("early", PATIENT)
    world.disconnect("early", code=1006)
    assert states(world) == {"early": "lost"}
    world.connect("early")
    assert states(world) == {"early": "connected"}
    world.publish("Patient-open", patient("p1"))
    world.join("late", PATIENT)
    assert states(world) == {"early": "does not acknowledge", "late": "does not acknowledge"}


@pytest.mark.req("SES-8")
def test_who_is_gone_is_not_waited_for() -> None:
    """The session forgets with the subscription that nothing was sent."""
    world = World()
    world.join("a", PATIENT)
    world.join("b", PATIENT)
    world.unsubscribe("a")
    assert world.session is not None
    assert world.session.sent_nothing == {"b"}


@pytest.mark.req("SES-9", "SYN-7", "SYN-8")
@pytest.mark.parametrize(
    ("code", "said"), [(1000, "left"), (1001, "left"), (1005, "lost"), (1006, "lost"), (1012, "lost")]
)
def test_who_closed_in_order_has_left(code: int, said: str) -> None:
    """The state stays as long as the subscription, also after RECONNECT_GRACE and a restart. A new socket clears the state."""
    world = World()
    world.join("a", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.answer("a")
    world.disconnect("a", code=code)
    assert states(world) == {"a": said}
    world.wait(60)
    world.restart()
    assert states(world) == {"a": said}
    world.connect("a")
    assert states(world) == {"a": "in sync"}
    world.disconnect("a", code=1006)
    assert states(world) == {"a": "lost"}


@pytest.mark.req("SES-9", "OPS-3")
def test_nobody_leaves_by_a_restart_of_the_hub() -> None:
    """Who was connected when the hub's process died is to come back."""
    world = World()
    world.join("a", PATIENT)
    world.restart()
    assert states(world) == {"a": "lost"}


@pytest.mark.req("SES-3", "SES-8", "WHK-6")
def test_a_callback_has_a_state_too() -> None:
    """A webhook is in sync once it has answered a post. Its refusals are shown."""
    world = Hooked()
    world.subscribe("hook", PATIENT, callback="https://viewer.example/hook")
    world.settle(Connected("hook", "hook-hook"))
    assert states(world) == {"hook": "connected"}
    world.publish("Patient-open", patient("p1"))
    assert states(world) == {"hook": "does not acknowledge"}
    world.settle(Acknowledged("hook"))
    assert states(world) == {"hook": "in sync"}
    world.settle(Rejected("hook", "hook-hook", EventRef("e", "e", "Patient-open", "patient/p1"), 409))
    assert states(world) == {"hook": "refused Patient-open"}
