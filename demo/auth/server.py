"""One authorization server: its configuration and its state. Servers share no state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from demo.auth.expiring_store import Expiring
from demo.auth.model import Browser, Client, Clinician, Code, Grant, HubSessions, Launch, Login, Pending
from demo.auth.signing import InvalidToken, Signer
from demo.auth.switches import Switches
from demo.auth.texts import Text

#: As on the FHIR server (demo/records/data/Practitioner.json).
CLINICIANS = (
    Clinician("nygaard", "Ingrid Nygård", "practitioner-1", "9144889", "IN"),
    Clinician("okafor", "Samuel Okafor", "practitioner-2", "9999902", "SO"),
    Clinician("chen", "Mei-Lin Chen", "practitioner-3", "9999903", "MC"),
)

#: Seconds until a code expires, and until its second use is no longer noticed (RFC 6749 section 4.1.2).
CODE_SECONDS, CODE_REMEMBERED = 60, 3600
LAUNCH_SECONDS = 300
#: Seconds that a login page may be open.
PENDING_SECONDS = 900
#: Seconds that a browser stays signed in, which limits an `online_access` refresh token.
BROWSER_SECONDS = 8 * 3600
#: Seconds in which a refresh token may be used again: the answer to its last use may have been lost.
AGAIN_SECONDS = 10
#: Seconds until an unused `offline_access` refresh token expires.
OFFLINE_SECONDS = 30 * 86400
#: Seconds that the hub may take to give a session.
HUB_SECONDS = 3


@dataclass(eq=False)
class AuthServer:
    """First the configuration, then the state.

    `issuer`: the address, without a path. `audience`: the hub, `fhir_base`: the FHIR server; tokens are for both.
    `stylesheet`: the file of /style.css. `frame_origins` may show its pages in a frame. `token_seconds`: the lifetime
    of access tokens. `slow_seconds`: the delay of "slow". `clock` gives epoch seconds, `pause` waits for seconds.
    `single_sign_on`: the position of that switch at start and after a reset. Raises ValueError for an issuer with a
    path, or a client id given twice.
    """

    issuer: str
    title: Text
    clients: tuple[Client, ...]
    audience: str
    fhir_base: str
    hub: HubSessions | None = None
    clinicians: tuple[Clinician, ...] = CLINICIANS
    frame_origins: tuple[str, ...] = ()
    stylesheet: Path = Path(__file__).parents[1] / "web" / "style.css"
    token_seconds: int = 300
    slow_seconds: float = 5
    single_sign_on: bool = False
    clock: Callable[[], float] = time.time
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    def __post_init__(self) -> None:
        parts = urlsplit(self.issuer)
        if (
            parts.scheme not in {"http", "https"}
            or not parts.netloc
            or self.issuer != f"{parts.scheme}://{parts.netloc}"
        ):
            raise ValueError("issuer must be an origin such as http://localhost:9001")
        if len({client.client_id for client in self.clients}) != len(self.clients):
            raise ValueError("clients: a client id is given twice")
        self.signer = Signer()
        self.http = httpx.AsyncClient(trust_env=False, timeout=HUB_SECONDS)
        self.defaults = Switches(single_sign_on=self.single_sign_on)
        self.switches = replace(self.defaults)
        self.browsers: Expiring[Browser] = Expiring(self.clock)
        #: By sid: the logins.
        self.logins: Expiring[Login] = Expiring(self.clock)
        self.pending: Expiring[Pending] = Expiring(self.clock)
        self.launches: Expiring[Launch] = Expiring(self.clock)
        self.codes: Expiring[Code] = Expiring(self.clock)
        self.refresh_tokens: Expiring[Grant] = Expiring(self.clock)
        #: By the jti of access tokens. A missing one is revoked.
        self.access_tokens: Expiring[Grant] = Expiring(self.clock)
        #: By clinician and client, the scopes with consent.
        self.consents: dict[tuple[str, str], frozenset[str]] = {}

    @property
    def audiences(self) -> tuple[str, str]:
        """The audiences of its access tokens."""
        return self.audience, self.fhir_base

    @property
    def cookie(self) -> str:
        """Cookies ignore ports: servers of one host need different names."""
        return "signed-in-" + urlsplit(self.issuer).netloc.replace(":", "-").replace("[", "").replace("]", "")

    def client(self, client_id: str) -> Client | None:
        """The registered application with this id."""
        return next((client for client in self.clients if client.client_id == client_id), None)

    def clinician(self, name: str) -> Clinician | None:
        """By id or HPR number."""
        return next((each for each in self.clinicians if name in {each.id, each.hpr_number}), None)

    def read_token(self, token: str) -> dict[str, Any]:
        """The claims of a valid access token that a user got here. Raises InvalidToken."""
        claims = self.signer.read(token, self.issuer, self.clock())
        grant = self.access_tokens.get(str(claims["jti"]))
        if grant is None or grant.revoked or grant.is_left:
            raise InvalidToken
        return claims
