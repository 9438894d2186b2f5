"""The loop: load, decide, commit, and what was committed is done. No rule of FHIRcast lives here.

load(topic) -> decide -> commit(topic, revision) -> on conflict again
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar

import structlog

from fhircast_hub.audit.event import Act, AuditEntry, patients
from fhircast_hub.core.access.principal import Principal, SessionKey, check_scoped
from fhircast_hub.core.decide import decide
from fhircast_hub.core.env import Env, Ids
from fhircast_hub.core.errors import HubError, NotFound, TooMany
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules.administration import Participant, check_owned, participants
from fhircast_hub.core.rules.contexts import seen
from fhircast_hub.core.rules.missed_events import let_go
from fhircast_hub.core.rules.webhook_outbox import predecessors
from fhircast_hub.core.state.commands import (
    BeginSession,
    Command,
    Connected,
    EndSession,
    Evict,
    MakeRoom,
    Publish,
    Renew,
    Restarted,
    Subscribe,
    Tick,
)
from fhircast_hub.core.state.effects import Effect
from fhircast_hub.core.state.session import Outcome, Session, Subscription
from fhircast_hub.core.wire.event_names import Kind
from fhircast_hub.service.context_answers import Answers
from fhircast_hub.service.deadlines import Deadlines
from fhircast_hub.service.ports import Clock, Deliver, Log, SessionStore, Stale
from fhircast_hub.service.usage import RETRY_AFTER, Usage

_log = structlog.get_logger()

#: The request that is being answered, for the log lines of what it leads to.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
#: Seconds until something the hub owes itself (a lost socket, a deadline) is tried again when the store fails.
RETRY_SECONDS = 1.0
#: Seconds after which the deadlines are looked at in any case: the clock may have been set.
POLL_SECONDS = 30.0
#: Seconds that `stop` waits for what was begun.
STOP_SECONDS = 3.0
#: Sessions that are begun anew at the start, or are forgotten to make room, at a time.
TOGETHER = 64
#: What somebody asks for, and may be refused for want of bytes. All else makes less, or is the hub's own.
_REFUSABLE = Publish | Subscribe | Renew | BeginSession


class RandomIds:
    """Identifiers as the world has them."""

    def uuid(self) -> str:
        """A version 4 UUID."""
        return str(uuid.uuid4())


class Service:
    """Everything that happens to sessions goes through here. `log_hash` makes of a topic what may be logged of it."""

    def __init__(
        self,
        store: SessionStore,
        clock: Clock,
        ids: Ids,
        rules: Rules,
        usage: Usage,
        log_hash: Callable[[str], str],
        audit: Callable[[AuditEntry], None] = lambda entry: None,
        log: Log = _log,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._rules = rules
        self._log_hash = log_hash
        self._audit = audit
        self._log = log
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines = Deadlines()
        self._answers = Answers()
        self.usage = usage

    async def start(self, deliver: Deliver) -> None:
        """Open the store and take up every session where the last process left it."""
        await self._store.open(deliver)
        sessions = sorted(self._store.sessions(), key=lambda session: session.last_used_at)
        for session in sessions:
            self._index(_key(session), None, session)
        for start in range(0, len(sessions), TOGETHER):
            some = sessions[start : start + TOGETHER]
            await asyncio.gather(*(self.submit(_key(session), Restarted()) for session in some))
        if self.usage.bytes > self.usage.max_bytes:
            self._log.error("more bytes are held than may be, and no more are taken", bytes=self.usage.bytes)

    async def stop(self) -> None:
        """Finish what was begun, within a few seconds, and close the store."""
        self._disarm()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            for task in unfinished:
                task.cancel()
        self._disarm()  # what was finished may have set it anew
        await self._store.close()

    async def submit(self, key: SessionKey, command: Command) -> object:
        """Decide and commit; the reply. Raises what `decide` and the store raise: then nothing has changed.

        What is overdue comes first: a clock that was set, or a machine that slept, lets no lease live longer (LEA-4).
        """
        ticked = False
        while True:
            session, revision = await self._store.load(key)
            # But nobody is late because the hub was away (SUB-23).
            if self._overdue(session) and not ticked and not isinstance(command, Tick | Restarted):
                ticked = True
                await self.submit(key, Tick())
                continue
            outcome = self._decide(session, command)
            if outcome.session is session and not outcome.effects:
                return outcome.reply
            if isinstance(command, _REFUSABLE):
                fitting = await self._fitting(key, session, outcome, command)
                if fitting is None:
                    continue
                outcome = fitting
            try:
                await self._commit(key, revision, session, outcome.session, outcome.effects)
            except Stale:
                continue
            return outcome.reply

    async def subscribe(self, key: SessionKey, command: Subscribe) -> None:
        """Submit a Subscribe, within what its user may have in all sessions together (SUB-22)."""
        # What will be refused, or replaces one of its own, must not cost another subscription its place.
        while True:
            session, _ = await self._store.load(key)
            fitting = await self._fitting(key, session, self._decide(session, command), command)
            if fitting is not None:
                break
        after = fitting.session
        grows = after is not None and len(after.subscriptions) > (len(session.subscriptions) if session else 0)
        # A callback that subscribes again has its place already.
        if grows and after and not predecessors(after, after.subscriptions[command.subscription_id]):
            while (absent := self.usage.to_evict(key.realm, command.principal.application)) is not None:
                await self.submit(absent[0], Evict(absent[1]))
        await self.submit(key, command)

    async def connected(
        self, subscription_id: str, connection: str, delivered_until: float
    ) -> tuple[SessionKey, Subscription]:
        """A socket came for the endpoint whose digest is `subscription_id`; its session and subscription. Raises NotFound when there is none."""
        key = self.usage.find(subscription_id)
        if key is None:
            raise NotFound("there is no such endpoint")
        subscription = await self.submit(key, Connected(subscription_id, connection, delivered_until))
        assert isinstance(subscription, Subscription)
        return key, subscription

    async def subscriber(self, subscription_id: str) -> tuple[str, str]:
        """Whose subscription this is: realm, and Principal.subscriber. Raises NotFound when there is none."""
        if (key := self.usage.find(subscription_id)) is not None:
            session, _ = await self._store.load(key)
            if session is not None and (subscription := session.subscriptions.get(subscription_id)) is not None:
                return key.realm, subscription.subscriber
        raise NotFound("there is no such endpoint")

    async def find(self, realm: str, topics: Sequence[str]) -> SessionKey:
        """The first of these topics that has a session; where none has one, the first of all."""
        keys = [SessionKey(realm, topic) for topic in topics]
        for key in keys if len(keys) > 1 else ():
            session, _ = await self._store.load(key)
            if session is not None:
                return key
        return keys[0]

    async def session_for(self, realm: str, user: str, *, new: bool) -> tuple[str, bool]:
        """The topic of the user's live session that a system client began last, or of a new one; and whether it is new (SES-2)."""
        if not new and (made := self.usage.made_last(realm, user)) is not None:
            return made, False
        topic = self._ids.uuid()
        await self.submit(SessionKey(realm, topic), BeginSession(realm, topic, user))
        return topic, True

    async def participants(self, key: SessionKey, principal: Principal) -> list[Participant]:
        """See core.administration.participants."""
        session, _ = await self._store.load(key)
        return participants(session, principal)

    async def end_session(self, key: SessionKey) -> None:
        """End a session for its administrator. Raises NotFound where there is none, Conflict where nobody owns it."""
        session, _ = await self._store.load(key)
        if session is None:
            raise NotFound("expected the topic of a session, got another")
        check_owned(session)
        await self.submit(key, EndSession("the session was ended"))

    async def current_context(self, key: SessionKey, principal: Principal) -> tuple[bytes, tuple[str, ...]]:
        """The JSON answer to GET hub.url/{topic}, and the patients it is about; see core.context.seen for what it raises."""
        session, _ = await self._store.load(key)
        answer = self._answers.of(key, seen(session, principal, key.topic, self._rules))
        current = session.contexts.get(session.current) if session else None
        return answer, patients(current.ref, current.implied) if current else ()

    def check_scoped(self, principal: Principal) -> None:
        """See core.principal.check_scoped. A token that is over is told so first, by whatever it asks for (LEA-2)."""
        if principal.expires > self._clock():
            check_scoped(principal)

    def submit_soon(self, key: SessionKey, command: Command) -> None:
        """Submit what nobody waits for; again, later, for as long as the store fails."""
        self._spawn(self._insist(key, command))

    async def tick(self) -> None:
        """Do what was due by now."""
        for key in self._deadlines.due(self._clock()):
            try:
                await self.submit(key, Tick())
            except Exception as error:
                if not isinstance(error, HubError):
                    self._log.error("tick failed", topic=self._log_hash(key.topic), exc_info=error)
                self._deadlines.set(key, self._clock())  # due, and tried again when the timer is

    def _overdue(self, session: Session | None) -> bool:
        return session is not None and session.deadline is not None and session.deadline <= self._clock()

    def _decide(self, session: Session | None, command: Command) -> Outcome:
        return decide(session, command, Env(self._clock(), self._ids, self._rules))

    async def _fitting(
        self, key: SessionKey, session: Session | None, outcome: Outcome, command: Command
    ) -> Outcome | None:
        """The outcome, where there is room for it; None where room was made for another try.

        Raises TooMany (LIM-1), TooLarge or Unavailable (LIM-2).
        """
        after = outcome.session
        if session is None and after and not self.usage.may_begin(key.realm, after.owner):
            await self._make_room(key.realm, after.owner)
            return None
        closes = isinstance(command, Publish) and command.event.kind is Kind.CLOSE
        if closes and after and not self.usage.fits(key, session, after):
            outcome = Outcome(let_go(after), outcome.effects, outcome.reply)
        gone = self.usage.room(key, session, outcome.session, closes=closes, now=self._clock())
        if not gone:
            return outcome
        await asyncio.gather(*(self._forget(other, MakeRoom(at_once=True)) for other in gone[:TOGETHER]))
        return None

    async def _forget(self, key: SessionKey, command: MakeRoom) -> None:
        """Let a session go that nobody follows. One that the store does not have is counted no more."""
        await self.submit(key, command)
        session, _ = await self._store.load(key)
        if session is None:
            self._index(key, None, None)

    async def _make_room(self, realm: str, owner: str) -> None:
        """Let the user's session go that nobody uses for longest, if it is abandoned, or raise TooMany (LIM-1)."""
        if (key := self.usage.longest_unused(realm, owner)) is not None:
            await self._forget(key, MakeRoom())
        if not self.usage.may_begin(realm, owner):
            raise TooMany("this user has as many topics as one may have", retry_after=RETRY_AFTER)

    async def _commit(
        self, key: SessionKey, revision: int, before: Session | None, after: Session | None, effects: tuple[Effect, ...]
    ) -> None:
        self._index(key, before, after)
        try:
            await self._store.commit_and_deliver(key, revision, before, after, effects)
        except (Stale, HubError):
            now, _ = await self._store.load(key)
            self._index(key, after, now)
            raise
        if before is None or after is None or len(before.subscriptions) != len(after.subscriptions):
            self._report(key, before, after)

    def _report(self, key: SessionKey, before: Session | None, after: Session | None) -> None:
        event = "session begun" if before is None else "session forgotten" if after is None else "session changed"
        count = len(after.subscriptions) if after else 0
        topic = self._log_hash(key.topic)
        self._log.info(event, request_id=REQUEST_ID.get(), topic=topic, subscriptions=count)
        self._audit(AuditEntry(Act.SESSION, self._clock(), topic, reason=event))

    def _index(self, key: SessionKey, before: Session | None, after: Session | None) -> None:
        self.usage.follow(key, before, after)
        if before is None or after is None or before.contexts is not after.contexts or before.current != after.current:
            self._answers.forget(key)
        deadline = after.deadline if after else None
        if self._deadlines.set(key, deadline):
            self._arm()

    async def _insist(self, key: SessionKey, command: Command) -> None:
        while True:
            try:
                await self.submit(key, command)
            except HubError as error:
                if error.status < 500:
                    return
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                self._log.error("command failed", topic=self._log_hash(key.topic), exc_info=error)
                return
            else:
                return

    def _disarm(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None

    def _arm(self) -> None:
        """Set the one timer to the next deadline."""
        self._disarm()
        if (at := self._deadlines.next()) is not None:
            # What is overdue is so because the store failed: that is not tried again in haste.
            wait = at - self._clock()
            wait = min(wait, POLL_SECONDS) if wait > 0 else RETRY_SECONDS
            self._timer = asyncio.get_running_loop().call_later(wait, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._spawn(self._tick_and_arm())

    async def _tick_and_arm(self) -> None:
        REQUEST_ID.set(None)  # whichever request set the timer, this is not its doing
        await self.tick()
        self._arm()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _key(session: Session) -> SessionKey:
    return SessionKey(session.realm, session.topic)
