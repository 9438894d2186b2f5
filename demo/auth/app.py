"""The server as an ASGI application: pages for users, and an API that pages of any origin may call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.auth.authorize import SEE_OTHER, authorize, consent, login
from demo.auth.browsers import browser_of, is_from, remember
from demo.auth.discovery import get_jwks, get_openid_configuration, get_smart_configuration
from demo.auth.http import OAuthError, oauth_error, server_of
from demo.auth.launch import launch
from demo.auth.pages import PageError, language_of, page_error, page_form, stylesheet, switches_page
from demo.auth.server import AuthServer
from demo.auth.switches import Switches
from demo.auth.token import end_session, introspect, revoke, token

MAX_BODY = 64 * 1024
#: Paths that answer also while the server is down.
ALWAYS_UP = ("/switches", "/style.css")


def make_app(server: AuthServer) -> Starlette:
    """The application of this server. Its lifespan closes the server's connections to the hub."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with server.http:
            yield

    interface = [
        Route("/.well-known/smart-configuration", get_smart_configuration),
        Route("/.well-known/openid-configuration", get_openid_configuration),
        Route("/jwks", get_jwks),
        Route("/token", token, methods=["POST"]),
        Route("/introspect", introspect, methods=["POST"]),
        Route("/revoke", revoke, methods=["POST"]),
        Route("/end-session", end_session, methods=["GET", "POST"]),
        Route("/launch", launch, methods=["POST"]),
    ]
    # Any origin, without credentials: these routes do not read cookies.
    cors = Middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type"],
    )
    app = Starlette(
        routes=[
            Route("/authorize", authorize),
            Route("/login", login, methods=["POST"]),
            Route("/consent", consent, methods=["POST"]),
            Route("/switches", show_switches),
            Route("/switches", set_switches, methods=["POST"]),
            Route("/style.css", stylesheet),
            Mount("", routes=interface, middleware=[cors]),
        ],
        middleware=[Middleware(Guard, server=server)],
        exception_handlers={OAuthError: oauth_error, PageError: page_error},
        lifespan=lifespan,
        max_body_size=MAX_BODY,
    )
    app.state.server = server
    return app


async def show_switches(request: Request) -> Response:
    """GET /switches"""
    browser = browser_of(request)
    return remember(request, switches_page(request, browser.csrf), browser)


async def set_switches(request: Request) -> Response:
    """POST /switches: sets the switches to the form's values, or resets them. Raises PageError."""
    server, params = server_of(request), await page_form(request)
    if not is_from(browser_of(request), params.get("csrf", "")):
        raise PageError("bad_form")
    if params.get("action") == "reset":
        server.switches = replace(server.defaults)
    else:
        server.switches = Switches(**{each.name: params.get(each.name) == "on" for each in fields(Switches)})
    return RedirectResponse(f"/switches?ui_locales={language_of(request)}", SEE_OTHER)


class Guard:
    """Headers of every answer, and the answer of a server that is down."""

    def __init__(self, app: ASGIApp, server: AuthServer) -> None:
        self._app, self._server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Cache-Control"] = "no-store"
                headers["Referrer-Policy"] = "no-referrer"
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._server.switches.down and scope["path"] not in ALWAYS_UP and scope["method"] != "OPTIONS":
            # Readable for pages, so that they can show the reason.
            headers = {"Retry-After": "5", "Access-Control-Allow-Origin": "*"}
            await JSONResponse({"error": "temporarily_unavailable"}, 503, headers)(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)
