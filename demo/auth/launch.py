"""POST /launch: the EHR tells the open context before it launches an application. SMART leaves the way to the EHR."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

from demo.auth.http import OAuthError, bearer, server_of
from demo.auth.model import Launch
from demo.auth.server import LAUNCH_SECONDS

#: A FHIR id.
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,64}$")]


class NewLaunch(BaseModel):
    """The body. The ids are logical ids at the FHIR server of this authorization server."""

    model_config = ConfigDict(extra="forbid", strict=True)

    patient: Id | None = None
    encounter: Id | None = None
    imaging_study: Annotated[Id | None, Field(alias="imagingStudy")] = None
    intent: Annotated[str | None, Field(max_length=100)] = None
    need_patient_banner: bool = True


async def launch(request: Request) -> JSONResponse:
    """The launch id: valid for one authorization of the token's user, within LAUNCH_SECONDS."""
    server, claims = server_of(request), bearer(request)
    client, clinician = server.client(claims["client_id"]), server.clinician(claims["sub"])
    if client is None or clinician is None or not client.may_launch:
        raise OAuthError("insufficient_scope", "this client may not launch applications", 403)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise OAuthError("invalid_request", "Content-Type must be application/json", 415)
    try:
        asked = NewLaunch.model_validate_json(await request.body())
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        place = "a member" if fault["type"] == "extra_forbidden" else ".".join(map(str, fault["loc"])) or "the body"
        raise OAuthError("invalid_request", f"{place} is invalid") from None
    context = Launch(
        clinician=clinician,
        patient=asked.patient,
        encounter=asked.encounter,
        imaging_study=asked.imaging_study,
        intent=asked.intent,
        need_patient_banner=asked.need_patient_banner,
    )
    return JSONResponse({"launch": server.launches.add(context, LAUNCH_SECONDS)}, 201)
