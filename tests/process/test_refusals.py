"""SEC-3: a hub that cannot do what it was told says so in one line, with exit code 2, and starts nothing."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess, run
from typing import Any

import pytest

from tests.ports import free_port
from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, command, environment

ISSUER = {"issuer": "https://login.example", "audience": "hub"}
#: Settings that are wrong, and the name that the line must begin with.
WRONG: dict[str, dict[str, Any]] = {
    "FHIRCAST_PORT": {"port": "70000"},
    "FHIRCAST_PUBLIC_URL": {"public_url": "http://hub.example/api/hub"},
    "FHIRCAST_ISSUERS": {"issuers": "[{"},
    "FHIRCAST_ISSUERS[0].secret": {"issuers": [ISSUER | {"secret": "s3cr3t"}]},
    "FHIRCAST_STORE": {"store": "postgres://u:s3cr3t@db"},
    "FHIRCAST_PROT": {"prot": "8080"},
}
#: Which of them each command is given; both read settings the same way.
CASES = [*((name, "serve") for name in WRONG), ("FHIRCAST_PROT", "check-config")]


def one_line(done: CompletedProcess[str]) -> str:
    """The only line on stderr of a command that refused; what it logged before is not stderr."""
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    assert "Traceback" not in done.stderr + done.stdout
    return done.stderr


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], CompletedProcess[str]]:
    """What each command says to each of WRONG; two at a time, because each takes most of a second."""
    folder = tmp_path_factory.mktemp("wrong")
    with ThreadPoolExecutor(4) as pool:
        done = pool.map(
            lambda case: command(
                folder, case[1], environ=environment(folder, **({"issuers": [ISSUER]} | WRONG[case[0]]))
            ),
            CASES,
        )
        return dict(zip(CASES, done, strict=True))


def serve(folder: Path, *arguments: str, **settings: Any) -> CompletedProcess[str]:
    """`fhircast-hub serve`, which is expected to refuse."""
    values = {"port": free_port(), "issuers": [ISSUER], **settings}
    return command(folder, "serve", *arguments, environ=environment(folder, **values))


@pytest.mark.req("SEC-3", "SEC-4")
@pytest.mark.parametrize(("name", "verb"), CASES)
def test_a_wrong_setting(refused: dict[tuple[str, str], CompletedProcess[str]], name: str, verb: str) -> None:
    """Exit code 2, nothing on stdout, and one line: its name, what is expected, what was found, nothing that may be secret."""
    done = refused[name, verb]
    line = one_line(done)
    assert re.fullmatch(rf"{re.escape(name)} (must be .+, not .+|is no .+ of docs/settings\.md.*)\n", line)
    assert "s3cr3t" not in line
    assert done.stdout == ""


@pytest.mark.req("SEC-3")
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    """Otherwise the keys of issuers could not be fetched, by a hub that says that it is ready."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    environ = environment(tmp_path, port=free_port(), issuers=[ISSUER]) | {"SSL_CERT_FILE": str(file)}
    assert one_line(command(tmp_path, "serve", environ=environ)).startswith(
        "SSL_CERT_FILE must name certificates in PEM: "
    )


@pytest.mark.req("SEC-3")
@pytest.mark.parametrize("content", [None, b"PORT = 1\xff", b"PROT = 1"])
def test_a_settings_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    """One that is not there, not in UTF-8, or with an unknown name: the line names it."""
    file = tmp_path / "hub.toml"
    if content is not None:
        file.write_bytes(content)
    assert "hub.toml" in one_line(serve(tmp_path, "--config", str(file)))


@pytest.mark.req("SEC-3")
@pytest.mark.parametrize("path", ["missing/hub.db", "no-database.db", "newer.db", "/proc/not-writable.db"])
def test_a_store_that_cannot_be_opened(tmp_path: Path, path: str) -> None:
    """In a folder that does not exist, another program's file, a newer hub's, or not writable: one line, and no remains."""
    (tmp_path / "no-database.db").write_bytes(b"somebody's letter, longer than the header of a database" * 20)
    with sqlite3.connect(tmp_path / "newer.db") as newer:
        newer.execute("pragma user_version = 99")
    newer.close()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    done = serve(tmp_path, store=f"sqlite:///{path}")
    line = one_line(done)
    assert line.startswith("FHIRCAST_STORE: ")
    assert path in line
    assert all(json.loads(text) for text in done.stdout.splitlines())
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.req("SEC-3")
def test_what_another_hub_holds(hub: HubProcess, tmp_path: Path, issuer: IssuerThread) -> None:
    """A port or a store in use: one line each, and the hub that has them goes on."""
    port = serve(tmp_path, port=hub.port)
    assert re.match(rf"(?=.*FHIRCAST_PORT).*{hub.port}", one_line(port))
    folder = Path(hub.environ["XDG_RUNTIME_DIR"])
    store = serve(folder)
    assert re.match("FHIRCAST_STORE: .*fhircast-hub.db.*in use", one_line(store))
    hub.wait_until_ready()
    assert hub.process.poll() is None


@pytest.mark.req("SEC-3")
def test_a_host_that_is_not_ours(tmp_path: Path) -> None:
    """An address of another machine, or a name that is none: one line that names the setting."""
    assert re.match("FHIRCAST_HOST.*192.0.2.1", one_line(serve(tmp_path, host="192.0.2.1")))
    assert re.match("FHIRCAST_HOST.*no address", one_line(serve(tmp_path, host="no address")))


@pytest.mark.req("SEC-3", "SEC-1")
def test_check_config_prints_what_is_in_effect(tmp_path: Path) -> None:
    """JSON with every setting and where it came from; the key in a URL's query is masked; nothing is opened or bound."""
    (tmp_path / "hub.toml").write_text("MAX_LEASE = 10000\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environ = environment(
            tmp_path,
            port=taken.getsockname()[1],
            issuers=[ISSUER | {"jwks_uri": "https://login.example/keys?key=s3cr3t"}],
        )
        done = command(tmp_path, "check-config", "--config", "hub.toml", environ=environ)
        assert (done.returncode, done.stderr) == (0, "")
        shown = json.loads(done.stdout)
        assert shown["FHIRCAST_PORT"] == {"value": taken.getsockname()[1], "from": "env"}
    assert shown["FHIRCAST_MAX_LEASE"] == {"value": 10000, "from": "file"}
    assert shown["FHIRCAST_HOST"] == {"value": "127.0.0.1", "from": "default"}
    assert shown["FHIRCAST_ISSUERS"]["value"][0]["jwks_uri"].startswith("https://login.example/keys?")
    assert "s3cr3t" not in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["hub.toml"]


@pytest.mark.req("SEC-3", "AUT-17")
def test_check_config_fails_where_serve_would(tmp_path: Path) -> None:
    """Without issuers it still prints the settings, and exits with 2 and the line that serve would print."""
    done = command(tmp_path, "check-config", environ=environment(tmp_path))
    assert one_line(done).startswith("FHIRCAST_ISSUERS is required: ")
    assert json.loads(done.stdout)["FHIRCAST_ISSUERS"] == {"value": [], "from": "default"}


@pytest.mark.req("CLT-31", "CLT-63")
@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("check-config >/dev/full", 1, "fhircast-hub: cannot write: No space left on device\n"),
        ("dev --port 0 >/dev/full", 1, "fhircast-hub: cannot write: No space left on device\n"),
        ("--version >/dev/full", 1, "fhircast-hub: cannot write: No space left on device\n"),
        ("--help >/dev/full", 1, "fhircast-hub: cannot write: No space left on device\n"),
        ("check-config | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("--version >&-", 0, ""),
    ],
)
def test_output_that_cannot_be_written(tmp_path: Path, shell: str, code: int, said: str) -> None:
    """A full disk is one line and exit code 1; a reader that has seen enough is neither."""
    environ = environment(tmp_path, issuers=[ISSUER])
    done = run(
        ["bash", "-c", f"{sys.executable} -m fhircast_hub {shell}"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.req("CLT-31", "CLT-64")
def test_check_config_is_json_in_a_terminal_of_ascii(tmp_path: Path) -> None:
    environ = environment(tmp_path, issuers=[ISSUER], store=f"sqlite:///{tmp_path}/Åse.db")
    done = command(tmp_path, "check-config", environ=environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (done.returncode, done.stderr, done.stdout.isascii()) == (0, "", True)
    assert json.loads(done.stdout)["FHIRCAST_STORE"]["value"].endswith("/Åse.db")


@pytest.mark.req("SEC-13")
@pytest.mark.parametrize("verb", ["serve", "check-config"])
def test_all_mistakes_in_one_run(tmp_path: Path, verb: str) -> None:
    """Exit code 2, a line each on stderr, and nothing on stdout."""
    environ = environment(tmp_path, port="x", prot="s3cr3t", store="postgresql://hub:s3cr3t@127.0.0.1/hub")
    done = command(tmp_path, verb, environ=environ)
    assert (done.returncode, done.stdout) == (2, "")
    names = ["FHIRCAST_PROT", "FHIRCAST_PORT", "FHIRCAST_ISSUERS", "FHIRCAST_SECRET_KEY"]
    assert [line.partition(" ")[0] for line in done.stderr.splitlines()] == names
    assert "s3cr3t" not in done.stderr


@pytest.mark.req("SEC-13")
def test_options_are_checked_with_the_settings(tmp_path: Path) -> None:
    done = serve(tmp_path, "--workers", "2", "--ssl-keyfile", "hub.key", port="x")
    assert [line.partition(" ")[0] for line in done.stderr.splitlines()] == [
        "FHIRCAST_PORT",
        "--ssl-certfile",
        "--workers",
    ]


@pytest.mark.req("SEC-15", "SEC-13")
def test_what_is_missing_on_this_machine_comes_with_the_rest(tmp_path: Path) -> None:
    """`check-config` finds what `serve` would, also of the options, and needs no network."""
    audit = f"file://{tmp_path}/none/trail"
    issuers = [ISSUER | {"introspection_client_id": "hub", "introspection_endpoint": "https://login.example/x"}]
    environ = environment(tmp_path, store="sqlite:///none/hub.db", audit=audit, issuers=issuers)
    options = ("--ssl-certfile", "none.pem", "--ssl-keyfile", "none.key")
    said = [command(tmp_path, verb, *options, environ=environ) for verb in ("serve", "check-config")]
    assert [done.returncode for done in said] == [2, 2]
    assert said[0].stderr == said[1].stderr
    assert [re.split("[ :]", line)[0] for line in said[0].stderr.splitlines()] == [
        "FHIRCAST_ISSUERS[0].introspection_client_secret",
        "FHIRCAST_STORE",
        "FHIRCAST_AUDIT",
        "--ssl-certfile",
    ]
