"""A hub inside of another program, without a server: for the tests of applications (CLT-27).

The same code as in a served hub accepts, refuses and answers. Sessions stay in memory. The caller names the application of
each request and gives the clock: no token is read. There are no webhooks and no session API.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import structlog

from fhircast_hub.acknowledgements.timer import AckTimer
from fhircast_hub.acknowledgements.tracker import AckTracker, Policy
from fhircast_hub.budgets.accounts import Accounts
from fhircast_hub.budgets.turns import Turns
from fhircast_hub.core.access.principal import Principal, SessionKey
from fhircast_hub.core.access.scopes import ANY, Scopes
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.state.commands import Unsubscribe
from fhircast_hub.core.state.effects import Effect
from fhircast_hub.core.state.session import Session, Subscription
from fhircast_hub.edge.endpoints import Endpoints
from fhircast_hub.http.exchange import EXCHANGE, Exchange
from fhircast_hub.http.hub import HubApi
from fhircast_hub.http.request import Receive, Scope, Send
from fhircast_hub.service.ports import Clock
from fhircast_hub.service.service import Service
from fhircast_hub.service.session_log import SessionLog
from fhircast_hub.service.usage import LocalUsage
from fhircast_hub.storage.memory import MemoryStore
from fhircast_hub.telemetry.metrics import Metrics
from fhircast_hub.ws.handshake_audit import HandshakeAudit
from fhircast_hub.ws.registry import Registry
from fhircast_hub.ws.services import SocketServices
from fhircast_hub.ws.socket import HubSocket

#: Defaults of settings that are no rules of the core. tests/test_local.py compares them with the settings.
ACK_POLICY = Policy.LENIENT
PING_SECONDS = 15
QUEUE_BYTES, QUEUE_MESSAGES = 1 << 20, 256
MAX_BODY = 1 << 20
MAX_SUBSCRIPTIONS, MAX_TOPICS = 256, 1000

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_REALM, _USER = "local", "user"
_ALL_SCOPES = Scopes(frozenset((ANY,)), frozenset((ANY,)))
#: Tests of an application need no log of requests and sessions, but warnings and errors of the hub.
_WARNINGS: Any = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger("warning"))


class LocalHub:
    """A hub with one session, `topic`, of one user. `url` is hub.url.

    `filter_effects` gets the effects of each commit, and returns those to perform.
    """

    def __init__(
        self,
        url: str,
        topic: str,
        clock: Clock,
        rules: Rules,
        filter_effects: Callable[[Sequence[Effect]], Sequence[Effect]],
    ) -> None:
        self._url, self._path = url, urlsplit(url).path
        self._key, self._filter_effects = SessionKey(_REALM, topic), filter_effects
        self._started, self._max_entries = False, rules.max_entries
        self._metrics, self._store = Metrics(), MemoryStore()
        self._endpoints = Endpoints("ws" + url.removeprefix("http"), self._path)
        usage = LocalUsage(MAX_SUBSCRIPTIONS, MAX_TOPICS, metrics=self._metrics)
        self._service = Service(self._store, clock, rules, usage, SessionLog(_no_hash, clock, log=_WARNINGS))
        tracker = AckTracker(ACK_POLICY, rules.ack_timeout)
        self._ack_timer = AckTimer(self._service, tracker, clock, self._metrics)
        self._registry = Registry(self._ack_timer, self._metrics, lambda effect: None)
        self._sockets = self._make_sockets(clock)
        self._connections: set[HubSocket] = set()

    def _make_sockets(self, clock: Clock) -> SocketServices:
        return SocketServices(
            service=self._service,
            ack_timer=self._ack_timer,
            registry=self._registry,
            resolve=self._endpoints.resolve,
            log_hash=_no_hash,
            request_ids=map(str, itertools.count(1)),
            clock=clock,
            metrics=self._metrics,
            accounts=Accounts(),
            turns=Turns(),
            handshake_wait=lambda address: 0.0,
            queue_bytes=QUEUE_BYTES,
            queue_messages=QUEUE_MESSAGES,
            ping_seconds=PING_SECONDS,
            handshake_audit=HandshakeAudit(lambda entry: None, lambda peer, forwarded: peer, clock),
            log=_WARNINGS,
        )

    @property
    def session(self) -> Session | None:
        """The present session. None: no session has begun."""
        return next((one for one in self._store.sessions() if one.topic == self._key.topic), None)

    def subscriptions(self, client: str | None = None) -> list[Subscription]:
        """The subscriptions of the application `client`, or of all applications, oldest first."""
        found = self.session.subscriptions.values() if self.session else ()
        return [one for one in found if client in (None, one.client)]

    def api(self, client: str) -> Application:
        """The ASGI application under hub.url, for requests of the application `client`."""
        api = self._make_api(self._principal(client))

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await self._start()
            scope[EXCHANGE] = Exchange("", "", lambda seconds: None)
            await api(scope, receive, send)

        return answer

    def _make_api(self, principal: Principal) -> HubApi:
        return HubApi(
            service=self._service,
            verifier=_AnyToken(principal),
            endpoints=self._endpoints,
            hub_url=self._url,
            path=self._path,
            max_body=MAX_BODY,
            max_entries=self._max_entries,
            fhir_version=None,
            metrics=self._metrics,
            accounts=Accounts(),
            turns=Turns(),
            log_hash=_no_hash,
            callbacks=None,
            watch=lambda subscription_id, key, token: None,
            anonymous=principal,
        )

    def socket(self) -> HubSocket:
        """The hub's protocol for a new WebSocket. A loop must run."""
        return HubSocket(self._sockets, self._connections)

    def send(self, effects: Sequence[Effect]) -> None:
        """Perform effects that no command has made."""
        self._registry.deliver(effects)

    def end(self, subscription: Subscription, reason: str) -> None:
        """End a subscription soon. Its socket gets a denial with the reason."""
        principal = self._principal(subscription.client)
        command = Unsubscribe(principal, self._key.topic, subscription.subscription_id, reason=reason)
        self._service.submit_soon(self._key, command)

    def leave(self) -> None:
        """Close every socket as a hub that stops."""
        for connection in list(self._connections):
            connection.shutdown()

    async def stop(self) -> None:
        """Finish the running work and drop the session. The caller closes the transports of sockets before."""
        self._ack_timer.stop()
        await self._service.stop()

    async def _start(self) -> None:
        if not self._started:
            self._started = True
            await self._service.start(lambda effects: self._registry.deliver(self._filter_effects(effects)))

    def _principal(self, client: str) -> Principal:
        return Principal(
            realm=_REALM,
            user=_USER,
            client=client,
            scopes=_ALL_SCOPES,
            expires=math.inf,
            topics=frozenset((self._key.topic,)),
        )


class _AnyToken:
    """A TokenVerifier that accepts any token as this principal's."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    async def verify(self, token: str) -> Principal:
        """See ports.TokenVerifier."""
        return self._principal

    def recall(self, token: str) -> Principal | None:
        """See ports.TokenVerifier."""
        return self._principal


def _no_hash(topic: str) -> str:
    """Topics are not logged."""
    return ""
