"""What stands beside hub.url, at the root of the server: health and metrics (OPS-1)."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response


def root_app(*, ready: Callable[[], bool], metrics: Callable[[], bytes], metrics_type: str) -> FastAPI:
    """The application for every path that is not under hub.url. None of its routes asks for a token."""
    app = FastAPI(title="fhircast-hub", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)

    @app.api_route("/health/live", methods=["GET", "HEAD"])
    async def live() -> Response:
        """The process answers."""
        return PlainTextResponse("live\n")

    @app.api_route("/health/ready", methods=["GET", "HEAD"])
    async def is_ready() -> Response:
        """The store is open and the hub takes requests."""
        return PlainTextResponse("ready\n") if ready() else PlainTextResponse("not ready\n", 503)

    @app.get("/metrics")
    async def show_metrics() -> Response:
        """Prometheus text format."""
        return Response(metrics(), media_type=metrics_type)

    return app
