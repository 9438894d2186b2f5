"""The operator's console over HTTP: its page, its state, its stream, and the end of a session (CSL).

    GET  /console                 the page; its files stand below
    GET  /console/config          how to log in; needs no token
    GET  /console/state           what the page shows, once
    GET  /console/stream          the same, and then each second what has changed
    POST /console/sessions/end    {"topic", "reason"}

`session` (the hash of a topic) and `search` in the query choose what is shown of sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec
import structlog

from fhircast_hub.audit.event import Act, AuditEntry
from fhircast_hub.budgets.accounts import Account, Accounts
from fhircast_hub.console.login import Login, origin_of
from fhircast_hub.console.paced import Late, Paced
from fhircast_hub.console.sessions import Sessions
from fhircast_hub.console.state import HubState
from fhircast_hub.console.streams import Streams
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import (
    BadRequest,
    Forbidden,
    HubError,
    MethodNotAllowed,
    NotFound,
    TooMany,
    UnsupportedMediaType,
)
from fhircast_hub.core.limits import MAX_FORM, MAX_TOPIC
from fhircast_hub.core.rules.administration import check_operator
from fhircast_hub.core.wire.event import check_topic
from fhircast_hub.core.wire.json import strip_bom
from fhircast_hub.http.errors import refuse
from fhircast_hub.http.exchange import CUT, Exchange, exchange_of
from fhircast_hub.http.request import (
    ClientGone,
    Headers,
    Receive,
    Response,
    Scope,
    Send,
    bearer_token,
    media_type,
    read_body,
    respond,
)
from fhircast_hub.service.ports import Clock, TokenVerifier
from fhircast_hub.service.session_list import is_hash

#: The path of the page. All other paths of the console are below.
CONSOLE = "/console"
#: Characters of an operator's reason.
MAX_REASON = 200

_PAGE = Path(__file__).with_name("page")
_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
_HEADERS = [
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_NOTHING_ELSE = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_log = structlog.get_logger()


class _End(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /console/sessions/end."""

    topic: str
    reason: str


@dataclass(kw_only=True, eq=False)
class Console:
    """An ASGI application for all paths from CONSOLE on."""

    verifier: TokenVerifier
    state: HubState
    sessions: Sessions
    streams: Streams
    login: Login
    accounts: Accounts
    log_hash: Callable[[str], str]
    clock: Clock
    audit: Callable[[AuditEntry], None]

    def __post_init__(self) -> None:
        files = [path for path in _PAGE.iterdir() if path.suffix in _TYPES]
        self._files = {f"{CONSOLE}/{path.name}": (path.suffix, path.read_bytes()) for path in files}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange, headers = exchange_of(scope), Headers(scope["headers"])
        exchange.log_fields["route"] = "console"
        try:
            response = await self._answer(scope, headers, receive, send)
        except HubError as error:
            response = _refuse(error, exchange, headers)
        except ClientGone:
            return
        except Exception as error:
            _log.error("console failed", exc_info=error)
            response = _refuse(HubError("the hub failed; its log says where"), exchange, headers)
        if response is not None:
            await respond(send, _with_headers(response))

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> Response | None:
        """The answer. None: the stream was sent, and is over."""
        path, method = scope["path"].rstrip("/"), scope["method"]
        if scope["path"] != CONSOLE and path in (CONSOLE, f"{CONSOLE}/index.html"):
            _check_method(method, "GET", "HEAD")
            return _moved(scope["query_string"])
        if path == f"{CONSOLE}/sessions/end":
            _check_method(method, "POST")
            return await self._end(exchange_of(scope), headers, receive)
        if path == CONSOLE or path in self._files or path == f"{CONSOLE}/config":
            _check_method(method, "GET", "HEAD")
            return await self._config() if path == f"{CONSOLE}/config" else await self._file(path)
        if path not in (f"{CONSOLE}/state", f"{CONSOLE}/stream"):
            raise NotFound(f"the path must be {CONSOLE} or one of its files, not another one of length {len(path)}")
        _check_method(method, "GET")
        asked = _Asked(scope["query_string"], await self._authenticate(exchange_of(scope), headers))
        if path == f"{CONSOLE}/stream":
            await self._stream(asked, scope, receive, send)
            return None
        exchange_of(scope).audit_fields.act = Act.READ
        await self._name_session(asked, exchange_of(scope))
        return _json(await self._parts(asked, strict=True))

    async def _file(self, path: str) -> Response:
        suffix, body = self._files.get(path) or self._files[f"{CONSOLE}/index.html"]
        policy = await self._policy() if suffix == ".html" else _NOTHING_ELSE
        return Response(200, body, _TYPES[suffix], [(b"content-security-policy", policy)])

    async def _policy(self) -> bytes:
        """The page may load its own files, and send requests to the hub and to the token endpoint."""
        server = await self.login.server()
        to = f" {origin_of(server.token_endpoint)}".rstrip() if server else ""
        return (
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{to};"
            " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ).encode("ascii", "ignore")

    async def _config(self) -> Response:
        server = await self.login.server()
        found = {"login": server, "hasLogin": self.login.is_on, "fault": self.login.fault}
        return _json({**found, "maxReason": MAX_REASON})

    async def _authenticate(self, exchange: Exchange, headers: Headers, *, write: bool = False) -> Principal:
        """The operator. Raises Unauthenticated or InsufficientScope."""
        audit = exchange.audit_fields
        audit.act = Act.OTHER
        principal = audit.principal = await self.verifier.verify(bearer_token(headers))
        exchange.meter.account = self.accounts.of(principal)
        check_operator(principal, write=write)
        return principal

    async def _parts(self, asked: _Asked, *, strict: bool = False) -> dict[str, Any]:
        """What is shown. The parts are looked for at the same time, each with the patience of console/paced.py.

        `strict`: raises TooMany for a search that gets no turn. Otherwise the part says so.
        """
        operator = asked.operator
        wanted: list[Awaitable[Mapping[str, Any]]] = [self.state.parts(operator.realm), self._list(asked, strict)]
        if asked.session:
            wanted.append(self._shown(asked))
        found = await asyncio.gather(*wanted)
        time = {"now": self.clock(), "mayEnd": operator.scopes.console_write, "expires": operator.expires}
        parts = {"time": time, **found[0], "sessions": found[1]}
        return parts | {"session": found[2]} if asked.session else parts

    async def _list(self, asked: _Asked, strict: bool) -> Mapping[str, Any]:
        try:
            return await self.sessions.list(asked.operator, asked.search)
        except HubError as error:  # the store is away, or the search has no turn yet
            if strict and isinstance(error, TooMany):
                raise
            return {"search": asked.search, **_unavailable(error)}

    async def _shown(self, asked: _Asked) -> Mapping[str, Any]:
        """The session that is asked for. A look that is late goes on, and the next one takes its answer."""
        if asked.shown is None:
            asked.shown = Paced(lambda: self._session(asked.operator, asked.session), 0.0, rest=0.0)
        try:
            return await asked.shown.get()
        except HubError as error:
            return {"hash": asked.session, **_unavailable(error)}

    async def _session(self, operator: Principal, name: str) -> Mapping[str, Any]:
        try:
            return await self.sessions.show(await self.sessions.find(operator, name))
        except (NotFound, Forbidden):
            return {"hash": name, "gone": True}
        except HubError as error:
            return {"hash": name, **_unavailable(error)}

    async def _stream(self, asked: _Asked, scope: Scope, receive: Receive, send: Send) -> None:
        token = bearer_token(Headers(scope["headers"]))
        with self.streams.place(asked.operator) as place:
            await self._note_stream(asked, exchange_of(scope))
            headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), *_HEADERS]
            headers += [(b"content-security-policy", _NOTHING_ELSE), (b"x-accel-buffering", b"no")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})

            async def check() -> None:
                principal = await self.verifier.verify(token)  # a token may expire, or be revoked
                check_operator(principal)
                asked.operator = principal

            async def look() -> Mapping[str, Mapping[str, Any]]:
                await check()
                return await self._parts(asked)

            await self.streams.run(receive, send, look, check, place, scope[CUT])

    async def _name_session(self, asked: _Asked, exchange: Exchange) -> None:
        """Let log line and audit entry name the session that is asked for."""
        if asked.session:
            exchange.log_fields["topic"] = asked.session
            with contextlib.suppress(HubError):  # no such session, or none for this operator
                key = await self.sessions.find(asked.operator, asked.session)
                exchange.set_topic(key.topic, self.log_hash)

    async def _note_stream(self, asked: _Asked, exchange: Exchange) -> None:
        """A stream may last for hours, so its audit entry is written at its start."""
        audit = exchange.audit_fields
        audit.act = Act.READ
        await self._name_session(asked, exchange)
        if entry := audit.entry(self.clock(), 200, exchange.log_fields):
            self.audit(entry)
        audit.act = None

    async def _end(self, exchange: Exchange, headers: Headers, receive: Receive) -> Response:
        operator = await self._authenticate(exchange, headers, write=True)
        exchange.audit_fields.act = Act.SESSION
        end = await _read_end(headers, receive, self.accounts.of(operator))
        exchange.set_topic(check_topic(end.topic), self.log_hash)
        exchange.audit_fields.reason = end.reason  # to the audit trail only, also where the end fails
        await self.sessions.end(operator, end.topic)
        return Response(204)


def _refuse(error: HubError, exchange: Exchange, headers: Headers) -> Response:
    """The answer of a refusal. The audit trail keeps why the operator wanted to end a session."""
    audit = exchange.audit_fields
    reason = audit.reason
    response = refuse(error, exchange, headers)
    if reason:
        audit.reason += f"; the operator's reason: {reason}"
    return response


def _moved(query: bytes) -> Response:
    """The page has one address, which the authorization server knows (RFC 9110, 15.4.9)."""
    to = CONSOLE.encode() + (b"?" + query if query else b"")
    return Response(308, b"", b"", [(b"location", to), (b"content-security-policy", _NOTHING_ELSE)])


class _Asked:
    """What a request for the state asks for."""

    def __init__(self, query: bytes, operator: Principal) -> None:
        self.operator = operator
        #: Looks at the session that is chosen, one at a time.
        self.shown: Paced[Mapping[str, Any]] | None = None
        try:
            values = parse_qs(query.decode("latin-1"), max_num_fields=8)
        except ValueError:
            raise BadRequest("the query may have session and search, and not more than 8 parameters") from None
        self.session, self.search = (values.get(name, [""])[0].strip() for name in ("session", "search"))
        if len(self.search) > MAX_TOPIC:
            raise BadRequest(f"search may have at most {MAX_TOPIC} characters")
        if self.session and not is_hash(self.session):
            raise BadRequest("session must be the hash of a topic, 12 hexadecimal digits")


def _unavailable(error: HubError) -> dict[str, Any]:
    """Why a part is not there. `late`: a search waits for its turn, or for the store."""
    return {"unavailable": str(error), "late": isinstance(error, TooMany | Late)}


def _check_method(method: str, *allowed: str) -> None:
    if method not in allowed:
        allow = ", ".join(allowed)
        raise MethodNotAllowed(f"the method must be {allow}", allow=allow)


def _json(value: object) -> Response:
    policy = (b"content-security-policy", _NOTHING_ELSE)
    return Response(200, msgspec.json.encode(value), b"application/json", [policy])


def _with_headers(response: Response) -> Response:
    return response._replace(headers=[*response.headers, *_HEADERS])


async def _read_end(headers: Headers, receive: Receive, account: Account) -> _End:
    """The body of an end. Errors name only the member. Raises BadRequest, TooLarge or UnsupportedMediaType."""
    if media_type(headers) != "application/json":
        raise UnsupportedMediaType("Content-Type must be application/json")
    body = await read_body(headers, receive, MAX_FORM, account)
    account.bodies -= len(body)
    try:
        end = msgspec.json.decode(strip_bom(body), type=_End)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadRequest("the body must be a JSON object with topic and reason, both texts, and nothing else") from None
    end.reason = end.reason.strip()
    if not (0 < len(end.reason) <= MAX_REASON and end.reason.isprintable()):
        raise BadRequest(f"reason must be 1 to {MAX_REASON} printable characters on one line")
    return end
