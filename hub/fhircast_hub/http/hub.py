"""hub.url over HTTP: subscribe, unsubscribe, publish, read the context, discover (FHIRcast 3.0.0, 2.4 to 2.9).

Plain ASGI: an event goes from the request to the sockets through a handful of calls.
"""

from __future__ import annotations

import datetime
import secrets
import time
from collections.abc import Callable, Hashable
from typing import Protocol

import msgspec
import structlog
from msgspec.structs import replace

from fhircast_hub.audit.event import Act, patients
from fhircast_hub.budgets.accounts import Accounts
from fhircast_hub.budgets.meter import Meter
from fhircast_hub.budgets.table import BIG_ANSWER, BIG_BODY, STORE_SECONDS
from fhircast_hub.budgets.turns import Turns
from fhircast_hub.core.access.principal import Principal, SessionKey
from fhircast_hub.core.errors import (
    BadRequest,
    HubError,
    MethodNotAllowed,
    NotFound,
    UnsupportedMediaType,
    UpgradeRequired,
)
from fhircast_hub.core.state.commands import Publish, Renew, Subscribe, Unsubscribe
from fhircast_hub.core.wire.event import check_topic, parse_event
from fhircast_hub.core.wire.event_names import CATALOGUE_LOWER, spelling
from fhircast_hub.core.wire.subscription_request import (
    SubscriptionRequest,
    parse_json_subscription_request,
    parse_subscription_request,
)
from fhircast_hub.edge.endpoints import Endpoints
from fhircast_hub.edge.names_of_2018 import LegacyNames
from fhircast_hub.http.errors import to_response
from fhircast_hub.http.request import (
    ClientGone,
    Headers,
    Receive,
    Response,
    Scope,
    Send,
    bearer_token,
    media_type,
    read_body,
    respond,
    topics_in,
)
from fhircast_hub.http.request_log import AUDIT_FIELDS, LOG_FIELDS, METER, AuditFields
from fhircast_hub.http.well_known import capability_statement, configuration
from fhircast_hub.service.ports import TokenVerifier
from fhircast_hub.service.service import REQUEST_ID, Service
from fhircast_hub.telemetry.metrics import Metrics

_log = structlog.get_logger()
_JSON = frozenset(("application/json", "application/fhir+json"))
_FORM = "application/x-www-form-urlencoded"
_ACCEPTED = 202
_WELL_KNOWN = b".well-known/"
#: The specification asks for no body here, and many clients read JSON whatever they sent.
_PUBLISHED = Response(_ACCEPTED, b"{}", b"application/json")


class Callbacks(Protocol):
    """What there is to be known of a webhook's callback."""

    async def check(self, callback: str, principal: Principal) -> None:
        """Raise BadRequest if it may not be posted to, TooMany if `principal` brings too many."""
        ...

    def seal(self, secret: str | None) -> bytes:
        """What may be stored of a secret."""
        ...


#: Called with each subscription that was made or renewed with a token that may be revoked: sid, session, token.
Watch = Callable[[str, SessionKey, str], None]


class HubApi:
    """The ASGI application under hub.url. `path` is that of hub.url, without a slash at the end; sizes in bytes.

    `accounts` are what users cost; `turns` shares out the turns of the loop; `log_hash` makes of a topic what may be logged of it;
    `callbacks` is None where webhooks are not served;
    `anonymous` is who a request without a token is (dev --legacy), None where a token is needed;
    `legacy` knows the names of 2018 there, None elsewhere.
    """

    def __init__(
        self,
        *,
        service: Service,
        verifier: TokenVerifier,
        endpoints: Endpoints,
        hub_url: str,
        path: str,
        max_body: int,
        max_entries: int,
        fhir_version: str | None,
        metrics: Metrics,
        accounts: Accounts,
        turns: Turns,
        log_hash: Callable[[str], str],
        callbacks: Callbacks | None,
        watch: Watch,
        anonymous: Principal | None = None,
        legacy: LegacyNames | None = None,
    ) -> None:
        self._service = service
        self._verifier = verifier
        self._endpoints = endpoints
        self._prefix = path.encode()
        self._max_body = max_body
        self._max_entries = max_entries
        self._metrics = metrics
        self._accounts = accounts
        self._turns = turns
        self._log_hash = log_hash
        self._anonymous = anonymous
        self._legacy = legacy
        self._callbacks = callbacks
        self._watch = watch
        self._configuration = configuration(fhir_version, webhooks=callbacks is not None)
        self._capabilities = capability_statement(hub_url, fhir_version, datetime.datetime.now(datetime.UTC).date())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope["headers"])
        log_fields: dict[str, object] = scope[LOG_FIELDS]
        meter: Meter = scope[METER]
        big = 0
        try:
            response = await self._answer(scope, headers, receive, log_fields, scope[AUDIT_FIELDS], meter)
            if meter.account and len(response.body) > BIG_ANSWER:
                meter.account.add_answer(len(response.body))
                big = len(response.body)
        except HubError as error:
            response = to_response(error, headers)
            log_fields["reason"] = type(error).__name__
        except ClientGone:
            return
        except Exception as error:
            _log.error("request failed", request_id=REQUEST_ID.get(), exc_info=error)
            response = to_response(HubError("the hub failed; its log says where"), headers)
        try:
            await respond(send, response)
        finally:
            if big and meter.account:
                meter.account.answers -= big

    async def _answer(
        self,
        scope: Scope,
        headers: Headers,
        receive: Receive,
        log_fields: dict[str, object],
        trail: AuditFields,
        meter: Meter,
    ) -> Response:
        method = scope["method"]
        rest = scope["raw_path"][len(self._prefix) :]
        if method == "POST":
            return await self._post(rest, headers, receive, log_fields, trail, meter)
        if method in ("GET", "HEAD"):
            if self._endpoints.is_path(scope["raw_path"].decode("latin-1")):
                log_fields["route"] = "socket"
                trail.act = Act.OTHER
                raise UpgradeRequired(
                    "expected a WebSocket's handshake, got a request without Upgrade: a proxy on the way must pass on the headers"
                    " Upgrade and Connection"
                )
            return await self._get(rest, headers, log_fields, trail, meter)
        if method == "OPTIONS":
            return Response(204, headers=[(b"allow", b"GET, POST, OPTIONS")])
        trail.act = Act.OTHER
        trail.principal = await self._principal(headers, meter)
        raise MethodNotAllowed(f"expected GET or POST, got {method}", allow="GET, POST, OPTIONS")

    async def _get(
        self, rest: bytes, headers: Headers, log_fields: dict[str, object], trail: AuditFields, meter: Meter
    ) -> Response:
        named = rest.strip(b"/")
        below = named.removeprefix(_WELL_KNOWN).lstrip(b"/") if named.startswith(_WELL_KNOWN) else b""
        if below == b"fhircast-configuration":
            log_fields["route"] = "discovery"
            return Response(200, self._configuration, b"application/json")
        if named == b"metadata":
            log_fields["route"] = "metadata"
            return Response(200, self._capabilities, b"application/fhir+json")
        log_fields["route"] = "context"
        trail.act = Act.READ
        principal = trail.principal = await self._principal(headers, meter)
        if below:
            raise NotFound("expected fhircast-configuration below .well-known, got another name")
        topics = topics_in(rest)
        if not topics:
            raise MethodNotAllowed("expected POST here; the context is at hub.url/{topic}", allow="POST, OPTIONS")
        key = await self._service.find(principal.realm, topics)
        log_fields["topic"] = self._log_hash(check_topic(key.topic))
        body, trail.patients = await self._service.current_context(key, principal)
        return Response(200, body, b"application/json")

    async def _post(
        self,
        rest: bytes,
        headers: Headers,
        receive: Receive,
        log_fields: dict[str, object],
        trail: AuditFields,
        meter: Meter,
    ) -> Response:
        log_fields["route"] = "post"
        trail.act = Act.OTHER
        principal = trail.principal = await self._principal(headers, meter)
        self._service.check_scoped(principal)
        sent = media_type(headers)
        if sent != _FORM and sent not in _JSON:
            raise UnsupportedMediaType(
                f"Content-Type: expected {_FORM}, application/json or application/fhir+json, got another or none"
            )
        account = meter.account
        assert account is not None  # _principal has opened it
        body = await read_body(headers, receive, self._max_body, account)
        try:
            big = len(body) > BIG_BODY.most
            if big:
                await account.wait_for_budget()
            await self._turns.wait_for_step(_whose(principal), big=big, over=account.over_budget)
            if big:
                account.charge(len(body) * STORE_SECONDS)
            return await self._read(principal, sent, body, topics_in(rest), headers, log_fields, trail)
        finally:
            account.bodies -= len(body)

    async def _read(
        self,
        principal: Principal,
        sent: str,
        body: bytes,
        in_path: tuple[str, ...],
        headers: Headers,
        log_fields: dict[str, object],
        trail: AuditFields,
    ) -> Response:
        """What a body of this media type asks for."""
        body = self._legacy.translate_event(body) if self._legacy else body
        form = parse_subscription_request(body) if sent == _FORM else parse_json_subscription_request(body)
        if form is not None:
            log_fields["route"] = "subscribe" if form.subscribe else "unsubscribe"
            trail.act = Act.SUBSCRIBE if form.subscribe else Act.UNSUBSCRIBE
            trail.event = ",".join(form.events)
            log_fields["topic"] = self._log_hash(_agreed(form.topic, in_path))
            key = SessionKey(principal.realm, form.topic)
            if form.callback is not None:
                return await self._webhook(key, principal, form, form.callback, headers)
            if not form.subscribe:
                return await self._unsubscribe(key, principal, form)
            return await self._subscribe(key, principal, form, headers, trail.address)
        log_fields["route"] = "publish"
        trail.act = Act.PUBLISH
        event = parse_event(body, self._max_entries)
        trail.event, trail.patients = event.name, patients(event.ref, event.implied)
        log_fields["topic"] = self._log_hash(_agreed(event.topic, in_path))
        log_fields["name"] = spelling(event.name) if event.key in CATALOGUE_LOWER else "other"
        accepted = time.perf_counter()
        await self._service.submit(SessionKey(principal.realm, event.topic), Publish(principal, event))
        self._metrics.events_in.inc()
        self._metrics.accepted_to_written.observe(time.perf_counter() - accepted)
        return _PUBLISHED

    async def _subscribe(
        self, key: SessionKey, principal: Principal, form: SubscriptionRequest, headers: Headers, address: str
    ) -> Response:
        if form.endpoint is not None and self._legacy:
            with self._legacy.translate_subscription(
                self._endpoints.from_client(form.endpoint)[1], form.events
            ) as events:
                return await self._subscribe_at(key, principal, replace(form, events=events), headers, address)
        return await self._subscribe_at(key, principal, form, headers, address)

    async def _subscribe_at(
        self, key: SessionKey, principal: Principal, form: SubscriptionRequest, headers: Headers, address: str
    ) -> Response:
        if form.endpoint is not None:
            url, subscription_id = self._endpoints.from_client(form.endpoint)
            if not self._endpoints.legacy or self._service.usage.find(subscription_id):
                renewal = Renew(principal, key.topic, subscription_id, form.events, form.lease, form.name, address)
                await self._service.submit(key, renewal)
                self._granted(key, subscription_id, principal, headers)
                return _endpoint(url)
        else:
            url, subscription_id = self._endpoints.new()
        await self._service.subscribe(
            key,
            Subscribe(principal, key.topic, subscription_id, form.events, form.lease, form.name or "", address=address),
        )
        self._granted(key, subscription_id, principal, headers)
        return _endpoint(url)

    async def _unsubscribe(self, key: SessionKey, principal: Principal, form: SubscriptionRequest) -> Response:
        subscription_id = self._endpoints.from_client(form.endpoint)[1] if form.endpoint is not None else None
        await self._service.submit(key, Unsubscribe(principal, key.topic, subscription_id, form.name))
        return _endpoint(form.endpoint)  # never one that the caller did not say (UNS-6)

    async def _webhook(
        self, key: SessionKey, principal: Principal, form: SubscriptionRequest, callback: str, headers: Headers
    ) -> Response:
        """A webhook's subscription, which nothing slow holds up, or its end (WHK-2, WHK-5)."""
        if form.subscribe:
            if self._callbacks is None:
                raise BadRequest("hub.channel.type: expected websocket, got webhook, which this hub does not serve")
            await self._callbacks.check(callback, principal)
            subscription_id, secret = secrets.token_hex(16), self._callbacks.seal(form.secret)
            asked = Subscribe(
                principal, key.topic, subscription_id, form.events, form.lease, form.name or "", callback, secret
            )
            await self._service.subscribe(key, asked)
            self._granted(key, subscription_id, principal, headers)
        else:
            await self._service.submit(key, Unsubscribe(principal, key.topic, callback=callback))
        return _endpoint(None)

    def _granted(self, key: SessionKey, subscription_id: str, principal: Principal, headers: Headers) -> None:
        if principal.opaque:
            self._watch(subscription_id, key, bearer_token(headers))

    async def _principal(self, headers: Headers, meter: Meter) -> Principal:
        """Who asks, when that user's turn has come."""
        if self._anonymous is not None and not headers.get(b"authorization"):
            principal = self._anonymous
        else:
            principal = await self._verifier.verify(bearer_token(headers))
        account = meter.account = self._accounts.of(principal)
        if account.over_budget:
            await self._turns.wait_for_step(_whose(principal), over=True)
        return principal


def _whose(principal: Principal) -> Hashable:
    """Whose turn a request takes: of a system client, which acts for everybody, each has one of its own."""
    return object() if principal.system else (principal.realm, principal.subscriber, None)


def _endpoint(endpoint: str | None) -> Response:
    """ "The HTTP body of the response SHALL consist of a JSON object containing an element name of hub.channel.endpoint" (2.4)."""
    body = {"hub.channel.endpoint": endpoint} if endpoint is not None else {}
    return Response(_ACCEPTED, msgspec.json.encode(body), b"application/json")


def _agreed(topic: str, in_path: tuple[str, ...]) -> str:
    if in_path and topic not in in_path:
        raise BadRequest("hub.topic: expected the topic that the path names, got another")
    return topic
