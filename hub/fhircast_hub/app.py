"""Builds a hub from its parts. Only this module and local.py name concrete classes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import secrets
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import httpx
import structlog
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from fhircast_hub.acknowledgements.timer import AckTimer
from fhircast_hub.acknowledgements.tracker import AckTracker, Policy
from fhircast_hub.audit.sink import Auditor, make_sink
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.verifier import Verifier
from fhircast_hub.budgets.accounts import Accounts
from fhircast_hub.budgets.turns import Turns, turn_key
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Unauthenticated
from fhircast_hub.edge.client_addresses import ClientAddresses
from fhircast_hub.edge.endpoints import Endpoints
from fhircast_hub.edge.names_of_2018 import LegacyNames
from fhircast_hub.http.direct import DirectWay
from fhircast_hub.http.health import health_routes
from fhircast_hub.http.hub import HubApi
from fhircast_hub.http.posting import post
from fhircast_hub.http.rate_limit import RateLimit, Rates
from fhircast_hub.http.request import Headers as RawHeaders
from fhircast_hub.http.request import Receive, Scope, Send, bearer_token
from fhircast_hub.http.request_log import RequestLog
from fhircast_hub.http.root import ROOT_PATHS, root_app
from fhircast_hub.http.sessions import SessionApi
from fhircast_hub.nodes import Duties
from fhircast_hub.service.ports import Clock, SessionStore, Usage
from fhircast_hub.service.revocation import Revocation
from fhircast_hub.service.service import Service
from fhircast_hub.service.session_log import SessionLog
from fhircast_hub.service.usage import LocalUsage
from fhircast_hub.settings.outbound_proxies import ProxiedTransport, UnusableCertificates
from fhircast_hub.settings.serving import store_password
from fhircast_hub.settings.settings import Settings, SettingsError
from fhircast_hub.storage.memory import MemoryStore
from fhircast_hub.storage.sqlite import SqliteStore
from fhircast_hub.telemetry.gathering import Gathering
from fhircast_hub.telemetry.logs import KeyedHash
from fhircast_hub.telemetry.metrics import Metrics
from fhircast_hub.webhook.address_guard import Guard
from fhircast_hub.webhook.client import Client
from fhircast_hub.webhook.deliver import FOR_EVER, Webhooks
from fhircast_hub.webhook.sealing import Sealer
from fhircast_hub.webhook.verify import CallbackVerifier
from fhircast_hub.workers import Worker
from fhircast_hub.ws.handshake_audit import HandshakeAudit
from fhircast_hub.ws.legacy import LegacySocket
from fhircast_hub.ws.registry import Registry
from fhircast_hub.ws.services import SocketServices
from fhircast_hub.ws.socket import HubSocket

if TYPE_CHECKING:
    from fhircast_hub.postgresql.parts import SharedParts

_log = structlog.get_logger()
#: Hosts that never need a proxy.
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _request_ids() -> Iterator[str]:
    """Unique ids: random digits of the process and a number."""
    process = secrets.token_hex(3)
    return (f"{process}-{number}" for number in itertools.count(1))


class Hub:
    """One hub: an ASGI application, and a factory of WebSocket protocols for uvicorn (socket()).

    `anonymous` is the principal of requests without a token. Only `dev --legacy` sets it; otherwise a token is required.
    `worker`: the process is one of several workers, whose metrics are shown together.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        anonymous: Principal | None = None,
        clock: Clock = time.time,
        worker: Worker | None = None,
    ) -> None:
        self._settings = settings
        self._shared = shared_parts(settings, clock)
        self._clock = self._shared.clock if self._shared else clock
        clock = self._clock
        self._path = settings.hub_path
        self._ready = False
        #: The reason why the hub did not start, in one line for the operator.
        self.failure = ""
        self._log_hash, self._request_ids = KeyedHash(), _request_ids()
        self.metrics, self.turns = Metrics(worker.number if worker else None), Turns()
        render = self.metrics.render
        self._gathering = Gathering(render, worker.folder, worker.number, worker.total) if worker else None
        self.accounts = Accounts(settings.max_body_bytes)
        self.addresses = ClientAddresses(settings.trusted_proxies)
        self._outbound = ProxiedTransport(_LOOPBACK)
        self._client = httpx.AsyncClient(transport=self._outbound)
        self.audit = Auditor(make_sink(settings.audit, self._client), settings.public_url, self.metrics)
        self._verifier = Verifier(_issuers(settings), self._client, clock, allow_insecure=settings.allow_insecure)
        self._store, self.service = self._make_service()
        self._revocation = Revocation(self.service, self._verifier)
        tracker = AckTracker(Policy(settings.ack_policy), settings.ack_timeout)
        self.ack_timer = AckTimer(self.service, tracker, clock, self.metrics)
        self._webhooks = self._make_webhooks()
        self.registry = Registry(self.ack_timer, self.metrics, self._webhooks.handle, lambda: self._store.node)
        self._duties = self._make_duties()
        self._legacy = LegacyNames() if anonymous else None
        self._endpoints = Endpoints(settings.ws_base, self._path, legacy=anonymous is not None)
        self.rates = Rates(settings.rate_limit_token, settings.rate_limit_address, clock, self._is_system)
        self.sockets = self._make_sockets()
        self._make_http(anonymous)
        self._set_gauges()

    def _make_service(self) -> tuple[SessionStore, Service]:
        settings = self._settings
        limits = settings.max_subscriptions_per_user, settings.max_topics_per_user, settings.max_bytes_per_user
        usage: Usage
        store: SessionStore
        if self._shared:
            store, usage = self._shared.make_store(*limits, settings.all_bytes, self.metrics, self._log_hash.learn_key)
        else:
            usage = LocalUsage(*limits, settings.all_bytes, self.metrics)
            store = MemoryStore() if settings.store_path is None else SqliteStore(settings.store_path)
        log = SessionLog(self._log_hash, self._clock, self.audit.record)
        return store, Service(store, self._clock, settings.rules(), usage, log)

    def _make_duties(self) -> Duties | None:
        if self._shared is None:
            return None
        duties = Duties(self._shared.store, self.service, self.registry, self._webhooks)
        self._shared.store.attach(duties)
        return duties

    def _make_webhooks(self) -> Webhooks:
        settings = self._settings
        allowed, forbidden = settings.webhook_networks, settings.no_webhook_networks
        guard = Guard(allowed, allow_insecure=settings.allow_insecure, forbidden=forbidden)
        client = Client(guard, self._outbound.certificates, http2=find_spec("h2") is not None)
        sealer = Sealer(settings.secret_key.get_secret_value() if settings.secret_key else None)
        verifier = CallbackVerifier(self.service, guard, client, self.metrics, self._log_hash)
        sure_for = FOR_EVER if self._shared is None else self._shared.sure_for
        return Webhooks(self.service, verifier, client, sealer, settings.ack_timeout, self.metrics, sure_for)

    def _make_sockets(self) -> SocketServices:
        return SocketServices(
            service=self.service,
            ack_timer=self.ack_timer,
            registry=self.registry,
            resolve=self._endpoints.resolve,
            log_hash=self._log_hash,
            request_ids=self._request_ids,
            clock=self._clock,
            metrics=self.metrics,
            accounts=self.accounts,
            turns=self.turns,
            handshake_wait=self.rates.wait_at,
            queue_bytes=self._settings.queue_bytes,
            queue_messages=self._settings.queue_messages,
            ping_seconds=self._settings.ping_seconds,
            handshake_audit=HandshakeAudit(self.audit.record, self.addresses.of, self._clock),
        )

    def _make_http(self, anonymous: Principal | None) -> None:
        health = health_routes(self._is_ready, self._show_metrics)
        self.root: FastAPI = root_app(health, self._make_session_api().routes(), hub_path=self._path)
        self._root_paths = ROOT_PATHS
        self._limited_root = RateLimit(self.root, self.rates)
        api = self._make_api(anonymous)
        self._limited_api = RateLimit(api, self.rates)
        origins = self._settings.cors_origins
        self._api_of_browsers = _with_cors(origins, self._limited_api, ["GET", "POST", "OPTIONS"])
        # Pages may read participants. Only servers begin and end sessions.
        self._sessions_of_browsers = _with_cors(origins, self._limited_root, ["GET", "OPTIONS"])
        audit, on_step = self.audit.record if self.audit.is_on else None, self.turns.add_step_time
        self._http = RequestLog(self._route, self._request_ids, self.metrics, self._clock, audit, on_step)
        self.direct = DirectWay(api, self._verifier, self._http, self.rates, self._is_hub, self._address)

    def _is_ready(self) -> bool:
        """Whether requests are served now: the hub has started, and its database answers."""
        return self._ready and (self._shared is None or self._shared.sure_for() > 0)

    async def _show_metrics(self) -> bytes:
        return await self._gathering.gather() if self._gathering else self.metrics.render()

    def _make_session_api(self) -> SessionApi:
        return SessionApi(
            service=self.service,
            verifier=self._verifier,
            normal_user=self._verifier.normal_user,
            acknowledged_at=self.ack_timer.acknowledged_at,
            hub_url=self._settings.public_url,
            log_hash=self._log_hash,
            accounts=self.accounts,
        )

    def _make_api(self, anonymous: Principal | None) -> HubApi:
        settings = self._settings
        return HubApi(
            service=self.service,
            verifier=self._verifier,
            endpoints=self._endpoints,
            hub_url=settings.public_url,
            path=self._path,
            max_body=settings.max_body_bytes,
            max_entries=settings.max_bundle_entries,
            fhir_version=settings.fhir_version,
            metrics=self.metrics,
            accounts=self.accounts,
            turns=self.turns,
            log_hash=self._log_hash,
            watch=self._revocation.watch,
            callbacks=self._webhooks if settings.webhooks else None,
            anonymous=anonymous,
            legacy=self._legacy,
        )

    def _set_gauges(self) -> None:
        metrics, usage = self.metrics, self.service.usage
        metrics.queued_posts.set_function(self._webhooks.queued)
        metrics.questions.set_function(self._webhooks.verifications)
        metrics.sessions.set_function(lambda: usage.topics)
        metrics.session_bytes.set_function(lambda: usage.bytes)
        metrics.max_session_bytes.set_function(lambda: usage.max_bytes)
        metrics.subscriptions.set_function(lambda: usage.subscriptions)
        metrics.sockets.set_function(lambda: len(self.registry))
        metrics.queued_messages.set_function(lambda: self.registry.queued()[0])
        metrics.queued_bytes.set_function(lambda: self.registry.queued()[1])

    def add_root_route(self, path: str, answer: Callable[[], object]) -> None:
        """Serve GET of `path` at the root, without a token. `answer` returns JSON."""
        self.root.get(path)(answer)
        self._root_paths |= {path}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            if client := scope.get("client"):
                scope["client"] = (self._address(client[0], scope["headers"]), client[1])
            await self._http(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Only browsers send Origin, and only browsers need the headers of CORS (CFG-6).
        browser = any(name == b"origin" for name, _ in scope["headers"])
        path = scope["raw_path"].decode("latin-1")
        # The endpoints of legacy clients are not under hub.url.
        if self._is_hub(path) or (self._endpoints.is_path(path) and scope["method"] in ("GET", "HEAD")):
            await (self._api_of_browsers if browser else self._limited_api)(scope, receive, send)
        elif (plain := "/" + scope["path"].strip("/")).startswith("/sessions"):
            scope["path"] = plain  # empty segments at the ends name nothing (GET-10); topics are read from raw_path
            await (self._sessions_of_browsers if browser else self._limited_root)(scope, receive, send)
        else:  # health and metrics have no rate limit
            await self.root(scope, receive, send)

    def socket(self, *, server_state: Any, **_: object) -> asyncio.Protocol:
        """The protocol of one WebSocket. uvicorn calls this when a connection is upgraded."""
        headers = [header for header in server_state.default_headers if header[0] != b"date"]
        if self._legacy is None:
            return HubSocket(self.sockets, server_state.connections, headers)
        post_here = functools.partial(post, self._http, self._path or "/")
        return LegacySocket(self.sockets, server_state.connections, headers, self._legacy, post_here)

    def _is_system(self, token: str) -> bool:
        """Whether the token was verified before, and is a system client's."""
        principal = self._verifier.known(token)
        return principal is not None and principal.system

    def user_of(self, scope: Mapping[str, Any]) -> Hashable | None:
        """The turn's key for the user of a request. None: the request has no token that was verified before."""
        with contextlib.suppress(Unauthenticated):
            if (principal := self._verifier.known(bearer_token(RawHeaders(scope["headers"])))) is not None:
                return turn_key(principal, scope["client"])
        return None

    def _address(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The address of a request's client. `peer` is the address of the connection's other end."""
        forwarded = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
        return self.addresses.of(peer, forwarded)

    def _is_hub(self, path: str) -> bool:
        """Whether an undecoded path is that of hub.url or below."""
        if self._path or not path.startswith("/"):
            return path == self._path or path.startswith(self._path + "/")
        # A path of the root is no topic, also with empty segments around it (GET-10).
        plain = "/" + path.strip("/")
        return plain not in self._root_paths and not plain.startswith("/sessions/")

    async def _start(self) -> str:
        """Read the certificates, and open the store. Returns the reason why the hub cannot start; "" where the hub can."""
        try:
            if self._settings.asks_over_tls:
                self._outbound.certificates()
            await self.service.start(self.registry.deliver)
        except UnusableCertificates as error:
            return str(error)
        except (OSError, ValueError) as error:
            return f"FHIRCAST_STORE: {error}"
        return ""

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self.failure = await self._start()
        if self.failure:
            await send({"type": "lifespan.startup.failed", "message": self.failure})
            return
        settings = self._settings
        if settings.webhooks and settings.secret_key is None and settings.store_path is not None:
            _log.info("webhook secrets do not survive a restart", reason="FHIRCAST_SECRET_KEY is not set")
        if self._duties:
            self._duties.start()
        if self._gathering:
            await self._gathering.start()
        self._ready = True
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._ready = False
        if self._gathering:
            self._gathering.stop()
        if self._duties:
            await self._duties.stop()
        self.ack_timer.stop()
        await self._revocation.stop()
        await self._webhooks.stop()
        await self.service.stop()
        await self.audit.stop()
        await self._verifier.aclose()
        await self._client.aclose()
        await send({"type": "lifespan.shutdown.complete"})


def _issuers(settings: Settings) -> list[Issuer]:
    return [Issuer(**issuer.plain()) for issuer in settings.issuers]


def shared_parts(settings: Settings, clock: Clock) -> SharedParts | None:
    """What a store of many nodes is made of. None: the store has one process. Raises SettingsError without its library."""
    if not settings.is_shared:
        return None
    try:
        from fhircast_hub.postgresql.parts import SharedParts
    except ImportError:
        raise SettingsError(
            "FHIRCAST_STORE is PostgreSQL's, and asyncpg is missing: pip install 'fhircast-hub[postgresql]'"
        ) from None
    return SharedParts(settings.store, store_password(settings), clock)


class _Cors(CORSMiddleware):
    """Starlette's class admits pages of all origins to private networks. This class admits only allowed origins."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser's first request (OPTIONS)."""
        answer = super().preflight_response(request_headers)
        if not self.is_allowed_origin(request_headers["origin"]):
            del answer.headers["Access-Control-Allow-Private-Network"]
        return answer


def _with_cors(origins: tuple[str, ...], app: ASGIApp, methods: list[str]) -> CORSMiddleware:
    """Let pages of these origins send requests to `app`.

    Cookies are never allowed, because only the Authorization header counts (AUT-2). Any header is allowed, because libraries
    and tracing add headers. A page of the internet may send requests to a hub in its user's own network.
    """
    return _Cors(
        app,
        allow_origins=origins,
        allow_methods=methods,
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=["Retry-After", "WWW-Authenticate", "X-Request-Id"],
    )
