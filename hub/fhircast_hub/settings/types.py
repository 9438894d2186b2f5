"""The types of settings. Each type reads both the environment's text and a file's values."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, PlainSerializer, SecretStr

from fhircast_hub.settings.database_url import EXPECTED, LOOPBACK, SCHEMES, is_database, parse

#: The largest number of most settings. Timers and integers of databases take this number.
MAX_NUMBER = 2**31 - 1
#: Characters of SECRET_KEY, at least: 128 bits in hexadecimal.
MIN_SECRET = 32

#: The characters of a URL (RFC 3986 section 2). urlsplit() accepts more, and drops line breaks without an error.
_URL = re.compile(r"https?://[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
#: The path of hub.url, without escapes, empty segments or dotted segments: requests' paths are compared undecoded.
_PLAIN_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
#: An origin as browsers send one (RFC 6454 section 6.2): any scheme, no path, no trailing slash.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
#: A spelling of an address or a name. Binding fails later for one that does not exist.
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(%[A-Za-z0-9._-]+)?")
#: `sqlite:///:memory:` is refused: SQLite would keep no file.
_LOCAL_STORE = re.compile(r"memory:|sqlite:///(?!:memory:$)[^?\x00-\x1f\ud800-\udfff]*[^/?\x00-\x1f\ud800-\udfff]")


def _reader(read: Callable[[Any], Any], expected: str) -> BeforeValidator:
    """A validator by `read`. For a wrong value `read` returns None, or raises ValueError or TypeError.

    `expected` completes the sentence "the setting must be ...".
    """

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
    """A whole number: text in the environment, a number in a file. `true`, `1.0` and `1_000` are wrong."""

    def read(value: Any) -> int | None:
        if isinstance(value, str) and re.fullmatch("[0-9]{1,12}", value):
            value = int(value)
        return value if type(value) is int and low <= value <= high else None

    return _reader(read, f"a whole number from {low} to {high}")


def one_of(*names: str) -> BeforeValidator:
    """One of these names, in any case."""
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
    """Only the length is checked: errors never show the value."""
    return value if isinstance(value, str) and len(value) >= MIN_SECRET and value.isprintable() else None


def _audit(value: Any) -> str | None:
    is_file = (
        isinstance(value, str) and value.startswith("file:///") and value.isprintable() and not value.endswith("/")
    )
    if value == "-" or is_file:
        return str(value)
    parts = urlsplit(value) if _URL.fullmatch(value) else None
    return value if parts and parts.hostname and "@" not in parts.netloc and not re.search("[?#]", value) else None


def _store(value: Any) -> str:
    """A store's URL. Raises ValueError with what was expected."""
    if isinstance(value, str) and is_database(value):
        parse(value)
    elif not isinstance(value, str) or not _LOCAL_STORE.fullmatch(value):
        raise ValueError(f"memory:, sqlite:///path (sqlite:////path for an absolute path), or {EXPECTED}")
    return value


def _matching(pattern: re.Pattern[str], expected: str) -> BeforeValidator:
    return _reader(lambda value: value if pattern.fullmatch(value) else None, expected)


def _url(*, query: bool = False) -> BeforeValidator:
    """A URL without a password: settings are shown to operators (SEC-1)."""

    def read(value: str) -> str | None:
        parts = urlsplit(value) if _URL.fullmatch(value) else None
        if not parts or not parts.hostname or parts.port == 0 or "@" in parts.netloc or "#" in value:
            return None
        return value if query or "?" not in value else None

    return _reader(read, f"an absolute http(s) URL without user, {'' if query else 'query, '}or fragment")


def _public_url(value: str) -> str | None:
    """The URL without its trailing slash, which makes no difference."""
    url = value.removesuffix("/")
    return url if _PLAIN_PATH.fullmatch(urlsplit(url).path) else None


def _origins(value: Any) -> tuple[str, ...] | None:
    origins = _texts(value)
    return origins if origins is not None and (origins == ("*",) or all(map(_ORIGIN.fullmatch, origins))) else None


Host = Annotated[str, _matching(_HOST, "the IP address (without brackets) or the host name to listen on")]
Port = Annotated[int, _whole(0, 65535)]
Count = Annotated[int, _whole(1, MAX_NUMBER)]
Number = Annotated[int, _whole(0, MAX_NUMBER)]
Memory = Annotated[int, _whole(0, 2**40 - 1)]
Switch = Annotated[bool, _reader(lambda value: {"true": True, "false": False}.get(str(value).lower()), "true or false")]
Text = Annotated[str, _reader(_text, "text that is not empty, without white space around it")]
Url = Annotated[str, _url()]
KeysUrl = Annotated[str, _url(query=True), PlainSerializer(lambda url: mask(url), when_used="json")]
#: Validators run from right to left.
HubUrl = Annotated[str, _reader(_public_url, "an absolute http(s) URL with a plain path, without escapes"), _url()]
Store = Annotated[
    str,
    BeforeValidator(_store),
    PlainSerializer(lambda url: mask(url) if is_database(url) else url, when_used="json"),
]
Audience = Annotated[
    str | tuple[str, ...],
    _reader(
        lambda value: _text(value) or _texts(value) or None,
        "the audience of the issuer's tokens, or a list of audiences",
    ),
]
AuditSink = Annotated[str, _reader(_audit, "- for stdout, file:///path, or the base URL of a FHIR server")]
Clients = Annotated[frozenset[str], _reader(_texts, "a list of client ids"), PlainSerializer(sorted, when_used="json")]
Networks = Annotated[tuple[str, ...], _reader(_networks, 'a list of networks such as ["10.1.0.0/16", "fd00:1::/64"]')]
#: SecretStr hides the value in dumps and logs.
SecretKey = Annotated[SecretStr, _reader(_secret, f"text of at least {MIN_SECRET} characters")]
ClientSecret = Annotated[SecretStr, _reader(_text, "text that is not empty, without white space around it")]
Origins = Annotated[
    tuple[str, ...], _reader(_origins, 'a list of origins such as ["https://ehr.example"], without paths, or ["*"]')
]
FhirVersion = Annotated[
    Annotated[str, one_of("DSTU1", "DSTU2", "STU3", "R4", "R4B", "R5", "none")] | None,
    BeforeValidator(lambda value: None if str(value).lower() == "none" else value),  # TOML has no null
]


def is_safe(url: str) -> bool:
    """Whether nobody can listen on the way to this URL: https or loopback (SEC-4)."""
    return url.startswith("https:") or bool(LOOPBACK.fullmatch(urlsplit(url).hostname or ""))


def mask(text: str) -> str:
    """`text` without the user, password and query of a URL, even of a broken URL. A query may be a key."""
    text = re.sub(r"^(\w[\w+.-]*://)?.*@", r"\1***@", text, flags=re.DOTALL)
    if text.startswith(SCHEMES) and "@" not in text:
        return f"{text.partition('://')[0]}://***"  # without its @, a password looks like a port
    return re.sub(r"(?<=\?).+", "***", text, flags=re.DOTALL)
