"""The URL of a PostgreSQL database, as libpq has it: `postgresql://user:password@host:port,host:port/database?parameters`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

EXPECTED = "postgresql://user@host:port/database"
SCHEMES = ("postgresql://", "postgres://")
PORT = 5432
#: Seconds that each host has to answer, unless the parameter connect_timeout says otherwise.
CONNECT_SECONDS = 5
LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")

_URL = re.compile(
    r"postgres(?:ql)?://(?P<user>[^:/?#@\s]+)(?::(?P<password>[^:/?#@\s]*))?@(?P<hosts>[^/?#@\s]+)"
    r"/(?P<database>[^/?#\s]+)(?:\?(?P<query>[^#\s]*))?"
)
_HOST = re.compile(
    r"(?P<name>[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\])(?::(?P<port>[0-9]{1,5}))?"
)
_SOCKET = re.compile(r"@(?:/|%2f)|[?&]host=", re.IGNORECASE)
_PATH = re.compile(r"[^\x00-\x1f]+")
_COUNT = re.compile(r"[1-9][0-9]{0,8}")
#: Parameters that name files.
_FILES = ("sslrootcert", "sslcert", "sslkey", "passfile")
#: The parameters, and the values of each.
PARAMETERS = {
    "sslmode": re.compile("disable|allow|prefer|require|verify-ca|verify-full"),
    "sslrootcert": _PATH,
    "sslcert": _PATH,
    "sslkey": _PATH,
    "passfile": _PATH,
    "target_session_attrs": re.compile("read-write|primary"),
    "connect_timeout": re.compile("[1-9][0-9]{0,2}"),
    "keepalives": re.compile("[01]"),
    "keepalives_idle": _COUNT,
    "keepalives_interval": _COUNT,
    "keepalives_count": re.compile("[1-9][0-9]{0,2}"),
    "tcp_user_timeout": _COUNT,
}


class DatabaseUrl(NamedTuple):
    """A URL's parts, decoded."""

    user: str
    password: str | None
    #: Names or addresses, each with its port. IPv6 addresses have no brackets.
    hosts: tuple[tuple[str, int], ...]
    database: str
    #: Parameters by name; only those of PARAMETERS.
    parameters: dict[str, str]

    @property
    def is_safe(self) -> bool:
        """Whether nobody can listen on the way to any host: all are loopback, or show a certificate of their name."""
        is_verified = self.parameters.get("sslmode") == "verify-full"
        return is_verified or all(LOOPBACK.fullmatch(name) for name, _ in self.hosts)

    @property
    def connect_seconds(self) -> int:
        """Seconds that each host has to answer."""
        return int(self.parameters.get("connect_timeout", CONNECT_SECONDS))


def is_database(url: str) -> bool:
    """Whether this is meant as the URL of a PostgreSQL database."""
    return url.startswith(SCHEMES)


def parse(url: str) -> DatabaseUrl:
    """The parts of a URL. Raises ValueError with what was expected, to complete "the setting must be ..."."""
    found = _URL.fullmatch(url)
    if _SOCKET.search(url):
        raise ValueError(f"{EXPECTED}, with a host's name or address, since Unix sockets are not supported")
    if found is None:
        raise ValueError(f"{EXPECTED}, with percent-encoding in user and password")
    password = found["password"]
    return DatabaseUrl(
        _decoded(found["user"]),
        None if password is None else _decoded(password),
        tuple(map(_host, found["hosts"].split(","))),
        _decoded(found["database"]),
        _parameters(found["query"] or ""),
    )


def file_faults(parameters: Mapping[str, str]) -> Iterator[str]:
    """Why files of a URL cannot be used, one sentence each."""
    for name in _FILES:
        if name in parameters:
            try:
                with open(parameters[name], "rb"):
                    pass
            except OSError as error:
                yield f"the file of {name} cannot be read: {error.strerror}"
    passwords = password_file(parameters)
    if passwords.is_file() and passwords.stat().st_mode & 0o077:
        yield "the file of passfile must be its owner's alone (chmod 600)"
    given = parameters.get("sslrootcert")
    authority = given or os.environ.get("PGSSLROOTCERT") or Path("~/.postgresql/root.crt")
    is_there = Path(authority).expanduser().is_file() or given is not None  # else it is named above
    if parameters.get("sslmode", "").startswith("verify") and not is_there:
        yield "the URL needs sslrootcert: the file with the authority of the database's certificate"


def password_file(parameters: Mapping[str, str]) -> Path:
    """Where passwords are looked for if none is given. The file may be missing."""
    return Path(parameters.get("passfile") or os.environ.get("PGPASSFILE") or "~/.pgpass").expanduser()


def _decoded(text: str) -> str:
    """The text without escapes. Raises ValueError for what is no UTF-8, and for control characters."""
    try:
        decoded = unquote_to_bytes(text).decode("utf-8")
    except UnicodeError:
        raise ValueError(f"{EXPECTED}, in UTF-8") from None
    if not decoded.isprintable() or re.search("%(?![0-9A-Fa-f]{2})", text):
        raise ValueError(f"{EXPECTED}, with %25 for a percent sign, and without control characters")
    return decoded


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found["port"] or PORT) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError(f"{EXPECTED}, with a host's name or address, and a port from 1 to 65535")
    return found["name"].strip("[]"), port


def _parameters(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, _, text = pair.partition("=")
        if name not in PARAMETERS:
            raise ValueError(f"a URL whose parameters are among {', '.join(PARAMETERS)}")
        value = _decoded(text)
        if name in found:
            raise ValueError(f"a URL with one {name}")
        if not PARAMETERS[name].fullmatch(value):
            raise ValueError(f"a URL whose {name} is {_WORDS.get(PARAMETERS[name], PARAMETERS[name].pattern)}")
        found[name] = value
    return found


#: How to say which values a parameter takes, where its pattern does not say so.
_WORDS = {
    _PATH: "a path",
    _COUNT: "a whole number from 1 to 999999999",
    PARAMETERS["connect_timeout"]: "a whole number from 1 to 999",
    PARAMETERS["keepalives"]: "0 or 1",
}
for _name in ("sslmode", "target_session_attrs"):
    _WORDS[PARAMETERS[_name]] = f"one of {PARAMETERS[_name].pattern.replace('|', ', ')}"
