"""The URL of a PostgreSQL store: what is understood, what is refused, and that nobody is shown the password."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.settings.database_url import PARAMETERS, DatabaseUrl, parse
from fhircast_hub.settings.errors import SettingsError
from fhircast_hub.settings.serving import require_all
from fhircast_hub.settings.settings import Settings
from fhircast_hub.settings.types import mask
from tests.settings.settings_world import from_env, issuers

URL = "postgresql://hub@127.0.0.1/db"
KEY = "0123456789abcdef" * 2
#: A password, in every place of a URL that may hold one.
SECRET = "hunter2"


def shared(store: str = URL, **values: Any) -> Settings:
    return from_env(STORE=store, SECRET_KEY=KEY, ISSUERS=issuers({}), **values)


def refusal(settings: Settings) -> str:
    """The line with which `serve` refuses these settings."""
    with pytest.raises(SettingsError) as caught:
        require_all(settings)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_a_url_has_parts() -> None:
    """User, password and database are decoded, and each host has a port."""
    url = (
        "postgres://a%40b:p%3Aw@db1.example,[fd00::1]:5433,10.0.0.1:1/d%2Fb?sslmode=verify-full&sslrootcert=/c%20a.pem"
    )
    hosts = ("db1.example", 5432), ("fd00::1", 5433), ("10.0.0.1", 1)
    assert parse(url) == DatabaseUrl("a@b", "p:w", hosts, "d/b", {"sslmode": "verify-full", "sslrootcert": "/c a.pem"})
    assert parse(URL) == DatabaseUrl("hub", None, (("127.0.0.1", 5432),), "db", {})


def test_a_host_has_five_seconds_unless_the_url_says_otherwise() -> None:
    assert parse(URL).connect_seconds == 5
    assert parse(f"{URL}?connect_timeout=7").connect_seconds == 7


#: What follows a scheme, and parts of the line.
BAD = [
    ("", "postgresql://user@host:port/database"),
    ("hub@db", "postgresql://user@host:port/database"),
    ("hub@db/", "postgresql://user@host:port/database"),
    ("db.example/hub", "postgresql://user@host:port/database"),
    ("/hub", "postgresql://user@host:port/database"),
    (f"hub:{SECRET}", "postgresql://user@host:port/database … not 'postgresql://***'"),
    (
        f"hub:{SECRET}/x@127.0.0.1/db",
        "with percent-encoding in user and password … not 'postgresql://***@127.0.0.1/db'",
    ),
    (f"hub:a@{SECRET}@127.0.0.1/db", "with percent-encoding in user and password"),
    (f"hub:{SECRET}?@127.0.0.1/db", "with percent-encoding in user and password"),
    (f"hub:{SECRET}%@127.0.0.1/db", "with %25 for a percent sign"),
    (f"hub:{SECRET}%0a@127.0.0.1/db", "without control characters"),
    (f"hub:{SECRET}%ff@127.0.0.1/db", "in UTF-8"),
    ("hub@127.0.0.1:0/db", "a port from 1 to 65535"),
    ("hub@127.0.0.1:65536/db", "a port from 1 to 65535"),
    ("hub@127.0.0.1:x/db", "a port from 1 to 65535"),
    ("hub@127.0.0.1,/db", "with a host's name or address"),
    ("hub@::1/db", "with a host's name or address"),
    ("hub@%2Frun%2Fpostgresql/db", "Unix sockets are not supported"),
    ("hub@/db?host=/run/postgresql", "Unix sockets are not supported"),
    (f"hub@127.0.0.1/db?password={SECRET}", "a URL whose parameters are among sslmode, sslrootcert"),
    ("hub@127.0.0.1/db?application_name=x", "a URL whose parameters are among"),
    ("hub@127.0.0.1/db?sslmode", "a URL whose sslmode is one of disable, allow, prefer"),
    ("hub@127.0.0.1/db?sslmode=full", "a URL whose sslmode is one of disable, allow, prefer"),
    ("hub@127.0.0.1/db?sslmode=disable&sslmode=verify-full", "a URL with one sslmode"),
    ("hub@127.0.0.1/db?sslcert=", "a URL whose sslcert is a path"),
    ("hub@127.0.0.1/db?connect_timeout=0", "a URL whose connect_timeout is a whole number from 1 to 999"),
    ("hub@127.0.0.1/db?keepalives=2", "a URL whose keepalives is 0 or 1"),
    ("hub@127.0.0.1/db?keepalives_idle=x", "a URL whose keepalives_idle is a whole number from 1 to 999999999"),
    ("hub@127.0.0.1/db?keepalives_count=1000", "a URL whose keepalives_count is a whole number from 1 to 999"),
    ("hub@127.0.0.1/db?target_session_attrs=standby", "target_session_attrs is one of read-write, primary"),
    ("hub@127.0.0.1/db?target_session_attrs=any", "target_session_attrs is one of read-write, primary"),
    ("hub@127.0.0.1/db#x", "postgresql://user@host:port/database"),
    ("hub@127.0.0.1/d b", "postgresql://user@host:port/database"),
]


@pytest.mark.req("SEC-3", "SEC-1")
@pytest.mark.parametrize(("rest", "words"), BAD, ids=[rest for rest, _ in BAD])
def test_a_bad_url_is_one_line_without_its_password(rest: str, words: str) -> None:
    for scheme in ("postgresql", "postgres"):
        with pytest.raises(SettingsError) as caught:
            shared(f"{scheme}://{rest}")
        line = str(caught.value)
        assert line.startswith("FHIRCAST_STORE must be ")
        assert line.isprintable()
        assert SECRET not in line
        assert all(part.replace("'postgresql", f"'{scheme}") in line for part in words.split(" … "))


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_is_documented(name: str) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
    assert f"`{name}`" in page.read_text(encoding="utf-8")


@pytest.mark.req("SEC-1")
@pytest.mark.parametrize(
    "url", [f"postgresql://hub:{SECRET}@127.0.0.1/db", f"postgresql://hub:{SECRET}@127.0.0.1/db?passfile=/{SECRET}"]
)
def test_the_password_in_a_url_is_masked(url: str) -> None:
    settings = shared(url)
    assert settings.masked()["FHIRCAST_STORE"]["value"].startswith("postgresql://***@127.0.0.1/db")
    assert SECRET not in json.dumps(settings.masked()) + mask(settings.store)
    assert settings.store_password == SECRET


#: Hosts and parameters, and whether nobody can listen on the way.
WAYS = [
    ("127.0.0.1,localhost:5433,[::1]:1,[::1]/db", True),
    ("127.0.0.1/db?sslmode=disable", True),
    ("db.example/db?sslmode=verify-full", True),
    ("db.example/db", False),
    ("127.0.0.1,db.example/db", False),
    ("127.0.0.1.example/db", False),
    *((f"db.example/db?sslmode={mode}", False) for mode in ("disable", "allow", "prefer", "require", "verify-ca")),
]


@pytest.mark.req("SEC-4")
@pytest.mark.parametrize(("rest", "is_safe"), WAYS)
def test_patients_travel_to_another_host_by_verified_tls_alone(rest: str, is_safe: bool) -> None:
    """Unless the operator allows what is insecure."""
    url = f"postgresql://hub:{SECRET}@{rest}"
    assert shared(url, ALLOW_INSECURE="true").store == url
    if is_safe:
        assert shared(url).store == url
        return
    with pytest.raises(
        SettingsError, match=r"^FHIRCAST_STORE must be a URL with sslmode=verify-full.*\*\*\*@"
    ) as caught:
        shared(url)
    assert SECRET not in str(caught.value)


@pytest.mark.req("SEC-3")
def test_nodes_that_post_to_callbacks_need_one_key() -> None:
    """`serve` does; `store upgrade` does not."""
    line = refusal(from_env(STORE=URL, ISSUERS=issuers({})))
    assert line.startswith("FHIRCAST_SECRET_KEY is required, the same on every node")
    assert line.endswith(
        "; make a key by openssl rand -hex 32, and put the key there or into the file of FHIRCAST_SECRET_KEY_FILE"
    )
    require_all(from_env(STORE=URL, ISSUERS=issuers({}), WEBHOOKS="false"))
    require_all(from_env(STORE=URL, ISSUERS=issuers({}), SECRET_KEY=KEY))
    require_all(from_env(STORE="memory:", ISSUERS=issuers({})))
