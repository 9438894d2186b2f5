"""Requests and answers of OAuth: parameters that occur once, client authentication, errors in JSON."""

from __future__ import annotations

import base64
import binascii
from hmac import compare_digest
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from starlette.requests import Request
from starlette.responses import JSONResponse

from demo.auth.model import Client
from demo.auth.server import AuthServer
from demo.auth.signing import InvalidToken

FORM = "application/x-www-form-urlencoded"


class Repeated(ValueError):
    """RFC 6749 section 3.1: "Request and response parameters MUST NOT be included more than once"."""


class OAuthError(Exception):
    """An error of RFC 6749 section 5.2, or of a similar endpoint. The description quotes no input."""

    def __init__(self, error: str, description: str, status: int = 400, challenge: str | None = None) -> None:
        super().__init__(error)
        self.error, self.description, self.status, self.challenge = error, description, status, challenge


async def oauth_error(_: Request, error: Exception) -> JSONResponse:
    """Its answer."""
    assert isinstance(error, OAuthError)
    headers = {"WWW-Authenticate": error.challenge} if error.challenge else None
    return JSONResponse({"error": error.error, "error_description": error.description}, error.status, headers)


def server_of(request: Request) -> AuthServer:
    """The server of the request."""
    server = request.app.state.server
    assert isinstance(server, AuthServer)
    return server


def parameters(encoded: str) -> dict[str, str]:
    """A query or form; "Parameters sent without a value MUST be treated as if they were omitted". Raises Repeated,
    ValueError."""
    pairs = parse_qsl(encoded, max_num_fields=50, errors="strict")
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Repeated
    return found


async def form(request: Request) -> dict[str, str]:
    """The body of a POST, or the query of a GET. Raises OAuthError."""
    if request.method == "GET":
        return _parameters(request.scope["query_string"], "the query")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise OAuthError("invalid_request", f"Content-Type must be {FORM}")
    return _parameters(await request.body(), "the body")


def _parameters(encoded: bytes, place: str) -> dict[str, str]:
    try:
        return parameters(encoded.decode("ascii"))
    except Repeated:
        raise OAuthError("invalid_request", "a parameter came twice") from None
    except ValueError:
        raise OAuthError("invalid_request", f"{place} must be a form") from None


def needed(params: dict[str, str], name: str) -> str:
    """A required parameter. Raises OAuthError."""
    if name not in params:
        raise OAuthError("invalid_request", f"{name} is missing")
    return params[name]


def authenticate(request: Request, params: dict[str, str]) -> Client:
    """The client: by HTTP Basic, by its secret in the form, or public by its id alone. Raises OAuthError."""
    basic = request.headers.get("authorization")
    if basic is not None and "client_secret" in params:
        raise OAuthError("invalid_request", "a client authenticates in one way, not in two")
    client_id, secret = _basic(basic) if basic is not None else (params.get("client_id"), params.get("client_secret"))
    if params.get("client_id", client_id) != client_id:
        raise OAuthError("invalid_request", "client_id is not the client that authenticates")
    client = server_of(request).client(client_id or "")
    if client is None or not _is_right(client, secret):
        challenge = 'Basic realm="token"' if basic is not None else None
        raise OAuthError("invalid_client", "unknown client, or wrong credentials", 401, challenge)
    return client


def _is_right(client: Client, secret: str | None) -> bool:
    if client.secret is None:
        return secret is None
    return compare_digest(client.secret.encode(), (secret or "").encode())


def _basic(header: str) -> tuple[str, str]:
    """RFC 6749 section 2.3.1: id and secret are form-encoded first."""
    scheme, _, encoded = header.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        if not colon:
            raise ValueError
    except (ValueError, binascii.Error):
        raise OAuthError("invalid_client", "Authorization must be Basic", 401, 'Basic realm="token"') from None
    return unquote_plus(client_id), unquote_plus(secret)


def bearer(request: Request) -> dict[str, Any]:
    """The claims of the access token in the Authorization header (RFC 6750). Raises OAuthError."""
    server = server_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise OAuthError("invalid_token", "an access token of this server is required", 401, "Bearer")
    try:
        return server.read_token(token.strip())
    except InvalidToken:
        described = "not a token of this server that is good now"
        raise OAuthError("invalid_token", described, 401, 'Bearer error="invalid_token"') from None
