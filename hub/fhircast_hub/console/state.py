"""The state that the console shows: the hub, its issuers, nodes and budgets (CSL-4). console/sessions.py has the sessions.

No number here names a patient. Users are keyed hashes, as in the log.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol

from fhircast_hub.auth.issuer_health import IssuerHealth
from fhircast_hub.budgets.accounts import Accounts
from fhircast_hub.console.paced import Paced
from fhircast_hub.core.errors import HubError
from fhircast_hub.http.rate_limit import Rates
from fhircast_hub.service.ports import Clock, Usage
from fhircast_hub.service.session_list import Node, Owner, SessionList
from fhircast_hub.telemetry.keyed_hash import user_hash
from fhircast_hub.telemetry.metrics import Metrics

#: A budget is near its limit from this part on.
NEAR = 0.5
#: Accounts and buckets that are looked at: those used last. Each costs some microseconds.
LOOKED_AT = 500
#: Users with the most bytes that are shown, and seconds between two looks at them and at the nodes.
LARGEST, SECONDS = 10, 2.0
#: Seconds for which the parts are shared.
TOGETHER = 0.5

#: Before the name of a user in Principal.subscriber.
_USER = "user:"

Part = dict[str, Any]


class Sockets(Sized, Protocol):
    """The open sockets."""

    def queued(self) -> tuple[int, int]:
        """Frames and bytes that wait in all sockets."""
        ...


class Callbacks(Protocol):
    """The callbacks of webhooks."""

    def queued(self) -> int:
        """Posts that wait."""
        ...

    def verifications(self) -> int:
        """Callbacks that are asked whether they want their subscription."""
        ...


class Issuers(Protocol):
    """The issuers whose tokens count."""

    def health(self) -> list[IssuerHealth]:
        """What happened with each issuer so far."""
        ...

    def without_keys(self) -> list[str]:
        """The issuers whose keys are not known yet."""
        ...


@dataclass(kw_only=True, eq=False)
class Limits:
    """Limits of the settings, for the console to show beside what is used."""

    user_bytes: int
    user_topics: int
    user_subscriptions: int


@dataclass(kw_only=True, eq=False)
class HubState:
    """What the hub knows of itself."""

    version: str
    hub_url: str
    #: The name of this node. "": the hub is one process.
    node: Callable[[], str]
    #: The number of this worker and of all, from 1 on. None: the hub has no workers.
    worker: tuple[int, int] | None
    clock: Clock
    metrics: Metrics
    usage: Usage
    sockets: Sockets
    callbacks: Callbacks
    #: The open streams of this console.
    streams: Sized
    issuers: Issuers
    accounts: Accounts
    rates: Rates
    limits: Limits
    log_hash: Callable[[str], str]
    sessions: SessionList
    #: When the hub started, in epoch seconds.
    started_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.started_at = self.clock()
        self._secret = secrets.token_hex(16)
        self._parts = Paced(self._look, TOGETHER)
        #: The newest parts, and what operators of a realm see of them.
        self._shown: dict[str, tuple[dict[str, Part], dict[str, Part]]] = {}
        self._nodes: Paced[list[Node]] = Paced(self.sessions.nodes, SECONDS)
        self._largest: Paced[list[Owner]] = Paced(lambda: self.sessions.largest(LARGEST), SECONDS)

    async def parts(self, realm: str) -> dict[str, Part]:
        """All parts for operators of a realm, by name. Streams that ask at about the same time share one answer."""
        parts = await self._parts.get()
        held, shown = self._shown.get(realm, (None, parts))
        if held is not parts:
            shown = parts | {"budgets": self._of_realm(realm, parts["budgets"])}
            self._shown[realm] = parts, shown
        return shown

    def _of_realm(self, realm: str, budgets: Part) -> Part:
        """Users of this realm have their hash. Others have a name that tells nothing and leads nowhere."""
        shown = dict(budgets)
        for name in ("users", "largest"):
            shown[name] = [each | self._user(realm, *each["user"]) for each in budgets[name]]
        return shown

    def _user(self, realm: str, of: str, subscriber: str) -> Part:
        """A user of the realm `of`, as operators of `realm` see one. `isFound`: a search of sessions finds those of the user."""
        is_own = of == realm
        name = user_hash(self.log_hash, of if is_own else f"{self._secret}{of}", subscriber)
        return {"user": name, "realm": of, "isFound": is_own and subscriber.startswith(_USER)}

    async def _look(self) -> dict[str, Part]:
        """Between two parts, other requests run. The store is asked for both of its parts at the same time."""
        hub = self._hub()
        await asyncio.sleep(0)
        issuers: Part = {"issuers": self._issuers()}
        await asyncio.sleep(0)
        nodes, budgets = await asyncio.gather(self._shown_nodes(), self._budgets())
        return {"hub": hub, "issuers": issuers, "nodes": nodes, "budgets": budgets}

    def _hub(self) -> Part:
        metrics, usage, (messages, size) = self.metrics, self.usage, self.sockets.queued()
        return {
            "version": self.version,
            "url": self.hub_url,
            "node": self.node(),
            "worker": self.worker and {"number": self.worker[0], "total": self.worker[1]},
            "startedAt": self.started_at,
            "sockets": len(self.sockets),
            "queuedMessages": messages,
            "queuedBytes": size,
            "queuedPosts": self.callbacks.queued(),
            "questions": self.callbacks.verifications(),
            "sessions": usage.topics,
            "subscriptions": usage.subscriptions,
            "bytes": usage.bytes,
            "maxBytes": usage.max_bytes,
            "streams": len(self.streams),
            "requests": metrics.requests_by_route(),
            **{name: count.value for name, count in self._counts().items()},
        }

    def _counts(self) -> dict[str, Any]:
        metrics = self.metrics
        return {
            "eventsReceived": metrics.events_in,
            "eventsSent": metrics.events_out,
            "refusals": metrics.refusals,
            "unanswered": metrics.unanswered,
            "postsFailed": metrics.posts_failed,
            "slowReadersClosed": metrics.slow_readers_closed,
            "auditLost": metrics.audit_lost,
        }

    def _issuers(self) -> list[Part]:
        without_keys = frozenset(self.issuers.without_keys())
        return [
            {
                "issuer": each.issuer,
                "keys": each.keys,
                "keysAt": each.keys_at,
                "keysMissing": each.issuer in without_keys,
                "requests": each.requests,
                "failures": each.failures,
                "failure": each.failure,
                "failedAt": each.failed_at if each.failure else None,
            }
            for each in self.issuers.health()
        ]

    async def _shown_nodes(self) -> Part:
        try:
            nodes = await self._nodes.get()
        except HubError:
            return {"nodes": [], "own": self.node(), "unavailable": True}
        shown = [
            {
                "name": each.name,
                "release": each.release,
                "startedAt": each.started_at,
                "seenAt": each.seen_at,
                "dead": each.dead,
                "sessions": each.sessions,
                "sockets": len(self.sockets) if each.name == self.node() else None,
            }
            for each in nodes
        ]
        return {"nodes": shown, "own": self.node()}

    async def _budgets(self) -> Part:
        tokens, addresses = self.rates.near(NEAR, LOOKED_AT)
        await asyncio.sleep(0)
        part: Part = {
            "perToken": self.rates.per_token,
            "perAddress": self.rates.per_address,
            "tokensNear": tokens,
            "addressesNear": addresses,
            "near": NEAR,
            "users": self._busy_users(),
            "maxBytes": self.limits.user_bytes,
            "maxTopics": self.limits.user_topics,
            "maxSubscriptions": self.limits.user_subscriptions,
        }
        try:
            part["largest"] = [
                {"user": (each.realm, f"{_USER}{each.owner}"), "sessions": each.sessions, "bytes": each.bytes}
                for each in await self._largest.get()
            ]
        except HubError:
            part |= {"largest": [], "unavailable": True}
        return part

    def _busy_users(self) -> list[Part]:
        """Users near or beyond a budget: realm and name, and the used part of each budget in steps of a hundredth."""
        found = []
        for realm, subscriber, account in self.accounts.recent(LOOKED_AT):
            used = account.used()
            if max(used.values()) >= NEAR:
                rounded = {name: round(part, 2) for name, part in used.items() if part >= 0.01}
                found.append({"user": (realm, subscriber), "used": rounded})
        return found
