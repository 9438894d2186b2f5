"""/token, /introspect, /revoke and /end-session (RFC 6749, RFC 7636, RFC 7662, RFC 7009, OpenID Connect RP-Initiated Logout 1.0)."""

from __future__ import annotations

import re
from hashlib import sha256
from hmac import compare_digest
from typing import Any

from joserfc.util import urlsafe_b64encode
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from demo.auth.discovery import slowness
from demo.auth.http import OAuthError, authenticate, form, needed, server_of
from demo.auth.model import Client, Code, Grant
from demo.auth.scopes import parse
from demo.auth.server import AGAIN_SECONDS, AuthServer
from demo.auth.signing import InvalidToken
from demo.auth.token_response import token_response

#: The error for an application whose user has logged out.
LEFT = "the user has logged out"
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)
#: Members of the answer of /introspect, beside `active`.
_TOLD = ("iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti", "name", "hpr_number", "fhirUser")


async def token(request: Request) -> JSONResponse:
    """POST /token"""
    server = server_of(request)
    await slowness(server)
    params = await form(request)
    client = authenticate(request, params)
    match needed(params, "grant_type"):
        case "authorization_code":
            grant = _redeem(server, client, params)
            return JSONResponse(await token_response(server, grant, grant.scopes, grant.nonce))
        case "refresh_token":
            grant, scopes = _refresh(server, client, params)
            return JSONResponse(await token_response(server, grant, scopes, None))
    raise OAuthError("unsupported_grant_type", "grant_type must be authorization_code or refresh_token")


def _redeem(server: AuthServer, client: Client, params: dict[str, str]) -> Grant:
    """The grant of the code, which has one attempt. Raises OAuthError."""
    verifier, redirect_uri = needed(params, "code_verifier"), needed(params, "redirect_uri")
    code = server.codes.get(needed(params, "code"))
    if code is None or code.grant.client is not client:
        raise _bad_grant("code is unknown, or another client's")
    if code.used:
        # RFC 6749 section 4.1.2: a code that is used twice was stolen, so both lose.
        code.grant.revoked = True
        raise _bad_grant("code was used before")
    code.used = True
    if server.clock() >= code.expires or code.grant.is_left:
        raise _bad_grant("code is expired")
    if redirect_uri != code.redirect_uri:
        raise _bad_grant("redirect_uri differs from the authorization request")
    if not _is_proof(code, verifier):
        raise _bad_grant("code_verifier does not match the code_challenge")
    return code.grant


def _is_proof(code: Code, verifier: str) -> bool:
    """RFC 7636 section 4.6."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    return compare_digest(urlsafe_b64encode(sha256(verifier.encode()).digest()), code.challenge.encode())


def _refresh(server: AuthServer, client: Client, params: dict[str, str]) -> tuple[Grant, tuple[str, ...]]:
    """The grant, and the scopes of the new access token. Raises OAuthError."""
    given = needed(params, "refresh_token")
    grant = server.refresh_tokens.get(given)
    if grant is None or grant.client is not client:
        raise _bad_grant("refresh_token is unknown, or another client's")
    if grant.is_left:
        raise _bad_grant(LEFT)
    if grant.revoked:
        raise _bad_grant("refresh_token is revoked")
    _use(grant, given, server.clock())
    try:
        scopes = parse(params["scope"]) if "scope" in params else grant.scopes
    except ValueError as error:
        raise OAuthError("invalid_scope", str(error)) from None
    if not set(scopes) <= set(grant.scopes):
        raise OAuthError("invalid_scope", "scope exceeds the grant")
    return grant, scopes


def _use(grant: Grant, given: str, now: float) -> None:
    """Each refresh token counts once, and again within AGAIN_SECONDS of its last use. Raises OAuthError."""
    is_newest = compare_digest(grant.refresh_token.encode(), given.encode())
    is_repeated = compare_digest(grant.used_token.encode(), given.encode()) and now <= grant.used_at + AGAIN_SECONDS
    if not (is_newest or is_repeated):
        # RFC 9700 section 4.14.2: the use of an old refresh token means that one of them was stolen.
        grant.revoked = True
        raise _bad_grant("refresh_token was used before; its grant is revoked")
    grant.used_token, grant.used_at = given, now


def _bad_grant(description: str) -> OAuthError:
    return OAuthError("invalid_grant", description)


async def introspect(request: Request) -> JSONResponse:
    """POST /introspect: only for access tokens, so that a resource server accepts no refresh token."""
    server, params = server_of(request), await form(request)
    if authenticate(request, params).secret is None:
        raise OAuthError("invalid_client", "only a client with a secret may ask", 401, 'Basic realm="introspect"')
    return JSONResponse(_introspected(server, needed(params, "token")))


def _introspected(server: AuthServer, given: str) -> dict[str, Any]:
    try:
        claims = server.read_token(given)
    except InvalidToken:
        return {"active": False}
    return {"active": True, "token_type": "Bearer", **{name: claims[name] for name in _TOLD}}


async def revoke(request: Request) -> Response:
    """POST /revoke: an access token alone, or a refresh token with its whole grant. Unknown tokens count as revoked."""
    server, params = server_of(request), await form(request)
    client, given = authenticate(request, params), needed(params, "token")
    jti = _jti(server, given)
    grant = server.access_tokens.get(jti) if jti else server.refresh_tokens.get(given)
    if grant and grant.client is not client:
        raise _bad_grant("token is another client's")
    if jti:
        server.access_tokens.take(jti)
    elif grant:
        grant.revoked = True
    return Response()


async def end_session(request: Request) -> Response:
    """GET or POST /end-session: logs the user out of the browser in which the id token was made, with all grants of
    that login.

    A page that is closing sends this request and needs no redirect: "post_logout_redirect_uri" is optional.
    """
    server, params = server_of(request), await form(request)
    try:
        hint = server.signer.read_hint(needed(params, "id_token_hint"), server.issuer)
    except InvalidToken:
        raise OAuthError("invalid_request", "id_token_hint is not an id token of this server") from None
    if params.get("client_id", hint["aud"]) != hint["aud"]:
        # "the OP MUST verify that the Client Identifier matches the one used when issuing the ID Token" (section 2)
        raise OAuthError("invalid_request", "client_id is not the client of the id token")
    if login := server.logins.take(hint["sid"]):
        login.over = True
    return Response()


def _jti(server: AuthServer, given: str) -> str | None:
    """The claims of a valid access token; None for any other text."""
    try:
        return str(server.read_token(given)["jti"])
    except InvalidToken:
        return None
