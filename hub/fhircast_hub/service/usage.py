"""What each user has, in all sessions together, and which session each endpoint is of."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from fhircast_hub.core.access.principal import CLAIMED, Application, SessionKey
from fhircast_hub.core.errors import HubError, TooLarge, TooMany, Unavailable
from fhircast_hub.core.state.session import Session, Subscription
from fhircast_hub.core.wire.callback_url import origin_of
from fhircast_hub.service.weights import growth
from fhircast_hub.telemetry.metrics import Metrics

#: Seconds after which a user over a limit may have room again.
RETRY_AFTER = 60
#: Bytes of a user's sessions, unless a setting says otherwise (LIM-2).
MAX_USER_BYTES = 64 << 20
#: The last part of the hub's bytes is for users who have no more bytes than these: a few large ones lock nobody out.
SMALL, SMALL_PART = 1 << 20, 8
#: Seconds after which a session that nobody follows may go for anybody's.
ABANDONED = 86400
#: What closes may take beyond a limit, as a part of it: they make room in the end.
CLOSES_PART = 8


class _Account(NamedTuple):
    """Whose bytes these are: a user's, or those of a session that no user owns."""

    realm: str
    owner: str
    topic: str = ""


class _Unfollowed:
    """The bytes of sessions that have no subscription, the longest unused first."""

    def __init__(self) -> None:
        self.weights: OrderedDict[SessionKey, int] = OrderedDict()
        self.bytes = 0

    def put(self, key: SessionKey, weight: int | None) -> None:
        """It was used just now; None takes it out."""
        self.bytes -= self.weights.pop(key, 0)
        if weight is not None:
            self.weights[key] = weight
            self.bytes += weight

    def oldest(self, size: int, may_go: Callable[[SessionKey], bool]) -> list[SessionKey]:
        """The longest unused of those that may go, which have so many bytes together; none where all together have fewer."""
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
    """One account's sessions: `made` are those that a system client began, by topic, and when."""

    def __init__(self) -> None:
        self.topics: set[str] = set()
        self.made: dict[str, float] = {}
        self.bytes = 0
        self.unfollowed = _Unfollowed()


class Usage:
    """Counts by user; kept in step with every committed change of a session. Limits in bytes are of the process's memory."""

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
        self.max_bytes = max_bytes
        self._metrics = metrics or Metrics()
        self._sessions: dict[str, SessionKey] = {}
        self._subscriptions: dict[tuple[str, str], dict[str, Subscription]] = {}
        self._owners: dict[_Account, _Owner] = {}
        self._weighed: dict[SessionKey, tuple[Session, int]] = {}
        self._unfollowed = _Unfollowed()
        self._grown: tuple[Session | None, Session | None, int] = (None, None, 0)  # what was found last
        self.bytes = 0

    @property
    def subscriptions(self) -> int:
        """How many there are."""
        return len(self._sessions)

    @property
    def topics(self) -> int:
        """How many sessions there are."""
        return len(self._weighed)

    def find(self, subscription_id: str) -> SessionKey | None:
        """The session that the subscription `subscription_id` is of."""
        return self._sessions.get(subscription_id)

    def may_begin(self, realm: str, owner: str) -> bool:
        """Whether this user may own one session more (LIM-1)."""
        return owner == CLAIMED or len(self._owner(_Account(realm, owner)).topics) < self._max_topics

    def longest_unused(self, realm: str, owner: str) -> SessionKey | None:
        """The session of this user that nobody follows, for longest."""
        return next(iter(self._owner(_Account(realm, owner)).unfollowed.weights), None)

    def made_last(self, realm: str, owner: str) -> str | None:
        """The topic of the user's session that a system client began last (SES-2)."""
        made = self._owner(_Account(realm, owner)).made
        return max(made, key=lambda topic: (made[topic], topic)) if made else None

    def fits(self, key: SessionKey, before: Session | None, after: Session | None, *, closes: bool = False) -> bool:
        """Whether a session may become `after`: also where other sessions must go for it, and always where it does not grow."""
        return after is None or self._shortage(key, self._growth(before, after), after, closes) is None

    def room(
        self,
        key: SessionKey,
        before: Session | None,
        after: Session | None,
        *,
        closes: bool = False,
        now: float = 0.0,
    ) -> list[SessionKey]:
        """The sessions that are to go so that one may become `after` (LIM-2): nobody follows them, and they are unused for longest.

        For the hub's bytes only those go that are the user's own, that are of a user with more than SMALL, or that nobody has used for
        ABANDONED seconds: nobody loses a patient because somebody else has many. `now` is in epoch seconds. Raises TooLarge where the user has too many bytes, Unavailable where the hub has.
        """
        grown = self._growth(before, after)
        if after is None or (short := self._shortage(key, grown, after, closes)) is None:
            return []
        unfollowed, size = short
        mine = _account(key, after)

        def may_go(other: SessionKey) -> bool:
            session = self._weighed[other][0]
            owner = _account(other, session)
            large = self._owner(owner).bytes > SMALL
            return other != key and (owner == mine or large or session.last_used_at < now - ABANDONED)

        if gone := unfollowed.oldest(size, may_go):
            return gone
        raise self._refused(key, after, grown, unfollowed is self._unfollowed)

    def to_evict(self, realm: str, application: Application) -> tuple[SessionKey, str] | None:
        """None if this application's user may have one subscription more; else which of the application's own is to be evicted first:
        it has no socket, for longest.

        Raises TooMany when all of them have one (SUB-22).
        """
        owned = self._subscriptions.get((realm, application.subscriber), {})
        if len(owned) < self._max_subscriptions:
            return None
        absent = [each for each in owned.values() if not each.connection and each.application == application]
        if not absent:
            raise TooMany(f"this user has {len(owned)} subscriptions, as many as one may have", retry_after=RETRY_AFTER)
        subscription_id = min(absent, key=lambda subscription: subscription.connected_or_lost_at).subscription_id
        return self._sessions[subscription_id], subscription_id

    def has_agreed(self, realm: str, application: Application, place: str) -> bool:
        """Whether a callback of this application at this place (core.wire.callback_url.origin_of) was verified, and its lease runs (WHK-13)."""
        owned = self._subscriptions.get((realm, application.subscriber), {}).values()
        verified = (
            each for each in owned if each.callback and not each.never_connected and each.application == application
        )
        return any(origin_of(each.callback) == place for each in verified)

    def follow(self, key: SessionKey, before: Session | None, after: Session | None) -> None:
        """A session changed from `before` to `after`."""
        self._weigh(key, after)
        old = before.subscriptions if before else {}
        new = after.subscriptions if after else {}
        if old is new:
            return
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

    def _owner(self, account: _Account) -> _Owner:
        return self._owners.get(account) or _Owner()

    def _shortage(self, key: SessionKey, grown: int, after: Session, closes: bool) -> tuple[_Unfollowed, int] | None:
        """How many bytes are missing, and of which sessions some may go for them; None where none are."""
        if grown <= 0:
            return None
        owner = self._owner(_account(key, after))
        user_limit, hub_limit = self._max_user_bytes, self.max_bytes
        if closes:
            user_limit, hub_limit = user_limit + user_limit // CLOSES_PART, hub_limit + hub_limit // CLOSES_PART
        elif owner.bytes + grown > SMALL:
            hub_limit -= hub_limit // SMALL_PART
        if owner.bytes + grown > user_limit:
            return owner.unfollowed, owner.bytes + grown - user_limit
        return (self._unfollowed, self.bytes + grown - hub_limit) if self.bytes + grown > hub_limit else None

    def _refused(self, key: SessionKey, after: Session, grown: int, by_hub: bool) -> HubError:
        if by_hub:
            self._metrics.refused_by_hub_bytes.inc()
            return Unavailable("the sessions of this hub hold as many bytes as they may", retry_after=RETRY_AFTER)
        self._metrics.refused_by_user_bytes.inc()
        held = self._owner(_account(key, after)).bytes
        whose = "all sessions of this user" if after.owner != CLAIMED else "a session that no user owns"
        return TooLarge(
            f"expected at most {self._max_user_bytes} bytes in {whose}, got {held + grown}, of which {held} are held already;"
            " close contexts or end sessions"
        )

    def _growth(self, before: Session | None, after: Session | None) -> int:
        """See weights.growth: a change is asked about twice, before its commit and after."""
        if self._grown[0] is not before or self._grown[1] is not after:
            self._grown = before, after, growth(before, after)
        return self._grown[2]

    def _weigh(self, key: SessionKey, after: Session | None) -> None:
        last, weight = self._weighed.get(key, (None, 0))
        grown = self._growth(last, after)
        if last and after and last.subscriptions and after.subscriptions and last.owner == after.owner:
            # Nearly every change is one of these: only the bytes differ.
            self._weighed[key] = after, weight + grown
            self._owners[_account(key, after)].bytes += grown
            self.bytes += grown
            return
        if last is not None:
            self._leave(key, last, weight)
        weight += grown
        if after is None:
            self._weighed.pop(key, None)
            self._unfollowed.put(key, None)
            return
        self._weighed[key] = after, weight
        self.bytes += weight
        owner = self._owners.setdefault(_account(key, after), _Owner())
        owner.topics.add(key.topic)
        owner.bytes += weight
        if after.created_at:
            owner.made[key.topic] = after.created_at
        unused = None if after.subscriptions else weight
        owner.unfollowed.put(key, unused)
        self._unfollowed.put(key, unused)

    def _leave(self, key: SessionKey, last: Session, weight: int) -> None:
        account = _account(key, last)
        owner = self._owners[account]
        self.bytes -= weight
        owner.bytes -= weight
        owner.topics.discard(key.topic)
        owner.made.pop(key.topic, None)
        owner.unfollowed.put(key, None)
        if not owner.topics:
            del self._owners[account]


def _account(key: SessionKey, session: Session) -> _Account:
    return _Account(key.realm, session.owner, key.topic if session.owner == CLAIMED else "")
