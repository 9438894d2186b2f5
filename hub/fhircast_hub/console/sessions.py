"""The sessions that the console shows: a list, and one of them with participants, events and SyncErrors (CSL-3).

Nothing of a context is here but how many are open.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fhircast_hub.console.paced import Paced
from fhircast_hub.console.recorder import Recorder, SeenEvent, SeenProblem
from fhircast_hub.console.scans import Scans
from fhircast_hub.console.without_patients import NAME_SEARCH, OpenText, shown_name
from fhircast_hub.core.access.principal import Application, Principal, SessionKey
from fhircast_hub.core.access.topic_access import NO_OWNER, check_topic_claim
from fhircast_hub.core.errors import NotFound, TooMany
from fhircast_hub.core.rules.administration import state
from fhircast_hub.core.rules.nodes import node_of
from fhircast_hub.core.state.commands import EndSession
from fhircast_hub.core.state.session import Queue, Session, Subscription
from fhircast_hub.service.service import Service
from fhircast_hub.service.session_list import SessionList, SessionRow, Wanted
from fhircast_hub.telemetry.keyed_hash import user_hash

#: Sessions in a list, and seconds between two looks at the store.
ROWS, SECONDS = 200, 1.0
#: Lists that are kept: each realm and search has one.
LISTS = 64
#: Topics whose hashes are kept.
TOPICS = 1000
#: Users whose hashes are kept.
USERS = 10_000
_REFUSED = "refused "

Part = dict[str, Any]
_List = tuple[list[SessionRow], int]


@dataclass(kw_only=True, eq=False)
class Sessions:
    """Lists, shows and ends sessions for operators. An operator reaches the sessions of the token's realm (CSL-2)."""

    service: Service
    listed: SessionList
    scans: Scans
    recorder: Recorder
    #: When a subscription acknowledged last, in epoch seconds. None: never, or not on this node.
    acknowledged_at: Callable[[str], float | None]
    #: Frames and bytes that wait in a socket, by the name of the connection. None: the socket is not of this node.
    queued_of: Callable[[str], tuple[int, int] | None]
    #: The name of this node. "": the hub is one process.
    node: Callable[[], str]
    #: Makes a topic or a user fit for logs.
    log_hash: Callable[[str], str]
    _lists: OrderedDict[Wanted, Paced[_List]] = field(default_factory=OrderedDict)
    #: What was made of these lists, by search. Streams share them until the store is looked at again.
    _shown: OrderedDict[tuple[str, frozenset[str] | None, str], tuple[_List, Part]] = field(default_factory=OrderedDict)
    #: Users by realm and hash, as far as they were shown.
    _users: OrderedDict[tuple[str, str], str] = field(default_factory=OrderedDict)
    #: Realm and hash of sessions that were shown, with their topics.
    _topics: OrderedDict[tuple[str, str], str] = field(default_factory=OrderedDict)

    async def list(self, operator: Principal, text: str = "") -> Part:
        """The operator's sessions, those used last first. `text`: see Wanted. Raises TooMany or Unavailable."""
        name = self._users.get((operator.realm, text), text)
        found = await self._list_of(operator, name)
        asked = operator.realm, operator.topics, text
        shown = self._shown.get(asked)
        if shown is None or shown[0] is not found:
            for row in found[0]:  # one of them may be chosen: that costs no search then
                self._remember(operator.realm, row.topic)
            rows = [self._row(operator.realm, row) for row in found[0]]
            shown = self._shown[asked] = found, {"search": text, "total": found[1], "rows": rows}
            self._shown.move_to_end(asked)
            if len(self._shown) > LISTS:
                self._shown.popitem(last=False)
        return shown[1]

    async def find(self, operator: Principal, name: str) -> SessionKey:
        """The session whose topic has this hash. Raises NotFound, Forbidden, TooMany or Unavailable."""
        known = operator.realm, name
        if (topic := self._topics.get(known)) is not None and self.log_hash(topic) == name:
            check_topic_claim(operator, topic)
            return SessionKey(operator.realm, topic)
        rows, _ = await self._list_of(operator, name)
        for row in rows:
            if self.log_hash(row.topic) == name:
                self._remember(operator.realm, row.topic)
                return SessionKey(operator.realm, row.topic)
        raise NotFound("no session with this hash")

    async def show(self, key: SessionKey) -> Part:
        """One session, with all that operators may see of it. Raises NotFound or Unavailable."""
        session = await self.service.session(key)
        if session is None:
            raise NotFound("no session with this topic")
        events, problems = self.recorder.of(key, session)
        names = OpenText((session,), NAME_SEARCH)
        return {
            "topic": key.topic,
            "hash": self.log_hash(key.topic),
            "user": self._user(key.realm, session.owner),
            "lastUsedAt": session.last_used_at,
            "openContexts": len(session.contexts),
            "participants": [self._participant(session, names, each) for each in session.subscriptions.values()],
            "events": [_event(session, names, each) for each in events],
            "problems": [_problem(names, each) for each in problems],
        }

    async def end(self, operator: Principal, topic: str) -> None:
        """End a session as DELETE /sessions/{topic} does. Raises NotFound, Forbidden or Unavailable.

        A session that no user owns is ended too: an operator acts for no user.
        """
        check_topic_claim(operator, topic)
        key = SessionKey(operator.realm, topic)
        if await self.service.session(key) is None:
            raise NotFound("no session with this topic")
        await self.service.submit(key, EndSession("the session was ended"))

    async def _list_of(self, operator: Principal, text: str) -> _List:
        wanted = Wanted(operator.realm, operator.topics, text)
        paced = self._lists.pop(wanted, None) or Paced(partial(self.listed.newest, wanted, ROWS), SECONDS)
        self._lists[wanted] = paced
        if len(self._lists) > LISTS:
            self._lists.popitem(last=False)[1].cancel()
        try:
            return await paced.get(self.scans.turn(operator))
        except TooMany:  # an operator's many searches leave no trace, and drop no list of others
            if self._lists.get(wanted) is paced:
                del self._lists[wanted]
            raise

    def _remember(self, realm: str, topic: str) -> None:
        known = realm, self.log_hash(topic)
        self._topics.pop(known, None)
        self._topics[known] = topic
        if len(self._topics) > TOPICS:
            self._topics.popitem(last=False)

    def _row(self, realm: str, row: SessionRow) -> Part:
        session = row.session
        last = self.recorder.last_event(SessionKey(realm, row.topic), row.owner)
        states = Counter(_state(session, each)["state"] for each in session.subscriptions.values()) if session else None
        return {
            "topic": row.topic,
            "hash": self.log_hash(row.topic),
            "user": self._user(realm, row.owner),
            "lastUsedAt": max(row.last_used_at, last.at if last else 0.0),
            "subscribers": row.subscriptions,
            "states": states,
            "lastEvent": {"name": last.name, "at": last.at} if last else None,
        }

    def _user(self, realm: str, owner: str) -> str:
        """The hash of a user, by which the user's sessions are found from now on."""
        if owner == NO_OWNER:
            return ""
        found = user_hash(self.log_hash, realm, f"user:{owner}")
        self._users[realm, found] = owner
        self._users.move_to_end((realm, found))
        if len(self._users) > USERS:
            self._users.popitem(last=False)
        return found

    def _participant(self, session: Session, names: OpenText, subscription: Subscription) -> Part:
        if subscription.callback:
            queue = session.outbox.get(subscription.subscription_id, Queue())
            waiting: tuple[int, int] | None = len(queue.posts), queue.size
        else:
            waiting = self.queued_of(subscription.connection)
        return {
            "id": subscription.subscription_id[:12],
            "name": _shown(names, subscription.name, subscription.client),
            "client": subscription.client,
            "user": user_hash(self.log_hash, session.realm, subscription.subscriber),
            "channel": "webhook" if subscription.callback else "websocket",
            "node": node_of(subscription.connection) if self.node() else "",
            "waiting": waiting and {"messages": waiting[0], "bytes": waiting[1]},
            **_state(session, subscription),
            "since": subscription.connected_or_lost_at,
            "acknowledgedAt": self.acknowledged_at(subscription.subscription_id),
            "expires": subscription.expires,
            "events": [shown_name(name) for name in subscription.events],
        }


def _event(session: Session, names: OpenText, event: SeenEvent) -> Part:
    sender = event.sender
    return {
        "at": event.at,
        "name": event.name,
        "sender": _shown(names, _name_of(session, sender), sender.client) if sender else None,
        "told": event.told,
    }


def _problem(names: OpenText, problem: SeenProblem) -> Part:
    subscriber = _shown(names, problem.subscriber, problem.client)
    words = f"{subscriber or 'unnamed'} {problem.words}" if problem.is_named else problem.words
    return {
        "at": problem.at,
        "event": problem.event,
        "subscriber": subscriber,
        "words": words,
        "told": problem.told,
    }


def _shown(names: OpenText, name: str, client: str) -> str:
    """The name without patients. The client, where the contexts are too large for a search."""
    shown = names.name(name) if name != client else name
    return client if shown is None else shown


def _state(session: Session, subscription: Subscription) -> Part:
    """The state in words (SES-7), and the event that was refused."""
    words = state(session, subscription)
    if words.startswith(_REFUSED):
        return {"state": "refused", "refused": shown_name(words.removeprefix(_REFUSED))}
    return {"state": words}


def _name_of(session: Session, sender: Application) -> str:
    """The name of the sender's subscription, else its client."""
    names = (each.name for each in session.subscriptions.values() if each.application == sender and each.name)
    return next(names, sender.client)
