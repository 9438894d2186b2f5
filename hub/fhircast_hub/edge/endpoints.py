"""WebSocket endpoints: "cryptographically random, unique, and unguessable" (FHIRcast 3.0.0, 2.4), and stored by digest only.

A browser cannot send a token with a WebSocket, so the endpoint itself is the credential. Sessions and the store hold its digest
only: the digest is the id of the subscription, and a leaked file gives no endpoint away.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from urllib.parse import quote, unquote, urlsplit

#: The path of the endpoints that legacy clients choose themselves.
BIND = "/bind/"
#: Random bits in an endpoint (SUB-2 asks for 128).
_BITS = 256
#: Characters of an endpoint's last segment.
_MAX_TOKEN = 256
_EMPTY_SEGMENTS = re.compile("/{2,}")


class Endpoints:
    """Makes endpoints under hub.url, and digests the endpoints that clients send back.

    `base` is hub.url with the scheme ws or wss, `path` its path, both without a slash at the end. With `legacy`, clients may also
    choose endpoints at /bind/…, as the oldest demo clients do.
    """

    def __init__(self, base: str, path: str, *, legacy: bool = False) -> None:
        self._base = base
        self._prefixes = (f"{path}/ws/", BIND) if legacy else (f"{path}/ws/",)
        self.legacy = legacy

    def new(self) -> tuple[str, str]:
        """A new endpoint and its digest."""
        token = secrets.token_urlsafe(_BITS // 8)
        return f"{self._base}/ws/{token}", _digest(token)

    def from_client(self, endpoint: str) -> tuple[str, str]:
        """The endpoint that a client names, and its digest. Only the last segment counts: a proxy may rewrite the rest.

        A legacy client may name the last segment only. The returned endpoint is the whole URL then.
        """
        token = _token(endpoint)
        if self.legacy and "/ws/" not in endpoint:
            origin = urlsplit(self._base)
            endpoint = f"{origin.scheme}://{origin.netloc}{BIND}{quote(token, safe='')}"
        return endpoint, _digest(token)

    def is_path(self, path: str) -> bool:
        """Whether a request's path is that of WebSockets. The endpoint need not exist."""
        path = without_empty_segments(path)
        return any(path.startswith(prefix) and path != prefix for prefix in self._prefixes)

    def resolve(self, path: str) -> str | None:
        """The digest of the endpoint in a WebSocket request's path. The query is ignored. None: the path cannot be an endpoint."""
        path = without_empty_segments(path.partition("?")[0])
        for prefix in self._prefixes:
            token = unquote(path[len(prefix) :].rstrip("/")) if path.startswith(prefix) else ""
            if token and "/" not in token:
                return _digest(token) if len(token) <= _MAX_TOKEN else None
        return None


def without_empty_segments(path: str) -> str:
    """The path with one slash for each run of slashes (GET-10)."""
    return _EMPTY_SEGMENTS.sub("/", path)


def _token(endpoint: str) -> str:
    return unquote(endpoint.partition("?")[0].rstrip("/").rpartition("/")[2])


def _digest(token: str) -> str:
    return hashlib.blake2b(token.encode(errors="surrogateescape"), digest_size=16).hexdigest()
