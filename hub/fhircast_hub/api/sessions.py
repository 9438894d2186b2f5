"""The session API (SES): authorization servers get sessions for their users here, and see and end them.

It stands at the root of the server, beside hub.url, and is no part of FHIRcast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from fhircast_hub.api.http import Headers, bearer_token
from fhircast_hub.api.log import FIELDS, TRAIL, Trail
from fhircast_hub.core.administration import check_administrator
from fhircast_hub.core.audit import Act
from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_TOPIC
from fhircast_hub.core.messages import check_topic, rfc3339
from fhircast_hub.core.principal import Principal, SessionKey
from fhircast_hub.ports import TokenVerifier
from fhircast_hub.service import Service

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
    channel: str
    since: Annotated[str, Field(description="When it connected, or went (RFC 3339).")]
    last_acknowledgement: Annotated[str | None, Field(alias="lastAcknowledgement")]
    state: Annotated[
        str, Field(description="in sync, refused X, silent, lost, does not acknowledge, or not connected yet")
    ]


def session_routes(
    service: Service,
    verifier: TokenVerifier,
    normal_user: NormalUser,
    heard: Callable[[str], float | None],
    hub_url: str,
    hashed: Callable[[str], str],
) -> APIRouter:
    """The routes. `heard` is when a subscription acknowledged last (epoch seconds); `hashed` makes a topic fit for logs."""
    router = APIRouter(dependencies=[Depends(HTTPBearer(auto_error=False))])

    async def principal_of(request: Request) -> Principal:
        trail: Trail = request.scope[TRAIL]
        trail.act = Act.OTHER
        trail.principal = await verifier.verify(bearer_token(Headers(request.scope["headers"])))
        trail.act = Act.SESSION
        return trail.principal

    asking = Depends(principal_of)  # a name of this function's, which an annotation could not find

    @router.post("/sessions", status_code=201)
    async def begin(asked: NewSession, request: Request, principal: Principal = asking) -> MadeSession:
        """A session for a user: the live one that was made here before, or a new one."""
        request.scope[FIELDS]["route"] = "sessions"
        check_administrator(principal)
        try:
            user = normal_user(principal, asked.user)
        except ValueError as error:
            raise BadRequest(f"user: {error}") from None
        topic, _ = await service.session_for(principal.realm, user, new=asked.new)
        request.scope[FIELDS]["topic"] = hashed(topic)
        return MadeSession(**{"hub.url": hub_url, "hub.topic": topic})

    @router.get("/sessions/{topic}/participants")
    async def show(topic: Topic, request: Request, principal: Principal = asking) -> list[ShownParticipant]:
        """Who takes part, and who is in step."""
        request.scope[FIELDS] |= {"route": "participants", "topic": hashed(check_topic(topic))}
        found = await service.participants(SessionKey(principal.realm, topic), principal)
        return [
            ShownParticipant(
                name=each.name,
                events=list(each.events),
                channel=each.channel,
                since=rfc3339(each.since),
                last_acknowledgement=rfc3339(at) if (at := heard(each.sid)) else None,
                state=each.state,
            )
            for each in found
        ]

    @router.delete("/sessions/{topic}", status_code=204)
    async def end(topic: Topic, request: Request, principal: Principal = asking) -> None:
        """End a session: its subscribers are told so."""
        request.scope[FIELDS] |= {"route": "sessions", "topic": hashed(check_topic(topic))}
        check_administrator(principal)
        await service.end_session(SessionKey(principal.realm, topic))

    return router
