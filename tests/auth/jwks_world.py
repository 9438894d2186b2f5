"""Keys of an issuer, and how a test finds and rotates the keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwks import Key, KeySet
from tests.auth.conftest import FakeClock
from tests.auth.issuer_server import JWKS, IssuerServer
from tests.tokens import Idp


@pytest.fixture
async def keys(issuer: Issuer, client: httpx.AsyncClient, clock: FakeClock) -> AsyncIterator[KeySet]:
    keys = KeySet(issuer, client, clock)
    yield keys
    await keys.aclose()


async def find(keys: KeySet, kid: str | None, alg: str = "ES256", *, signed: Callable[[Key], bool] = bool) -> Key:
    """The key that signed a token with this header, by default the first that is tried."""
    key, _ = await keys.find(kid, alg, lambda key: signed(key) or None)
    return key


def other(kid: str = "key-2") -> dict[str, Any]:
    return Idp(kid=kid).jwk()


def rotate(server: IssuerServer, *entries: dict[str, Any]) -> None:
    server.publish(JWKS, {"keys": entries})
