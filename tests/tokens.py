"""An authorization server in a few lines: a key, the tokens it signs, and the key set it publishes."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import AllowedPrivateKeys

_CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def make_key(alg: str) -> AllowedPrivateKeys:
    """A private key that can sign with this algorithm; EC ones are made in no time, RSA ones are not."""
    if alg in _CURVES:
        return ec.generate_private_key(_CURVES[alg])
    if alg == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


class Idp:
    """Signs with one key. Every default of a token can be overridden by a claim of that name; None leaves it out."""

    def __init__(
        self,
        issuer: str = "https://idp.example",
        audience: str = "hub",
        *,
        kid: str = "key-1",
        alg: str = "ES256",
        key: AllowedPrivateKeys | None = None,
    ) -> None:
        self.issuer, self.audience, self.kid, self.alg = issuer, audience, kid, alg
        self.key = key or make_key(alg)

    def token(
        self,
        sub: str | None = "user-1",
        scope: str | None = "fhircast/*.*",
        *,
        now: float | None = None,
        headers: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token good for an hour from `now`. A header of None is left out too."""
        issued = int(time.time() if now is None else now)
        defaults = {"iss": self.issuer, "aud": self.audience, "iat": issued, "exp": issued + 3600, "client_id": "app"}
        payload = {**defaults, "sub": sub, "scope": scope, **claims}
        header = {"kid": self.kid, **(headers or {})}
        # Not jwt.encode, which would not sign the odd claims that a test of refusals needs.
        return jwt.PyJWS().encode(
            json.dumps({name: value for name, value in payload.items() if value is not None}).encode(),
            self.key,
            self.alg,
            {name: value for name, value in header.items() if value is not None},
        )

    def jwk(self) -> dict[str, Any]:
        """The public key (RFC 7517 section 4)."""
        public: dict[str, Any] = jwt.get_algorithm_by_name(self.alg).to_jwk(self.key.public_key(), as_dict=True)
        return {**public, "key_ops": ["verify"], "kid": self.kid, "use": "sig", "alg": self.alg}

    def jwks(self) -> dict[str, Any]:
        """The key set (RFC 7517 section 5)."""
        return {"keys": [self.jwk()]}
