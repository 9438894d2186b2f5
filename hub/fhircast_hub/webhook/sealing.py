"""Secrets of webhooks: sealed in the store (Fernet: AES-128-CBC and HMAC-SHA256), and used to sign posts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from cryptography.fernet import Fernet, InvalidToken


class Sealer:
    """Seals and opens secrets with SECRET_KEY. Without `key`, a random key is used, and lost with the process."""

    def __init__(self, key: str | None) -> None:
        digest = hashlib.blake2b(
            (key or secrets.token_hex()).encode(), digest_size=32, person=b"webhook secrets"
        ).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(digest))

    def seal(self, secret: str | None) -> bytes:
        """The sealed secret, for the store; empty without a secret."""
        return self._fernet.encrypt(secret.encode()) if secret else b""

    def open(self, sealed: bytes) -> bytes | None:
        """The secret; empty without one. None: sealed with another key."""
        try:
            return self._fernet.decrypt(sealed) if sealed else b""
        except InvalidToken:
            return None


def signature(secret: bytes, body: bytes) -> str:
    """The value of X-Hub-Signature (WHK-4)."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
