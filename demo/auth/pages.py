"""The pages: plain forms, in the user's language, without scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response

from demo.auth.http import OAuthError, form, server_of
from demo.auth.model import Asked, Pending
from demo.auth.scopes import in_words
from demo.auth.server import AuthServer
from demo.auth.switches import LABELS
from demo.auth.texts import LANG, TEXTS, Language, preferred

#: Not bound to a server: templates hold no state.
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class PageError(Exception):
    """An error without an application to redirect to. `text` is a key of TEXTS."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


async def page_error(request: Request, error: Exception) -> Response:
    """Its page."""
    assert isinstance(error, PageError)
    return _page(request, "error.html", error.text, status=400)


async def page_form(request: Request) -> dict[str, str]:
    """The form of a page. Raises PageError."""
    try:
        return await form(request)
    except OAuthError:
        raise PageError("bad_form") from None


def login_page(request: Request, pending: Pending, ticket: str) -> Response:
    """The login page. `ticket`: the key of the pending request."""
    asked, server = pending.asked, server_of(request)
    hinted = server.clinician(asked.login_hint) if asked.login_hint else None
    return _page(
        request,
        "login.html",
        app=asked.client.name.to(language_of(request)),
        clinicians=server.clinicians,
        hinted=hinted,
        ticket=ticket,
        csrf=pending.browser.csrf,
        answers_to=asked,
    )


def consent_page(request: Request, pending: Pending, ticket: str) -> Response:
    """The consent page."""
    assert pending.clinician
    language = language_of(request)
    return _page(
        request,
        "consent.html",
        app=pending.asked.client.name.to(language),
        name=pending.clinician.name,
        scopes=in_words(pending.asked.scopes, language),
        ticket=ticket,
        csrf=pending.browser.csrf,
        answers_to=pending.asked,
    )


def switches_page(request: Request, csrf: str) -> Response:
    """The error page."""
    server, language = server_of(request), language_of(request)
    switches = [
        {"name": name, "label": label.to(language), "what": what.to(language), "on": getattr(server.switches, name)}
        for name, (label, what) in LABELS.items()
    ]
    return _page(request, "switches.html", switches=switches, csrf=csrf)


async def stylesheet(request: Request) -> Response:
    """GET /style.css"""
    path = server_of(request).stylesheet
    return FileResponse(path, media_type="text/css") if path.is_file() else PlainTextResponse("no style", 404)


def _page(
    request: Request,
    template: str,
    message: str = "",
    *,
    status: int = 200,
    answers_to: Asked | None = None,
    **values: Any,
) -> Response:
    server, language = server_of(request), language_of(request)
    texts = {name: text.to(language) for name, text in TEXTS.items()}
    html = _ENVIRONMENT.get_template(template).render(
        t=texts,
        message=texts.get(message, ""),
        lang=LANG[language],
        ui_locales=language,
        server=server.title.to(language),
        **values,
    )
    return HTMLResponse(
        html, status, {"Content-Security-Policy": _policy(server, answers_to), "Content-Language": LANG[language]}
    )


def _policy(server: AuthServer, answers_to: Asked | None) -> str:
    """Browsers apply form-action to the redirect after a form too, so the application's origin is added."""
    forms = ["'self'"]
    if answers_to:
        parts = urlsplit(answers_to.redirect_uri)
        forms.append(f"{parts.scheme}://{parts.netloc}")
    frames = " ".join(server.frame_origins) or "'none'"
    return (
        f"default-src 'none'; style-src 'self'; form-action {' '.join(forms)}; "
        f"frame-ancestors {frames}; base-uri 'none'"
    )


def language_of(request: Request) -> Language:
    """A form keeps the language of its page."""
    return preferred(request.query_params.get("ui_locales", "")[:200], request.headers.get("accept-language", ""))
