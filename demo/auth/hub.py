"""Asks the hub for a session, which is given out beside the access token (docs/issuers.md, "Sessions as launch
parameters")."""

from __future__ import annotations

import logging
from typing import Any

import httpx

from demo.auth.expiring_store import new_secret
from demo.auth.model import Clinician
from demo.auth.server import AuthServer
from demo.auth.signing import ACCESS_TOKEN

_LOG = logging.getLogger(__name__)

SCOPE = "fhircast-hub/sessions.write"
TOKEN_SECONDS = 60
MEMBERS = ("hub.url", "hub.topic")


async def session_for(server: AuthServer, clinician: Clinician) -> dict[str, str]:
    """hub.url and hub.topic of the user's session. Empty where this server has no session API, or the hub is away."""
    if server.hub is None:
        return {}
    headers = {"Authorization": f"Bearer {_system_token(server, server.hub.client_id)}"}
    try:
        answer = await server.http.post(server.hub.url, json={"user": clinician.hpr_number}, headers=headers)
        found = answer.json() if answer.status_code == httpx.codes.CREATED else f"status {answer.status_code}"
    except (httpx.HTTPError, ValueError) as error:
        found = type(error).__name__
    if isinstance(found, dict) and all(isinstance(found.get(name), str) for name in MEMBERS):
        return {name: found[name] for name in MEMBERS}
    why = found if isinstance(found, str) else "its answer must have hub.url and hub.topic as texts"
    _LOG.warning(
        "%s: the hub gave no session (%s); the token goes out without hub.url and hub.topic", server.issuer, why
    )
    return {}


def _system_token(server: AuthServer, client_id: str) -> str:
    """A token of the server itself. Switches do not affect it, because the application is to be seen failing."""
    now = int(server.clock())
    claims: dict[str, Any] = {
        "iss": server.issuer,
        "sub": client_id,
        "client_id": client_id,
        "aud": list(server.audiences),
        "scope": SCOPE,
        "iat": now,
        "exp": now + TOKEN_SECONDS,
        "jti": new_secret(),
    }
    return server.signer.sign(claims, ACCESS_TOKEN)
