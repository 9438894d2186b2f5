"""What the hub tells of itself: log lines, and numbers for Prometheus. Never a token, an endpoint or a patient (SEC-1).

A log line is made of fields with fixed names, and everything else is left out. That is decided here, where lines are
written, and not where they are thought of: whoever logs too much in a hurry gets a line with less in it. What a name
cannot promise is asked of the value: a topic must be a keyed hash, a URL loses its path, and only text and numbers count.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import structlog

#: The fields of a log line. Before adding one: could a value of it be, or hold, what SEC-1 forbids?
ALLOWED = frozenset(
    {
        *("timestamp", "level", "event", "request_id"),
        *("method", "route", "status", "ms"),  # route is the template, never the path
        *("topic", "subscriber"),  # keyed hashes
        *("name", "code", "reason"),  # name is an event's; reason is a text of ours
        *("error", "where", "logger"),  # what went wrong: its type and place
        *("count", "connections", "sessions", "sockets", "subscriptions", "bytes", "seconds"),
        *("host", "port", "url", "hub_url", "issuer", "store", "version"),
    }
)
_OPTIONAL = ALLOWED - {"timestamp", "level", "event"}
#: These are taken only as KeyedHash writes them.
HASHED = frozenset({"topic", "subscriber"})
#: Settings, written whole. Any other URL might be an endpoint, and keeps scheme and host only.
CONFIGURED = frozenset({"issuer", "store", "hub_url"})
#: Characters of one value: enough for a reason, too few for a resource.
MAX_TEXT = 200
#: Written where a value may not be.
HIDDEN = "hidden"
#: The event of a line is a literal of ours without digits or slashes; most of what is put into one by mistake has some.
_EVENT = re.compile(r"[A-Za-z][A-Za-z_.,;: -]{0,119}")
_HASH = re.compile(r"[0-9a-f]{12}")
_AFTER_HOST = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#]*@)?([^\s/?#]*)\S*")

#: Texts of libraries that say something to an operator, and nothing of a request.
LIBRARY_TEXTS = frozenset(
    {
        "Application startup failed. Exiting.",
        "Application shutdown failed. Exiting.",
        "Exception in ASGI application\n",
        "Invalid HTTP request received.",
        "Cancel %s running task(s), timeout graceful shutdown exceeded",
    }
)

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
_encode = msgspec.json.Encoder().encode


# --- log lines ---


def configure_logging(format: str = "json", level: str = "info") -> None:
    """From now on structlog, the standard library's logging and uncaught exceptions write such lines to stdout.

    `format` is json, or console for people. uvicorn must be run with log_config=None and access_log=False, or it writes
    lines of its own, with the paths of requests in them.
    """
    structlog.configure(
        processors=[_as_console if format == "console" else _as_json],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Stdout(),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_Library()]
    root.setLevel(logging.WARNING)
    # The interpreter's own reports are tracebacks with messages, and messages quote values.
    sys.excepthook = lambda _kind, error, _trace: _uncaught(error)
    sys.unraisablehook = lambda args: _uncaught(args.exc_value)
    threading.excepthook = lambda args: _uncaught(args.exc_value)


def _uncaught(error: BaseException | None) -> None:
    structlog.get_logger().critical("uncaught exception", exc_info=error)


class _Stdout:
    """Where lines go. A full disk, or nobody at the other end, is no reason to refuse requests."""

    def write(self, line: bytes) -> None:
        try:
            # One call, so that lines of several threads do not mix. Looked up each time: tests replace sys.stdout.
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = write


class _Library(logging.Handler):
    """Lines of libraries: who, where, and the type of an exception. Their texts stay out, and so does all below WARNING.

    uvicorn logs each handshake with its path (for a WebSocket that is the endpoint), httpx each URL, websockets each
    frame, asyncio whatever was awaited; some texts are formatted before they get here. So only known literals are kept.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name, "where": f"{record.filename}:{record.lineno}"}
        if isinstance(record.msg, str) and record.msg in LIBRARY_TEXTS:
            fields["reason"] = record.msg.strip()
        error = record.msg if isinstance(record.msg, BaseException) else record.exc_info
        log = structlog.get_logger()
        say = log.error if record.levelno >= logging.ERROR else log.warning
        say("library message", exc_info=error, **fields)


def _as_json(_logger: object, method: str, fields: Mapping[str, Any]) -> bytes:
    line = _line(method, fields)
    try:
        return _encode(line) + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair
        return _encode({name: _whole(value) for name, value in line.items()}) + b"\n"


def _whole(value: Any) -> Any:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


_COLOURS = {"debug": 36, "info": 32, "warning": 33, "error": 31, "critical": 31}


def _as_console(_logger: object, method: str, fields: Mapping[str, Any]) -> bytes:
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    line = _line(method, fields)
    time, level, event = (line.pop(name) for name in ("timestamp", "level", "event"))
    # repr() leaves nothing in a value that could steer a terminal
    pairs = " ".join(f"{name}={value!r}" for name, value in line.items())
    shown = f"\x1b[{_COLOURS[level]}m{level:8}\x1b[0m" if colour else f"{level:8}"
    return f"{time.astimezone():%H:%M:%S} {shown} {event:28} {pairs}".rstrip().encode(errors="replace") + b"\n"


def _line(method: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {"timestamp": datetime.now(UTC), "level": method, "event": _event(str(fields.get("event")))}
    for name, value in fields.items():
        if name in _OPTIONAL:
            line[name] = _value(name, value)
    if fault := fields.get("exc_info"):
        line |= _fault(sys.exc_info() if fault is True else fault)
    return line


@lru_cache(256)  # they are literals
def _event(text: str) -> str:
    return text if _EVENT.fullmatch(text) else HIDDEN


def _value(name: str, value: object) -> int | float | str | None:
    """What may be written of a value; plain types only, for nothing else is sure to become JSON."""
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
    """An exception by type and place. Its message may quote what somebody sent, and a traceback's lines may too."""
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if not isinstance(error, BaseException):
        return {}
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    fault = {"error": f"{type(error).__name__} from {type(cause).__name__}" if cause else type(error).__name__}
    if place := _place(error):
        fault["where"] = place
    if isinstance(error, OSError) and error.errno:
        fault["reason"] = os.strerror(error.errno)  # the system's text for the number; str(error) has the path in it
    return fault


def _place(error: BaseException) -> str | None:
    """File and line of the innermost frame in this package, else of the innermost of all."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    ours = [f"{path.removeprefix(_PACKAGE)}:{line}" for path, line in frames if path.startswith(_PACKAGE)]
    return ours[-1] if ours else f"{Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else None


class KeyedHash:
    """`hashed(text)`: 12 hexadecimal digits that tell texts apart within one run of the hub, and nobody what they were.

    The key is random and never leaves the process, so that nobody can try topics or names until one fits.
    """

    def __init__(self, key: bytes | None = None) -> None:
        key = key or secrets.token_bytes(32)

        @lru_cache(1024)
        def digest(text: str) -> str:
            return blake2b(text.encode(errors="surrogatepass"), digest_size=6, key=key).hexdigest()

        self._digest = digest

    def __call__(self, text: str) -> str:
        return self._digest(text)


# --- numbers ---
