"""Parts of tokens, and how the hub refuses a token."""

from __future__ import annotations

import base64
import json

import jwt as pyjwt
import pytest

from fhircast_hub.core.errors import Unauthenticated
from fhircast_hub.service.ports import TokenVerifier
from tests.tokens import Idp


def segment(value: object) -> str:
    """Part of a token: base64url of bytes, or of a JSON value."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def refused(verifier: TokenVerifier, token: str) -> str:
    """Why this token is not believed."""
    with pytest.raises(Unauthenticated) as error:
        await verifier.verify(token)
    assert error.value.has_token
    return str(error.value)


def signed(idp: Idp, header: bytes, claims: bytes) -> str:
    """A token of the issuer's, whatever its parts are."""
    text = f"{segment(header)}.{segment(claims)}"
    return f"{text}.{segment(pyjwt.get_algorithm_by_name(idp.alg).sign(text.encode(), idp.key))}"
