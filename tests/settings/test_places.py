"""SEC-15: what is missing on this machine is found before anything starts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from fhircast_hub.settings.errors import SettingsError
from fhircast_hub.settings.places import append_fault, store_fault
from fhircast_hub.settings.reading import read
from fhircast_hub.settings.serving import check_tls, require_all
from tests.certificates import make_certificate
from tests.settings.settings_world import from_env, issuers


def lines(**values: Any) -> list[str]:
    """What `serve` refuses of these settings, which are right in themselves."""
    try:
        require_all(from_env(**{"ISSUERS": issuers({}), "SECRET_KEY": "k" * 32, **values}))
    except SettingsError as error:
        return list(error.lines)
    return []


@pytest.mark.req("SEC-15")
@pytest.mark.parametrize("setting", ["STORE", "AUDIT"])
def test_a_file_needs_its_folder(tmp_path: Path, setting: str) -> None:
    """A folder that is there, and is one. Nothing is made."""
    begin = {"STORE": "sqlite:///", "AUDIT": "file://"}[setting]
    (tmp_path / "file").write_text("x")
    assert lines(**{setting: f"{begin}{tmp_path}/new.db"}) == []
    cases = {
        "none/new.db": f"its folder '{tmp_path}/none' does not exist",
        "file/new.db": f"'{tmp_path}/file' is no folder",
    }
    for name, fault in cases.items():
        (line,) = lines(**{setting: f"{begin}{tmp_path}/{name}"})
        assert line.startswith(f"FHIRCAST_{setting}: '{tmp_path}/{name}' cannot be ")
        assert line.endswith(fault)
    (tmp_path / "folder").mkdir()
    assert lines(**{setting: f"{begin}{tmp_path}/folder"})[0].endswith(": it is a folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.req("SEC-15")
def test_a_relative_store_is_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert lines(STORE="sqlite:///hub.db") == []
    assert lines(STORE="sqlite:///none/hub.db") == [
        "FHIRCAST_STORE: 'none/hub.db' cannot be opened: its folder 'none' does not exist"
    ]


@pytest.mark.req("SEC-15")
def test_percent_signs_of_an_audit_url_are_read(tmp_path: Path) -> None:
    (tmp_path / "år 1").mkdir()
    assert lines(AUDIT=(tmp_path / "år 1" / "trail").as_uri()) == []


@contextmanager
def somebody_else() -> Iterator[None]:
    """Who may not write everywhere, as root may."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.req("SEC-15")
def test_the_rights_of_the_hubs_user_count() -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "file").write_text("x")
        (folder / "file").chmod(0o444)
        folder.chmod(0o555)
        with somebody_else():
            found = store_fault(folder / "new"), store_fault(folder / "file")
        (folder / "file").chmod(0o222)
        with somebody_else():
            of_trail, of_store = append_fault(folder / "file"), store_fault(folder / "file")
        (folder / "file").chmod(0o666)
        with somebody_else():
            beside = store_fault(folder / "file")
        folder.chmod(0o755)
    assert found == (f"the hub's user may not write in '{folder}'", "the hub's user may not read and write it")
    assert (of_trail, of_store) == ("", "the hub's user may not read and write it")
    assert beside == f"the hub's user may not write in '{folder}'", "SQLite makes files beside its own"


@pytest.mark.req("SEC-15", "SEC-3")
def test_a_place_that_cannot_be_looked_at_is_a_line_too(tmp_path: Path) -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "inner").mkdir()
        folder.chmod(0o700)
        with somebody_else():
            assert store_fault(folder / "inner" / "hub.db") == "Permission denied"
    assert append_fault(tmp_path / ("x" * 300)) == "File name too long"


@pytest.mark.req("SEC-15")
def test_files_of_the_databases_url() -> None:
    """All of them, as the connection would refuse them one by one."""
    url = "postgresql://hub@127.0.0.1/db?sslmode=verify-full&sslrootcert=/none&sslcert=/none&sslkey=/none"
    assert lines(STORE=url) == [
        f"FHIRCAST_STORE: the file of {name} cannot be read: No such file or directory"
        for name in ("sslrootcert", "sslcert", "sslkey")
    ]


@pytest.mark.req("SEC-15", "SEC-6")
def test_authorities_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a URL of the settings is https."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    assert lines() == ["SSL_CERT_FILE must name certificates in PEM: No such file or directory"]
    assert lines(ISSUERS=issuers({"issuer": "http://localhost:1"})) == []


#: Members of an issuer, and those that are named as missing.
CREDENTIALS = [
    ({"introspection_client_id": "hub"}, ["introspection_client_secret", "introspection_endpoint"]),
    ({"introspection_client_secret": "hunter2"}, ["introspection_client_id", "introspection_endpoint"]),
    ({"introspection_client_id": "hub", "introspection_client_secret": "hunter2"}, ["introspection_endpoint"]),
    ({"introspection_client_id": "hub", "introspection_endpoint": "https://a.example"}, ["introspection_client_secret"]),
    ({"introspection_client_secret": "hunter2", "introspection_endpoint": "https://a.example"}, ["introspection_client_id"]),
    ({"introspection_endpoint": "https://a.example"}, []),
]  # fmt: skip


@pytest.mark.req("SEC-15", "AUT-14")
@pytest.mark.parametrize(("members", "missing"), CREDENTIALS, ids=[" ".join(members) for members, _ in CREDENTIALS])
def test_credentials_for_introspection_are_whole(members: dict[str, str], missing: list[str]) -> None:
    environ = {"FHIRCAST_ISSUERS": json.dumps(issuers(members))}
    found = [line.partition(" is required, because ")[0] for line in read(None, environ).lines]
    assert found == [f"FHIRCAST_ISSUERS[0].{name}" for name in missing]


@pytest.mark.req("SEC-15", "SEC-14")
def test_a_secret_in_a_file_makes_credentials_whole(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2")
    members = {"introspection_client_id": "hub", "introspection_endpoint": "https://a.example"}
    assert lines(ISSUERS=issuers(members | {"introspection_client_secret_file": str(tmp_path / "secret")})) == []


@pytest.mark.req("SEC-15")
def test_a_hub_with_tls_has_an_https_url(tmp_path: Path) -> None:
    """The default URL is http: endpoints would lead to ws on a port of TLS."""
    certificate, key = make_certificate(tmp_path)
    (mistake,) = check_tls(from_env(), certificate, key)
    assert mistake.line == (
        "FHIRCAST_PUBLIC_URL must be an https URL, because the hub serves TLS, not 'http://localhost:8080/api/hub'"
    )
    assert not list(check_tls(from_env(PUBLIC_URL="https://hub.example"), certificate, key))
    assert not list(check_tls(from_env(ALLOW_INSECURE="true"), certificate, key))
    assert not list(check_tls(from_env(), None, None))
