"""Connecting: the hosts of the URL one after the other, each within its own time, until one takes changes.

asyncpg has one time for all hosts together, so that a first host that hangs would never be passed over. asyncpg also sends
libpq's `connect_timeout` and `keepalives` to the server as settings, which no server knows.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import asyncpg

from fhircast_hub.settings.database_url import DatabaseUrl, file_faults, password_file

#: Parameters that asyncpg reads as libpq does.
_OF_ASYNCPG = ("sslmode", "sslrootcert", "sslcert", "sslkey", "passfile")
#: Seconds of silence before a connection is asked for a sign of life, seconds between two such questions, and their number.
_IDLE, _INTERVAL, _COUNT = "5", "1", "3"
#: Of each connection at the server. Who waits for a lock gives up before the node does (database.py), with a known outcome.
_SERVER_SETTINGS = {
    "jit": "off",
    "lock_timeout": "3s",
    "default_transaction_isolation": "read committed",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "2",
}
#: Milliseconds after which a connection is lost when what was sent is not acknowledged.
_USER_TIMEOUT = "5000"
#: What a server says to everybody whatever the host: a wrong user, password or database.
_FINAL = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)

#: Classes of SQLSTATE that may pass: connection, conflicting transactions, resources, locks, operator intervention, the system; and
#: a server that takes no changes, as during a failover.
_PASSING = ("08", "25006", "40", "53", "55P03", "57", "58")


class NoHost(ConnectionError):
    """No host took the connection. `failures` are the hosts, as `name:port`, each with its error."""

    def __init__(self, failures: list[tuple[str, Exception]]) -> None:
        super().__init__("no host took the connection")
        self.failures = failures


class Connector:
    """Makes connections to a database. A host that took one is asked first the next time."""

    def __init__(self, url: DatabaseUrl, password: str | None) -> None:
        self._url = url
        self._password = url.password if password is None else password
        self._hosts = list(url.hosts)
        self._class = _kept_alive(url.parameters)

    @property
    def has_password(self) -> bool:
        """Whether a password was given, or there is a file of passwords."""
        is_none = self._password is None  # then asyncpg looks elsewhere, as libpq does
        elsewhere = is_none and (os.environ.get("PGPASSWORD") or password_file(self._url.parameters).is_file())
        return bool(self._password or elsewhere)

    async def connect(self, purpose: str) -> asyncpg.Connection[Any]:
        """A new connection to a host that takes changes.

        Raises NoHost, within the time of all hosts together. Raises what asyncpg raises for a wrong user, password or
        database, and ValueError for a file of the URL that cannot be read.
        """
        for fault in file_faults(self._url.parameters):  # asyncpg would ignore some files, or not name them
            raise ValueError(fault)
        failures: list[tuple[str, Exception]] = []
        for host in list(self._hosts):
            try:
                connection = await self._connect(host, purpose)
            except _FINAL:
                raise
            except Exception as error:
                failures.append((_shown(host), error))
            else:
                self._hosts.sort(key=lambda each, good=host: each != good)  # type: ignore[misc]  # sort is stable
                return connection
        raise NoHost(failures)

    async def _connect(self, host: tuple[str, int], purpose: str) -> asyncpg.Connection[Any]:
        parameters = self._url.parameters
        name, port = host
        query = urlencode({each: parameters[each] for each in _OF_ASYNCPG if each in parameters})
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            f"postgresql:///?{query}",
            host=name,
            port=port,
            user=self._url.user,
            password=self._password,
            database=self._url.database,
            timeout=self._url.connect_seconds,
            target_session_attrs=parameters.get("target_session_attrs", "read-write"),
            server_settings={"application_name": f"fhircast-hub {purpose}", **_SERVER_SETTINGS},
            connection_class=self._class,
        )
        if connection.get_server_version() >= (14, 0):
            # A statement whose client is gone ends, while it waits for a lock.
            await connection.execute("set client_connection_check_interval = '2s'", timeout=self._url.connect_seconds)
        return connection


def _kept_alive(parameters: Mapping[str, str]) -> type[asyncpg.Connection[Any]]:
    """The class of connections that notice a dead host. asyncpg hands each transport to the class that it was given."""

    class Connection(asyncpg.Connection):  # type: ignore[misc]  # without types
        def __init__(self, protocol: Any, transport: asyncio.Transport, *others: Any) -> None:
            super().__init__(protocol, transport, *others)
            keep_alive(transport.get_extra_info("socket"), parameters)

    return Connection


def keep_alive(connection: socket.socket, parameters: Mapping[str, str]) -> None:
    """Let the kernel ask a silent connection for signs of life, as libpq's parameters say, where the kernel can."""
    options = []
    if parameters.get("keepalives") != "0":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        options += [
            ("TCP_KEEPIDLE", parameters.get("keepalives_idle", _IDLE)),
            ("TCP_KEEPINTVL", parameters.get("keepalives_interval", _INTERVAL)),
            ("TCP_KEEPCNT", parameters.get("keepalives_count", _COUNT)),
        ]
    options.append(("TCP_USER_TIMEOUT", parameters.get("tcp_user_timeout", _USER_TIMEOUT)))
    for name, value in options:
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, int(value))


def may_pass(error: Exception) -> bool:
    """Whether a later try may succeed, with the same settings: the server is away, starts, is full, or takes no changes yet."""
    match error:
        case NoHost():
            return any(may_pass(each) for _, each in error.failures)
        case asyncpg.TargetServerAttributeNotMatched():
            return True
        case asyncpg.PostgresError():
            return (error.sqlstate or "").startswith(_PASSING)
        case ssl.SSLEOFError():
            return True
        case ssl.SSLError():  # an OSError too: wrong certificates
            return False
        case ConnectionError() if "SSL" in str(error):
            return False
    return isinstance(error, OSError)


def _shown(host: tuple[str, int]) -> str:
    name, port = host
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
