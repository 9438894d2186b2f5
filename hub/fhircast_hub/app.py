"""Builds a hub from its parts. Only this module and local.py name concrete classes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import httpx
import structlog
from starlette.applications import Starlette

from fhircast_hub.acknowledgements.timer import AckTimer
from fhircast_hub.acknowledgements.tracker import AckTracker, Policy
from fhircast_hub.audit.sink import Auditor, make_sink
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.verifier import Verifier
from fhircast_hub.budgets.accounts import Accounts
from fhircast_hub.budgets.turns import Turns, turn_key
from fhircast_hub.console.app import CONSOLE, Console
from fhircast_hub.console.making import Outside, make_console
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Unauthenticated
from fhircast_hub.edge.client_addresses import ClientAddresses
from fhircast_hub.edge.endpoints import Endpoints
from fhircast_hub.edge.names_of_2018 import LegacyNames
from fhircast_hub.http.cors import with_cors
from fhircast_hub.http.direct import DirectWay
from fhircast_hub.http.health import health_routes
from fhircast_hub.http.hub import HubApi
from fhircast_hub.http.posting import post
from fhircast_hub.http.rate_limit import RateLimit, Rates
from fhircast_hub.http.request import Headers as RawHeaders
from fhircast_hub.http.request import Receive, Scope, Send, bearer_token
from fhircast_hub.http.request_log import RequestLog
from fhircast_hub.http.root import ROOT_PATHS, json_route, root_app
from fhircast_hub.http.sessions import SessionApi
from fhircast_hub.nodes import Duties
from fhircast_hub.service.ports import Clock, StoreAway
from fhircast_hub.service.request_id import REQUEST_ID
from fhircast_hub.service.revocation import Revocation
from fhircast_hub.service.service import Service
from fhircast_hub.service.session_log import SessionLog
from fhircast_hub.service.tracing import TracedService, TracedStore
from fhircast_hub.settings.errors import NotNow, SettingsError
from fhircast_hub.settings.outbound_proxies import LOOPBACK, ProxiedTransport, UnusableCertificates
from fhircast_hub.settings.secret_files import read_token
from fhircast_hub.settings.settings import Settings
from fhircast_hub.stores import make_stored, shared_parts
from fhircast_hub.telemetry.gathering import Gathering
from fhircast_hub.telemetry.keyed_hash import KeyedHash
from fhircast_hub.telemetry.metrics import Metrics
from fhircast_hub.telemetry.traces import wanted_traces
from fhircast_hub.versions import VERSION, python_version
from fhircast_hub.webhook.address_guard import Guard
from fhircast_hub.webhook.client import Client
from fhircast_hub.webhook.deliver import FOR_EVER, Webhooks
from fhircast_hub.webhook.sealing import Sealer
from fhircast_hub.webhook.tracing import TracedClient
from fhircast_hub.webhook.verify import CallbackVerifier
from fhircast_hub.workers import Worker
from fhircast_hub.ws.handshake_audit import HandshakeAudit
from fhircast_hub.ws.legacy import LegacySocket
from fhircast_hub.ws.registry import Registry
from fhircast_hub.ws.services import SocketServices
from fhircast_hub.ws.socket import HubSocket

_log = structlog.get_logger()


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
        #: Why the hub did not start. None: nothing has prevented the start.
        self.failure: SettingsError | None = None
        self._log_hash, self._request_ids = KeyedHash(settings.plain_secret_key), _request_ids()
        self.metrics, self.turns = Metrics(worker.number if worker else None), Turns()
        self._traces = wanted_traces(os.environ, REQUEST_ID.get, worker.number if worker else None)
        render = self.metrics.render
        self._gathering = Gathering(render, worker.folder, worker.number, worker.total) if worker else None
        self.accounts = Accounts(settings.max_body_bytes)
        self.addresses = ClientAddresses(settings.trusted_proxies)
        self._outbound = ProxiedTransport(LOOPBACK)
        self._client = httpx.AsyncClient(transport=self._outbound)
        self._audit_outbound, self._audit_client = self._outbound, self._client
        if (certificate := settings.audit_certificate) is not None:
            self._audit_outbound = ProxiedTransport(LOOPBACK, certificate)
            self._audit_client = httpx.AsyncClient(transport=self._audit_outbound)
        path = settings.audit_token_file
        sink = make_sink(settings.audit, self._audit_client, functools.partial(read_token, path) if path else None)
        self.audit = Auditor(sink, settings.public_url, self._log_hash, self.metrics)
        self._verifier = Verifier(
            _issuers(settings), self._client, clock, allow_insecure=settings.allow_insecure, metrics=self.metrics
        )
        self._stored = make_stored(settings, self._shared, self.metrics, self._log_hash)
        self.service = self._make_service()
        self._revocation = Revocation(self.service, self._verifier)
        tracker = AckTracker(Policy(settings.ack_policy), settings.ack_timeout)
        self.ack_timer = AckTimer(self.service, tracker, clock, self.metrics)
        self._webhooks = self._make_webhooks()
        self.registry = Registry(self.ack_timer, self.metrics, self._webhooks.handle, lambda: self._stored.store.node)
        self._duties = self._make_duties()
        self._legacy = LegacyNames() if anonymous else None
        self._endpoints = Endpoints(settings.ws_base, self._path, legacy=anonymous is not None)
        self.rates = Rates(settings.rate_limit_token, settings.rate_limit_address, clock, self._is_system)
        self.sockets = self._make_sockets()
        self._console = self._make_console(worker)
        self._make_http(anonymous)
        self._set_gauges()

    def _make_service(self) -> Service:
        settings = self._settings
        log = SessionLog(self._log_hash, self._clock, self.audit.record)
        store, usage = self._stored.store, self._stored.usage
        if self._traces is None:
            return Service(store, self._clock, settings.rules(), usage, log)
        kind = "postgresql" if self._shared else settings.store.partition(":")[0]
        return TracedService(
            self._traces, TracedStore(store, self._traces, kind), self._clock, settings.rules(), usage, log
        )

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
        make_client = functools.partial(TracedClient, self._traces) if self._traces else Client
        client = make_client(guard, self._outbound.certificates, http2=find_spec("h2") is not None)
        sealer = Sealer(settings.plain_secret_key)
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
            traces=self._traces,
        )

    def _make_console(self, worker: Worker | None) -> Console | None:
        if not self._settings.console:
            return None
        outside = Outside(self._verifier, self._webhooks, self.rates, self._client, self.audit.record)
        console = make_console(self._settings, self.sockets, self._stored.sessions, outside, worker)
        if self._shared:
            self._shared.store.heard = console.sessions.recorder.heard
        return console

    def _make_http(self, anonymous: Principal | None) -> None:
        health = health_routes(self._is_ready, self._verifier.without_keys, self._show_metrics)
        self.root: Starlette = root_app([*health, *self._make_session_api().routes()], hub_path=self._path)
        self._root_paths, self._root_folders = ROOT_PATHS, ["/sessions/"]
        self._limited_root = RateLimit(self.root, self.rates)
        if self._console:
            self._root_paths |= {CONSOLE}
            self._root_folders.append(f"{CONSOLE}/")
            self._limited_console = RateLimit(self._console, self.rates)
        api = self._make_api(anonymous)
        self._limited_api = RateLimit(api, self.rates)
        origins = self._settings.cors_origins
        self._api_of_browsers = with_cors(origins, self._limited_api, ["GET", "POST", "OPTIONS"])
        # Pages may read participants. Only servers begin and end sessions.
        self._sessions_of_browsers = with_cors(origins, self._limited_root, ["GET", "OPTIONS"])
        audit, on_step = self.audit.record if self.audit.is_on else None, self.turns.add_step_time
        self._http = RequestLog(self._route, self._request_ids, self.metrics, self._clock, audit, on_step, self._traces)
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
        metrics.set_build(VERSION, python_version(), self._settings.store.partition(":")[0])
        metrics.queued_posts.set_function(self._webhooks.queued)
        metrics.questions.set_function(self._webhooks.verifications)
        metrics.sessions.set_function(lambda: usage.topics)
        metrics.session_bytes.set_function(lambda: usage.bytes)
        metrics.max_session_bytes.set_function(lambda: usage.max_bytes)
        metrics.subscriptions.set_function(lambda: usage.subscriptions)
        metrics.sockets.set_function(lambda: len(self.registry))
        metrics.queued_messages.set_function(lambda: self.registry.queued()[0])
        metrics.queued_bytes.set_function(lambda: self.registry.queued()[1])

    def reload(self, settings: Settings) -> None:
        """Trust the issuers of these settings from now on, and no others. No other setting counts (OPS-20)."""
        self._verifier.reload(_issuers(settings))

    def begin_stop(self) -> None:
        """The server stops: end the answers that would not end by themselves."""
        if self._console:
            self._console.streams.stop()

    def add_root_route(self, path: str, answer: Callable[[], Awaitable[object]]) -> None:
        """Serve GET of `path` at the root, without a token and without a description. `answer` returns JSON."""
        self.root.routes.append(json_route(path, answer))
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
        elif self._console and (plain == CONSOLE or plain.startswith(f"{CONSOLE}/")):
            await self._limited_console(scope, receive, send)  # no page of another origin may read the console
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
        return plain not in self._root_paths and not plain.startswith(tuple(self._root_folders))

    async def _start(self) -> SettingsError | None:
        """Read the certificates, and open the store. Returns the reason why the hub cannot start. None: the hub can."""
        try:
            if self._settings.asks_over_tls:
                self._outbound.certificates()
                self._audit_outbound.certificates()
            await self.service.start(self.registry.deliver)
        except UnusableCertificates as error:
            return SettingsError(str(error))
        except StoreAway as error:
            return NotNow(f"FHIRCAST_STORE: {error}")
        except (OSError, ValueError) as error:
            return SettingsError(f"FHIRCAST_STORE: {error}")
        return None

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self.failure = await self._start()
        if self.failure:
            await send({"type": "lifespan.startup.failed", "message": str(self.failure)})
            return
        settings = self._settings
        if settings.webhooks and settings.secret_key is None and settings.store_path is not None:
            _log.warning("webhook secrets do not survive a restart", reason="FHIRCAST_SECRET_KEY is not set")
        if self._traces:
            self._traces.start()
        if self._duties:
            self._duties.start()
        if self._gathering:
            await self._gathering.start()
        self._verifier.start()
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
        await self._audit_client.aclose()
        if self._traces:
            await self._traces.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _issuers(settings: Settings) -> list[Issuer]:
    return [Issuer(**issuer.plain()) for issuer in settings.issuers]
