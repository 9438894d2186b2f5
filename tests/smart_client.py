"""The demo's authorization server on a free loopback port, and a browser with an application in it that asks there."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import uvicorn
from joserfc.util import urlsafe_b64encode

from demo.auth import AuthServer, Client, HubSessions, Text, make_app
from tests.running import NO_TLS

PATIENCE = 20
AUDIENCE = "https://hub.example/api/hub"
BACK = "http://localhost:9/back?from=login"
SECRET = "a secret of the archive's"
SCOPES = ["openid", "profile", "fhirUser", "launch", "online_access", "offline_access", "patient/*.rs", "user/*.rs"]

CLIENTS = (
    Client("viewer", Text("Viewer", "Bildeviser"), (BACK,), (*SCOPES, "fhircast/*.*")),
    Client("archive", Text("Archive", "Arkiv"), (BACK,), ("openid", "fhircast/*.read"), secret=SECRET),
    Client("ehr", Text("EHR", "Journal"), (BACK,), (*SCOPES, "fhircast/*.*"), may_launch=True, asks_consent=False),
)


class Server(uvicorn.Server):
    """One that leaves signals to pytest."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield


def listen() -> socket.socket:
    """A listener; whose port is known before anything runs."""
    return socket.create_server(("127.0.0.1", 0))


def origin(listener: socket.socket) -> str:
    """Where browsers find it."""
    return f"http://localhost:{listener.getsockname()[1]}"


def auth_server(listener: socket.socket, hub: HubSessions | None = None, **settings: Any) -> AuthServer:
    """A server with CLIENTS; `settings` are other arguments of AuthServer."""
    defaults = {"audience": AUDIENCE, "fhir_base": "http://localhost:9/fhir", "clients": CLIENTS}
    title = Text("Hospital login", "Sykehusets innlogging")
    return AuthServer(issuer=origin(listener), title=title, hub=hub, **(defaults | settings))


@asynccontextmanager
async def serving(server: AuthServer, listener: socket.socket) -> AsyncIterator[AuthServer]:
    """It answers within the block."""
    config = uvicorn.Config(make_app(server), lifespan="on", access_log=False, log_config=None)
    running = Server(config)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(PATIENCE):
            while not running.started:  # uvicorn has no event for it
                assert not task.done()
                await asyncio.sleep(0.005)
        yield server
    finally:
        running.should_exit = True
        await task


class User:
    """A browser, in which the application `client_id` asks `server`. Use it as `async with`."""

    def __init__(self, server: AuthServer, client_id: str = "viewer") -> None:
        self.server, self.client_id = server, client_id
        self.http = httpx.AsyncClient(base_url=server.issuer, trust_env=False, timeout=PATIENCE, verify=NO_TLS)
        self.verifier = secrets.token_urlsafe(48)

    async def __aenter__(self) -> User:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    def request(self, **parameters: str | None) -> dict[str, str]:
        """The parameters of an authorization request; None leaves one out."""
        defaults: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": BACK,
            "scope": "openid fhircast/Patient-open.read fhircast/Patient-open.write",
            "state": "a state",
            "aud": self.server.fhir_base,
            "code_challenge": urlsafe_b64encode(sha256(self.verifier.encode()).digest()).decode(),
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in (defaults | parameters).items() if value is not None}

    async def ask(self, **parameters: str | None) -> httpx.Response:
        """GET /authorize."""
        return await self.http.get("/authorize", params=self.request(**parameters))

    async def submit(self, page: httpx.Response, **values: str) -> httpx.Response:
        """Send the form of a page, with the button that was pressed."""
        assert page.status_code == 200, page.text
        action = re.search(r'<form method="post" action="([^"]+)"', page.text)
        assert action, page.text
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text)
        data = {name: unescape(value) for name, value in hidden}
        return await self.http.post(unescape(action[1]), data=data | values)

    async def agree(self, clinician: str = "nygaard", **parameters: str | None) -> dict[str, str]:
        """Through all pages as this clinician who allows everything; the answer to the application."""
        page = await self.ask(**parameters)
        if 'action="/login' in page.text:
            page = await self.submit(page, clinician=clinician)
        if 'action="/consent' in page.text:
            page = await self.submit(page, answer="allow")
        return answer(page)

    async def redeem(self, code: str, **parameters: Any) -> httpx.Response:
        """POST /token with a code."""
        given = {"grant_type": "authorization_code", "redirect_uri": BACK, "code_verifier": self.verifier}
        return await self.token(**(given | {"code": code} | parameters))

    async def refresh(self, token: str, **parameters: str) -> httpx.Response:
        """POST /token with a refresh token."""
        return await self.token(grant_type="refresh_token", refresh_token=token, **parameters)

    async def token(self, **parameters: Any) -> httpx.Response:
        """POST /token as this public client."""
        data = {"client_id": self.client_id, **parameters}
        given = {name: value for name, value in data.items() if value is not None}
        return await self.http.post("/token", data=given, headers={"Origin": "http://localhost:9"})

    async def tokens(self, clinician: str = "nygaard", **parameters: str | None) -> dict[str, Any]:
        """The token response after all of it."""
        response = await self.redeem((await self.agree(clinician, **parameters))["code"])
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def introspect(self, token: str) -> dict[str, Any]:
        """What /introspect tells the archive."""
        response = await self.http.post("/introspect", data={"token": token}, auth=("archive", SECRET))
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def switch(self, *names: str, action: str = "save") -> httpx.Response:
        """Turn these on and the others off, on the page; the page afterwards."""
        response = await self.submit(await self.http.get("/switches"), action=action, **dict.fromkeys(names, "on"))
        assert response.status_code == 303, response.text
        return await self.http.get(response.headers["location"])


def answer(response: httpx.Response) -> dict[str, str]:
    """What a redirect tells the application."""
    assert response.status_code == 303, response.text
    location = response.headers["location"]
    assert location.startswith(BACK + "&"), location
    found = dict(parse_qsl(urlsplit(location).query))
    assert found.pop("from") == "login"
    return found
