"""Errors: one class for each HTTP status that the hub refuses with. `http/errors.py` puts them on the wire.

A message says what was expected and what came. A message names values by type and length. A message quotes only modes, channel
types, event names, numbers and versions. So every message is safe to show (FHIRcast 3.0.0, 2.4 Subscribing: "SHOULD return a
description of the error in the response body as plain text").
"""

from __future__ import annotations


class HubError(Exception):
    """A request that the hub refuses. `str(error)` is one line for the client's developer.

    `quoted` is the client's text. It replaces `…` in the message.
    """

    #: HTTP status.
    status = 500

    def __init__(self, message: str, *, retry_after: int | None = None, quoted: str = "") -> None:
        super().__init__(message.replace("…", quoted) if quoted else message)
        #: The message for logs. `…` stands for the client's text, where a client may put a patient (SEC-1).
        self.logged = message
        #: Seconds after which another try may succeed. None: another try does not help.
        self.retry_after = retry_after
        #: The token's issuer, as the settings name the issuer. "": unknown here.
        self.issuer = ""
        #: The token's client, where the issuer's signature or answer proves the client. "": unknown here.
        self.client = ""


class BadRequest(HubError):
    """The form or the event is not what the specification asks for."""

    status = 400


class Unauthenticated(HubError):
    """The request has no token, or its token is not valid."""

    status = 401

    def __init__(self, message: str, *, has_token: bool = True, client: str = "", quoted: str = "") -> None:
        super().__init__(message, quoted=quoted)
        #: Whether the request has a token (RFC 6750 section 3.1).
        self.has_token = has_token
        self.client = client


class Forbidden(HubError):
    """The token is valid, and does not reach this topic (core/access/topic_access.py)."""

    status = 403


class InsufficientScope(Forbidden):
    """The token is valid, and its scopes do not reach (core/access/scopes.py)."""

    def __init__(self, message: str, *, scope: str, quoted: str = "") -> None:
        super().__init__(message, quoted=quoted)
        #: A scope that would reach.
        self.scope = scope


class NotFound(HubError):
    """There is no such endpoint or session for this user."""

    status = 404


class MethodNotAllowed(HubError):
    """The path exists, the method does not."""

    status = 405

    def __init__(self, message: str, *, allow: str, quoted: str = "") -> None:
        super().__init__(message, quoted=quoted)
        #: The methods of the path, as the header Allow lists them.
        self.allow = allow


class RequestTimeout(HubError):
    """The body did not arrive in time."""

    status = 408


class Conflict(HubError):
    """The session is in another state than the request needs.

    The event does not fit the open contexts (rules/conflicts.py). A session exists already (rules/administration.py). A
    system client acts on a session that no user owns (access/topic_access.py).
    """

    status = 409


class TooLarge(HubError):
    """The request has more bytes or entries than a limit allows."""

    status = 413


class UnsupportedMediaType(HubError):
    """The body is neither a form nor JSON."""

    status = 415


class UpgradeRequired(HubError):
    """The path serves a WebSocket, and the request asks for none (RFC 9110, 15.5.22)."""

    status = 426


class TooMany(HubError):
    """A limit of the topic or user is reached."""

    status = 429


class Unavailable(HubError):
    """An issuer or the store does not answer now, or the hub's memory is full."""

    status = 503
