"""/authorize, /login and /consent: from an application's request to a code, with the user's consent."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from demo.auth.authorization_request import check, read_query, trusted
from demo.auth.browsers import browser_of, is_from, remember, sign_in
from demo.auth.http import OAuthError, server_of
from demo.auth.model import Asked, Browser, Clinician, Code, Grant, Pending
from demo.auth.pages import PageError, consent_page, login_page, page_form
from demo.auth.server import CODE_REMEMBERED, CODE_SECONDS, PENDING_SECONDS, AuthServer

#: RFC 9700 section 4.12: not 307, which would send the form on to the application.
SEE_OTHER = 303


async def authorize(request: Request) -> Response:
    """GET /authorize"""
    server = server_of(request)
    query, params = read_query(request)
    client, redirect_uri = trusted(server, params)
    try:
        asked = check(server, client, redirect_uri, params, query)
        return _begin(request, asked)
    except OAuthError as error:
        return _answer(server, redirect_uri, params.get("state"), _described(error))


async def login(request: Request) -> Response:
    """POST /login, the login page's form."""
    pending, params = await _pending(request)
    if pending is None:
        return _begin_again(request, params)
    server = server_of(request)
    clinician = server.clinician(params.get("clinician", ""))
    if clinician is None:
        raise PageError("bad_form")
    launch = pending.asked.launch
    if launch and launch.clinician != clinician:
        return _refuse(server, pending.asked, "the launch is another user's")
    return _go_on(request, Pending(pending.asked, sign_in(request, clinician), clinician))


async def consent(request: Request) -> Response:
    """POST /consent, the consent page's form."""
    pending, params = await _pending(request)
    if pending is None:
        return _begin_again(request, params)
    server, asked, answer = server_of(request), pending.asked, params.get("answer")
    if answer == "somebody-else":
        return _ask(request, Pending(asked, pending.browser))
    if answer != "allow":
        return _refuse(server, asked, "the user said no")
    if pending.clinician is None:
        raise PageError("bad_form")
    key = (pending.clinician.id, asked.client.client_id)
    server.consents[key] = server.consents.get(key, frozenset()) | set(asked.scopes)
    return _answer(server, asked.redirect_uri, asked.state, {"code": _code(server, pending)})


def _begin(request: Request, asked: Asked) -> Response:
    """Continue with the user who is signed in. Raises OAuthError where no user is, and prompt=none forbids a login."""
    server, browser = server_of(request), browser_of(request)
    clinician = _signed_in(server, asked, browser)
    if clinician and browser.clinician != clinician:
        browser = sign_in(request, clinician)
    pending = Pending(asked, browser, clinician)
    if clinician:
        return _go_on(request, pending)
    if "none" in asked.prompt:
        raise OAuthError("login_required", "the user is not signed in")
    return _ask(request, pending)


def _signed_in(server: AuthServer, asked: Asked, browser: Browser) -> Clinician | None:
    """The user who needs no login: of the cookie, or with single sign-on of the hint. Never another user than the
    expected one."""
    if asked.prompt & {"login", "select_account"}:
        return None
    hinted = server.clinician(asked.login_hint) if asked.login_hint else None
    found = browser.clinician
    if found and asked.max_age is not None and server.clock() - browser.signed_in_at > asked.max_age:
        found = None
    if asked.login_hint and found != hinted:
        found = hinted if server.switches.single_sign_on else None
    return None if asked.launch and asked.launch.clinician != found else found


def _ask(request: Request, pending: Pending) -> Response:
    ticket = server_of(request).pending.add(pending, PENDING_SECONDS)
    return remember(request, login_page(request, pending, ticket), pending.browser)


def _go_on(request: Request, pending: Pending) -> Response:
    """The user is known: ask for consent if needed, else give the code. Raises OAuthError for prompt=none."""
    server, asked = server_of(request), pending.asked
    assert pending.clinician
    if _must_ask(server, asked, pending.clinician):
        if "none" in asked.prompt:
            raise OAuthError("consent_required", "the user has not agreed to this yet")
        ticket = server.pending.add(pending, PENDING_SECONDS)
        response = consent_page(request, pending, ticket)
    else:
        response = _answer(server, asked.redirect_uri, asked.state, {"code": _code(server, pending)})
    return remember(request, response, pending.browser)


def _must_ask(server: AuthServer, asked: Asked, clinician: Clinician) -> bool:
    if "consent" in asked.prompt:
        return True
    agreed = server.consents.get((clinician.id, asked.client.client_id), frozenset())
    return asked.client.asks_consent and not agreed.issuperset(asked.scopes)


def _code(server: AuthServer, pending: Pending) -> str:
    """Gives a code. The launch is used up. Raises PageError where another tab used it first."""
    asked = pending.asked
    assert pending.clinician
    assert pending.browser.login
    if asked.launch_id and server.launches.take(asked.launch_id) is None:
        raise PageError("too_old")
    grant = Grant(
        client=asked.client,
        clinician=pending.clinician,
        scopes=asked.scopes,
        launch=asked.launch,
        signed_in_at=pending.browser.signed_in_at,
        login=pending.browser.login,
        nonce=asked.nonce,
    )
    code = Code(grant, asked.redirect_uri, asked.challenge, expires=server.clock() + CODE_SECONDS)
    return server.codes.add(code, CODE_REMEMBERED)


async def _pending(request: Request) -> tuple[Pending | None, dict[str, str]]:
    """The pending request of a form, once. None where the form was made for another state of this browser. Raises
    PageError."""
    params = await page_form(request)
    server = server_of(request)
    pending = server.pending.get(params.get("ticket", ""))
    if pending is None:
        raise PageError("too_old")
    browser = browser_of(request)
    if pending.browser is not browser or not is_from(browser, params.get("csrf", "")):
        return None, params
    server.pending.take(params["ticket"])
    return pending, params


def _begin_again(request: Request, params: dict[str, str]) -> Response:
    """Two tabs that log in at once replace each other's cookie. Asking once more is harmless."""
    pending = server_of(request).pending.get(params["ticket"])
    if pending is None:
        raise PageError("too_old")
    return RedirectResponse(f"/authorize?{pending.asked.query}", SEE_OTHER)


def _refuse(server: AuthServer, asked: Asked, why: str) -> Response:
    return _answer(server, asked.redirect_uri, asked.state, _described(OAuthError("access_denied", why)))


def _described(error: OAuthError) -> dict[str, str]:
    return {"error": error.error, "error_description": error.description}


def _answer(server: AuthServer, redirect_uri: str, state: str | None, values: dict[str, str]) -> Response:
    """Redirect to the application. `iss` tells which server answers (RFC 9207)."""
    values = values | ({"state": state} if state is not None else {}) | {"iss": server.issuer}
    mark = "&" if "?" in redirect_uri else "?"
    return RedirectResponse(f"{redirect_uri}{mark}{urlencode(values)}", SEE_OTHER)
