"""The root of the server, beside hub.url: health, metrics, the session API and the OpenAPI description."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from fhircast_hub.core.errors import BadRequest, HubError, MethodNotAllowed, NotFound
from fhircast_hub.http.errors import to_response
from fhircast_hub.http.exchange import exchange_of
from fhircast_hub.http.openapi import describe
from fhircast_hub.http.request import Headers, Response

#: The root's paths without a topic. They are no topics, also where hub.url is the root (GET-10).
ROOT_PATHS = frozenset(("/health/live", "/health/ready", "/metrics", "/openapi.json", "/sessions"))


def root_app(health: APIRouter, sessions: APIRouter, *, hub_path: str) -> FastAPI:
    """The application for all paths outside of hub.url."""
    app = FastAPI(title="fhircast-hub", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.include_router(health)
    app.include_router(sessions)
    _add_refusals(app, hub_path)

    @app.get("/openapi.json")
    async def description() -> dict[str, Any]:
        """All HTTP routes, including those under hub.url."""
        return describe(app.openapi(), hub_path)

    return app


def _add_refusals(app: FastAPI, hub_path: str) -> None:
    """Answer errors as under hub.url."""
    app.exception_handler(HubError)(_refuse)
    app.exception_handler(RequestValidationError)(_refuse_parameter)
    app.exception_handler(Exception)(_fail)

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> Response:
        """An unknown path, or another method for a known path."""
        if error.status_code == MethodNotAllowed.status:
            allow = (error.headers or {}).get("Allow", "")
            return await _refuse(request, MethodNotAllowed(f"the method must be {allow}", allow=allow))
        known = f"that of hub.url ({hub_path or '/'}) or one of /openapi.json"
        length = len(request.scope["raw_path"])
        return await _refuse(request, NotFound(f"the path must be {known}, not another one of length {length}"))


async def _refuse(request: Request, error: HubError) -> Response:
    exchange_of(request.scope).log_fields["reason"] = type(error).__name__
    return to_response(error, Headers(request.scope["headers"]))


async def _refuse_parameter(request: Request, error: RequestValidationError) -> Response:
    """The first fault that pydantic found, without the client's value."""
    fault = error.errors()[0]
    member = ".".join(map(str, fault["loc"]))
    return await _refuse(request, BadRequest(f"{member}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"))


async def _fail(request: Request, _: Exception) -> Response:
    """A fault of the hub. uvicorn logs the exception afterwards."""
    return await _refuse(request, HubError("the hub failed; its log says where"))
