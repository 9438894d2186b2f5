"""What each user has, in all sessions together, and which session each endpoint is of."""

from __future__ import annotations

from fhircast_hub.core.callbacks import place_of
from fhircast_hub.core.errors import TooMany
from fhircast_hub.core.principal import CLAIMED, Application, SessionKey
from fhircast_hub.core.session import Session, Subscription

#: Seconds after which a user over a limit may have room again.
RETRY_AFTER = 60


class Usage:
    """Counts by user; kept in step with every committed change of a session."""

    def __init__(self, max_subscriptions: int, max_topics: int) -> None:
        self._max_subscriptions = max_subscriptions
        self._max_topics = max_topics
        self._sessions: dict[str, SessionKey] = {}
        self._subscriptions: dict[tuple[str, str], dict[str, Subscription]] = {}
        self._topics: dict[tuple[str, str], set[str]] = {}

    @property
    def subscriptions(self) -> int:
        """How many there are."""
        return len(self._sessions)

    @property
    def topics(self) -> int:
        """How many sessions there are."""
        return sum(map(len, self._topics.values()))

    def find(self, sid: str) -> SessionKey | None:
        """The session that the subscription `sid` is of."""
        return self._sessions.get(sid)

    def may_begin(self, realm: str, owner: str) -> bool:
        """Whether this user may own one session more (LIM-1)."""
        return owner == CLAIMED or len(self._topics.get((realm, owner), ())) < self._max_topics

    def owned(self, realm: str, owner: str) -> list[SessionKey]:
        """The sessions that this user owns."""
        return [SessionKey(realm, topic) for topic in self._topics.get((realm, owner), ())]

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
        sid = min(absent, key=lambda subscription: subscription.since).sid
        return self._sessions[sid], sid

    def has_agreed(self, realm: str, application: Application, place: str) -> bool:
        """Whether a callback of this application at this place (core.callbacks.place_of) was verified, and its lease runs (WHK-13)."""
        owned = self._subscriptions.get((realm, application.subscriber), {}).values()
        verified = (each for each in owned if each.callback and not each.fresh and each.application == application)
        return any(place_of(each.callback) == place for each in verified)

    def follow(self, key: SessionKey, before: Session | None, after: Session | None) -> None:
        """A session changed from `before` to `after`."""
        was, now = before.owner if before else None, after.owner if after else None
        if was != now:
            if was is not None:
                _discard(self._topics, (key.realm, was), key.topic)
            if now is not None:
                self._topics.setdefault((key.realm, now), set()).add(key.topic)
        old = before.subscriptions if before else {}
        new = after.subscriptions if after else {}
        for sid in old.keys() - new.keys():
            owner = key.realm, old[sid].subscriber
            self._sessions.pop(sid, None)
            self._subscriptions.get(owner, {}).pop(sid, None)
            if not self._subscriptions.get(owner):
                self._subscriptions.pop(owner, None)
        for sid, subscription in new.items():
            if old.get(sid) is not subscription:
                self._sessions[sid] = key
                self._subscriptions.setdefault((key.realm, subscription.subscriber), {})[sid] = subscription


def _discard(sets: dict[tuple[str, str], set[str]], key: tuple[str, str], item: str) -> None:
    if (found := sets.get(key)) is not None:
        found.discard(item)
        if not found:
            del sets[key]
