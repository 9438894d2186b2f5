"""An issuer that answers questions about opaque tokens, and a hub that asks."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.verifier import Verifier
from fhircast_hub.core.errors import Unavailable
from fhircast_hub.service.ports import TokenVerifier
from tests.auth.conftest import FakeClock
from tests.auth.introspection_server import INTROSPECT, IntrospectionServer
from tests.auth.issuer_server import JWKS
from tests.tokens import Idp

OPAQUE = "sesame-0123456789"
AUDIENCE = "hub"


class World:
    """An issuer that can be asked, and a verifier of its tokens."""

    def __init__(self, server: IntrospectionServer, client: httpx.AsyncClient, clock: FakeClock) -> None:
        self.server, self.client, self.clock = server, client, clock
        self.idp = Idp(server.url, AUDIENCE)
        server.publish(JWKS, self.idp.jwks())
        self.verifier = Verifier([self.issuer()], client, clock)

    def issuer(self, **members: Any) -> Issuer:
        """The issuer with these members."""
        given: dict[str, Any] = {
            "jwks_uri": self.server.url + JWKS,
            "introspection_endpoint": self.server.url + INTROSPECT,
            "introspection_client_id": "the-hub",
            "introspection_client_secret": "p:ss wörd",
        }
        return Issuer(self.server.url, AUDIENCE, **(given | members))

    def claims(self, **claims: Any) -> dict[str, Any]:
        """What a good answer says; None leaves a claim out."""
        good = {
            "iss": self.server.url,
            "aud": AUDIENCE,
            "sub": "user-1",
            "client_id": "app",
            "scope": "openid fhircast/*.*",
            "exp": int(self.clock.now) + 3600,
        }
        return {name: value for name, value in (good | claims).items() if value is not None}

    def knows(self, token: str = OPAQUE, **claims: Any) -> str:
        """Let the issuer explain this token."""
        self.server.tokens[token] = self.claims(**claims)
        return token

    @property
    def questions(self) -> int:
        return self.server.asked[INTROSPECT]


async def unavailable(verifier: TokenVerifier, token: str = OPAQUE) -> Unavailable:
    """Why this token cannot be judged now."""
    with pytest.raises(Unavailable) as error:
        await verifier.verify(token)
    return error.value
