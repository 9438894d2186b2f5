"""`check-config --online` as a command: JSON on stdout, a line for each check on stderr, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.process.hub_process import IssuerThread, command, environment, hub_process
from tests.process.test_tls import TlsHub
from tests.proxy_environment import ODD


@pytest.mark.req("OPS-21", "SEC-3")
def test_all_is_well(tmp_path: Path, issuer: IssuerThread) -> None:
    """Exit code 0. The log says nothing on stdout, which has the settings alone. The certificate is good for an hour."""
    certificate, key = make_certificate(tmp_path)
    key.chmod(0o600)
    environ = environment(tmp_path, issuers=issuer.settings, public_url="https://127.0.0.1:8080/api/hub")
    options = ("--online", "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key))
    done = command(tmp_path, "check-config", *options, environ=environ | {"NO_PROXY": ODD})
    assert done.returncode == 0
    assert json.loads(done.stdout)["FHIRCAST_PORT"]["value"] == 8080
    lines = done.stderr.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["warning", "--ssl-certfile"],
        ["ok", "FHIRCAST_ISSUERS[0]"],
        ["ok", "FHIRCAST_STORE"],
        ["ok", "FHIRCAST_WEBHOOKS:"],
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub.key", "hub.pem"]


@pytest.mark.req("OPS-21")
def test_one_check_that_fails(tmp_path: Path, issuer: IssuerThread) -> None:
    """Exit code 1, and all other lines are there. A proxy that cannot be used is a line, and not in stdout."""
    afar = {"issuer": "https://login.invalid", "audience": "hub"}
    environ = environment(tmp_path, issuers=[*issuer.settings, afar]) | {"HTTPS_PROXY": "foo://me:s3cr3t@proxy"}
    options = ("--online", "--callback", "https://127.0.0.1/x", "--callback", "https://10.0.0.1/x")
    done = command(tmp_path, "check-config", *options, environ=environ)
    assert (done.returncode, json.loads(done.stdout)["FHIRCAST_PORT"]["value"]) == (1, 8080)
    assert "s3cr3t" not in done.stdout + done.stderr
    assert [line.partition(": ")[0].split() for line in done.stderr.splitlines()] == [
        ["note", "FHIRCAST_ISSUERS", "realm", repr(issuer.settings[0]["issuer"])],
        ["note", "FHIRCAST_ISSUERS", "realm", "'https://login.invalid'"],
        ["ok", "FHIRCAST_ISSUERS[0]", issuer.settings[0]["issuer"], "keys", "at", issuer.settings[0]["jwks_uri"]],
        ["FAILED", "FHIRCAST_ISSUERS[1]", "https://login.invalid", "discovery"],
        ["ok", "FHIRCAST_STORE", "sqlite:///fhircast-hub.db"],
        ["FAILED", "--callback", "https://127.0.0.1/x"],
        ["FAILED", "--callback", "https://10.0.0.1/x"],
    ]


@pytest.mark.req("OPS-21", "SEC-13")
def test_wrong_settings_come_first(tmp_path: Path) -> None:
    """Exit code 2, and nothing is asked."""
    done = command(tmp_path, "check-config", "--online", environ=environment(tmp_path, port="x"))
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["FHIRCAST_PORT", "FHIRCAST_ISSUERS"]
    issuers = [{"issuer": "https://login.example", "audience": "hub"}]
    alone = command(
        tmp_path, "check-config", "--callback", "https://x/", environ=environment(tmp_path, issuers=issuers)
    )
    assert (alone.returncode, alone.stderr) == (2, "--callback needs --online\n")


@pytest.mark.req("OPS-21", "OPS-16")
def test_a_database_that_is_away(tmp_path: Path, issuer: IssuerThread) -> None:
    """A failed check, with --online and without it."""
    store = "postgresql://hub:s3cr3t@127.0.0.1:1/hub"
    environ = environment(tmp_path, issuers=issuer.settings, store=store, secret_key="k" * 32)
    reason = "the database cannot be reached: 127.0.0.1:1 Connection refused"
    advice = "check host and port in FHIRCAST_STORE, and what is between"
    line = f"FAILED  FHIRCAST_STORE postgresql://***@127.0.0.1:1/hub: {reason}; {advice}"
    done = command(tmp_path, "check-config", "--online", environ=environ)
    assert done.returncode == 1
    assert line in done.stderr.splitlines()
    done = command(tmp_path, "check-config", environ=environ)
    assert (done.returncode, done.stderr.splitlines()) == (1, [line])


@pytest.mark.req("OPS-33", "SEC-14", "OPS-21")
def test_what_no_server_is_asked_for_is_told_each_time(tmp_path: Path, issuer: IssuerThread) -> None:
    """Facts and risks fail no check. `serve` has a line of the log for each of them."""
    (tmp_path / "key").write_text("hunter2" * 5)
    (tmp_path / "key").chmod(0o644)
    url = "https://hub.example/api/hub"
    settings = {"issuers": issuer.settings, "public_url": url, "secret_key_file": "key"}
    done = command(tmp_path, "check-config", environ=environment(tmp_path, **settings))
    assert done.returncode == 0
    assert [line.split()[:3] for line in done.stderr.splitlines()] == [
        ["note", "FHIRCAST_PUBLIC_URL", f"{url}:"],
        ["warning", "FHIRCAST_SECRET_KEY_FILE", "key:"],
    ]
    with hub_process(tmp_path, **settings) as hub:
        assert [line["level"] for line in hub.lines("a proxy must end TLS")] == ["info"]
        assert [line["level"] for line in hub.lines("secret can be read by every user")] == ["warning"]


@pytest.mark.req("OPS-33", "SEC-14")
def test_a_hub_with_tls_needs_no_proxy(tmp_path: Path, issuer: IssuerThread) -> None:
    """Its key is a secret too."""
    with TlsHub(tmp_path, issuers=issuer.settings, webhooks=False) as hub:
        assert not hub.lines("a proxy must end TLS")
        (warning,) = hub.lines("secret can be read by every user")
        assert "--ssl-keyfile" in warning["reason"]


@pytest.mark.req("OPS-25")
def test_a_certificate_of_another_host_fails_the_check(tmp_path: Path, issuer: IssuerThread) -> None:
    """Without --online too."""
    certificate, key = make_certificate(tmp_path)
    environ = environment(tmp_path, issuers=issuer.settings, public_url="https://hub.example/api/hub")
    options = ("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key))
    done = command(tmp_path, "check-config", *options, environ=environ)
    assert done.returncode == 1
    assert done.stderr.startswith(f"FAILED  --ssl-certfile {certificate}: good until ")
    assert "hub.example of FHIRCAST_PUBLIC_URL is not among its names" in done.stderr


@pytest.mark.req("OPS-37")
@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("store upgrade", "FHIRCAST_STORE must be a postgresql:// URL, not 'sqlite:///fhircast-hub.db'"),
        ("topic-hash x", "FHIRCAST_STORE: fhircast-hub.db does not exist: no hub has opened this store"),
        (
            "serve --workers 2",
            "--workers needs FHIRCAST_STORE to be a postgresql:// URL, not 'sqlite:///fhircast-hub.db'",
        ),
    ],
)
def test_a_forgotten_file_is_asked_for(tmp_path: Path, words: str, line: str) -> None:
    """With a file, even an empty one, no file was forgotten."""
    (tmp_path / "hub.toml").touch()
    issuers = [{"issuer": "https://login.example", "audience": "hub"}]
    environ = environment(tmp_path, issuers=issuers)
    done = command(tmp_path, *words.split(), environ=environ)
    assert (done.returncode, done.stderr) == (2, f"{line}; give --config FILE, or FHIRCAST_STORE\n")
    done = command(tmp_path, *words.split(), "--config", "hub.toml", environ=environ)
    assert (done.returncode, done.stderr) == (2, f"{line}\n")
