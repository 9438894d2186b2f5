"""Which pages of which origins may send requests (CFG-6)."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.http.exchange import exchange_of


class _Refused(PlainTextResponse):
    """The answer to a refused preflight. Its reason is in the log too (OPS-17)."""

    def __init__(self, error: BadRequest, answer: Response) -> None:
        super().__init__(f"{error}\n", error.status)
        self._error = error
        own = {b"content-length", b"content-type"}
        self.raw_headers += [header for header in answer.raw_headers if header[0] not in own]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).refuse(self._error)
        await super().__call__(scope, receive, send)


#: The reason where the origin is not allowed.
_ORIGIN = "the header Origin must be an origin of FHIRCAST_CORS_ORIGINS"


class _Cors(CORSMiddleware):
    """Starlette's class admits pages of all origins to private networks. This class admits only allowed origins."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser's first request (OPTIONS)."""
        answer = super().preflight_response(request_headers)
        is_allowed = self.is_allowed_origin(request_headers["origin"])
        if not is_allowed:
            del answer.headers["Access-Control-Allow-Private-Network"]
        if answer.status_code == BadRequest.status:
            return _Refused(BadRequest(self._why_not() if is_allowed else _ORIGIN), answer)
        return answer

    def _why_not(self) -> str:
        """The reason where the origin is allowed: any header is, so the method is not."""
        return f"pages may send {', '.join(self.allow_methods)} here, and no other method"


def with_cors(origins: tuple[str, ...], app: ASGIApp, methods: list[str]) -> CORSMiddleware:
    """Let pages of these origins send requests to `app`.

    Cookies are never allowed, because only the Authorization header counts (AUT-2). Any header is allowed, because libraries
    and tracing add headers. A page of the internet may send requests to a hub in its user's own network.
    """
    return _Cors(
        app,
        allow_origins=origins,
        allow_methods=methods,
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=["Retry-After", "WWW-Authenticate", "X-Request-Id"],
    )
