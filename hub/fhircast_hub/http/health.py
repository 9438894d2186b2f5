"""Health and metrics at the root of the server (OPS-1). They need no token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from fhircast_hub.telemetry.metrics import CONTENT_TYPE


def health_routes(ready: Callable[[], bool], metrics: Callable[[], Awaitable[bytes]]) -> APIRouter:
    """The routes /health/live, /health/ready and /metrics. `ready`: the store is open and the hub accepts requests.

    `metrics`: the text for /metrics.
    """
    router = APIRouter(default_response_class=PlainTextResponse)

    @router.head("/health/live", include_in_schema=False)
    @router.get("/health/live")
    async def live() -> Response:
        """The process answers."""
        return PlainTextResponse("live\n")

    @router.head("/health/ready", include_in_schema=False)
    @router.get("/health/ready", responses={503: {"description": "The hub starts or stops."}})
    async def is_ready() -> Response:
        """The store is open and the hub accepts requests."""
        return PlainTextResponse("ready\n") if ready() else PlainTextResponse("not ready\n", 503)

    @router.get("/metrics")
    async def show_metrics() -> Response:
        """Prometheus text format."""
        return Response(await metrics(), media_type=CONTENT_TYPE)

    return router
