"""A real PostgreSQL for the tests: on a free loopback port, in a folder of its own, gone when the test run is gone."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from tests.ports import free_port
from tests.postgresql.programs import PATIENCE, PostgresError, ServerProcess, give, run, wait

USER = "hub"
DATABASE = "hub"
Setting = str | int | bool


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: Setting) -> str:
    text = ("on" if value else "off") if isinstance(value, bool) else str(value)
    return "'" + text.replace("'", "''") + "'"


class PostgresServer:
    """A PostgreSQL cluster and its server. `make` or `standby` makes one, `start` starts the server.

    When the test run dies, by whichever signal, the server dies and its folder is removed.
    """

    def __init__(self, folder: Path, password: str, settings: Mapping[str, Setting], *, fsync: bool) -> None:
        self.folder, self.password, self.fsync = folder, password, fsync
        self.data, self.log = folder / "data", folder / "log"
        self.port = free_port()
        self._settings = dict(settings)
        self._has_database = False
        self._process: ServerProcess | None = None
        folder.mkdir(parents=True, exist_ok=True)
        give(folder)

    @classmethod
    def make(cls, folder: Path, *, fsync: bool = False, **settings: Setting) -> Self:
        """Make a cluster in this folder, with these settings of postgresql.conf beside the defaults. No process is started.

        Without `fsync`, the last commits may be lost in a crash: `synchronous_commit=True` keeps these.
        Raises PostgresError where initdb fails.
        """
        server = cls(folder, secrets.token_urlsafe(), settings, fsync=fsync)
        password = folder / "password"
        password.write_text(server.password, encoding="ascii")
        give(password)
        words = ("--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", f"--username={USER}", f"--pwfile={password}")
        run("initdb", f"--pgdata={server.data}", *words, *server._no_sync(), folder=folder)
        password.unlink()
        server._configure()
        return server

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and self._process.is_running

    @property
    def pid(self) -> int:
        """The process id of the server. Raises PostgresError where none was started."""
        if self._process is None:
            raise PostgresError("the server was not started")
        return self._process.pid

    def start(self) -> None:
        """Start the server, also after `stop` or `crash`, and wait until it answers.

        Raises PostgresError with the log's tail where the server ends, or does not answer in time.
        """
        if self.is_running:
            return
        self._process = process = ServerProcess(self.data, self.folder, self.log)
        try:
            wait(lambda: self._is_ready() or not process.is_running, lambda: f"no answer: {process.said()}")
            if not process.is_running:
                raise PostgresError(f"PostgreSQL on port {self.port} ended. The end of its log:\n{process.said()}")
            if not self._has_database:
                self.create_database(DATABASE)
                self._has_database = True
        except BaseException:
            self.crash()
            raise

    def stop(self) -> None:
        """Stop the server in its fast mode: open transactions are rolled back, and data are written to disk."""
        if self._process is not None:
            self._process.stop()

    def restart(self) -> None:
        """Stop the server where one runs, and start it again, on the same port and with the same data."""
        self.stop()
        self.start()

    def crash(self) -> None:
        """Kill the server and all its processes at once. None of them writes anything more."""
        if self._process is not None:
            self._process.kill()

    def url(self, database: str = DATABASE, *, user: str | None = None, password: str | None = None) -> str:
        """The URL of a database, with this user's name and password: those of the superuser, unless given."""
        who = f"{quote(user or USER, safe='')}:{quote(password or self.password, safe='')}"
        return f"postgresql://{who}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, empty or as a copy of `template`; its URL. Raises PostgresError where the name is taken."""
        source = _identifier(template or "template0")
        self.psql(f"create database {_identifier(name)} template {source} strategy wal_log", "postgres")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database where one has this name. Connections to the database are ended."""
        self.psql(f"drop database if exists {_identifier(name)} with (force)", "postgres")

    def psql(self, sql: str, database: str = DATABASE, *, user: str | None = None, password: str | None = None) -> str:
        """Run statements, each in a transaction of its own: the rows, a line each, with `|` between columns.

        Raises PostgresError with psql's words at the first statement that fails.
        """
        url = self.url(database, user=user, password=password)
        words = ("--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set=ON_ERROR_STOP=1")
        return run("psql", *words, url, folder=self.folder, statements=sql).removesuffix("\n")

    def standby(self, folder: Path, name: str = "standby") -> PostgresServer:
        """Make a hot standby of this running server in another folder. `start` lets the standby follow.

        `name` is the standby's name for `make_synchronous`. Raises PostgresError where the copy fails.
        """
        server = PostgresServer(folder, self.password, self._settings, fsync=self.fsync)
        source = f"{self.url('postgres')}?application_name={quote(name, safe='')}"
        words = ("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", f"--dbname={source}")
        run("pg_basebackup", f"--pgdata={server.data}", *words, *server._no_sync(), folder=folder)
        # The copy has what `make_synchronous` set on this server. The standby, once promoted, must not wait for itself.
        auto = server.data / "postgresql.auto.conf"
        lines = auto.read_text(encoding="utf-8").splitlines(keepends=True)
        auto.write_text("".join(line for line in lines if not line.startswith("synchronous_")), encoding="utf-8")
        server._configure()
        server._has_database = True
        return server

    def make_synchronous(self, name: str = "standby") -> None:
        """Let each commit wait until the standby of this name has written it to its disk. An empty name means that no commit waits.

        Returns when the standby follows. Raises PostgresError where none of this name does in time.
        """
        self.psql(
            f"alter system set synchronous_commit = 'on';"
            f"alter system set synchronous_standby_names = {_literal(_identifier(name) if name else '')};"
            "select pg_reload_conf();"
        )
        query = f"select count(*) from pg_stat_replication where application_name = {_literal(name)} and sync_state = 'sync'"
        if name:
            wait(lambda: self.psql(query) == "1", lambda: f"no standby {name} follows")

    def promote(self) -> None:
        """Let a standby become a server that accepts writes. Raises PostgresError where the standby does not in time."""
        if self.psql(f"select pg_promote(true, {PATIENCE})") != "t":
            raise PostgresError(f"the standby was not promoted in {PATIENCE} seconds")

    def _configure(self) -> None:
        """Write postgresql.conf anew. What `alter system` set stays in force."""
        durable = self.fsync
        settings: dict[str, Setting] = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": durable,
            "synchronous_commit": durable,
            "full_page_writes": durable,
            "max_connections": 100,
            "shared_buffers": "32MB",
            "wal_level": "replica",
            "max_wal_senders": 4,
            "hot_standby": True,
            "timezone": "UTC",
            "log_line_prefix": "%m [%p] ",
            **self._settings,
        }
        lines = (f"{name} = {_literal(value)}\n" for name, value in settings.items())
        (self.data / "postgresql.conf").write_text("".join(lines), encoding="utf-8")

    def _no_sync(self) -> tuple[str, ...]:
        return () if self.fsync else ("--no-sync",)

    def _is_ready(self) -> bool:
        """Whether the server says in its own file that clients may connect."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"
