"""What a refusal of the database means, and what to do: one line for the operator, without the password."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import ssl
from typing import NamedTuple

import asyncpg

from fhircast_hub.postgresql.connect import NoHost

_WRONG_LOGIN = (
    "the database refuses this user or password; check both in FHIRCAST_STORE and FHIRCAST_STORE_PASSWORD_FILE, "
    "and pg_hba.conf of the server"
)
_NONE_GIVEN = (
    "the database wants a password, and none was given; set FHIRCAST_STORE_PASSWORD_FILE, "
    "or put user:password@ into FHIRCAST_STORE"
)
_NO_DATABASE = "the database of this name does not exist; make the database, or mend its name in FHIRCAST_STORE"
#: OpenSSL's verify codes (see verify(1)): a certificate that has expired, and one of another name or address.
_EXPIRED, _OTHER_NAME = (10,), (62, 64)


class Login(NamedTuple):
    """As whom the hub connects, and to which database."""

    user: str
    database: str
    #: Whether a password was given, or there is a file of passwords.
    has_password: bool

    @property
    def may_not_connect(self) -> str:
        """A role that may not connect."""
        return f"this user may not connect to the database; as its administrator run: {self._grant('connect')}"

    @property
    def may_not_make(self) -> str:
        """A role that may not make the tables."""
        run = f"run as a user that may: {self._upgrade()}; or allow it: {self._grant('create')}"
        return f"this user may not make the hub's tables; {run}"

    @property
    def may_not_use(self) -> str:
        """A role that may not use the tables."""
        return f"this user may not use the hub's tables; run as their owner: {self._upgrade()}"

    def _grant(self, right: str) -> str:
        """A statement to paste into psql."""
        return f"grant {right} on database {_identifier(self.database)} to {_identifier(self.user)};"

    def _upgrade(self) -> str:
        """A command to paste into a shell."""
        return f"fhircast-hub store upgrade --grant {shlex.quote(self.user)}"


def reason(error: Exception, login: Login) -> str:
    """What an error means, and what to do: one line for the operator, without the password."""
    match error:
        case ValueError():
            return str(error)
        case NoHost():
            return _of_hosts(error)
        case asyncpg.InvalidPasswordError() if not login.has_password:
            return _NONE_GIVEN
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return _WRONG_LOGIN
        case asyncpg.InvalidCatalogNameError():
            return _NO_DATABASE
        case asyncpg.InsufficientPrivilegeError():
            return login.may_not_use
        case asyncpg.LockNotAvailableError():
            return "another program holds a lock on the hub's tables; try again, or look into pg_locks of the database"
        case asyncpg.PostgresError():
            return f"the database refuses: {type(error).__name__} ({error.sqlstate}); see the database's log"
        case TimeoutError():
            return "the database does not answer, or another program makes its tables for too long"
        case _:
            return f"the database {why(error)}"


def why(error: Exception) -> str:
    """Why a host did not take a connection, in some words without a password."""
    match error:
        case asyncpg.TargetServerAttributeNotMatched():
            return "takes no changes (a standby, or read-only)"
        case asyncpg.PostgresError():
            return f"refuses ({type(error).__name__}, {error.sqlstate})"
        case TimeoutError():
            return "does not answer"
        case ssl.SSLCertVerificationError():
            return f"shows a certificate that is not trusted ({error.verify_message.rstrip('.')})"
        case ssl.SSLError():
            said = getattr(error, "reason", None) or error.strerror or type(error).__name__
            return f"cannot be spoken to by TLS ({said})"
        case socket.gaierror():
            return str(error.strerror or type(error).__name__)
        case OSError(errno=int(number)) if number in errno.errorcode:
            return os.strerror(number)
        case ConnectionError() if "SSL" in str(error):
            return "takes no connection with TLS"
        case OSError() if "Multiple exceptions" in str(error):
            return "refuses the connection at each of its addresses"
        case _:
            return type(error).__name__


def _advice(error: Exception) -> str:
    """What to do about such an error. "": its own words say enough."""
    match error:
        case asyncpg.TargetServerAttributeNotMatched():
            return "name the primary in FHIRCAST_STORE"
        case asyncpg.PostgresError():
            return "see the database's log"
        case ssl.SSLCertVerificationError(verify_code=int(code)) if code in _OTHER_NAME:
            return "check the host in FHIRCAST_STORE, which the certificate must name"
        case ssl.SSLCertVerificationError(verify_code=int(code)) if code in _EXPIRED:
            return "renew the certificate of the database"
        case ssl.SSLCertVerificationError():
            return "check sslrootcert in FHIRCAST_STORE"
        case ssl.SSLError():
            return "check sslrootcert, sslcert and sslkey in FHIRCAST_STORE"
        case socket.gaierror():
            return "check the name in FHIRCAST_STORE, and the DNS of this machine"
        case ConnectionError() if "SSL" in str(error):
            return "set ssl = on at the database, or check sslmode in FHIRCAST_STORE"
        case OSError():
            return "check host and port in FHIRCAST_STORE, and what is between"
        case _:
            return ""


def _of_hosts(error: NoHost) -> str:
    hosts = ", ".join(f"{host} {why(each)}" for host, each in error.failures)
    errors = [each for _, each in error.failures]
    can = "used" if any(map(_answered, errors)) else "reached"
    return "; ".join([f"the database cannot be {can}: {hosts}", *dict.fromkeys(filter(None, map(_advice, errors)))])


def _answered(error: Exception) -> bool:
    """Whether the host was reached, and could not be used."""
    said = (ssl.SSLCertVerificationError, asyncpg.PostgresError, asyncpg.TargetServerAttributeNotMatched)
    return isinstance(error, said) or (isinstance(error, ConnectionError) and "SSL" in str(error))


def _identifier(name: str) -> str:
    """A name as an identifier of SQL, in quotes: the name may be a key word, or have capitals."""
    return '"' + name.replace('"', '""') + '"'
