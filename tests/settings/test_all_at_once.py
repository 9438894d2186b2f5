"""SEC-13: all mistakes come in one run, one line each, in an order that does not change."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.settings.errors import SettingsError
from fhircast_hub.settings.reading import load
from tests.settings.settings_world import issuers, refusals


@pytest.mark.req("SEC-3", "SEC-13")
def test_mistakes_of_all_kinds_come_at_once(tmp_path: Path) -> None:
    """Unknown names first, then values in the order of docs/settings.md, then combinations, then what serve needs."""
    file = tmp_path / "hub.toml"
    file.write_text('PROT = 1\nHOST = ""\nMAX_LEASE = 10\nLOG_LEVEL = "loud"\n')
    broken = issuers({"issuer": None, "isuer": "hunter2"}, {"issuer": "http://b.example", "realm": 1})
    environ = {
        "SECRETKEY": "hunter2",
        "PORT": "x",
        "ISSUERS": broken,
        "STORE": "postgresql://hub@db.example/hub",
        "DEFAULT_LEASE": "11",
        "TRUSTED_PROXIES": "hunter2[",
        "LOG_LEVEL": "info",
    }
    assert refusals(environ, file, workers=0) == [
        "FHIRCAST_SECRETKEY is no setting of docs/settings.md; did you mean FHIRCAST_SECRET_KEY?",
        f"PROT in settings file '{file}' is no setting of docs/settings.md; did you mean PORT?",
        "FHIRCAST_HOST must be the IP address (without brackets) or the host name to listen on, not ''",
        "FHIRCAST_PORT must be a whole number from 0 to 65535, not 'x'",
        "FHIRCAST_ISSUERS[0].isuer is no member of docs/settings.md; did you mean issuer?",
        "FHIRCAST_ISSUERS[1].realm must be text that is not empty, without white space around it, not 1",
        "FHIRCAST_TRUSTED_PROXIES must be a JSON list, not 8 characters that are not JSON "
        "(Expecting value at line 1 column 1)",
        "FHIRCAST_DEFAULT_LEASE must be at most FHIRCAST_MAX_LEASE (10), not 11",
        "FHIRCAST_ISSUERS[1].issuer must be an https URL, because the host is not loopback "
        "(or set FHIRCAST_ALLOW_INSECURE=true), not 'http://b.example'",
        "FHIRCAST_STORE must be a URL with sslmode=verify-full, because a host is not loopback "
        "(or set FHIRCAST_ALLOW_INSECURE=true), not 'postgresql://***@db.example/hub'",
        "--workers must be a number of processes from 1 on, not 0",
    ]


@pytest.mark.req("SEC-13")
def test_the_order_of_the_environment_makes_no_difference() -> None:
    given = {"PORT": "x", "HOST": "", "ACK_STRIKES": "0", "B": "1", "A": "1"}
    found = {tuple(refusals(dict(order))) for order in itertools.permutations(given.items())}
    assert len(found) == 1
    assert len(found.pop()) == 6  # with the issuers, which are missing


#: What is wrong, and the names that begin the lines. None of the lines that another mistake may have caused is there.
CAUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"MAX_LEASE": "x", "DEFAULT_LEASE": "90000"}, ["FHIRCAST_MAX_LEASE"]),
    ({"MAX_LEAS": "100000", "DEFAULT_LEASE": "90000"}, ["FHIRCAST_MAX_LEAS"]),
    ({"DEFAULT_LEASE": "x", "MAX_LEASE": "1"}, ["FHIRCAST_DEFAULT_LEASE"]),
    ({"ALLOW_INSECURE": "1", "PUBLIC_URL": "http://hub.example"}, ["FHIRCAST_ALLOW_INSECURE"]),
    ({"ALLOW_INSECUR": "true", "STORE": "postgresql://hub@db.example/hub", "WEBHOOKS": "0"}, 2 * ["FHIRCAST_"]),
    ({"ISSUERS": "["}, ["FHIRCAST_ISSUERS must be a JSON list"]),
    ({"ISSUERS": {}}, ["FHIRCAST_ISSUERS must be a list"]),
    ({"ISSUER": []}, ["FHIRCAST_ISSUER is no setting"]),
    ({"ISSUERS": [1, 2]}, ["FHIRCAST_ISSUERS[0] must be an object", "FHIRCAST_ISSUERS[1] must be an object"]),
    ({"ISSUERS": issuers({"audience": 1, "user_claim": ""})}, ["FHIRCAST_ISSUERS[0].audience", "FHIRCAST_ISSUERS[0].user_claim"]),
    (
        {"ISSUERS": issuers({"realm": "r", "user_clam": "upn"}, {"issuer": "https://b.example", "realm": "r", "user_claim": "upn"})},
        ["FHIRCAST_ISSUERS[0].user_clam"],
    ),
    ({"ISSUERS": issuers({"issuer": 1}, {"issuer": 2})}, ["FHIRCAST_ISSUERS[0].issuer", "FHIRCAST_ISSUERS[1].issuer"]),
    ({"STORE": "postgresql://", "SECRET_KEY": "hunter2"}, ["FHIRCAST_STORE must be", "FHIRCAST_SECRET_KEY must be"]),
    ({"STORE": "postgresql://hub@127.0.0.1/db", "SECRET_KEY": "hunter2"}, ["FHIRCAST_SECRET_KEY must be"]),
]  # fmt: skip


@pytest.mark.req("SEC-13")
@pytest.mark.parametrize(("given", "names"), CAUSED, ids=[str(given) for given, _ in CAUSED])
def test_no_line_is_only_the_consequence_of_another(given: dict[str, Any], names: list[str]) -> None:
    """Where a value is wrong, or its name is, nobody knows what it would have been."""
    found = refusals({"ISSUERS": issuers({}), **given} if "ISSUER" not in given else given)
    assert len(found) == len(names)
    assert all(line.startswith(name) for line, name in zip(found, names, strict=True))


@pytest.mark.req("SEC-13")
def test_of_a_file_that_cannot_be_read_all_is_unknown_that_the_environment_does_not_say(tmp_path: Path) -> None:
    """Issuers may be in the file. The two leases are not."""
    found = refusals({"PORT": "x", "DEFAULT_LEASE": "2", "MAX_LEASE": "1"}, tmp_path / "none.toml")
    assert [line.partition(" ")[0] for line in found] == ["settings", "FHIRCAST_PORT", "FHIRCAST_DEFAULT_LEASE"]
    assert len(refusals({"DEFAULT_LEASE": "90000"}, tmp_path / "none.toml")) == 1


@pytest.mark.req("SEC-13")
def test_the_environment_counts_where_the_file_is_wrong(tmp_path: Path) -> None:
    """A wrong value in the environment hides the file's, also a wrong one."""
    file = tmp_path / "hub.toml"
    file.write_text('PORT = "x"\nISSUERS = [1]\n')
    assert load(file, {"FHIRCAST_PORT": "1", "FHIRCAST_ISSUERS": "[]"}).port == 1
    found = refusals({"PORT": "y", "ISSUERS": "["}, file)
    assert [line.partition(" ")[0] for line in found] == ["FHIRCAST_PORT", "FHIRCAST_ISSUERS"]
    assert "'y'" in found[0]


@pytest.mark.req("SEC-13")
def test_an_error_has_all_lines() -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, {"FHIRCAST_PORT": "x", "FHIRCAST_HOST": ""})
    assert caught.value.lines == tuple(str(caught.value).split("\n"))
    assert len(caught.value.lines) == 2
