"""The HTTP side of an application: its pages, the shared modules, and its configuration."""

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
#: The libraries, directly from the repository: they need no build.
_CLIENTS = _HERE.parent / "clients"
#: Pages load only from here and from the neighbours on this machine. No page contains scripts or styles.
_POLICY = (
    "default-src 'self'; connect-src 'self' http://localhost:* ws://localhost:*; img-src 'self' blob: data:;"
    " frame-src http://localhost:*; base-uri 'none'; form-action 'self'; frame-ancestors {framed_by}"
)

#: Seconds for which a browser keeps the parts of a page without a question. A login takes less, and loads each page three times.
PART_SECONDS = 10
_PARTS = (".js", ".css", ".svg")


def make_site(
    pages: Path, config: Mapping[str, Any], *, more: Sequence[BaseRoute] = (), framed_by: str = "'none'"
) -> ASGIApp:
    """Serves the pages of a folder, with /config.json, /shared/ and the libraries. The routes of `more` come first.

    `framed_by`: the origin that may show the pages in a frame.
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
    """Adds security headers to answers without them, and keeps browsers from using old pages and parts."""

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
                if message["status"] in (200, 304) and scope["path"].endswith(_PARTS):
                    headers.setdefault("Cache-Control", f"max-age={PART_SECONDS}")
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, answer)
