"""What the value of a setting may look like: each type reads text from the environment and values from a file alike."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, PlainSerializer, SecretStr

#: The largest number taken anywhere: it fits wherever a number may go, a database's integer or a timer.
MOST = 2**31 - 1
#: Characters of SECRET_KEY: 128 bits, written in hexadecimal.
MIN_SECRET = 32

#: RFC 3986 section 2: all that a URL may consist of. urlsplit() forgives more, and drops line breaks in silence.
_URL = re.compile(r"https?://[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
#: The routes are compared as they come, so the path of hub.url is plain: no escapes, no empty or dotted segments.
_PLAIN_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
#: RFC 6454 section 6.2, as browsers send it: an application's scheme is possible, a path or a trailing slash is not.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
#: Whether an address or a name of this spelling exists, binding to it will tell.
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(%[A-Za-z0-9._-]+)?")
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")
#: SQLite would keep `:memory:` in memory, and forget it, though a file was asked for.
_STORE = re.compile(r"memory:|sqlite:///(?!:memory:$)[^?\x00-\x1f\ud800-\udfff]*[^/?\x00-\x1f\ud800-\udfff]")


def _reader(read: Callable[[Any], Any], expected: str) -> BeforeValidator:
    """Validates by `read`, which returns the value, or None or a ValueError or TypeError for one that is wrong."""

    def validate(value: object) -> Any:
        try:
            result = read(value)
        except (ValueError, TypeError):
            result = None
        if result is None:
            raise ValueError(expected)
        return result

    return BeforeValidator(validate)


def _whole(low: int, high: int) -> BeforeValidator:
    """The environment brings text, a file brings numbers; `true`, `1.0` and `1_000` are neither."""

    def read(value: Any) -> int | None:
        if isinstance(value, str) and re.fullmatch("[0-9]{1,12}", value):
            value = int(value)
        return value if type(value) is int and low <= value <= high else None

    return _reader(read, f"a whole number from {low} to {high}")


def one_of(*names: str) -> BeforeValidator:
    spelled = {name.lower(): name for name in names}
    return _reader(lambda value: spelled.get(str(value).lower()), f"one of {', '.join(names)}")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value and value == value.strip() and value.isprintable() else None


def _texts(value: Any) -> tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list | tuple | frozenset) and all(map(_text, value)) else None


def _networks(value: Any) -> tuple[str, ...] | None:
    networks = _texts(value)
    return networks if networks is not None and all(ip_network(network) for network in networks) else None


def _secret(value: Any) -> str | None:
    """An error shows no value that is secret: its length, and no more, so that is what the reader is asked about."""
    return value if isinstance(value, str) and len(value) >= MIN_SECRET and value.isprintable() else None


def _audit(value: Any) -> str | None:
    is_file = (
        isinstance(value, str) and value.startswith("file:///") and value.isprintable() and not value.endswith("/")
    )
    if value == "-" or is_file:
        return str(value)
    parts = urlsplit(value) if _URL.fullmatch(value) else None
    return value if parts and parts.hostname and "@" not in parts.netloc and not re.search("[?#]", value) else None


def _matching(pattern: re.Pattern[str], expected: str) -> BeforeValidator:
    return _reader(lambda value: value if pattern.fullmatch(value) else None, expected)


def _url(*, query: bool = False) -> BeforeValidator:
    """A URL with a password in it would be shown wherever settings are, so there is none (SEC-1)."""

    def read(value: str) -> str | None:
        parts = urlsplit(value) if _URL.fullmatch(value) else None
        if not parts or not parts.hostname or parts.port == 0 or "@" in parts.netloc or "#" in value:
            return None
        return value if query or "?" not in value else None

    return _reader(read, f"an absolute http(s) URL without user, {'' if query else 'query, '}or fragment")


def _public_url(value: str) -> str | None:
    """Without the trailing slash: with and without it are the same URL."""
    url = value.removesuffix("/")
    return url if _PLAIN_PATH.fullmatch(urlsplit(url).path) else None


def _origins(value: Any) -> tuple[str, ...] | None:
    origins = _texts(value)
    return origins if origins is not None and (origins == ("*",) or all(map(_ORIGIN.fullmatch, origins))) else None


Host = Annotated[str, _matching(_HOST, "the IP address (without brackets) or the host name to listen on")]
Port = Annotated[int, _whole(0, 65535)]
Count = Annotated[int, _whole(1, MOST)]
Number = Annotated[int, _whole(0, MOST)]
Memory = Annotated[int, _whole(0, 2**40 - 1)]
Switch = Annotated[bool, _reader(lambda value: {"true": True, "false": False}.get(str(value).lower()), "true or false")]
Text = Annotated[str, _reader(_text, "text that is not empty, without white space around it")]
Url = Annotated[str, _url()]
KeysUrl = Annotated[str, _url(query=True), PlainSerializer(lambda url: mask(url), when_used="json")]
#: Validators run from right to left.
HubUrl = Annotated[str, _reader(_public_url, "an absolute http(s) URL with a plain path, without escapes"), _url()]
Store = Annotated[str, _matching(_STORE, "memory: or sqlite:///path (sqlite:////path for an absolute one)")]
Audience = Annotated[
    str | tuple[str, ...],
    _reader(lambda value: _text(value) or _texts(value) or None, "the audience of its tokens, or a list of some"),
]
AuditSink = Annotated[str, _reader(_audit, "- for stdout, file:///path, or the base URL of a FHIR server")]
Clients = Annotated[frozenset[str], _reader(_texts, "a list of client ids"), PlainSerializer(sorted, when_used="json")]
Networks = Annotated[tuple[str, ...], _reader(_networks, 'a list of networks such as ["10.1.0.0/16", "fd00:1::/64"]')]
#: SecretStr, so that nothing shows it by accident.
SecretKey = Annotated[SecretStr, _reader(_secret, f"text of at least {MIN_SECRET} characters")]
ClientSecret = Annotated[SecretStr, _reader(_text, "text that is not empty, without white space around it")]
Origins = Annotated[
    tuple[str, ...], _reader(_origins, 'a list such as ["https://ehr.example"], without paths, or ["*"]')
]
FhirVersion = Annotated[
    Annotated[str, one_of("DSTU1", "DSTU2", "STU3", "R4", "R4B", "R5", "none")] | None,
    BeforeValidator(lambda value: None if str(value).lower() == "none" else value),  # TOML has no null
]


def is_safe(url: str) -> bool:
    """Whether nobody can listen on the way to this URL (SEC-4)."""
    return url.startswith("https:") or bool(_LOOPBACK.fullmatch(urlsplit(url).hostname or ""))


def mask(text: str) -> str:
    """User and password of a URL, even of a broken one, and its query, which may be a key."""
    text = re.sub(r"^(\w[\w+.-]*://)?.*@", r"\1***@", text, flags=re.DOTALL)
    return re.sub(r"(?<=\?).+", "***", text, flags=re.DOTALL)
