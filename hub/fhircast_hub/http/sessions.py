"""The session API (SES): authorization servers begin, see and end the sessions of their users.

The API is at the root of the server, beside hub.url. The session API is no part of FHIRcast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fhircast_hub.audit.event import Act
from fhircast_hub.budgets.accounts import Account, Accounts
from fhircast_hub.core.access.principal import Principal, SessionKey
from fhircast_hub.core.errors import BadRequest, NotFound, UnsupportedMediaType
from fhircast_hub.core.limits import MAX_FORM, MAX_TOPIC
from fhircast_hub.core.rules.administration import Participant, check_administrator
from fhircast_hub.core.state.commands import BeginSession
from fhircast_hub.core.wire.event import check_topic
from fhircast_hub.core.wire.event_names import never_matches
from fhircast_hub.core.wire.json import strip_bom
from fhircast_hub.core.wire.timestamps import rfc3339
from fhircast_hub.http.exchange import exchange_of
from fhircast_hub.http.request import ClientGone, Headers, bearer_token, media_type, read_body, topics_in
from fhircast_hub.service.ports import TokenVerifier
from fhircast_hub.service.service import Service

#: Normalizes the name of a user of the principal's issuer (AUT-9). Raises ValueError for a name that no user has.
NormalUser = Callable[[Principal, str], str]

#: Answers about a session are the user's own.
_NOT_CACHED = {"Cache-Control": "no-store"}


class NewSession(BaseModel):
    """The body of POST /sessions."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user: Annotated[
        str, Field(min_length=1, max_length=MAX_TOPIC, description="The user, as in the issuer's user_claim.")
    ]
    new: Annotated[bool, Field(description="Begin another session, even if the user has one.")] = False


@dataclass(kw_only=True, eq=False)
class SessionApi:
    """The session API."""

    service: Service
    verifier: TokenVerifier
    normal_user: NormalUser
    #: When a subscription acknowledged last, in epoch seconds. None: never.
    acknowledged_at: Callable[[str], float | None]
    hub_url: str
    #: Makes a topic fit for logs.
    log_hash: Callable[[str], str]
    accounts: Accounts

    def routes(self) -> list[Route]:
        """The routes at the root. http/openapi.py describes them."""
        return [
            Route("/sessions", self.begin, methods=["POST"]),
            Route("/sessions/{topic:path}/participants", self.show, methods=["GET"]),
            Route("/sessions/{topic:path}", self.end, methods=["DELETE"]),
        ]

    async def begin(self, request: Request) -> Response:
        """The user's session: the one that was begun here before, or a new one."""
        principal = await self._authenticate(request)
        exchange_of(request.scope).log_fields["route"] = "sessions"
        check_administrator(principal)
        wanted = await _read_body(request, self.accounts.of(principal))
        try:
            user = self.normal_user(principal, wanted.user)
        except ValueError as error:
            raise BadRequest(f"user {error}") from None
        topic, new = await self.service.session_for(principal.realm, user, new=wanted.new)
        if not new:  # the session must not end before the application subscribes
            await self.service.submit(SessionKey(principal.realm, topic), BeginSession(principal.realm, topic, user))
        exchange_of(request.scope).set_topic(topic, self.log_hash)
        return JSONResponse({"hub.url": self.hub_url, "hub.topic": topic}, 201, _NOT_CACHED)

    async def show(self, request: Request) -> Response:
        """The session's subscribers, and which of them are in sync."""
        principal = await self._authenticate(request)
        exchange_of(request.scope).audit_fields.act = Act.READ
        key = await self.service.find(principal.realm, _topics_of(request, b"/participants"))
        exchange_of(request.scope).log_fields["route"] = "participants"
        exchange_of(request.scope).set_topic(check_topic(key.topic), self.log_hash)
        shown = [self._shown(each) for each in await self.service.participants(key, principal)]
        return JSONResponse(shown, headers=_NOT_CACHED)

    async def end(self, request: Request) -> Response:
        """End a session. Its subscribers get a denial."""
        principal = await self._authenticate(request)
        key = await self.service.find(principal.realm, _topics_of(request))
        exchange_of(request.scope).log_fields["route"] = "sessions"
        exchange_of(request.scope).set_topic(check_topic(key.topic), self.log_hash)
        check_administrator(principal, key.topic)
        await self.service.end_session(key)
        return Response(status_code=204, headers=_NOT_CACHED)

    async def _authenticate(self, request: Request) -> Principal:
        exchange = exchange_of(request.scope)
        audit_fields = exchange.audit_fields
        audit_fields.act = Act.OTHER
        audit_fields.principal = await self.verifier.verify(bearer_token(Headers(request.scope["headers"])))
        audit_fields.act = Act.SESSION
        exchange.meter.account = self.accounts.of(audit_fields.principal)
        return audit_fields.principal

    def _shown(self, participant: Participant) -> dict[str, Any]:
        acknowledged_at = self.acknowledged_at(participant.subscription_id)
        return {
            "name": participant.name,
            "events": list(participant.events),
            "neverMatch": list(filter(never_matches, participant.events)),
            "channel": participant.channel,
            "since": rfc3339(participant.connected_or_lost_at),
            "lastAcknowledgement": rfc3339(acknowledged_at) if acknowledged_at else None,
            "state": participant.state,
        }


def _topics_of(request: Request, suffix: bytes = b"") -> tuple[str, ...]:
    """The topics that the path may name, the most likely first. `suffix` follows the topic. Raises BadRequest or NotFound.

    Topics are read as under hub.url (EVT-3, GET-10). The decoded path cannot tell an escaped slash from a separator.
    """
    first, slash, rest = request.scope["raw_path"].lstrip(b"/").partition(b"/")
    rest = slash + (rest.rstrip(b"/") if suffix else rest)
    if first != b"sessions" or not rest.endswith(suffix):
        raise NotFound("the path must be /sessions/{topic} or /sessions/{topic}/participants")
    if not (topics := topics_in(rest.removesuffix(suffix))):
        raise BadRequest("a topic is required in the path")
    return topics


async def _read_body(request: Request, account: Account) -> NewSession:
    """The body. Errors name only the member. Raises BadRequest, TooLarge or UnsupportedMediaType."""
    headers = Headers(request.scope["headers"])
    if media_type(headers) != "application/json":
        raise UnsupportedMediaType("Content-Type must be application/json")
    try:
        body = await read_body(headers, request.receive, MAX_FORM, account)
    except ClientGone:
        raise BadRequest("the body did not end") from None
    account.bodies -= len(body)
    try:
        return NewSession.model_validate_json(strip_bom(body))
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        if fault["type"] == "extra_forbidden":  # the client chose the member's name
            raise BadRequest("the body may have only the members user and new") from None
        if fault["type"] == "missing":
            raise BadRequest(f"{fault['loc'][0]} is required") from None
        member = ".".join(map(str, fault["loc"])) or "the body"
        raise BadRequest(f"{member}: {fault['msg'][:1].lower()}{fault['msg'][1:]}") from None
