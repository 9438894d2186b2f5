"""Log lines. No line holds a token, an endpoint or a patient (SEC-1).

A line has only fields with known names. All other fields are dropped here, where lines are written: a careless log call
makes a line with less in it. Values are checked too. A topic must be a keyed hash, a URL loses its path, and only text and
numbers are written.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import structlog

#: The fields of a log line. Before you add a field: no value of the field may hold what SEC-1 forbids.
ALLOWED = frozenset(
    {
        *("timestamp", "level", "event", "request_id"),
        *("method", "route", "status", "ms"),  # route is the template, never the path
        *("topic", "subscriber"),  # keyed hashes
        *("name", "code", "reason"),  # name: an event's; reason: a text of the hub
        "client_id",  # of a token that its issuer signed or knows
        *("error", "where", "logger"),  # the type and place of an exception
        *("count", "connections", "sessions", "sockets", "subscriptions", "bytes", "seconds"),
        *("host", "port", "url", "hub_url", "issuer", "audience", "realm", "jwks", "introspection", "store", "version"),
        "user_claim",  # of the settings: the name of a claim, never a user
        *("node", "sqlstate"),  # node: a random name; sqlstate: five characters of PostgreSQL's
        *("worker", "pid", "signal"),  # numbers
        "tls",  # whether
    }
)
_OPTIONAL = ALLOWED - {"timestamp", "level", "event"}
#: Fields that must be written by KeyedHash (keyed_hash.py).
HASHED = frozenset({"topic", "subscriber"})
#: Fields whose URLs are written whole: of the settings, or proved by an issuer. Any other URL may be an endpoint, and loses its path.
CONFIGURED = frozenset({"issuer", "audience", "realm", "jwks", "introspection", "store", "hub_url", "client_id"})
#: Characters of a value, at most: enough for a reason, too few for a resource.
MAX_TEXT = 200
#: Written in place of a forbidden value.
HIDDEN = "hidden"
#: A line's event is a literal without digits and slashes. Most values that get into an event by mistake have some.
_EVENT = re.compile(r"[A-Za-z][A-Za-z_.,;: -]{0,119}")
_HASH = re.compile(r"[0-9a-f]{12}")
_AFTER_HOST = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#]*@)?([^\s/?#]*)\S*")

#: Texts of libraries that help an operator and quote nothing of a request.
LIBRARY_TEXTS = frozenset(
    {
        "Application startup failed. Exiting.",
        "Application shutdown failed. Exiting.",
        "Exception in ASGI application\n",
        "Cancel %s running task(s), timeout graceful shutdown exceeded",
    }
)

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode
#: Fields of each line of this process, unless the line has its own.
_everywhere: dict[str, int] = {}


def configure_logging(format: str = "json", level: str = "info", worker: int | None = None) -> None:
    """Write the lines of structlog, of the standard library's logging and of uncaught exceptions to stdout.

    `format` is json, or console for people. uvicorn needs log_config=None and access_log=False. Otherwise uvicorn writes
    lines of its own, with the paths of requests. `worker`: the number of this process, on each line where several write.
    """
    _everywhere.clear()
    if worker is not None:
        _everywhere["worker"] = worker
    structlog.configure(
        processors=[_as_console if format == "console" else _as_json],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _stdout,
        cache_logger_on_first_use=False,  # else a changed level would not reach the loggers in use (OPS-20)
    )
    global _requests
    is_on = structlog.get_logger().is_enabled_for(logging.INFO)
    _requests = _request_as_json if is_on and format == "json" else None if is_on else _no_line
    root = logging.getLogger()
    root.handlers = [_LibraryHandler()]
    root.setLevel(logging.WARNING)
    # The interpreter would print tracebacks with messages, and messages quote values.
    sys.excepthook = lambda _kind, error, _trace: _uncaught(error)
    sys.unraisablehook = lambda args: _uncaught(args.exc_value)
    threading.excepthook = lambda args: _uncaught(args.exc_value)


def _uncaught(error: BaseException | None) -> None:
    structlog.get_logger().critical("uncaught exception", exc_info=error)


class _Stdout:
    """Writes lines to stdout. A full disk or a closed pipe is ignored, so that requests are still answered."""

    #: Bytes of a write that no other process on the same pipe can cut in two (PIPE_BUF of Linux).
    WHOLE = 4096

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._size = 0
        #: Other threads write too, and a line must not be written twice.
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Write a line, after those that wait."""
        self.flush()
        try:
            # One write a line, so that the lines of threads do not mix. sys.stdout is looked up each time for tests.
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = write

    def write_soon(self, line: bytes) -> None:
        """Write a line at the end of this turn of the event loop, together with the other lines of the turn."""
        if self._size + len(line) > self.WHOLE:
            self.flush()
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        with self._lock:
            self._waiting.append(line)
            self._size += len(line)

    def flush(self) -> None:
        """Write the lines that wait."""
        if not self._waiting:
            return
        with self._lock:
            lines, self._waiting, self._size = b"".join(self._waiting), [], 0
        if lines:
            self.write(lines)


_stdout = _Stdout()
atexit.register(_stdout.flush)


class _RequestLine(msgspec.Struct, omit_defaults=True):
    """The fields of a request's line, all of them in ALLOWED. A default: no such field."""

    timestamp: datetime
    level: str
    event: str
    request_id: str
    method: str
    status: int
    ms: float
    route: str = ""
    topic: str = ""
    name: str = ""
    reason: str = ""
    issuer: str = ""
    client_id: str = ""
    worker: int | None = None


def log_request(request_id: str, method: str, status: int, ms: float, fields: Mapping[str, object]) -> None:
    """Write the line of an answered request, whose answer took `ms` milliseconds. Only the fields of _RequestLine are written.

    Every event has such a line. So a JSON line is encoded without structlog's steps, and written at the end of the turn.
    """
    if _requests is None:
        _log.info("request", request_id=request_id, method=method, status=status, ms=ms, **fields)
    else:
        _requests(request_id, method, status, ms, fields)


def _request_as_json(request_id: str, method: str, status: int, ms: float, fields: Mapping[str, object]) -> None:
    get = fields.get
    line = _RequestLine(
        datetime.now(UTC),
        "info",
        "request",
        request_id,
        text_of("method", method),
        status,
        ms,
        text_of("route", get("route", "")),
        text_of("topic", get("topic", "")),
        text_of("name", get("name", "")),
        text_of("reason", get("reason", "")),
        text_of("issuer", get("issuer", "")),
        text_of("client_id", get("client_id", "")),
        _everywhere.get("worker"),
    )
    _stdout.write_soon(_encode(line) + b"\n")


def _no_line(request_id: str, method: str, status: int, ms: float, fields: Mapping[str, object]) -> None:
    """The level of requests is off."""


#: Writes the lines of requests. None: structlog does, since configure_logging was not called, or for people.
_requests: Callable[[str, str, int, float, Mapping[str, object]], None] | None = None


class _LibraryHandler(logging.Handler):
    """Lines of libraries, from WARNING on: logger, place, and the type of an exception.

    Only texts of LIBRARY_TEXTS are written. uvicorn logs the path of each handshake (an endpoint), httpx each URL, websockets
    each frame, and asyncio any awaited object. Some of these texts are already formatted.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name, "where": f"{record.filename}:{record.lineno}"}
        if isinstance(record.msg, str) and record.msg in LIBRARY_TEXTS:
            fields["reason"] = _with_numbers(record.msg.strip(), record.args)
        error = record.msg if isinstance(record.msg, BaseException) else record.exc_info
        log = structlog.get_logger()
        write = log.error if record.levelno >= logging.ERROR else log.warning
        write("library message", exc_info=error, **fields)


def _with_numbers(text: str, values: object) -> str:
    """A library's text with its values, if all of them are numbers. A value of another kind may hold a patient."""
    if isinstance(values, tuple) and all(type(value) is int for value in values):
        return text % values
    return text.replace("%s", "some")


def _as_json(_logger: object, method: str, fields: Mapping[str, Any]) -> bytes:
    line = _line(method, fields)
    try:
        return _encode(line) + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair
        return _encode({name: _without_surrogates(value) for name, value in line.items()}) + b"\n"


def _without_surrogates(value: Any) -> Any:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


_COLOURS = {"debug": 36, "info": 32, "warning": 33, "error": 31, "critical": 31}


def _as_console(_logger: object, method: str, fields: Mapping[str, Any]) -> bytes:
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    line = _line(method, fields)
    time, level, event = (line.pop(name) for name in ("timestamp", "level", "event"))
    # repr() escapes control characters of a terminal
    pairs = " ".join(f"{name}={value!r}" for name, value in line.items())
    shown = f"\x1b[{_COLOURS[level]}m{level:8}\x1b[0m" if colour else f"{level:8}"
    return f"{time.astimezone():%H:%M:%S} {shown} {event:28} {pairs}".rstrip().encode(errors="replace") + b"\n"


def _line(method: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    event = _event(str(fields.get("event")))
    line: dict[str, Any] = {"timestamp": datetime.now(UTC), "level": method, "event": event, **_everywhere}
    for name, value in fields.items():
        if name in _OPTIONAL:
            line[name] = _value(name, value)
    if fault := fields.get("exc_info"):
        line |= _fault(sys.exc_info() if fault is True else fault)
    return line


@lru_cache(256)  # events are literals
def _event(text: str) -> str:
    return text if _EVENT.fullmatch(text) else HIDDEN


def text_of(name: str, value: object) -> str:
    """The writable part of a text. "" without one."""
    return _cached_text(name, value) if isinstance(value, str) else ""


@lru_cache(4096)  # routes, topics and names come again and again
def _cached_text(name: str, value: str) -> str:
    return str(_without_surrogates(_value(name, value))) if value else ""


def _value(name: str, value: object) -> int | float | str | None:
    """The writable part of a value. Only plain types are sure to become JSON."""
    if isinstance(value, str):
        if name in HASHED and not _HASH.fullmatch(value):
            return HIDDEN
        if "://" in value and name not in CONFIGURED:
            value = _AFTER_HOST.sub(r"\1\2", value)
        return value[:MAX_TEXT]  # a slice of a subclass is a plain str too
    if isinstance(value, float):
        return float(value)
    if value is None or isinstance(value, bool):
        return value
    return int(value) if isinstance(value, int) else HIDDEN


def _fault(exc_info: Any) -> dict[str, Any]:
    """The type and place of an exception. Its message and a traceback's lines may quote a request."""
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if not isinstance(error, BaseException):
        return {}
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    fault = {"error": f"{type(error).__name__} from {type(cause).__name__}" if cause else type(error).__name__}
    if location := _location(error):
        fault["where"] = location
    if isinstance(error, OSError) and error.errno:
        fault["reason"] = os.strerror(error.errno)  # the system's text for the number, because str(error) has the path
    return fault


def _location(error: BaseException) -> str | None:
    """File and line of the innermost frame in this package. Without one: of the innermost frame."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    ours = [f"{path.removeprefix(_PACKAGE)}:{line}" for path, line in frames if path.startswith(_PACKAGE)]
    return ours[-1] if ours else f"{Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else None
