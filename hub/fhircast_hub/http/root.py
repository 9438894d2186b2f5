"""The root of the server, beside hub.url: health, metrics, the session API and the OpenAPI description."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fhircast_hub.core.errors import HubError, MethodNotAllowed, NotFound
from fhircast_hub.http.errors import refuse
from fhircast_hub.http.exchange import exchange_of
from fhircast_hub.http.openapi import describe
from fhircast_hub.http.request import Headers, Response

#: The root's paths without a topic. They are no topics, also where hub.url is the root (GET-10).
ROOT_PATHS = frozenset(("/health/live", "/health/ready", "/metrics", "/openapi.json", "/sessions"))


def root_app(routes: Iterable[Route], *, hub_path: str) -> Starlette:
    """The application for all paths outside of hub.url: these routes, and their description with those of hub.url."""

    @cache
    def described() -> bytes:
        return msgspec.json.encode(describe(hub_path))

    async def description(_: Request) -> Response:
        return Response(200, described(), b"application/json")

    async def refuse_path(request: Request, error: HTTPException) -> Response:
        """An unknown path, or another method for a known path."""
        if error.status_code == MethodNotAllowed.status:
            allow = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            return await _refuse(request, MethodNotAllowed(f"the method must be {allow}", allow=allow))
        known = f"that of hub.url ({hub_path or '/'}), or one of those in /openapi.json"
        length = len(request.scope["raw_path"])
        return await _refuse(request, NotFound(f"the path must be {known}, not another one of length {length}"))

    # Errors are answered as under hub.url, by an answer of ours.
    handlers: dict[Any, Any] = {HubError: _refuse, HTTPException: refuse_path, Exception: _fail}
    app = Starlette(routes=[*routes, Route("/openapi.json", description)], exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app


def json_route(path: str, answer: Callable[[], Awaitable[object]]) -> Route:
    """GET of `path` gets what `answer` returns, as JSON."""

    async def tell(_: Request) -> JSONResponse:
        return JSONResponse(await answer())

    return Route(path, tell)


async def _refuse(request: Request, error: HubError) -> Response:
    return refuse(error, exchange_of(request.scope), Headers(request.scope["headers"]))


async def _fail(request: Request, _: Exception) -> Response:
    """A fault of the hub. uvicorn logs the exception afterwards."""
    return await _refuse(request, HubError("the hub failed; its log says where"))
