"""The loop through which every session changes: load, decide, commit and deliver.

1. `load` returns the session and its revision.
2. `decide` returns the new session and the effects. No rule of FHIRcast lives here.
3. `commit_and_deliver` stores the new session and delivers the effects, in one step.
4. The store raises Stale where another change was committed since `load`. The loop then begins again with the newer session.

Where nothing is to be committed (a refusal, a repeat, a read), `confirm` says whether the session was the newest one: another
node may have changed it.

Delivery is part of the commit because a session has one order (EVT-13). Two changes that are delivered after their commits could
overtake each other on the way to a socket.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence

from fhircast_hub.audit.event import patients
from fhircast_hub.core.access.principal import Principal, SessionKey
from fhircast_hub.core.access.scopes import check_scoped
from fhircast_hub.core.access.topic_access import check_owned
from fhircast_hub.core.decide import decide
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import HubError, NotFound, TooMany, Unavailable
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules.administration import Participant, participants
from fhircast_hub.core.rules.contexts import view_for
from fhircast_hub.core.rules.missed_events import drop_all
from fhircast_hub.core.rules.webhook_outbox import superseded
from fhircast_hub.core.state.commands import (
    BeginSession,
    Command,
    Connected,
    Disconnected,
    EndSession,
    Evict,
    MakeRoom,
    NodeLost,
    Publish,
    Renew,
    Restarted,
    Subscribe,
    Tick,
)
from fhircast_hub.core.state.session import Outcome, Session, Subscription
from fhircast_hub.core.wire.close_codes import ABNORMAL
from fhircast_hub.core.wire.event_names import Kind
from fhircast_hub.service.answer_cache import AnswerCache
from fhircast_hub.service.deadlines import Deadlines
from fhircast_hub.service.ports import Clock, Deliver, Observe, OverLimit, SessionStore, Stale, Usage
from fhircast_hub.service.request_id import REQUEST_ID
from fhircast_hub.service.session_log import SessionLog
from fhircast_hub.service.usage import RETRY_AFTER

#: Seconds until a command of the hub itself (a lost socket, a deadline) is tried again after a failure of the store.
RETRY_SECONDS = 1.0
#: Seconds between two checks of the deadlines, at most: the clock may have been set.
POLL_SECONDS = 30.0
#: Seconds that `stop` waits for unfinished commands.
STOP_SECONDS = 3.0
#: Sessions that are restarted, or forgotten to make room, at the same time.
TOGETHER = 64
#: Commands that come before the Tick of a deadline that has passed.
_GRANT_GRACE = (Tick, Restarted, NodeLost)
#: Times that a command is decided on, at most, while others change its session.
MOST_ATTEMPTS = 1000
#: The first status that tells of a failure of the hub.
_SERVER_ERROR = 500
#: Commands that are refused where a limit in bytes is reached. All others shrink the session, or are the hub's own.
_REFUSABLE = (Publish, Subscribe, Renew, BeginSession)


class _RandomIds:
    """Identifiers by chance."""

    def uuid(self) -> str:
        """A version 4 UUID (RFC 9562 section 5.4). The module uuid takes twice as long."""
        digits = os.urandom(16).hex()
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class Service:
    """Changes and reads sessions. Every change goes through `submit`."""

    def __init__(self, store: SessionStore, clock: Clock, rules: Rules, usage: Usage, log: SessionLog) -> None:
        self._store = store
        self._clock = clock
        self._ids = _RandomIds()
        self._rules = rules
        self._log = log
        self._timer: asyncio.TimerHandle | None = None
        #: Commands of the hub itself that are not finished.
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines = Deadlines()
        self._answers = AnswerCache()
        self.usage = usage
        #: Told of each committed change, in the order of the commits. None: nobody looks.
        self.observe: Observe | None = None

    async def start(self, deliver: Deliver) -> None:
        """Open the store, and submit Restarted to every session. `deliver` receives the effects of every commit."""
        await self._store.open(deliver, self._index)
        sessions = sorted(self._store.sessions(), key=lambda session: session.last_used_at)
        for session in sessions:
            self._index(_key(session), None, session)
        for start in range(0, len(sessions), TOGETHER):
            some = sessions[start : start + TOGETHER]
            await asyncio.gather(*(self.submit(_key(session), Restarted()) for session in some))
        if self.usage.bytes > self.usage.max_bytes:
            self._log.too_many_bytes(self.usage.bytes)

    async def stop(self) -> None:
        """Finish the hub's own commands, within STOP_SECONDS, and close the store."""
        self._cancel_timer()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            for task in unfinished:
                task.cancel()
        self._cancel_timer()  # the last commands may have set the timer again
        await self._store.close()

    async def submit(self, key: SessionKey, command: Command) -> object:
        """Decide on a command, commit and deliver. Returns the outcome's reply.

        Raises what `decide` and the store raise; nothing has changed then. A session whose deadline has passed is ticked first: a
        clock that was set, or a machine that slept, prolongs no lease (LEA-4).
        """
        ticked, checks = False, self.usage.checks_first
        refusable = isinstance(command, _REFUSABLE)
        for _ in range(MOST_ATTEMPTS):
            session, revision = await self._store.load(key)
            now = self._clock()
            # After a restart, Restarted comes first and grants the grace period (SUB-23). NodeLost comes first too: its posts
            # are older than those of the Tick, and must be carried out before them (NOD-3).
            if _is_overdue(session, now) and not ticked and not isinstance(command, _GRANT_GRACE):
                ticked = True
                await self.submit(key, Tick())
                continue
            try:
                outcome = self._decide(session, command, now)
                if outcome.session is session and not outcome.effects:
                    await self._store.confirm(key, revision)
                    return outcome.reply
                if checks and refusable and not self.usage.has_room(key, session, outcome.session):
                    allowed = await self._within_limits(key, session, outcome, command, now)
                    if allowed is None:
                        continue
                    outcome = allowed
                limits = self.usage.limits(outcome.session, closes=_closes(command)) if refusable else None
                await self._store.commit_and_deliver(key, revision, session, outcome.session, outcome.effects, limits)
            except Stale:
                continue
            except OverLimit:
                checks = True
                if isinstance(command, Subscribe):
                    await self._make_room_for(key, command)
                continue
            except HubError as error:
                if error.status < _SERVER_ERROR and not await self._is_newest(key, revision):
                    continue  # decided on an old session
                raise
            self._log_change(key, session, outcome.session)
            if self.observe is not None:
                self.observe(key, command, session, outcome)
            return outcome.reply
        raise Unavailable("too many others change this session; repeat the request", retry_after=1)

    async def subscribe(self, key: SessionKey, command: Subscribe) -> None:
        """Submit a Subscribe within its user's limit for all sessions together (SUB-22)."""
        # Decide first. A request that is refused, or replaces a subscription of its own, must not evict another subscription.
        while True:
            session, now = await self.session(key), self._clock()
            allowed = await self._within_limits(key, session, self._decide(session, command, now), command, now)
            if allowed is not None:
                break
        after = allowed.session
        grows = after is not None and len(after.subscriptions) > (len(session.subscriptions) if session else 0)
        # A callback that subscribes again has its place already.
        if grows and after and not superseded(after, after.subscriptions[command.subscription_id]):
            await self._make_room_for(key, command)
        await self.submit(key, command)

    async def _make_room_for(self, key: SessionKey, command: Subscribe) -> None:
        """Evict what must go before the application gets another subscription. Raises TooMany where nothing may go."""
        application = command.principal.application
        while (absent := await self.usage.subscription_to_evict(key.realm, application)) is not None:
            await self.submit(absent[0], Evict(absent[1]))

    async def connected(
        self, subscription_id: str, connection: str, delivered_until: float
    ) -> tuple[SessionKey, Subscription]:
        """Submit Connected. Returns the session and the subscription. Raises NotFound where there is no such subscription.

        Everything sent to an earlier socket before `delivered_until` (epoch seconds, 0: unknown) is known to have arrived.
        """
        key = await self.usage.session_of(subscription_id)
        if key is None:
            raise NotFound("there is no such endpoint")
        try:
            subscription = await self.submit(key, Connected(subscription_id, connection, delivered_until))
        except HubError as error:
            if error.status >= _SERVER_ERROR:  # the change may have been made, and the socket is refused
                self.submit_soon(key, Disconnected(subscription_id, connection, 0.0, ABNORMAL))
            raise
        assert isinstance(subscription, Subscription)
        return key, subscription

    async def subscriber(self, subscription_id: str) -> tuple[str, str]:
        """Realm and Principal.subscriber of a subscription. Raises NotFound where there is no such subscription."""
        if (key := await self.usage.session_of(subscription_id)) is not None:
            session = await self.session(key)
            if session is not None and (subscription := session.subscriptions.get(subscription_id)) is not None:
                return key.realm, subscription.subscriber
        raise NotFound("there is no such endpoint")

    async def find(self, realm: str, topics: Sequence[str]) -> SessionKey:
        """The first of these topics that has a session, else the first of all."""
        keys = [SessionKey(realm, topic) for topic in topics]
        for key in keys if len(keys) > 1 else ():
            if await self.session(key) is not None:
                return key
        return keys[0]

    async def session_for(self, realm: str, user: str, *, new: bool) -> tuple[str, bool]:
        """Topic of the session that a system client began last for the user, or of a new one. Whether it is new (SES-2)."""
        if not new and (last := await self.usage.last_begun_topic(realm, user)) is not None:
            return last, False
        topic = self._ids.uuid()
        await self.submit(SessionKey(realm, topic), BeginSession(realm, topic, user))
        return topic, True

    async def session(self, key: SessionKey) -> Session | None:
        """The session, as new as the last change that anybody was answered about. None: there is no session."""
        while True:
            session, revision = await self._store.load(key)
            if await self._is_newest(key, revision):
                return session

    async def participants(self, key: SessionKey, principal: Principal) -> list[Participant]:
        """See core.rules.administration.participants."""
        return participants(await self.session(key), principal)

    async def end_session(self, key: SessionKey) -> None:
        """End a session for its administrator. Raises NotFound where there is no session, Conflict where no user owns it."""
        session = await self.session(key)
        if session is None:
            raise NotFound("no session with this topic")
        check_owned(session.owner)
        await self.submit(key, EndSession("the session was ended"))

    async def current_context(self, key: SessionKey, principal: Principal) -> tuple[bytes, tuple[str, ...]]:
        """The JSON answer to GET hub.url/{topic}, and its patients. Raises what core.rules.contexts.view_for raises."""
        session = await self.session(key)
        answer = self._answers.get(key, view_for(session, principal, key.topic, self._rules))
        current = session.contexts.get(session.current) if session else None
        return answer, patients(current.ref, current.implied) if current else ()

    def check_scoped(self, principal: Principal) -> None:
        """See core.access.scopes.check_scoped. Expired tokens pass here: the request is refused for the expiry first (LEA-2)."""
        if principal.expires > self._clock():
            check_scoped(principal.scopes)

    def submit_soon(self, key: SessionKey, command: Command) -> asyncio.Task[None]:
        """Submit a command of the hub itself. The command is repeated while the store fails. The task ends when it is stored."""
        return self._spawn(self._submit_until_stored(key, command))

    async def tick(self) -> None:
        """Submit Tick to the sessions whose deadline has passed."""
        for key in self._deadlines.due(self._clock()):
            try:
                await self.submit(key, Tick())
            except Exception as error:
                if not isinstance(error, HubError):
                    self._log.tick_failed(key, error)
                if self._deadlines.set(key, self._clock()):  # still due: the timer tries again
                    self._set_timer()

    async def _is_newest(self, key: SessionKey, revision: int) -> bool:
        try:
            await self._store.confirm(key, revision)
        except Stale:
            return False
        return True

    def _decide(self, session: Session | None, command: Command, now: float) -> Outcome:
        return decide(session, command, Env(now, self._ids, self._rules, self._store.node))

    async def _within_limits(
        self, key: SessionKey, session: Session | None, outcome: Outcome, command: Command, now: float
    ) -> Outcome | None:
        """The outcome, if it is within all limits. None: other sessions were forgotten to make room, so decide again.

        Raises TooMany (LIM-1), TooLarge or Unavailable (LIM-2).
        """
        after = outcome.session
        if session is None and after and not await self.usage.may_begin_session(key.realm, after.owner):
            await self._forget_longest_idle(key.realm, after.owner)
            return None
        closes = _closes(command)
        if closes and after and not await self.usage.is_within_limits(key, session, after):
            outcome = Outcome(drop_all(after), outcome.effects, outcome.reply)
        idle = await self.usage.sessions_to_forget(key, session, outcome.session, closes=closes, now=now)
        if not idle:
            return outcome
        await asyncio.gather(*(self._forget(other, MakeRoom(at_once=True)) for other in idle[:TOGETHER]))
        return None

    async def _forget(self, key: SessionKey, command: MakeRoom) -> None:
        """Forget a session without subscriptions. A session that the store does not have is not counted any more."""
        await self.submit(key, command)
        session, _ = await self._store.load(key)
        if session is None:
            self._index(key, None, None)

    async def _forget_longest_idle(self, realm: str, owner: str) -> None:
        """Forget the user's longest idle session, if SESSION_TTL has passed. Raises TooMany where the user gets no room (LIM-1)."""
        if (key := await self.usage.longest_idle(realm, owner)) is not None:
            await self._forget(key, MakeRoom())
        if not await self.usage.may_begin_session(realm, owner):
            raise TooMany("this user has as many topics as a user may have", retry_after=RETRY_AFTER)

    def _log_change(self, key: SessionKey, before: Session | None, after: Session | None) -> None:
        if before is None or after is None or len(before.subscriptions) != len(after.subscriptions):
            self._log.changed(key, before, after)

    def _index(self, key: SessionKey, before: Session | None, after: Session | None) -> None:
        """Update `usage`, answers and deadlines. The store calls this whenever `load` returns another session."""
        self.usage.update(key, before, after)
        if before is None or after is None or before.contexts is not after.contexts or before.current != after.current:
            self._answers.forget(key)
        if self._deadlines.set(key, after.deadline if after else None):
            self._set_timer()

    async def _submit_until_stored(self, key: SessionKey, command: Command) -> None:
        while True:
            try:
                await self.submit(key, command)
            except HubError as error:
                if error.status < 500:
                    return
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                self._log.command_failed(key, error)
                return
            else:
                return

    def _cancel_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None

    def _set_timer(self) -> None:
        """Set the timer to the next deadline of all sessions."""
        self._cancel_timer()
        if (at := self._deadlines.next()) is not None:
            # A deadline in the past was tried before, and the store failed: wait before the next try.
            wait = at - self._clock()
            wait = min(wait, POLL_SECONDS) if wait > 0 else RETRY_SECONDS
            self._timer = asyncio.get_running_loop().call_later(wait, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._spawn(self._tick_and_set_timer())

    async def _tick_and_set_timer(self) -> None:
        REQUEST_ID.set(None)  # the timer runs in the context of the request that set it
        await self.tick()
        self._set_timer()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _closes(command: Command) -> bool:
    return isinstance(command, Publish) and command.event.kind is Kind.CLOSE


def _is_overdue(session: Session | None, now: float) -> bool:
    return session is not None and session.deadline is not None and session.deadline <= now


def _key(session: Session) -> SessionKey:
    return SessionKey(session.realm, session.topic)
