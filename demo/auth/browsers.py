"""The cookie that identifies a browser, and the user who is signed in there."""

from __future__ import annotations

from hmac import compare_digest

from starlette.requests import Request
from starlette.responses import Response

from demo.auth.expiring_store import new_secret
from demo.auth.http import server_of
from demo.auth.model import Browser, Clinician, Login
from demo.auth.server import BROWSER_SECONDS


def browser_of(request: Request) -> Browser:
    """The browser of a request. A new browser gets its cookie by `remember`."""
    server = server_of(request)
    found = server.browsers.get(request.cookies.get(server.cookie, ""))
    if found is None or (found.login and found.login.over):
        return Browser(csrf=new_secret())
    return found


def sign_in(request: Request, clinician: Clinician) -> Browser:
    """A new identity for this browser, so that the old cookie is worthless.

    After a second login, one logout ends both.
    """
    server, before = server_of(request), browser_of(request)
    login = before.login if before.clinician == clinician else None
    login = login or Login(sid=new_secret())
    server.logins.put(login.sid, login, BROWSER_SECONDS)
    return Browser(csrf=new_secret(), clinician=clinician, signed_in_at=int(server.clock()), login=login)


def remember(request: Request, response: Response, browser: Browser) -> Response:
    """Sets the browser's cookie in the response where it is missing. An older cookie becomes worthless."""
    if not browser.known:
        server = server_of(request)
        browser.known = True
        server.browsers.take(request.cookies.get(server.cookie, ""))
        secret = server.browsers.add(browser, BROWSER_SECONDS)
        # Lax: a launch begins with a link from another site. http is for loopback only.
        secure = server.issuer.startswith("https:")
        response.set_cookie(server.cookie, secret, path="/", httponly=True, samesite="lax", secure=secure)
    return response


def is_from(browser: Browser, csrf: str) -> bool:
    """Whether a form was made for this browser."""
    return compare_digest(browser.csrf.encode(), csrf.encode())
