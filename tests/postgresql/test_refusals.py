"""SEC-3 with a shared store: what prevents the start is one line without the password, an exit code, and no traceback."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.nodes.proxy import proxy_thread
from tests.ports import free_port
from tests.postgresql.server import PostgresServer
from tests.process.hub_process import command, environment, hub_process

SECRET = "hunter2"
KEY = "0123456789abcdef" * 2
ISSUER = {"issuer": "https://login.example", "audience": "hub"}
REACHED = "FHIRCAST_STORE: the database cannot be reached: "
#: What is wrong, and the line's beginning. Each line ends the hub before its store is open.
WRONG = {
    "password": "FHIRCAST_STORE: the database refuses this user or password; check both in FHIRCAST_STORE and FHIRCAST_",
    "user": "FHIRCAST_STORE: the database refuses this user or password",
    "host": f"{REACHED}nobody.invalid:5432 ",
    "port": f"{REACHED}127.0.0.1:1 Connection refused; check host and port in FHIRCAST_STORE, and what is between",
    "silent": f"{REACHED}127.0.0.1:SILENT does not answer; check host and port in FHIRCAST_STORE, and what is between",
    "no_password": "FHIRCAST_STORE: the database wants a password, and none was given; set FHIRCAST_STORE_PASSWORD_FILE, or ",
    "database": "FHIRCAST_STORE: the database of this name does not exist; make the database, or mend its name in ",
    "connect": 'FHIRCAST_STORE: this user may not connect to the database; as its administrator run: grant connect on database "refused_connect" to "refused";',
    "newer": "FHIRCAST_STORE: the tables have version 99, and this hub needs version 1; install the hub that made them, or a newer one, or restore a backup of the database",
    "others": 'FHIRCAST_STORE: the database has a schema "fhircast" of another program; choose another database',
    "rights": 'FHIRCAST_STORE: this user may not make the hub\'s tables; run as a user that may: fhircast-hub store upgrade --grant refused; or allow it: grant create on database "refused_rights" to "refused";',
    "tls": "FHIRCAST_STORE: the database cannot be used: 127.0.0.1:PORT takes no connection with TLS; set ssl = on at the ",
    "remote": "FHIRCAST_STORE must be a URL with sslmode=verify-full, because a host is not loopback",
    "parameter": "FHIRCAST_STORE must be a URL whose parameters are among sslmode, ",
    "malformed": "FHIRCAST_STORE must be postgresql://user@host:port/database",
}
#: What may pass by itself: `serve` asks for another start.
AWAY = ("port", "silent")
#: Which of them each command is given; both connect in the same way.
CASES = [
    *((name, "serve") for name in WRONG),
    *((name, "store upgrade") for name in ("password", "silent", "newer", "rights", "malformed")),
]


def fhircast_hub(folder: Path, verb: str, store: str, **settings: Any) -> CompletedProcess[str]:
    """The command's end, with this store and with all that `serve` needs."""
    values = {"port": free_port(), "issuers": [ISSUER], "secret_key": KEY, "store": store, **settings}
    return command(folder, *verb.split(), environ=environment(folder, **values))


def one_line(done: CompletedProcess[str], code: int = 2) -> str:
    """The only line on stderr of a command that refused with this exit code."""
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert SECRET not in done.stderr + done.stdout
    assert all(json.loads(line) for line in done.stdout.splitlines())
    return done.stderr.rstrip("\n")


class Refused:
    """What each command said to each of WRONG. The databases have a user whose password is SECRET."""

    def __init__(self, server: PostgresServer, folder: Path, silent: int) -> None:
        self.server, self.silent = server, silent
        for name in ("newer", "others", "rights", "connect"):
            server.create_database(f"refused_{name}")
        tables = "create schema fhircast; create table fhircast.hub (version int); insert into fhircast.hub values (99)"
        server.psql(f"create role refused login password '{SECRET}'")
        server.psql(
            f"{tables}; grant all on schema fhircast to public; grant all on fhircast.hub to public", "refused_newer"
        )
        server.psql("create schema fhircast; grant all on schema fhircast to public", "refused_others")
        server.psql("revoke all on database refused_connect from public")
        with ThreadPoolExecutor(2) as pool:
            done = pool.map(lambda case: fhircast_hub(folder, case[1], self.url(case[0])), CASES)
            self.done = dict(zip(CASES, done, strict=True))

    def url(self, name: str) -> str:
        """The URL with this fault."""
        here = f"127.0.0.1:{self.server.port}"
        match name:
            case "password":
                return f"postgresql://hub:{SECRET}@{here}/hub"
            case "no_password":
                return f"postgresql://refused@{here}/hub"
            case "user":
                return f"postgresql://nobody:{SECRET}@{here}/hub"
            case "host":
                return f"postgresql://refused:{SECRET}@nobody.invalid/hub?sslmode=verify-full&sslrootcert=/etc/passwd"
            case "port":
                return f"postgresql://refused:{SECRET}@127.0.0.1:1/hub"
            case "silent":
                return f"postgresql://refused:{SECRET}@127.0.0.1:{self.silent}/hub?connect_timeout=1"
            case "database":
                return f"postgresql://refused:{SECRET}@{here}/no_such"
            case "newer" | "others" | "rights" | "connect":
                return f"postgresql://refused:{SECRET}@{here}/refused_{name}"
            case "tls":
                return f"postgresql://refused:{SECRET}@{here}/hub?sslmode=require"
            case "remote":
                return f"postgresql://refused:{SECRET}@db.example/hub?sslmode=require"
            case "parameter":
                return f"postgresql://refused@{here}/hub?password={SECRET}"
        return f"postgresql://refused:{SECRET}"

    def drop(self) -> None:
        for name in ("newer", "others", "rights", "connect"):
            self.server.drop_database(f"refused_{name}")
        self.server.psql("drop role refused")


@pytest.fixture(scope="module")
def refused(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refused]:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = Refused(postgres_server, tmp_path_factory.mktemp("refused"), silent.getsockname()[1])
        yield found
    found.drop()


@pytest.mark.req("SEC-3", "SEC-1", "SEC-4", "OPS-42")
@pytest.mark.parametrize(("name", "verb"), CASES)
def test_what_is_wrong_is_one_line_without_the_password(refused: Refused, name: str, verb: str) -> None:
    line = one_line(refused.done[name, verb], 1 if verb == "serve" and name in AWAY else 2)
    begin = WRONG[name].replace("SILENT", str(refused.silent)).replace("PORT", str(refused.server.port))
    assert line.startswith(begin)


@pytest.mark.req("OPS-35", "OPS-34")
@pytest.mark.parametrize("name", ["password", "no_password", "database", "connect", "rights"])
@pytest.mark.parametrize("verb", ["check-config", "check-config --online"])
def test_each_command_says_the_same_of_the_same_mistake(refused: Refused, tmp_path: Path, name: str, verb: str) -> None:
    """`check-config` has the words of `serve` in a failed check, with and without --online."""
    said = one_line(refused.done[name, "serve"]).removeprefix("FHIRCAST_STORE: ")
    done = fhircast_hub(tmp_path, verb, refused.url(name))
    failed = [each for each in done.stderr.splitlines() if each.startswith("FAILED  FHIRCAST_STORE postgresql://***@")]
    assert (done.returncode, [each.endswith(f": {said}") for each in failed]) == (1, [True])
    assert {each.split()[0] for each in done.stderr.splitlines()} <= {"ok", "note", "warning", "FAILED"}


@pytest.mark.req("OPS-34")
def test_rights_that_are_missing_keep_the_promise_not_back(refused: Refused, tmp_path: Path) -> None:
    done = fhircast_hub(tmp_path, "check-config", refused.url("rights"))
    lines = [each.partition(":")[0].split()[0] for each in done.stderr.splitlines()]
    assert (done.returncode, lines) == (1, ["FAILED", "warning"])


@pytest.mark.req("OPS-42")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_hub_that_is_started_again_serves_once_the_database_is_there(
    tmp_path: Path, postgres_server: PostgresServer, database: str, workers: str
) -> None:
    """As after a power cut, with the command and the settings of the first start."""
    with proxy_thread() as ways:
        port = ways.add(postgres_server.port)
        store = database.replace(f":{postgres_server.port}/", f":{port}/")
        settings = {"issuers": [ISSUER], "secret_key": KEY, "store": store}
        arguments = ("serve", "--workers", workers)
        ways.do(lambda way: way.cut(refusing=True), [0])
        done = command(tmp_path, *arguments, environ=environment(tmp_path, port=free_port(), **settings))
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith(f"{REACHED}127.0.0.1:{port} ")
        ways.do(lambda way: way.release(), [0])
        with hub_process(tmp_path, *arguments, **settings) as hub:
            assert hub.stop() == 0


@pytest.mark.req("OPS-35", "OPS-36")
def test_a_database_that_is_away_keeps_no_other_line_back(tmp_path: Path) -> None:
    issuers = [ISSUER, {"issuer": "https://other.example", "audience": "hub"}]
    done = fhircast_hub(tmp_path, "check-config", f"postgresql://hub:{SECRET}@127.0.0.1:1/hub", issuers=issuers)
    words = [each.split()[0] for each in done.stderr.splitlines()]
    assert (done.returncode, words) == (1, ["note", "note", "FAILED"])


@pytest.mark.req("SEC-1")
def test_the_log_of_the_start_masks_the_password(refused: Refused) -> None:
    (line,) = (
        line
        for line in map(json.loads, refused.done["port", "serve"].stdout.splitlines())
        if line["event"] == "starting"
    )
    assert line["store"] == "postgresql://***@127.0.0.1:1/hub"


@pytest.mark.req("SEC-3", "SEC-1")
@pytest.mark.parametrize("verb", ["serve", "check-config"])
def test_a_key_and_a_password_file_are_required_before_anything_starts(tmp_path: Path, verb: str) -> None:
    """`check-config` prints the settings, without the password, and then the line that `serve` prints."""
    store = f"postgresql://hub:{SECRET}@127.0.0.1:1/hub"
    done = fhircast_hub(tmp_path, verb, store, secret_key=None)
    assert one_line_after_settings(done).startswith("FHIRCAST_SECRET_KEY is required, the same on every node")
    done = fhircast_hub(tmp_path, verb, "postgresql://hub@127.0.0.1:1/hub", store_password_file="/etc/none")
    line = "FHIRCAST_STORE_PASSWORD_FILE names '/etc/none', which cannot be read: No such file or directory"
    assert one_line_after_settings(done) == line


def one_line_after_settings(done: CompletedProcess[str]) -> str:
    """The line on stderr, where stdout may have the settings."""
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert SECRET not in done.stdout + done.stderr
    assert not done.stdout or json.loads(done.stdout)["FHIRCAST_STORE"]["value"].startswith("postgresql://***@")
    return done.stderr.rstrip("\n")


@pytest.mark.req("SEC-3", "SEC-1")
@pytest.mark.parametrize("store", ["memory:", "sqlite:///hub.db"])
def test_other_stores_have_no_tables_to_upgrade(tmp_path: Path, store: str) -> None:
    done = fhircast_hub(tmp_path, "store upgrade", store)
    assert one_line(done) == f"FHIRCAST_STORE must be a postgresql:// URL, not '{store}'"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.req("SEC-3", "SEC-1")
@pytest.mark.parametrize("verb", ["serve", "store upgrade"])
def test_a_missing_library_is_one_line(tmp_path: Path, verb: str) -> None:
    """A module in its place fails as a missing one does."""
    (tmp_path / "asyncpg.py").write_text("raise ImportError")
    values = {"port": free_port(), "issuers": [ISSUER], "secret_key": KEY}
    environ = environment(tmp_path, store=f"postgresql://hub:{SECRET}@127.0.0.1:1/hub", **values)
    done = command(tmp_path, *verb.split(), environ=environ | {"PYTHONPATH": f"{tmp_path}:{environ['PYTHONPATH']}"})
    line = "FHIRCAST_STORE is PostgreSQL's, and asyncpg is missing: pip install 'fhircast-hub[postgresql]'"
    assert one_line(done) == line


def test_the_owner_makes_the_tables_without_the_settings_of_serve(tmp_path: Path, database: str) -> None:
    """Neither issuers nor keys are needed; the password comes from a file; one line says what was done."""
    who, _, rest = database.partition("@")
    user, _, password = who.rpartition(":")
    (tmp_path / "password").write_text(f"{password}\n", encoding="ascii")
    environ = environment(tmp_path, store=f"{user}@{rest}", store_password_file="password")
    for line in ("made the tables, version 1", "the tables have version 1 already"):
        done = command(tmp_path, "store", "upgrade", environ=environ)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{line}\n", "")
    done = command(tmp_path, "store", "upgrade", "--grant", "nobody at all", environ=environ)
    assert one_line(done) == "FHIRCAST_STORE: the role 'nobody at all' does not exist"
