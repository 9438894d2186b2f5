"""What can be wrong with a request, split by whose fault it is.

Each kind of error is a class with the HTTP status that fits it; `http/errors.py` is the one place that puts it on the wire.
A message says what was expected and what came, and is safe to show: it names values by type and length, and quotes only
modes, channel types, event names, numbers and versions (FHIRcast 3.0.0, 2.4 Subscribing: "SHOULD return a description of
the error in the response body as plain text").
"""

from __future__ import annotations


class HubError(Exception):
    """A request the hub refuses. `status` is the HTTP status, `str(error)` one line for the client's developer."""

    status = 500

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        #: seconds after which trying again may help, or None
        self.retry_after = retry_after


class BadRequest(HubError):
    """The form or the envelope is not what the specification asks for."""

    status = 400


class Unauthenticated(HubError):
    """No token, or one that proves nothing. `presented` tells the two apart (RFC 6750 section 3.1)."""

    status = 401

    def __init__(self, message: str, *, presented: bool = True) -> None:
        super().__init__(message)
        self.presented = presented


class Forbidden(HubError):
    """The token is good, and somebody else's topic is asked for."""

    status = 403


class InsufficientScope(Forbidden):
    """The token is good, and its scopes do not reach. `scope` is what would have."""

    def __init__(self, message: str, *, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class NotFound(HubError):
    """There is no such endpoint (for this user)."""

    status = 404


class MethodNotAllowed(HubError):
    """The path exists, the method does not. `allow` lists those that do."""

    status = 405

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class RequestTimeout(HubError):
    """The body did not come in time."""

    status = 408


class Conflict(HubError):
    """The session is not in a state for this."""

    status = 409


class TooLarge(HubError):
    """More bytes, or entries, than a setting allows."""

    status = 413


class UnsupportedMediaType(HubError):
    """Neither a form nor JSON."""

    status = 415


class UpgradeRequired(HubError):
    """A WebSocket is served here, and the request asks for none (RFC 9110, 15.5.22)."""

    status = 426


class TooMany(HubError):
    """A limit per topic or user is reached."""

    status = 429


class Unavailable(HubError):
    """Not now: an issuer, or the store, does not answer."""

    status = 503
