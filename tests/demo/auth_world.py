"""An application that signs in at the demo's authorization server."""

from __future__ import annotations

from typing import Any

from joserfc import jwt
from joserfc.jwk import KeySet

from tests.smart_client import User


async def read(user: User, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, verified with the published keys."""
    keys = KeySet.import_key_set((await user.http.get("/jwks")).json())
    found = jwt.decode(token, keys, ["ES256"])
    return dict(found.header), found.claims
