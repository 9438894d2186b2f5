"""Keys of an issuer, and how a test finds and rotates the keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fhircast_hub.auth.jwks import Key, KeySet
from tests.auth.issuer_server import JWKS, IssuerServer
from tests.tokens import Idp


async def find(keys: KeySet, kid: str | None, alg: str = "ES256", *, signed: Callable[[Key], bool] = bool) -> Key:
    """The key that signed a token with this header, by default the first that is tried."""
    key, _ = await keys.find(kid, alg, lambda key: signed(key) or None)
    return key


def other(kid: str = "key-2") -> dict[str, Any]:
    return Idp(kid=kid).jwk()


def rotate(server: IssuerServer, *entries: dict[str, Any]) -> None:
    server.publish(JWKS, {"keys": entries})
