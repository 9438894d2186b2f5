"""Checks of an authorization request (RFC 6749 section 4.1.1, RFC 7636, RFC 9700, SMART App Launch 2.2)."""

from __future__ import annotations

import re

from starlette.requests import Request

from demo.auth.http import OAuthError, Repeated, needed, parameters
from demo.auth.model import Asked, Client, Launch
from demo.auth.pages import PageError
from demo.auth.scopes import allowed, parse
from demo.auth.server import AuthServer

#: A SHA-256 digest in base64url.
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_PROMPTS = {"none", "login", "consent", "select_account"}
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)
MAX_STATE = 2048


def read_query(request: Request) -> tuple[str, dict[str, str]]:
    """The query and its parameters. Raises PageError, also for two redirect URIs: neither can be trusted."""
    try:
        query = request.scope["query_string"].decode("ascii")
        return query, parameters(query)
    except Repeated:
        raise PageError("repeated") from None
    except ValueError:
        raise PageError("bad_form") from None


def trusted(server: AuthServer, params: dict[str, str]) -> tuple[Client, str]:
    """The client, and the redirect URI for errors. Raises PageError: RFC 6749 section 4.1.2.1, "MUST NOT automatically
    redirect"."""
    client = server.client(params.get("client_id", ""))
    if client is None:
        raise PageError("unknown_client")
    if params.get("redirect_uri") not in client.redirect_uris:
        raise PageError("unknown_redirect")
    return client, params["redirect_uri"]


def check(server: AuthServer, client: Client, redirect_uri: str, params: dict[str, str], query: str) -> Asked:
    """The request. Raises OAuthError, which the client is told."""
    _check_response(params)
    _check_audience(server, params)
    launch = _launch(server, params)
    return Asked(
        client=client,
        redirect_uri=redirect_uri,
        state=_state(params),
        scopes=_scopes(client, params, launched=launch is not None),
        challenge=_challenge(params),
        query=query,
        nonce=params.get("nonce"),
        prompt=_prompt(params),
        login_hint=params.get("login_hint"),
        launch_id=params.get("launch"),
        launch=launch,
        max_age=_max_age(params),
    )


def _check_response(params: dict[str, str]) -> None:
    for name in ("request", "request_uri"):
        if name in params:
            raise OAuthError(f"{name}_not_supported", f"{name} is not supported")
    if needed(params, "response_type") != "code":
        raise OAuthError("unsupported_response_type", "response_type must be code")
    if params.get("response_mode", "query") != "query":
        raise OAuthError("invalid_request", "response_mode must be query")


def _state(params: dict[str, str]) -> str:
    state = needed(params, "state")
    if len(state) > MAX_STATE:
        raise OAuthError("invalid_request", f"state must have at most {MAX_STATE} characters")
    return state


def _challenge(params: dict[str, str]) -> str:
    if needed(params, "code_challenge_method") != "S256":
        raise OAuthError("invalid_request", "code_challenge_method must be S256")
    challenge = needed(params, "code_challenge")
    if not _CHALLENGE.fullmatch(challenge):
        raise OAuthError("invalid_request", "code_challenge must have 43 characters of base64url")
    return challenge


def _scopes(client: Client, params: dict[str, str], *, launched: bool) -> tuple[str, ...]:
    try:
        asked = parse(needed(params, "scope"))
    except ValueError as error:
        raise OAuthError("invalid_scope", str(error)) from None
    if launched and "launch" not in asked:
        raise OAuthError("invalid_scope", "a launch needs the scope launch")
    scopes = allowed(asked, client.scopes)
    if launched and "launch" not in scopes:
        raise OAuthError("invalid_scope", "this client cannot be launched")
    # Without a launch there is no launch context.
    scopes = tuple(scope for scope in scopes if launched or scope != "launch")
    if not scopes:
        raise OAuthError("invalid_scope", "the client may have none of these scopes")
    return scopes


def _check_audience(server: AuthServer, params: dict[str, str]) -> None:
    """SMART App Launch 2.2: `aud` is "URL of the EHR resource server", so that no token goes to another server."""
    if needed(params, "aud").rstrip("/") not in {audience.rstrip("/") for audience in server.audiences}:
        raise OAuthError("invalid_request", "aud is not a server of this authorization server")


def _launch(server: AuthServer, params: dict[str, str]) -> Launch | None:
    if "launch" not in params:
        return None
    launch = server.launches.get(params["launch"])
    if launch is None:
        raise OAuthError("invalid_request", "launch is unknown, used, or expired")
    return launch


def _prompt(params: dict[str, str]) -> frozenset[str]:
    prompt = frozenset(params.get("prompt", "").split())
    if not prompt <= _PROMPTS or ("none" in prompt and len(prompt) > 1):
        raise OAuthError("invalid_request", "prompt must be none, or a list of login, consent, select_account")
    return prompt


def _max_age(params: dict[str, str]) -> int | None:
    if "max_age" not in params:
        return None
    if not _SECONDS.fullmatch(params["max_age"]):
        raise OAuthError("invalid_request", "max_age must be a number of seconds")
    return int(params["max_age"])
