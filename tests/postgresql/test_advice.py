"""OPS-35: what an operator does about a refusal of the database, without a database."""

from __future__ import annotations

import ssl
from pathlib import Path

import asyncpg
import pytest

from fhircast_hub.postgresql.connect import NoHost
from fhircast_hub.postgresql.database import Database
from fhircast_hub.postgresql.refusals import Login, reason

pytestmark = pytest.mark.req("OPS-35")


def verify_error(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, f"[SSL: CERTIFICATE_VERIFY_FAILED] {message} (_ssl.c:1006)")
    error.verify_code, error.verify_message = code, message
    return error


def test_an_expired_certificate_is_to_be_renewed() -> None:
    error = NoHost([("db:5432", verify_error(10, "certificate has expired"))])
    line = "db:5432 shows a certificate that is not trusted (certificate has expired)"
    advice = "renew the certificate of the database"
    assert reason(error, Login("hub", "hub", True)) == f"the database cannot be used: {line}; {advice}"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            asyncpg.LockNotAvailableError(),
            "another program holds a lock on the hub's tables; try again, or look into pg_locks of the database",
        ),
        (
            asyncpg.DiskFullError(),
            "the database refuses: DiskFullError (53100); see the database's log",
        ),
    ],
)
def test_other_refusals_have_a_next_step_too(error: Exception, line: str) -> None:
    assert reason(error, Login("hub", "hub", True)) == line


def test_names_are_quoted_for_sql_and_for_the_shell() -> None:
    login = Login('o"hub $x', "Hub", True)
    assert login.may_not_connect.endswith(' run: grant connect on database "Hub" to "o""hub $x";')
    assert login.may_not_use.endswith(""": fhircast-hub store upgrade --grant 'o"hub $x'""")


def test_a_password_comes_from_the_url_a_setting_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty one is none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGPASSFILE", raising=False)
    monkeypatch.delenv("PGPASSWORD", raising=False)
    at = "@127.0.0.1/hub"
    assert not Database(f"postgresql://hub{at}").login.has_password
    assert not Database(f"postgresql://hub:{at}").login.has_password
    assert Database(f"postgresql://hub:hunter2{at}").login.has_password
    assert Database(f"postgresql://hub{at}", "hunter2").login.has_password
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    assert Database(f"postgresql://hub{at}").login.has_password
    monkeypatch.delenv("PGPASSWORD")
    (tmp_path / ".pgpass").touch()
    assert Database(f"postgresql://hub{at}").login.has_password
