"""Health and metrics at the root of the server (OPS-1). They need no token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fhircast_hub.http.exchange import exchange_of
from fhircast_hub.telemetry.metrics import CONTENT_TYPE


def health_routes(
    ready: Callable[[], bool], without_keys: Callable[[], list[str]], metrics: Callable[[], Awaitable[bytes]]
) -> list[Route]:
    """The routes /health/live, /health/ready and /metrics. `ready`: the store is open and the hub accepts requests.

    `without_keys`: the issuers whose keys are not known yet. `metrics`: the text for /metrics.
    """

    async def live(_: Request) -> Response:
        return PlainTextResponse("live\n")

    async def is_ready(request: Request) -> Response:
        if not ready():
            exchange_of(request.scope).log_fields["reason"] = "the hub starts or stops, or its database does not answer"
            return PlainTextResponse("not ready\n", 503)
        # OPS-18: not a failure: tokens of other issuers are accepted, and another node knows no more keys.
        lines = ["ready", *(f"no usable keys yet: {issuer}" for issuer in without_keys())]
        return PlainTextResponse("\n".join(lines) + "\n")

    async def show_metrics(_: Request) -> Response:
        return Response(await metrics(), media_type=CONTENT_TYPE)

    return [Route("/health/live", live), Route("/health/ready", is_ready), Route("/metrics", show_metrics)]
