"""Keys made at start, and the JWTs that they sign: access tokens (RFC 9068) and id tokens (OpenID Connect Core)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

ALGORITHM = "ES256"
ACCESS_TOKEN, ID_TOKEN = "at+jwt", "JWT"


class InvalidToken(Exception):
    """Not a valid token of this server."""


class Signer:
    """A key pair that is published, and one that is not. Nobody can verify signatures of the second."""

    def __init__(self) -> None:
        self._key, self._unpublished = _new_key(), _new_key()

    def jwks(self) -> dict[str, Any]:
        """The published key set (RFC 7517 section 5)."""
        return dict(KeySet([self._key]).as_dict(private=False))

    def sign(self, claims: dict[str, Any], typ: str, *, unknown_key: bool = False) -> str:
        """A compact JWT."""
        key = self._unpublished if unknown_key else self._key
        header = {"alg": ALGORITHM, "typ": typ, "kid": key.kid}
        return jwt.encode(header, claims, key, [ALGORITHM])

    def read(self, token: str, issuer: str, now: float) -> dict[str, Any]:
        """The claims of an access token of this issuer that is valid at `now` (epoch seconds). Raises InvalidToken."""
        claims = self._read(token, (self._key,), ACCESS_TOKEN)  # RFC 9068 section 4: an id token is not an access token
        expected = jwt.JWTClaimsRegistry(
            int(now),
            iss={"essential": True, "value": issuer},
            exp={"essential": True},
            jti={"essential": True},
            sub={"essential": True},
        )
        try:
            expected.validate(claims)
        except (JoseError, ValueError, TypeError):
            raise InvalidToken from None
        return claims

    def read_hint(self, token: str, issuer: str) -> dict[str, Any]:
        """The claims of an id token of this issuer, `sid` among them: "The OP SHOULD accept ID Tokens [...] even when
        the exp time has passed".

        With a switch, the other key may have signed it. Raises InvalidToken.
        """
        claims = self._read(token, (self._key, self._unpublished), ID_TOKEN)
        if claims.get("iss") != issuer or not isinstance(claims.get("sid"), str):
            raise InvalidToken
        return claims

    @staticmethod
    def _read(token: str, keys: Iterable[ECKey], typ: str) -> dict[str, Any]:
        try:
            found = jwt.decode(token, KeySet(list(keys)), [ALGORITHM])
        except (JoseError, ValueError, TypeError):  # TypeError: joserfc 1.8 fails on a crit that is not a list
            raise InvalidToken from None
        if found.header.get("typ") != typ:
            raise InvalidToken
        return found.claims


def _new_key() -> ECKey:
    return ECKey.generate_key("P-256", {"use": "sig", "alg": ALGORITHM}, auto_kid=True)
