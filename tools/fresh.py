"""`make demo` and `make test` as a newcomer runs them: in a Debian that has Python, make and git, and nothing else.

    python3 -m tools.fresh                     every release of RELEASES
    python3 -m tools.fresh bookworm            one

Root only. Each Debian is in a temporary folder, which is removed at the end. The output of both commands is in build/fresh.
The last commit is tried, without changes that are not committed.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal

from tools.checks import duration
from tools.debian import GIVEN, Debian, DebianError, Source, sources
from tools.packages import NEEDED, PATH

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "fresh"
#: Debian's releases, and the Python that each brings. The classifiers of pyproject.toml are these Pythons.
RELEASES = {"bookworm": "3.11", "trixie": "3.13"}
#: The repository may belong to another user than root.
GIT = ("git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}")
#: In the Debian: the repository, root's clone, and the clone of a user without root's rights, who has an ordinary PATH.
ORIGIN, CLONE, USERS_CLONE = "/srv/origin.bundle", "/srv/clone", "/srv/newcomer/clone"
USER, USERS_HOME, USERS_PATH = "newcomer", "/srv/newcomer", "/usr/local/bin:/usr/bin:/bin"
#: Seconds for `make demo` to install and to answer, and for Debian's packages to be installed.
DEMO_PATIENCE = 600
#: Seconds for a command that should end at once.
STOP_PATIENCE = 60
#: Seconds for `make test`.
TEST_PATIENCE = 3600
POLL = 0.1


@dataclass
class Trial:
    """What became of one release, in words."""

    suite: str
    debian: str = ""
    python: str = ""
    steps: list[str] = field(default_factory=list)
    outcome: Literal["passed", "failed", "not run"] = "not run"

    def note(self, step: str, began: float, failure: str) -> None:
        """A step ended; `failure` is empty where it passed."""
        took = duration(time.monotonic() - began)
        self.steps.append(f"{step} {f'failed after {took} ({failure})' if failure else f'passed in {took}'}")
        self.outcome = "failed" if failure or self.outcome == "failed" else "passed"

    def fail(self, why: str) -> None:
        self.steps.append(why)
        self.outcome = "failed"

    def __str__(self) -> str:
        name = f"Debian {self.debian} with Python {self.python}" if self.debian else self.suite
        return f"{name}: {', '.join(self.steps)}"


class Output:
    """What a process prints: to the terminal and to a file, and searched while it comes."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.lines: list[str] = []
        self._process, self._log = process, log
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout
        with self._log.open("a", encoding="utf-8") as file:
            for line in self._process.stdout:
                self.lines.append(line)
                file.write(line)
                print(line, end="", flush=True)

    def so_far(self) -> str:
        return "".join(self.lines)

    def whole(self) -> str:
        """The process has ended, or soon will."""
        self._thread.join()
        return self.so_far()


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[tuple[subprocess.Popen[str], Output]]:
    """A command in a session of its own, dead after the block."""
    process = subprocess.Popen(
        command,
        env=os.environ | {"PATH": PATH},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    output = Output(process, log)
    try:
        yield process, output
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # and with it all of its process namespace
        process.wait()
        output.whole()
        assert process.stdout
        process.stdout.close()


def page_of(output: str) -> str | None:
    """The URL that `make demo` tells the user to open, once it is printed."""
    words = [word for line in output.splitlines() if "browser:" in line for word in line.split()]
    return next((word for word in words if word.startswith("http")), None)


def answers(url: str) -> bool:
    """Whether a page of this machine is there."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def of_user(debian: Debian, *words: str) -> tuple[str, ...]:
    """The words that run a command as the user without root's rights, in that user's clone."""
    plain = ("runuser", "-u", USER, "--", "env", f"PATH={USERS_PATH}", *words)
    return debian.command(*plain, cwd=USERS_CLONE, user=USER, home=USERS_HOME)


def told(debian: Debian, target: str, log: Path) -> tuple[str, str]:
    """The line that `make` tells a user to run where packages are missing, and "". Otherwise "", and what is wrong."""
    with running(of_user(debian, "make", target), log) as (process, output):
        code = process.wait(STOP_PATIENCE)
        lines = [line.strip() for line in output.whole().splitlines() if "apt-get install" in line]
    if code == 0 or len(lines) != 1:
        return "", f"make must fail with one line of apt-get install, not with exit code {code} and {len(lines)} lines"
    return lines[0], ""


def try_without_root(debian: Debian, log: Path) -> str:
    """`make test` of an ordinary user names all packages in one line, and begins nothing. Returns what is wrong, or ""."""
    line, wrong = told(debian, "test", log)
    if wrong:
        return wrong
    if missing := set(NEEDED["test"]) - {*GIVEN, *line.strip("'").split()}:
        return f"the line must name all packages, and it lacks {' '.join(sorted(missing))}"
    if debian.path(f"{USERS_CLONE}/.venv").exists():
        return "make must begin nothing, and it made an environment"
    return ""


def try_demo(debian: Debian, log: Path) -> str:
    """An ordinary user is told a line, which root runs; then `make demo` prints a URL that answers, and ends by Ctrl-C.

    Returns what is wrong, or "".
    """
    line, wrong = told(debian, "demo", log)
    if wrong:
        return wrong
    with running(debian.command("env", f"PATH={USERS_PATH}", "sh", "-c", line, cwd="/"), log) as (process, _):
        if code := process.wait(DEMO_PATIENCE):
            return f"the line must install the missing packages, not end with exit code {code}"
    with running(of_user(debian, "make", "demo"), log) as (process, output):
        deadline = time.monotonic() + DEMO_PATIENCE
        while (url := page_of(output.so_far())) is None or not answers(url):
            if process.poll() is not None:
                return (
                    f"the demo must print a URL that answers, not {url or 'none'} with exit code {process.returncode}"
                )
            if time.monotonic() > deadline:
                return f"the demo must print a URL that answers within {DEMO_PATIENCE} s, not {url or 'none'}"
            time.sleep(POLL)
        print(f"{url} answers", flush=True)
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(STOP_PATIENCE)
        in_order = "demo: stopped" in output.whole()
        return "" if in_order else f"Ctrl-C must stop the demo in order, not with exit code {code}"


def try_test(debian: Debian, log: Path) -> str:
    """`make test` of root passes, and no test is left out. Returns what is wrong, or ""."""
    with running(debian.command("env", "FORBID_SKIPS=1", "make", "test", cwd=CLONE), log) as (process, _):
        code = process.wait(TEST_PATIENCE)
    return f"exit code {code}" if code else ""


STEPS = {"make test without root": try_without_root, "make demo": try_demo, "make test": try_test}


def attempted(step: Callable[[Debian, Path], str], debian: Debian, log: Path) -> str:
    """What is wrong with a step, or ""; one that does not end has failed."""
    try:
        return step(debian, log)
    except subprocess.TimeoutExpired as error:
        return f"no end after {duration(error.timeout)}"


def prepare(debian: Debian) -> tuple[str, str]:
    """Makes the Debian with two clones in it: its version and Python's. Raises DebianError, OSError and CalledProcessError."""
    debian.make()
    subprocess.run((*GIT, "bundle", "create", "--quiet", str(debian.path(ORIGIN)), "HEAD"), check=True)
    debian.call("useradd", "--home-dir", USERS_HOME, "--create-home", USER)
    debian.call("git", "clone", "--quiet", ORIGIN, CLONE)
    debian.call("git", "clone", "--quiet", ORIGIN, USERS_CLONE)
    debian.call("chown", "--recursive", f"{USER}:", USERS_CLONE)
    version = debian.call("cat", "/etc/debian_version").strip()
    python = debian.call("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    return version, python


def try_all(trial: Trial, debian: Debian, log: Path) -> None:
    """All steps, of which none keeps the next from being tried."""
    print(f"fresh: making a minimal {trial.suite}", flush=True)
    trial.debian, trial.python = prepare(debian)
    if trial.python != RELEASES[trial.suite]:
        trial.fail(f"Python must be {RELEASES[trial.suite]}, not {trial.python}")
    for name, step in STEPS.items():
        print(f"fresh: {name} in {trial.suite}", flush=True)
        began = time.monotonic()
        trial.note(name, began, attempted(step, debian, log))


def tried(suite: str, known: Sequence[Source]) -> Trial:
    """A release, in a temporary folder that is gone afterwards."""
    trial, log = Trial(suite), LOGS / f"{suite}.log"
    log.unlink(missing_ok=True)
    # Not the default folder: in Debian 13 /tmp is memory.
    folder = Path(tempfile.mkdtemp(prefix="fresh-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    debian = Debian(folder / "root", suite, known)
    try:
        if why := debian.why_not():
            trial.steps.append(f"not run ({why})")
        else:
            try_all(trial, debian, log)
    except (DebianError, OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr, flush=True)
        trial.fail("ended by an error")
    finally:
        shutil.rmtree(folder, onerror=_not_removed)
    return trial


def _not_removed(function: object, path: str, why: object) -> None:
    print(f"fresh: {path} could not be removed", file=sys.stderr, flush=True)


def make_log_folder() -> None:
    """Makes build/fresh, and gives build/ to the owner of the repository. That user's `make test` writes there too."""
    LOGS.mkdir(parents=True, exist_ok=True)
    owner = ROOT.stat()
    for folder in (LOGS.parent, LOGS):
        os.chown(folder, owner.st_uid, owner.st_gid)


def stop(number: int, frame: FrameType | None) -> None:
    """Ends the program in order: namespaces end, and the folder is removed."""
    sys.exit(128 + number)


def main(suites: Sequence[str]) -> int:
    """Exit code 0 where everything passed. The last line says what did, and how long it took."""
    if os.geteuid() != 0:
        print(
            f"make fresh must run as root, for debootstrap and chroot, not as user {os.geteuid()}. Run: sudo make fresh",
            file=sys.stderr,
        )
        return 1
    if unknown := set(suites) - set(RELEASES):
        print(f"SUITES must be {' or '.join(RELEASES)}, not {' '.join(sorted(unknown))}", file=sys.stderr)
        return 1
    make_log_folder()
    if subprocess.run((*GIT, "status", "--porcelain"), capture_output=True, check=True).stdout:
        print("fresh: changes that are not committed are not tried", file=sys.stderr, flush=True)
    try:
        known = sources()
    except DebianError as error:
        print(error, file=sys.stderr)
        return 1
    trials = [tried(suite, known) for suite in suites or RELEASES]
    print(f"fresh: {'; '.join(map(str, trials))}")
    outcomes = {trial.outcome for trial in trials}
    return int("failed" in outcomes or "passed" not in outcomes)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    sys.exit(main(sys.argv[1:]))
