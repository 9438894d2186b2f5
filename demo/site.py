"""An application's HTTP side: its pages, the modules that all share, and what it must know of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HERE = Path(__file__).parent
#: The libraries, as they are in the repository: there is nothing to build.
_CLIENTS = _HERE.parent / "clients"
#: Everything comes from here and its neighbours on this machine, and no page holds a script or a style of its own.
_POLICY = (
    "default-src 'self'; connect-src 'self' http://localhost:* ws://localhost:*; img-src 'self' blob: data:;"
    " frame-src http://localhost:*; base-uri 'none'; form-action 'self'; frame-ancestors {framed_by}"
)


def make_site(
    pages: Path, config: Mapping[str, Any], *, more: Sequence[BaseRoute] = (), framed_by: str = "'none'"
) -> ASGIApp:
    """The pages of a folder, with /config.json, /shared/ and the libraries beside them, and the routes of `more` before.

    `framed_by` is the origin that may show the pages in a frame.
    """

    async def tell(_: Request) -> JSONResponse:
        return JSONResponse(config)

    routes = [
        *more,
        Route("/config.json", tell),
        Mount("/shared", StaticFiles(directory=_HERE / "web")),
        Mount("/fhircast-client", StaticFiles(directory=_CLIENTS / "javascript" / "src")),
        Mount("/fhircast-identity", StaticFiles(directory=_CLIENTS / "identity" / "javascript" / "src")),
        Mount("/", StaticFiles(directory=pages, html=True)),
    ]
    return _Careful(Starlette(routes=routes), _POLICY.format(framed_by=framed_by))


class _Careful:
    """Adds what keeps a page safe to answers that do not say it themselves, and lets no browser keep an old module."""

    def __init__(self, app: ASGIApp, policy: str) -> None:
        self._app = app
        self._headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, answer)
