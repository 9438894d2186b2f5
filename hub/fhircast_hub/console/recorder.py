"""Recorder: the last events and SyncErrors of each session, for the operator's console (CSL-6).

Of an event the recorder keeps name, time, sender and number of subscribers, and nothing of its content. Of a SyncError
the recorder keeps the sentence: the hub's words, and a reason without words of the open contexts.
All of this is in memory, and goes with the session.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import structlog

from fhircast_hub.console.without_patients import REASON_SEARCH, OpenText, shown_name
from fhircast_hub.core.access.principal import Application, SessionKey
from fhircast_hub.core.access.topic_access import NO_OWNER
from fhircast_hub.core.rules.sync_errors import loss_words, refusal_words, silence_words
from fhircast_hub.core.rules.webhook_outbox import take_post
from fhircast_hub.core.state.commands import AcksTimedOut, Command, PostFinished, Publish, Rejected, Tick
from fhircast_hub.core.state.effects import Effect, Post, Send
from fhircast_hub.core.state.session import Outcome, Session, Subscription
from fhircast_hub.service.ports import Clock

#: Events and SyncErrors that are kept of one session.
EVENTS, PROBLEMS = 50, 20
#: Sessions that are kept. Beyond the limit, the session that was silent for longest is forgotten.
SESSIONS = 1000
#: Sessions that are kept of one user. Beyond the limit, that user's session that was silent for longest is forgotten.
OF_OWNER = SESSIONS // 10
_SYNC_ERROR = "SyncError"
_REFUSALS = range(400, 500)
_log = structlog.get_logger()


class SeenEvent(NamedTuple):
    """An event that was accepted."""

    #: Epoch seconds.
    at: float
    name: str
    #: The application that sent the event. None: another node took the event.
    sender: Application | None
    #: How many subscribers were told, the sender too.
    told: int


class SeenProblem(NamedTuple):
    """A subscriber that did not follow."""

    #: Epoch seconds.
    at: float
    #: Name of the event. "": no event was the cause.
    event: str
    #: Name of the subscriber, or the client where the contexts were too large for a search. See OpenText.name.
    subscriber: str
    #: The sentence of the SyncError. Where `is_named`, the subscriber's name comes before.
    words: str
    #: How many other subscribers were told.
    told: int
    is_named: bool = True
    #: The subscriber's client. "": no subscriber is to blame.
    client: str = ""


class _Seen:
    """What is kept of one session. A later session of the same topic has another owner, or was seen to begin."""

    __slots__ = ("events", "owner", "problems")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.events: deque[SeenEvent] = deque(maxlen=EVENTS)
        self.problems: deque[SeenProblem] = deque(maxlen=PROBLEMS)


class Recorder:
    """Takes what the service commits, and what the store hears of other nodes. `ack_timeout` is in seconds."""

    def __init__(self, clock: Clock, ack_timeout: float) -> None:
        self._clock = clock
        self._ack_timeout = ack_timeout
        self._held: OrderedDict[SessionKey, _Seen] = OrderedDict()
        #: Realm and owner -> the owner's sessions among these.
        self._owned: dict[tuple[str, str], OrderedDict[SessionKey, None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def of(self, key: SessionKey, session: Session) -> tuple[list[SeenEvent], list[SeenProblem]]:
        """The last events and SyncErrors of a session, the newest first."""
        seen = self._held.get(key)
        if seen is None or seen.owner != session.owner:
            return [], []
        return list(reversed(seen.events)), list(reversed(seen.problems))

    def last_event(self, key: SessionKey, owner: str) -> SeenEvent | None:
        """The last event of a session. None: this node has seen none."""
        seen = self._held.get(key)
        return seen.events[-1] if seen is not None and seen.owner == owner and seen.events else None

    def committed(self, key: SessionKey, command: Command, before: Session | None, outcome: Outcome) -> None:
        """A change of this node. See service.ports.Observe. A fault here stops no event."""
        try:
            self._record(key, command, before, outcome)
        except Exception as error:
            _log.error("console failed", exc_info=error)

    def heard(self, key: SessionKey, before: Session | None, after: Session | None, effects: Sequence[Effect]) -> None:
        """A change that another node committed. Without a session before, a new one begins. A fault here stops no event."""
        try:
            self._hear(key, before, after, effects)
        except Exception as error:
            _log.error("console failed", exc_info=error)

    def _record(self, key: SessionKey, command: Command, before: Session | None, outcome: Outcome) -> None:
        after = outcome.session
        if before is None or after is None:
            self._forget(key)
        if after is None:
            return
        if isinstance(command, Publish):
            event, effects = command.event, outcome.effects
            told = _told(effects, published=event.key)
            self._of(key, after).events.append(
                SeenEvent(self._clock(), shown_name(event.name), command.principal.application, told)
            )
            if event.key != "syncerror" and (len(effects) > 1 or (effects and not told)):
                self._add_problems(key, command, before, after, effects)
        elif effects := outcome.effects:
            if not self._add_problems(key, command, before, after, effects):
                self._add_untold(key, command, before, after)
        elif isinstance(command, Rejected | AcksTimedOut | PostFinished | Tick):
            self._add_untold(key, command, before, after)

    def _hear(self, key: SessionKey, before: Session | None, after: Session | None, effects: Sequence[Effect]) -> None:
        """Frames of the past for a new connection are no events."""
        if before is None or after is None:
            self._forget(key)
        if after is None:
            return
        known = {each.connection for each in before.subscriptions.values()} if before else set()
        told: dict[str, tuple[str, set[str]]] = {}
        for effect in effects:
            if isinstance(effect, Send) and effect.event_ref is not None and known.issuperset(effect.to):
                ref = effect.event_ref
                told.setdefault(ref.event, (ref.name, set()))[1].update(effect.to)
        for name, names in told.values():
            self._of(key, after).events.append(SeenEvent(self._clock(), shown_name(name), None, len(names)))

    def _of(self, key: SessionKey, session: Session) -> _Seen:
        held, seen = self._held, self._held.get(key)
        if seen is None or seen.owner != session.owner:
            self._forget(key)
            seen = held[key] = _Seen(session.owner)
            self._make_room(key.realm, session.owner)
        held.move_to_end(key)
        owned = self._owned.setdefault((key.realm, session.owner), OrderedDict())
        owned[key] = None
        owned.move_to_end(key)
        return seen

    def _make_room(self, realm: str, owner: str) -> None:
        """For one session more: at the cost of the owner's own sessions, else of those that were silent for longest."""
        owned = self._owned.get((realm, owner))
        if owned and len(owned) >= OF_OWNER and owner != NO_OWNER:
            self._forget(next(iter(owned)))
        if len(self._held) > SESSIONS:
            self._forget(next(iter(self._held)))

    def _forget(self, key: SessionKey) -> None:
        seen = self._held.pop(key, None)
        if seen is not None:
            owned = self._owned[key.realm, seen.owner]
            owned.pop(key, None)
            if not owned:
                del self._owned[key.realm, seen.owner]

    def _add(self, key: SessionKey, after: Session, text: OpenText, found: SeenProblem, reason: str) -> None:
        """Keep a problem. `text`: of the open contexts. `reason`: the subscriber's own words, at the end of the sentence."""
        words, start = found.words, f"{found.subscriber or 'unnamed'} "
        is_named = words.startswith(start)
        words = words.removeprefix(start)
        own = words.removesuffix(reason) if words.endswith(f": {reason}") else words
        shown = text.reason(reason) if own != words else ""
        name = text.name(found.subscriber)
        event = shown_name(found.event) if found.event else ""
        words = (own.replace(found.event, event) if event else own) + shown
        subscriber = found.client if name is None else name
        found = found._replace(subscriber=subscriber, event=event, words=words, is_named=is_named)
        self._of(key, after).problems.append(found)

    def _add_problems(
        self, key: SessionKey, command: Command, before: Session | None, after: Session, effects: Sequence[Effect]
    ) -> bool:
        """Keep the SyncErrors of the hub among the effects. Returns whether there were any."""
        problems = [each for each in effects if isinstance(each, Send) and _is_sync_error(each)]
        text = OpenText((before, after), REASON_SEARCH)
        for send in problems:
            words, event, name = _read(send.frame)
            client = _client_of(name, before, after)
            found = SeenProblem(self._clock(), event, name, words, len(send.to), client=client)
            self._add(key, after, text, found, _reason_of(command))
        return bool(problems)

    def _add_untold(self, key: SessionKey, command: Command, before: Session | None, after: Session) -> None:
        """Keep what would have been a SyncError, where nobody is subscribed to these."""
        text = OpenText((before, after), REASON_SEARCH)
        for event, subscription, words in _untold(command, before, after, self._ack_timeout) if before else ():
            found = SeenProblem(self._clock(), event, subscription.name, words, 0, client=subscription.client)
            self._add(key, after, text, found, _reason_of(command))


def _reason_of(command: Command) -> str:
    """What the subscriber wrote of a refusal."""
    return command.reason if isinstance(command, Rejected) else ""


def _client_of(name: str, *sessions: Session | None) -> str:
    """The client of the subscriber with this name."""
    subscriptions = (each for session in sessions if session for each in session.subscriptions.values())
    return next((each.client for each in subscriptions if each.name == name), "")


def _told(effects: Sequence[Effect], published: str) -> int:
    """How many subscribers were told of an event: sockets and callbacks."""
    if len(effects) == 1 and isinstance(send := effects[0], Send) and not _is_sync_error(send):
        return len(send.to)
    told: set[str] = set()
    for effect in effects:
        if isinstance(effect, Send) and (published == "syncerror" or not _is_sync_error(effect)):
            told.update(effect.to)
        elif isinstance(effect, Post):
            told.add(effect.subscription_id)
    return len(told)


def _is_sync_error(send: Send) -> bool:
    return send.event_ref is not None and send.event_ref.name == _SYNC_ERROR


class _Coding(msgspec.Struct):
    system: str
    code: str


class _Details(msgspec.Struct):
    coding: list[_Coding]


class _Issue(msgspec.Struct):
    diagnostics: str
    details: _Details


class _Resource(msgspec.Struct):
    issue: list[_Issue]


class _Item(msgspec.Struct):
    resource: _Resource


class _Body(msgspec.Struct):
    context: list[_Item]


class _Frame(msgspec.Struct):
    event: _Body


def _read(frame: bytes) -> tuple[str, str, str]:
    """Diagnostics, event name and subscriber of a SyncError that the hub made."""
    issue = msgspec.json.decode(frame, type=_Frame).event.context[0].resource.issue[0]
    codes = {coding.system.rpartition("/")[2]: coding.code for coding in issue.details.coding}
    event = codes.get("eventname", "")
    return issue.diagnostics, "" if event == "syncerror" else event, codes.get("subscribername", "")


def _untold(
    command: Command, before: Session, after: Session, ack_timeout: float
) -> Iterator[tuple[str, Subscription, str]]:
    """Event, subscription and sentence of each problem that the command reports."""
    subscriptions = before.subscriptions
    if isinstance(command, Rejected):
        if (found := subscriptions.get(command.subscription_id)) is not None:
            yield command.event_ref.name, found, refusal_words(found, command)
    elif isinstance(command, AcksTimedOut):
        for missed in command.missed:
            found = subscriptions.get(missed.subscription_id)
            if found is not None and found.connection == missed.connection:
                yield missed.event_ref.name, found, silence_words(found, missed.event_ref, ack_timeout)
    elif isinstance(command, PostFinished):
        post = take_post(before, command.number)[1]
        if post is not None and command.status // 100 != 2 and post.event_ref.reportable:
            found, event_ref, status = subscriptions[post.subscription_id], post.event_ref, command.status
            refusal = Rejected(found.subscription_id, found.connection, event_ref, status)
            refused = status in _REFUSALS
            words = refusal_words(found, refusal) if refused else silence_words(found, event_ref, ack_timeout, status)
            yield event_ref.name, found, words
    elif isinstance(command, Tick) and before.subscriptions is not after.subscriptions:
        for id_, found in subscriptions.items():
            later = after.subscriptions.get(id_)
            if later is not None and found.reconnect_deadline and not (later.reconnect_deadline or later.connection):
                yield "", found, loss_words(found)
