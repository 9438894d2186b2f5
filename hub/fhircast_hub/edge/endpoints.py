"""WebSocket endpoints: "cryptographically random, unique, and unguessable" (FHIRcast 3.0.0, 2.4), and stored by digest only.

A browser cannot send a token with a WebSocket, so the endpoint is the ticket. What sessions and the store hold, and what could
leak from the file, is its digest.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from urllib.parse import quote, unquote, urlsplit

#: Where a legacy client's own endpoints are, at the server's root.
BIND = "/bind/"
#: Random bits in an endpoint (SUB-2 asks for 128).
_BITS = 256
_MAX_TOKEN = 256
_EMPTY_SEGMENTS = re.compile("/{2,}")


class Endpoints:
    """Makes endpoints under hub.url, and finds the digest of one that comes back.

    `base` is hub.url with scheme ws or wss, `path` its path, both without a slash at the end. `legacy` takes endpoints of the
    client's choosing too, at /bind/…, for the oldest demo clients.
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
        """What a client says is its endpoint, and its digest: the last segment counts, whatever proxy rewrote the rest.

        A legacy client may say no more than that segment, and is told the whole.
        """
        token = _token(endpoint)
        if self.legacy and "/ws/" not in endpoint:
            origin = urlsplit(self._base)
            endpoint = f"{origin.scheme}://{origin.netloc}{BIND}{quote(token, safe='')}"
        return endpoint, _digest(token)

    def is_path(self, path: str) -> bool:
        """Whether WebSockets are served at a request's path; whether this one is an endpoint is not looked up."""
        path = without_empty_segments(path)
        return any(path.startswith(prefix) and path != prefix for prefix in self._prefixes)

    def resolve(self, path: str) -> str | None:
        """The digest of the endpoint in a WebSocket request's path; its query is ignored. None if it can be none."""
        path = without_empty_segments(path.partition("?")[0])
        for prefix in self._prefixes:
            token = unquote(path[len(prefix) :].rstrip("/")) if path.startswith(prefix) else ""
            if token and "/" not in token:
                return _digest(token) if len(token) <= _MAX_TOKEN else None
        return None


def without_empty_segments(path: str) -> str:
    """A path with each run of slashes as one (GET-10)."""
    return _EMPTY_SEGMENTS.sub("/", path)


def _token(endpoint: str) -> str:
    return unquote(endpoint.partition("?")[0].rstrip("/").rpartition("/")[2])


def _digest(token: str) -> str:
    return hashlib.blake2b(token.encode(errors="surrogateescape"), digest_size=16).hexdigest()
