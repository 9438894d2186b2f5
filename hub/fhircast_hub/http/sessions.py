"""The session API (SES): authorization servers get sessions for their users here, and see and end them.

It stands at the root of the server, beside hub.url, and is no part of FHIRcast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fhircast_hub.audit.event import Act
from fhircast_hub.budgets.accounts import Account, Accounts
from fhircast_hub.budgets.meter import Meter
from fhircast_hub.core.access.principal import Principal, SessionKey
from fhircast_hub.core.errors import BadRequest, NotFound, UnsupportedMediaType
from fhircast_hub.core.limits import MAX_FORM, MAX_TOPIC
from fhircast_hub.core.rules.administration import check_administrator
from fhircast_hub.core.state.commands import BeginSession
from fhircast_hub.core.wire.event import check_topic
from fhircast_hub.core.wire.event_names import never_matches
from fhircast_hub.core.wire.json import strip_bom
from fhircast_hub.core.wire.timestamps import rfc3339
from fhircast_hub.http.request import ClientGone, Headers, bearer_token, media_type, read_body, topics_in
from fhircast_hub.http.request_log import AUDIT_FIELDS, LOG_FIELDS, METER, AuditFields
from fhircast_hub.service.ports import TokenVerifier
from fhircast_hub.service.service import Service

#: The form in which the users of the principal's issuer are compared (AUT-9). Raises ValueError for what is none.
NormalUser = Callable[[Principal, str], str]


Topic = Annotated[str, Path(description="hub.topic")]


class NewSession(BaseModel):
    """Whose session."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user: Annotated[str, Field(min_length=1, max_length=MAX_TOPIC, description="As in the issuer's user_claim.")]
    new: Annotated[bool, Field(description="Another session, even where the user has a live one.")] = False


class MadeSession(BaseModel):
    """What an app needs to join, ready to be put beside access_token as SMART launch parameters."""

    hub_url: Annotated[str, Field(alias="hub.url")]
    hub_topic: Annotated[str, Field(alias="hub.topic")]


class ShownParticipant(BaseModel):
    """A subscriber of the session."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    name: str
    events: list[str]
    never_match: Annotated[
        list[str],
        Field(alias="neverMatch", description="Those of the events under whose name no event can ever be published."),
    ]
    channel: str
    since: Annotated[str, Field(description="When it connected, or went (RFC 3339).")]
    last_acknowledgement: Annotated[str | None, Field(alias="lastAcknowledgement")]
    state: Annotated[
        str, Field(description="in sync, refused X, silent, lost, does not acknowledge, or not connected yet")
    ]


#: The form of the request, which is read only once it is known who asks.
_BODY = {"required": True, "content": {"application/json": {"schema": NewSession.model_json_schema()}}}


def session_routes(
    service: Service,
    verifier: TokenVerifier,
    normal_user: NormalUser,
    heard: Callable[[str], float | None],
    hub_url: str,
    log_hash: Callable[[str], str],
    accounts: Accounts,
) -> APIRouter:
    """The routes. `heard` is when a subscription acknowledged last (epoch seconds); `log_hash` makes a topic fit for logs."""
    router = APIRouter(dependencies=[Depends(HTTPBearer(auto_error=False)), Depends(_not_cached)])

    async def principal_of(request: Request) -> Principal:
        trail: AuditFields = request.scope[AUDIT_FIELDS]
        trail.act = Act.OTHER
        trail.principal = await verifier.verify(bearer_token(Headers(request.scope["headers"])))
        trail.act = Act.SESSION
        meter: Meter = request.scope[METER]
        meter.account = accounts.of(trail.principal)
        return trail.principal

    asking = Depends(principal_of)  # a name of this function's, which an annotation could not find

    @router.post("/sessions", status_code=201, openapi_extra={"requestBody": _BODY})
    async def begin(request: Request, principal: Principal = asking) -> MadeSession:
        """A session for a user: the live one that was made here before, or a new one."""
        request.scope[LOG_FIELDS]["route"] = "sessions"
        check_administrator(principal)
        asked = await _asked(request, accounts.of(principal))
        try:
            user = normal_user(principal, asked.user)
        except ValueError as error:
            raise BadRequest(f"user: {error}") from None
        topic, new = await service.session_for(principal.realm, user, new=asked.new)
        if not new:  # it must not end before its app has joined
            await service.submit(SessionKey(principal.realm, topic), BeginSession(principal.realm, topic, user))
        request.scope[LOG_FIELDS]["topic"] = log_hash(topic)
        return MadeSession(**{"hub.url": hub_url, "hub.topic": topic})

    @router.get("/sessions/{topic:path}/participants")
    async def show(topic: Topic, request: Request, principal: Principal = asking) -> list[ShownParticipant]:
        """Who takes part, and who is in step."""
        request.scope[AUDIT_FIELDS].act = Act.READ
        key = await service.find(principal.realm, _named(request, b"/participants"))
        request.scope[LOG_FIELDS] |= {"route": "participants", "topic": log_hash(check_topic(key.topic))}
        found = await service.participants(key, principal)
        return [
            ShownParticipant(
                name=each.name,
                events=list(each.events),
                never_match=list(filter(never_matches, each.events)),
                channel=each.channel,
                since=rfc3339(each.connected_or_lost_at),
                last_acknowledgement=rfc3339(at) if (at := heard(each.subscription_id)) else None,
                state=each.state,
            )
            for each in found
        ]

    @router.delete("/sessions/{topic:path}", status_code=204)
    async def end(topic: Topic, request: Request, principal: Principal = asking) -> None:
        """End a session: its subscribers are told so."""
        key = await service.find(principal.realm, _named(request))
        request.scope[LOG_FIELDS] |= {"route": "sessions", "topic": log_hash(check_topic(key.topic))}
        check_administrator(principal, key.topic)
        await service.end_session(key)

    return router


def _not_cached(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


def _named(request: Request, behind: bytes = b"") -> tuple[str, ...]:
    """The topics that the path may name, the likeliest first; `behind` stands after the topic. Raises BadRequest or NotFound.

    They are read as under hub.url (EVT-3, GET-10). In the decoded path an escaped slash would be as one that parts segments.
    """
    first, slash, rest = request.scope["raw_path"].lstrip(b"/").partition(b"/")
    rest = slash + (rest.rstrip(b"/") if behind else rest)
    if first != b"sessions" or not rest.endswith(behind):
        raise NotFound("expected /sessions/{topic} or /sessions/{topic}/participants, got another path")
    if not (topics := topics_in(rest.removesuffix(behind))):
        raise BadRequest("the path: expected a topic in it, got none")
    return topics


async def _asked(request: Request, account: Account) -> NewSession:
    """The body, of which no refusal says more than the place. Raises BadRequest, TooLarge or UnsupportedMediaType."""
    headers = Headers(request.scope["headers"])
    if media_type(headers) != "application/json":
        raise UnsupportedMediaType("Content-Type: expected application/json, got another or none")
    try:
        body = await read_body(headers, request.receive, MAX_FORM, account)
    except ClientGone:
        raise BadRequest("the body: it did not end") from None
    account.bodies -= len(body)
    try:
        return NewSession.model_validate_json(strip_bom(body))
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        if fault["type"] == "extra_forbidden":  # its place is what the client called it
            raise BadRequest("the body: expected only user and new, got another member") from None
        place = ".".join(map(str, fault["loc"])) or "the body"
        raise BadRequest(f"{place}: {fault['msg'][:1].lower()}{fault['msg'][1:]}") from None
