"""hub.url over HTTP: subscribe, unsubscribe, publish, read the context, discover (FHIRcast 3.0.0, 2.4 to 2.9).

`HubApi.answer` is for every adapter: ASGI in this file, plain calls in direct.py. Few calls lie between an event and the sockets.
"""

from __future__ import annotations

import asyncio
import datetime
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog
from msgspec.structs import replace

from fhircast_hub.audit.event import Act, patients
from fhircast_hub.budgets.accounts import Accounts
from fhircast_hub.budgets.table import BIG_ANSWER, BIG_BODY, STORE_SECONDS
from fhircast_hub.budgets.turns import Turns, turn_key
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
from fhircast_hub.http.errors import refuse
from fhircast_hub.http.exchange import exchange_of
from fhircast_hub.http.request import (
    ClientGone,
    Headers,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    bearer_token,
    media_type,
    read_body,
    respond,
    take_body,
    topics_in,
)
from fhircast_hub.http.well_known import capability_statement, configuration
from fhircast_hub.service.ports import TokenVerifier
from fhircast_hub.service.request_id import REQUEST_ID
from fhircast_hub.service.service import Service
from fhircast_hub.telemetry.metrics import Metrics

_log = structlog.get_logger()
_JSON = frozenset(("application/json", "application/fhir+json"))
_FORM = "application/x-www-form-urlencoded"
_ACCEPTED = 202
_METHODS = "GET, POST, OPTIONS"
_WELL_KNOWN = b".well-known/"
#: The specification asks for no body. But many clients parse JSON in any answer.
_PUBLISHED = Response(_ACCEPTED, b"{}", b"application/json")


#: The topics that a path may name. Empty: the path names none.
Topics = tuple[str, ...]


class Callbacks(Protocol):
    """Checks the callbacks and secrets of webhooks."""

    async def check(self, callback: str, principal: Principal) -> None:
        """Raise BadRequest for a forbidden address, and TooMany for too many new callbacks of `principal`."""
        ...

    def seal(self, secret: str | None) -> bytes:
        """The secret in encrypted form, for the store."""
        ...


#: Called with the subscription_id, session and opaque token of each new or renewed subscription. The token may be revoked.
Watch = Callable[[str, SessionKey, str], None]


@dataclass(kw_only=True, eq=False)
class HubApi:
    """Answers requests under hub.url. Called as an ASGI application, or by `answer`."""

    service: Service
    verifier: TokenVerifier
    endpoints: Endpoints
    hub_url: str
    #: The path of hub.url without a slash at the end, "" for the root.
    path: str
    #: Bytes of a body, at most.
    max_body: int
    #: Entries of an update, at most.
    max_entries: int
    #: The declared FHIR version, such as R4. None: no version is declared.
    fhir_version: str | None
    metrics: Metrics
    accounts: Accounts
    turns: Turns
    #: Makes a topic fit for logs.
    log_hash: Callable[[str], str]
    #: None: webhooks are refused.
    callbacks: Callbacks | None
    watch: Watch
    #: The principal of requests without a token (dev --legacy). None: a token is required.
    anonymous: Principal | None = None
    #: The names of 2018 (dev --legacy). None: only present names are understood.
    legacy: LegacyNames | None = None

    def __post_init__(self) -> None:
        today = datetime.datetime.now(datetime.UTC).date()
        self._prefix = len(self.path.encode())
        self._configuration = configuration(self.fhir_version, webhooks=self.callbacks is not None)
        self._capabilities = capability_statement(self.hub_url, self.fhir_version, today)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        request = Request(
            scope["method"], scope["raw_path"], Headers(scope["headers"]), exchange, body=None, receive=receive
        )
        try:
            response = await self.answer(request)
        except ClientGone:
            return
        account, big = exchange.meter.account, len(response.body) if len(response.body) > BIG_ANSWER else 0
        try:
            await respond(send, response)
        finally:
            if account and big:
                account.answers -= big

    async def answer(self, request: Request) -> Response:
        """The answer to a request. For each adapter: this class is an ASGI application, and http/direct.py needs no ASGI.

        A big answer is counted in the account's `answers`; the adapter subtracts its bytes when it is written.
        Raises ClientGone.
        """
        try:
            response = await self._answer(request)
            if len(response.body) > BIG_ANSWER and (account := request.exchange.meter.account):
                account.add_answer(len(response.body))
        except ClientGone:
            raise
        except Exception as error:
            return _refusal(request, error)
        return response

    async def _answer(self, request: Request) -> Response:
        method = request.method
        if method == "POST":
            return await self._post(request)
        if method in ("GET", "HEAD"):
            return await self._get(request)
        if method == "OPTIONS":
            return Response(204, headers=[(b"allow", _METHODS.encode())])
        request.exchange.audit_fields.act = Act.OTHER
        await self._authenticate(request)
        raise MethodNotAllowed("the method must be GET or POST, not …", allow=_METHODS, quoted=method)

    # GET

    async def _get(self, request: Request) -> Response:
        log_fields, audit_fields = request.exchange.log_fields, request.exchange.audit_fields
        if self.endpoints.is_path(request.path.decode("latin-1")):
            log_fields["route"] = "socket"
            audit_fields.act = Act.OTHER
            raise UpgradeRequired(
                "this is the endpoint of a WebSocket, and the request has no Upgrade: a proxy must pass on the headers"
                " Upgrade and Connection"
            )
        named = self._below(request).strip(b"/")
        well_known = named.removeprefix(_WELL_KNOWN).lstrip(b"/") if named.startswith(_WELL_KNOWN) else b""
        if well_known == b"fhircast-configuration":
            log_fields["route"] = "discovery"
            return Response(200, self._configuration, b"application/json")
        if named == b"metadata":
            log_fields["route"] = "metadata"
            return Response(200, self._capabilities, b"application/fhir+json")
        log_fields["route"] = "context"
        audit_fields.act = Act.READ
        principal = await self._authenticate(request)
        if well_known:
            raise NotFound("only fhircast-configuration is below .well-known")
        return await self._get_context(request, principal)

    async def _get_context(self, request: Request, principal: Principal) -> Response:
        topics = topics_in(self._below(request))
        if not topics:
            raise MethodNotAllowed(
                "the method must be POST here; the context is at hub.url/{topic}", allow="POST, OPTIONS"
            )
        key = await self.service.find(principal.realm, topics)
        request.exchange.set_topic(check_topic(key.topic), self.log_hash)
        body, request.exchange.audit_fields.patients = await self.service.current_context(key, principal)
        return Response(200, body, b"application/json")

    # POST

    async def _post(self, request: Request) -> Response:
        request.exchange.log_fields["route"] = "post"
        request.exchange.audit_fields.act = Act.OTHER
        principal = await self._authenticate(request)
        self.service.check_scoped(principal)
        sent = media_type(request.headers)
        if sent != _FORM and sent not in _JSON:
            raise UnsupportedMediaType(f"Content-Type must be {_FORM}, application/json or application/fhir+json")
        account = request.exchange.meter.account
        assert account is not None  # _authenticate has set the account
        if request.body is not None:
            body = take_body(request.body, self.max_body, account)
        else:
            body = await read_body(request.headers, request.receive, self.max_body, account)
        try:
            if big := len(body) > BIG_BODY.most:
                await account.wait_for_budget()
            # On the direct way the step that has read the request goes on.
            if (big or request.body is None) and not self.turns.claim_step(big=big):
                await self.turns.wait_for_step(turn_key(principal, object()), big=big, over=account.over_budget)
            if big:
                account.charge(len(body) * STORE_SECONDS)
            topics = topics_in(self._below(request))
            text = self.legacy.translate_event(body) if self.legacy else body
            form = parse_subscription_request(text) if sent == _FORM else parse_json_subscription_request(text)
            if form is None:
                return await self._publish(request, principal, topics, text)
            if request.body is not None:
                await asyncio.sleep(0)  # the direct way goes on in a task: looking up a callback's name needs one
            return await self._change_subscription(request, principal, topics, form)
        finally:
            account.bodies -= len(body)

    async def _publish(self, request: Request, principal: Principal, topics: Topics, body: bytes) -> Response:
        log_fields, audit_fields = request.exchange.log_fields, request.exchange.audit_fields
        log_fields["route"] = "publish"
        audit_fields.act = Act.PUBLISH
        event = parse_event(body, self.max_entries)
        audit_fields.event, audit_fields.patients = event.name, patients(event.ref, event.implied)
        _check_topic(event.topic, topics)
        request.exchange.set_topic(event.topic, self.log_hash)
        log_fields["name"] = spelling(event.name) if event.key in CATALOGUE_LOWER else "other"
        accepted = time.perf_counter()
        await self.service.submit(SessionKey(principal.realm, event.topic), Publish(principal, event))
        self.metrics.events_in.inc()
        self.metrics.accepted_to_written.observe(time.perf_counter() - accepted)
        return _PUBLISHED

    # Subscriptions

    async def _change_subscription(
        self, request: Request, principal: Principal, topics: Topics, form: SubscriptionRequest
    ) -> Response:
        request.exchange.log_fields["route"] = "subscribe" if form.subscribe else "unsubscribe"
        request.exchange.audit_fields.act = Act.SUBSCRIBE if form.subscribe else Act.UNSUBSCRIBE
        request.exchange.audit_fields.event = ",".join(form.events)
        _check_topic(form.topic, topics)
        request.exchange.set_topic(form.topic, self.log_hash)
        key = SessionKey(principal.realm, form.topic)
        if not form.subscribe:
            return await self._unsubscribe(key, principal, form)
        if form.callback is not None:
            return await self._subscribe_webhook(request, key, principal, form, form.callback)
        if form.endpoint is not None and self.legacy:
            with self.legacy.translate_subscription(
                self.endpoints.from_client(form.endpoint)[1], form.events
            ) as events:
                return await self._subscribe(request, key, principal, replace(form, events=events))
        return await self._subscribe(request, key, principal, form)

    async def _subscribe(
        self, request: Request, key: SessionKey, principal: Principal, form: SubscriptionRequest
    ) -> Response:
        """Begin the subscription of a WebSocket, or renew the one at the form's endpoint."""
        address = request.exchange.audit_fields.address
        if form.endpoint is not None:
            url, subscription_id = self.endpoints.from_client(form.endpoint)
            if not self.endpoints.legacy or await self.service.usage.session_of(subscription_id):
                renewal = Renew(principal, key.topic, subscription_id, form.events, form.lease, form.name, address)
                await self.service.submit(key, renewal)
                self._watch_token(request, key, subscription_id, principal)
                return _endpoint(url)
        else:
            url, subscription_id = self.endpoints.new()
        name = form.name or ""
        command = Subscribe(principal, key.topic, subscription_id, form.events, form.lease, name, address=address)
        await self.service.subscribe(key, command)
        self._watch_token(request, key, subscription_id, principal)
        return _endpoint(url)

    async def _subscribe_webhook(
        self, request: Request, key: SessionKey, principal: Principal, form: SubscriptionRequest, callback: str
    ) -> Response:
        """Begin the subscription of a webhook. The answer does not wait for the callback (WHK-2)."""
        if self.callbacks is None:
            raise BadRequest("hub.channel.type must be websocket, not webhook: this hub serves no webhooks")
        await self.callbacks.check(callback, principal)
        subscription_id, secret, name = secrets.token_hex(16), self.callbacks.seal(form.secret), form.name or ""
        command = Subscribe(principal, key.topic, subscription_id, form.events, form.lease, name, callback, secret)
        await self.service.subscribe(key, command)
        self._watch_token(request, key, subscription_id, principal)
        return _endpoint(None)

    async def _unsubscribe(self, key: SessionKey, principal: Principal, form: SubscriptionRequest) -> Response:
        if form.callback is not None:
            await self.service.submit(key, Unsubscribe(principal, key.topic, callback=form.callback))
            return _endpoint(None)
        subscription_id = self.endpoints.from_client(form.endpoint)[1] if form.endpoint is not None else None
        await self.service.submit(key, Unsubscribe(principal, key.topic, subscription_id, form.name))
        return _endpoint(form.endpoint)  # never an endpoint that the client did not name (UNS-6)

    def _watch_token(self, request: Request, key: SessionKey, subscription_id: str, principal: Principal) -> None:
        """An opaque token may be revoked during the subscription."""
        if principal.opaque:
            self.watch(subscription_id, key, bearer_token(request.headers))

    def _below(self, request: Request) -> bytes:
        """The part of the path after hub.url, not decoded."""
        return request.path[self._prefix :]

    async def _authenticate(self, request: Request) -> Principal:
        """The principal of the request's token. A user over budget waits here for a turn."""
        if request.principal is not None:
            principal = request.principal
        elif self.anonymous is not None and not request.headers.get(b"authorization"):
            principal = self.anonymous
        else:
            principal = await self.verifier.verify(bearer_token(request.headers))
        account = request.exchange.meter.account = self.accounts.of(principal)
        if account.over_budget:
            await self.turns.wait_for_step(turn_key(principal, object()), over=True)
        request.exchange.audit_fields.principal = principal
        return principal


def _refusal(request: Request, error: Exception) -> Response:
    if not isinstance(error, HubError):
        _log.error("request failed", request_id=REQUEST_ID.get(), exc_info=error)
        error = HubError("the hub failed; its log says where")
    return refuse(error, request.exchange, request.headers)


def _endpoint(endpoint: str | None) -> Response:
    """ "The HTTP body of the response SHALL consist of a JSON object containing an element name of hub.channel.endpoint" (2.4)."""
    body = {"hub.channel.endpoint": endpoint} if endpoint is not None else {}
    return Response(_ACCEPTED, msgspec.json.encode(body), b"application/json")


def _check_topic(topic: str, in_path: Topics) -> None:
    """Raise BadRequest if the path names another topic."""
    if in_path and topic not in in_path:
        raise BadRequest("hub.topic must be the topic in the path, not another one")
