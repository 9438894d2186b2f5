"""LocalUsage: what each user has in all sessions together, where one process has them all. Also the session of each endpoint."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from fhircast_hub.core.access.principal import Application, SessionKey
from fhircast_hub.core.access.topic_access import NO_OWNER
from fhircast_hub.core.errors import HubError, TooLarge, TooMany, Unavailable
from fhircast_hub.core.state.session import Session, Subscription
from fhircast_hub.core.wire.callback_url import origin_of
from fhircast_hub.service.ports import Limits
from fhircast_hub.service.session_list import Owner
from fhircast_hub.service.weights import growth
from fhircast_hub.telemetry.metrics import Metrics

#: Seconds after which a user over a limit may have room again.
RETRY_AFTER = 60
#: Bytes of a user's sessions, unless a setting says otherwise (LIM-2).
MAX_USER_BYTES = 64 << 20
#: Bytes of a small user's sessions.
SMALL = 1 << 20
#: The last eighth of the hub's bytes is for small users: a few large ones lock nobody out.
SMALL_PART = 8
#: Seconds without use after which any user's session without subscriptions may be forgotten for another user's.
ABANDONED = 86400
#: Closes may exceed each limit by an eighth: they make room in the end.
CLOSES_PART = 8


class _OwnerKey(NamedTuple):
    """Identifies an owner of sessions: a user, or one session that no user owns."""

    realm: str
    #: The user, or NO_OWNER.
    owner: str
    #: The session's topic where no user owns it, else "".
    topic: str = ""


class _IdleSessions:
    """Sessions without subscriptions, the longest unused first."""

    def __init__(self) -> None:
        #: Session -> its bytes.
        self.weights: OrderedDict[SessionKey, int] = OrderedDict()
        #: Bytes of all of them.
        self.bytes = 0

    def put(self, key: SessionKey, weight: int | None) -> None:
        """Add a session that was used just now, with its bytes. None: remove the session."""
        self.bytes -= self.weights.pop(key, 0)
        if weight is not None:
            self.weights[key] = weight
            self.bytes += weight

    def oldest(self, size: int, may_go: Callable[[SessionKey], bool]) -> list[SessionKey]:
        """The longest unused sessions that `may_go`, with `size` bytes together. Empty where all of them have fewer bytes."""
        found: list[SessionKey] = []
        if self.bytes < size:
            return found
        for key, weight in self.weights.items():
            if may_go(key):
                found.append(key)
                size -= weight
                if size <= 0:
                    return found
        return []


class _Owner:
    """The sessions of one owner."""

    def __init__(self) -> None:
        self.topics: set[str] = set()
        #: Topic of a session that a system client began -> when, in epoch seconds.
        self.begun: dict[str, float] = {}
        #: Bytes of all sessions.
        self.bytes = 0
        self.idle = _IdleSessions()


class _Counted:
    """A session as it was counted last."""

    __slots__ = ("bytes", "owner", "session")

    def __init__(self, session: Session, size: int, owner: _Owner) -> None:
        self.session = session
        self.bytes = size
        self.owner = owner


class LocalUsage:
    """Counts sessions, subscriptions and bytes by user. `update` is called for every change of a session.

    Limits in bytes are of the process's memory (service/weights.py). The methods are those of service.ports.Usage.
    """

    checks_first = True

    def __init__(
        self,
        max_subscriptions: int,
        max_topics: int,
        max_user_bytes: int = MAX_USER_BYTES,
        max_bytes: int = sys.maxsize,
        metrics: Metrics | None = None,
    ) -> None:
        self._max_subscriptions = max_subscriptions
        self._max_topics = max_topics
        self._max_user_bytes = max_user_bytes
        #: Bytes that all sessions may have.
        self.max_bytes = max_bytes
        self._metrics = metrics or Metrics()
        #: subscription_id -> its session.
        self._sessions: dict[str, SessionKey] = {}
        #: Realm and Principal.subscriber -> subscriptions by id.
        self._subscriptions: dict[tuple[str, str], dict[str, Subscription]] = {}
        self._owners: dict[_OwnerKey, _Owner] = {}
        self._counted: dict[SessionKey, _Counted] = {}
        self._idle = _IdleSessions()
        #: Arguments and result of the last call of weights.growth.
        self._last_growth: tuple[Session | None, Session | None, int] = (None, None, 0)
        #: Bytes that all sessions have.
        self.bytes = 0

    @property
    def subscriptions(self) -> int:
        """Number of subscriptions."""
        return len(self._sessions)

    @property
    def topics(self) -> int:
        """Number of sessions."""
        return len(self._counted)

    def owners(self) -> Iterator[Owner]:
        """The users who have sessions now."""
        held = list(self._owners.items())
        return (Owner(key.realm, key.owner, len(each.topics), each.bytes) for key, each in held if key.owner)

    def limits(self, after: Session | None, *, closes: bool) -> Limits | None:
        """None: limits are checked before a commit, because this process alone has all sessions."""
        return None

    def find(self, subscription_id: str) -> SessionKey | None:
        """The session of a subscription. None: there is no such subscription."""
        return self._sessions.get(subscription_id)

    async def session_of(self, subscription_id: str) -> SessionKey | None:
        """As `find`, for this process has all sessions."""
        return self.find(subscription_id)

    async def may_begin_session(self, realm: str, owner: str) -> bool:
        """Whether the user may own one more session (LIM-1)."""
        return owner == NO_OWNER or len(self._owner(_OwnerKey(realm, owner)).topics) < self._max_topics

    async def longest_idle(self, realm: str, owner: str) -> SessionKey | None:
        """The user's session without subscriptions that is unused for longest."""
        return next(iter(self._owner(_OwnerKey(realm, owner)).idle.weights), None)

    async def last_begun_topic(self, realm: str, owner: str) -> str | None:
        """The topic of the user's session that a system client began last (SES-2). None: there is none."""
        begun = self._owner(_OwnerKey(realm, owner)).begun
        return max(begun, key=lambda topic: (begun[topic], topic)) if begun else None

    def has_room(self, key: SessionKey, before: Session | None, after: Session | None) -> bool:
        """Whether the change from `before` to `after` surely exceeds no limit, whatever makes the change. See service.ports.Usage."""
        return (
            before is not None and after is not None and self._shortage(key, self._growth(before, after), after) is None
        )

    async def is_within_limits(
        self, key: SessionKey, before: Session | None, after: Session | None, *, closes: bool = False
    ) -> bool:
        """Whether the change from `before` to `after` exceeds no limit in bytes. A change that does not grow is always within.

        `closes` is whether a close makes the change.
        """
        return after is None or self._shortage(key, self._growth(before, after), after, closes) is None

    async def sessions_to_forget(
        self,
        key: SessionKey,
        before: Session | None,
        after: Session | None,
        *,
        closes: bool = False,
        now: float = 0.0,
    ) -> list[SessionKey]:
        """Other sessions to forget so that the change from `before` to `after` is within the limits in bytes (LIM-2).

        They have no subscriptions, and are unused for longest. `closes` is whether a close makes the change. `now` is in epoch
        seconds. Raises TooLarge for the user's limit, Unavailable for the hub's.
        """
        grown = self._growth(before, after)
        if after is None or (shortage := self._shortage(key, grown, after, closes)) is None:
            return []
        idle, size = shortage
        own = _owner_key(key, after)
        if found := idle.oldest(size, lambda other: other != key and self._may_be_forgotten(other, own, now)):
            return found
        raise self._limit_error(key, after, grown, by_hub=idle is self._idle)

    def _may_be_forgotten(self, key: SessionKey, own: _OwnerKey, now: float) -> bool:
        """Whether an idle session may be forgotten for a session of the owner `own`.

        Allowed: a session of the same owner, of an owner with more than SMALL bytes, or unused for ABANDONED seconds. So a small
        user loses no patient because others have many.
        """
        session = self._counted[key].session
        owner = _owner_key(key, session)
        return owner == own or self._owner(owner).bytes > SMALL or session.last_used_at < now - ABANDONED

    async def subscription_to_evict(self, realm: str, application: Application) -> tuple[SessionKey, str] | None:
        """The session and id of the subscription that must go before `application` gets another one. None: the user has room.

        Of the application's own subscriptions without a connection, the longest absent goes first. Raises TooMany where all of
        them are connected (SUB-22).
        """
        owned = self._subscriptions.get((realm, application.subscriber), {})
        if len(owned) < self._max_subscriptions:
            return None
        absent = [each for each in owned.values() if not each.connection and each.application == application]
        if not absent:
            raise too_many_subscriptions(len(owned))
        subscription_id = min(absent, key=lambda subscription: subscription.connected_or_lost_at).subscription_id
        return self._sessions[subscription_id], subscription_id

    async def has_verified_callback(self, realm: str, application: Application, place: str) -> bool:
        """Whether the application has a verified callback at this place (wire.callback_url.origin_of; WHK-13)."""
        owned = self._subscriptions.get((realm, application.subscriber), {}).values()
        verified = (
            each for each in owned if each.callback and not each.never_connected and each.application == application
        )
        return any(origin_of(each.callback) == place for each in verified)

    def update(self, key: SessionKey, before: Session | None, after: Session | None) -> None:
        """Count a session's change from `before` to `after`. None: there is no session."""
        self._weigh(key, after)
        if before is None or after is None or before.subscriptions is not after.subscriptions:
            self._count_subscriptions(key, before.subscriptions if before else {}, after.subscriptions if after else {})

    def _count_subscriptions(
        self, key: SessionKey, old: Mapping[str, Subscription], new: Mapping[str, Subscription]
    ) -> None:
        for subscription_id in old.keys() - new.keys():
            owner = key.realm, old[subscription_id].subscriber
            self._sessions.pop(subscription_id, None)
            self._subscriptions.get(owner, {}).pop(subscription_id, None)
            if not self._subscriptions.get(owner):
                self._subscriptions.pop(owner, None)
        for subscription_id, subscription in new.items():
            if old.get(subscription_id) is not subscription:
                self._sessions[subscription_id] = key
                self._subscriptions.setdefault((key.realm, subscription.subscriber), {})[subscription_id] = subscription

    def _owner(self, key: _OwnerKey) -> _Owner:
        return self._owners.get(key) or _Owner()

    def _owner_of(self, key: SessionKey, session: Session) -> _Owner:
        counted = self._counted.get(key)
        if counted is not None and counted.session.owner == session.owner:
            return counted.owner
        return self._owner(_owner_key(key, session))

    def _shortage(
        self, key: SessionKey, grown: int, after: Session, closes: bool = False
    ) -> tuple[_IdleSessions, int] | None:
        """The idle sessions that may be forgotten, and the bytes that are missing. None: the limits are kept."""
        if grown <= 0:
            return None
        owner = self._owner_of(key, after)
        user_limit, hub_limit = self._max_user_bytes, self.max_bytes
        if closes:
            user_limit, hub_limit = widened(user_limit), widened(hub_limit)
        elif owner.bytes + grown > SMALL:
            hub_limit -= hub_limit // SMALL_PART
        if owner.bytes + grown > user_limit:
            return owner.idle, owner.bytes + grown - user_limit
        return (self._idle, self.bytes + grown - hub_limit) if self.bytes + grown > hub_limit else None

    def _limit_error(self, key: SessionKey, after: Session, grown: int, *, by_hub: bool) -> HubError:
        if by_hub:
            return hub_is_full(self._metrics)
        return too_large(self._max_user_bytes, self._owner_of(key, after).bytes, grown, after, self._metrics)

    def _growth(self, before: Session | None, after: Session | None) -> int:
        """weights.growth, which is needed twice for each change: for its limits, and to count it."""
        if self._last_growth[0] is not before or self._last_growth[1] is not after:
            self._last_growth = before, after, growth(before, after)
        return self._last_growth[2]

    def _weigh(self, key: SessionKey, after: Session | None) -> None:
        """Count the bytes of a session that is `after` from now on."""
        counted = self._counted.get(key)
        last = counted.session if counted is not None else None
        grown = self._growth(last, after)
        if counted and last and after and last.subscriptions and after.subscriptions and last.owner == after.owner:
            # Nearly every change is such a change: only the bytes differ.
            counted.session = after
            counted.bytes += grown
            counted.owner.bytes += grown
            self.bytes += grown
            return
        weight = grown
        if counted is not None:
            weight += counted.bytes
            self._uncount(key, counted)
        if after is None:
            self._idle.put(key, None)
            return
        owner = self._owners.setdefault(_owner_key(key, after), _Owner())
        self._counted[key] = _Counted(after, weight, owner)
        self.bytes += weight
        owner.topics.add(key.topic)
        owner.bytes += weight
        if after.created_at:
            owner.begun[key.topic] = after.created_at
        idle = None if after.subscriptions else weight
        owner.idle.put(key, idle)
        self._idle.put(key, idle)

    def _uncount(self, key: SessionKey, counted: _Counted) -> None:
        owner = counted.owner
        del self._counted[key]
        self.bytes -= counted.bytes
        owner.bytes -= counted.bytes
        owner.topics.discard(key.topic)
        owner.begun.pop(key.topic, None)
        owner.idle.put(key, None)
        if not owner.topics:
            del self._owners[_owner_key(key, counted.session)]


def widened(limit: int) -> int:
    """The limit in bytes for a close, which makes room in the end."""
    return limit + limit // CLOSES_PART


def too_large(most: int, held: int, grown: int, after: Session, metrics: Metrics) -> HubError:
    """The counted refusal of a change that exceeds its owner's bytes: `held` before the change, which adds `grown`."""
    metrics.refused_by_user_bytes.inc()
    whose = "all sessions of this user" if after.owner != NO_OWNER else "a session that no user owns"
    return TooLarge(
        f"{whose} may have at most {most} bytes, and would have {held + grown},"
        f" of which {held} are held already; close contexts or end sessions"
    )


def hub_is_full(metrics: Metrics) -> HubError:
    """The counted refusal of a change that exceeds the bytes of all sessions."""
    metrics.refused_by_hub_bytes.inc()
    return Unavailable("the sessions of this hub hold as many bytes as they may", retry_after=RETRY_AFTER)


def too_many_subscriptions(count: int) -> HubError:
    """The refusal of one more subscription (SUB-22)."""
    return TooMany(f"this user has {count} subscriptions, as many as a user may have", retry_after=RETRY_AFTER)


def _owner_key(key: SessionKey, session: Session) -> _OwnerKey:
    return _OwnerKey(key.realm, session.owner, key.topic if session.owner == NO_OWNER else "")
