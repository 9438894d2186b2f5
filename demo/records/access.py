"""Access by bearer tokens (RFC 6750). The caller's `verify` checks the token; its scopes decide."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from demo.auth.scopes import allowed

#: Returns the token's claims, `scope` among them. Raises any exception for an invalid token.
Verify = Callable[[str], Awaitable[Any]]
#: Makes the 401 answer, from a reason for users and its headers.
Refuse = Callable[[str, dict[str, str]], Response]

_log = logging.getLogger("demo.access")


class Bearer:
    """ASGI middleware: passes requests with a valid token, and all requests for the paths in `free`."""

    def __init__(self, app: ASGIApp, verify: Verify, refuse: Refuse, free: frozenset[str] = frozenset()) -> None:
        self._app, self._verify, self._refuse, self._free = app, verify, refuse, free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        app = self._app
        if scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) not in self._free:
            app = await self._refusal(scope) or app
        await app(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Response | None:
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return self._refuse("a bearer token is needed", {"WWW-Authenticate": "Bearer"})
        try:
            claims = await self._verify(token.strip())
            scope.setdefault("state", {})["scopes"] = str(claims.get("scope", "")).split(" ")
        except Exception as error:  # any failure refuses the request
            _log.info("a token was refused: %s", type(error).__name__)
            return self._refuse("this token is not good", {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return None


def may(request: Request, type_: str, rights: str) -> bool:
    """Whether the token's scopes allow its user these rights, such as "rs" (SMART App Launch 2.2, "Scopes for
    requesting FHIR Resources")."""
    return bool(allowed([f"user/{type_}.{rights}"], request.state.scopes))


def guarded(
    verify: Verify, refuse: Refuse, free: frozenset[str] = frozenset(), methods: Sequence[str] = ("GET",)
) -> list[Middleware]:
    """Pages of any origin may send requests with a token: cookies are neither sent nor read. Preflights need no token."""
    anybody = Middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=methods,
        allow_headers=["Authorization", "Content-Type", "Prefer"],
        expose_headers=["WWW-Authenticate"],
    )
    return [anybody, Middleware(Bearer, verify=verify, refuse=refuse, free=free)]
