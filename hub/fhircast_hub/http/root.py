"""What stands beside hub.url, at the root of the server: health and metrics (OPS-1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException

from fhircast_hub.core.errors import BadRequest, HubError, MethodNotAllowed, NotFound
from fhircast_hub.http.errors import to_response
from fhircast_hub.http.openapi import describe
from fhircast_hub.http.request import Headers
from fhircast_hub.http.request_log import LOG_FIELDS

#: Paths of the root without a topic in them. They are no topics, also where hub.url is the root (GET-10).
ROOT_PATHS = frozenset(("/health/live", "/health/ready", "/metrics", "/openapi.json", "/sessions"))


def root_app(
    sessions: APIRouter, *, hub_path: str, ready: Callable[[], bool], metrics: Callable[[], bytes], metrics_type: str
) -> FastAPI:
    """The application for every path that is not under hub.url. Only the routes of `sessions` ask for a token."""
    app = FastAPI(title="fhircast-hub", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)

    @app.head("/health/live", include_in_schema=False)
    @app.get("/health/live", response_class=PlainTextResponse)
    async def live() -> Response:
        """The process answers."""
        return PlainTextResponse("live\n")

    @app.head("/health/ready", include_in_schema=False)
    @app.get(
        "/health/ready", response_class=PlainTextResponse, responses={503: {"description": "Not yet, or no more."}}
    )
    async def is_ready() -> Response:
        """The store is open and the hub takes requests."""
        return PlainTextResponse("ready\n") if ready() else PlainTextResponse("not ready\n", 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """Prometheus text format."""
        return Response(metrics(), media_type=metrics_type)

    @app.exception_handler(HubError)
    async def refuse(request: Request, error: HubError) -> Response:
        request.scope[LOG_FIELDS]["reason"] = type(error).__name__
        answer = to_response(error, Headers(request.scope["headers"]))
        headers = {name.decode(): value.decode() for name, value in answer.headers}
        return Response(answer.body, answer.status, headers, answer.media_type.decode())

    @app.exception_handler(RequestValidationError)
    async def refuse_form(request: Request, error: RequestValidationError) -> Response:
        """What pydantic found, without what was sent."""
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        return await refuse(request, BadRequest(f"{place}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"))

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> Response:
        """What is not served here, or not by this method."""
        if error.status_code == MethodNotAllowed.status:
            allow = (error.headers or {}).get("Allow", "")
            return await refuse(request, MethodNotAllowed(f"expected {allow}, got another method", allow=allow))
        expected = f"that of hub.url ({hub_path or '/'}), or one that /openapi.json lists"
        length = len(request.scope["raw_path"])
        return await refuse(request, NotFound(f"the path: expected {expected}, got one of length {length}"))

    @app.exception_handler(Exception)
    async def fail(request: Request, _: Exception) -> Response:
        """The server logs it after this."""
        return await refuse(request, HubError("the hub failed; its log says where"))

    app.include_router(sessions)

    @app.get("/openapi.json")
    async def description() -> dict[str, Any]:
        """All HTTP routes, those of hub.url too."""
        return describe(app.openapi(), hub_path)

    return app
