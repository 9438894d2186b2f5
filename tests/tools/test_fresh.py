"""tools/fresh.py: what each step finds wrong, what the last line says, and who is refused. `make fresh` itself is for releases."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tools import fresh
from tools.debian import DebianError, Source
from tools.fresh import Trial, answers, attempted, main, running, try_demo, try_test, try_without_root
from tools.packages import NEEDED

KNOWN = [Source("http://mirror.example/debian", "bookworm", "main")]
ALL_PACKAGES = " ".join(NEEDED["test"])
WITHOUT_CURL = " ".join(name for name in NEEDED["test"] if name != "curl")
TOLD = "make must fail with one line of apt-get install"
#: What the demo prints, and how it goes on.
SHOWN = "echo 'Open this in a browser: http://127.0.0.1:9/'"
LOOP = "while :; do sleep 0.01; done"


class FakeDebian:
    """Stands where a Debian is made: every command in it is this script, whose $1 is the third word of the command."""

    script = "exit 0"

    def __init__(self, folder: Path, suite: str, known: object) -> None:
        self.folder, self.suite = folder, suite

    def why_not(self) -> str:
        return ""

    def path(self, name: str) -> Path:
        return self.folder / name.lstrip("/")

    def command(self, *words: str, **options: str) -> tuple[str, ...]:
        return ("sh", "-c", self.script, "sh", *words[2:])


class Steps:
    """Each step against a machine that does what a script does."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch

    def wrong(self, step: object, script: str) -> str:
        """What the step finds wrong."""
        self._patch.setattr(FakeDebian, "script", script)
        return attempted(step, FakeDebian(self.folder, "bookworm", KNOWN), self.folder / "log")  # type: ignore[arg-type]


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(tmp_path, monkeypatch)


@pytest.fixture
def as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Root, on a machine where making a Debian takes no time, and where every step passes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(fresh, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(fresh, "Debian", FakeDebian)
    monkeypatch.setattr(fresh, "sources", lambda: KNOWN)
    monkeypatch.setattr(fresh, "prepare", lambda debian: ("12.12", "3.11"))
    monkeypatch.setattr(fresh, "STEPS", {"make demo": passes, "make test": passes})
    return monkeypatch


def passes(debian: object, log: Path) -> str:
    return ""


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        (f"echo \"    su - -c 'apt-get install {ALL_PACKAGES}'\"; exit 2", ""),
        (f"echo apt-get install {ALL_PACKAGES}", f"{TOLD}, not with exit code 0 and 1 lines"),
        ("echo no; exit 2", f"{TOLD}, not with exit code 2 and 0 lines"),
        ("echo apt-get install a; echo apt-get install b; exit 2", f"{TOLD}, not with exit code 2 and 2 lines"),
        (f"echo apt-get install {WITHOUT_CURL}; exit 2", "the line must name all packages, and it lacks curl"),
    ],
)
def test_a_user_without_roots_rights_must_be_told_all_packages(steps: Steps, script: str, wrong: str) -> None:
    assert steps.wrong(try_without_root, script) == wrong


def test_nothing_may_be_begun_where_packages_are_missing(steps: Steps) -> None:
    (steps.folder / "srv" / "newcomer" / "clone" / ".venv").mkdir(parents=True)
    script = f"echo apt-get install {ALL_PACKAGES}; exit 2"
    assert steps.wrong(try_without_root, script) == "make must begin nothing, and it made an environment"


@pytest.mark.parametrize(
    ("line", "demo", "wrong"),
    [
        ("touch there", f"trap 'echo demo: stopped; exit' INT; {SHOWN}; {LOOP}", ""),
        ("touch there; exit 3", "exit 1", "the line must install the missing packages, not end with exit code 3"),
        ("touch there", "exit 1", "the demo must print a URL that answers, not none with exit code 1"),
        (
            "touch there",
            f"trap 'exit 7' INT; {SHOWN}; {LOOP}",
            "Ctrl-C must stop the demo in order, not with exit code 7",
        ),
    ],
)
def test_the_demo_must_run_once_what_a_user_is_told_was_done(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, line: str, demo: str, wrong: str
) -> None:
    """The URL must answer, and Ctrl-C must end the demo."""
    monkeypatch.chdir(steps.folder)
    monkeypatch.setattr(fresh, "answers", lambda url: url == "http://127.0.0.1:9/")
    told = f'if [ "$1" = sh ]; then {line}; elif [ -e there ]; then {demo}; else echo apt-get install a; exit 2; fi'
    assert steps.wrong(try_demo, told) == wrong


def test_a_url_that_does_not_answer_in_time_is_said(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(steps.folder)
    monkeypatch.setattr(fresh, "told", lambda debian, target, log: ("true", ""))
    monkeypatch.setattr(fresh, "DEMO_PATIENCE", 0.5)
    monkeypatch.setattr(fresh, "answers", lambda url: False)
    script = f'[ "$1" = sh ] && exit; {SHOWN}; {LOOP}'
    assert (
        steps.wrong(try_demo, script) == "the demo must print a URL that answers within 0.5 s, not http://127.0.0.1:9/"
    )


def test_all_tests_must_pass_without_a_skip(steps: Steps) -> None:
    assert steps.wrong(try_test, "exit 0") == ""
    assert steps.wrong(try_test, "exit 2") == "exit code 2"


def test_a_step_that_does_not_end_has_failed(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "TEST_PATIENCE", 0.05)
    assert steps.wrong(try_test, "sleep 600") == "no end after 0 s"


def test_the_last_line_says_what_passed_and_how_long_it_took(
    as_root: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["bookworm"]) == 0
    wanted = "fresh: Debian 12.12 with Python 3.11: make demo passed in 0 s, make test passed in 0 s"
    assert last_line(capsys) == wanted
    assert not list(tmp_path.glob("fresh-*")), "the temporary folder is gone"


def test_one_step_that_fails_fails_all_and_the_next_is_tried(
    as_root: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_root.setattr(fresh, "STEPS", {"make demo": lambda debian, log: "no URL that answers", "make test": passes})
    assert main(["bookworm"]) == 1
    assert last_line(capsys).endswith(
        "make demo failed after 0 s (no URL that answers), make test passed in 0 s",
    )


def test_another_python_than_the_declared_one_fails(
    as_root: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_root.setattr(fresh, "prepare", lambda debian: ("13.1", "3.14"))
    assert main(["trixie"]) == 1
    assert last_line(capsys).startswith("fresh: Debian 13.1 with Python 3.14: Python must be 3.13, not 3.14, ")


def test_a_release_that_the_mirror_does_not_have_is_said_and_fails_nothing(
    as_root: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless nothing else was tried."""

    class OnlyBookworm(FakeDebian):
        def why_not(self) -> str:
            return "" if self.suite == "bookworm" else "HTTP Error 404"

    as_root.setattr(fresh, "Debian", OnlyBookworm)
    assert main([]) == 0
    assert last_line(capsys).endswith("; trixie: not run (HTTP Error 404)")
    assert main(["trixie"]) == 1


@pytest.mark.parametrize(
    "error", [DebianError("debootstrap says no"), OSError("no disk"), subprocess.CalledProcessError(128, ["git"])]
)
def test_an_error_fails_the_release_and_the_next_is_tried(
    as_root: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def prepare(debian: FakeDebian) -> tuple[str, str]:
        if debian.suite == "bookworm":
            raise error
        return "13.1", "3.13"

    as_root.setattr(fresh, "prepare", prepare)
    assert main([]) == 1
    said = capsys.readouterr()
    assert str(error) in said.err
    assert said.out.splitlines()[-1].startswith(
        "fresh: bookworm: ended by an error; Debian 13.1 with Python 3.13: make"
    )


@pytest.mark.parametrize(
    ("user", "suites", "expected"),
    [
        (1000, [], "make fresh must run as root, for debootstrap and chroot, not as user 1000."),
        (0, ["sarge"], "SUITES must be bookworm or trixie, not sarge"),
    ],
)
def test_who_is_refused(
    as_root: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], user: int, suites: list[str], expected: str
) -> None:
    as_root.setattr(os, "geteuid", lambda: user)
    assert main(suites) == 1
    assert capsys.readouterr().err.startswith(expected)


def test_a_page_answers_or_does_not() -> None:
    """Also where something else than HTTP is there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        def serve() -> None:
            for answer in (b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.0 404 No\r\n\r\n", b"no HTTP\r\n\r\n"):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert [answers(url) for _ in range(3)] == [True, False, False]
        thread.join()
    assert not answers(url)


def test_the_log_folder_belongs_to_the_owner_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo make fresh` in a user's clone: that user's `make test` writes beside it."""
    given: list[tuple[Path, int]] = []
    monkeypatch.setattr(fresh, "ROOT", tmp_path)
    monkeypatch.setattr(fresh, "LOGS", tmp_path / "build" / "fresh")
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.append((path, user)))
    fresh.make_log_folder()
    owner = tmp_path.stat().st_uid
    assert given == [(tmp_path / "build", owner), (tmp_path / "build" / "fresh", owner)]


def test_a_command_and_its_output_end_with_the_block(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it prints is in the log and on the terminal as it comes."""
    command = [sys.executable, "-uc", "import time; print('begun'); time.sleep(600)"]
    with running(command, tmp_path / "log") as (process, output):
        until = time.monotonic() + 20
        while "begun" not in output.so_far() and time.monotonic() < until:
            time.sleep(0.01)
    assert process.returncode
    assert output.whole() == (tmp_path / "log").read_text() == capsys.readouterr().out == "begun\n"


def test_a_trial_is_named_by_what_was_found_in_it() -> None:
    trial = Trial("bookworm", "12.12", "3.11")
    trial.note("make demo", time.monotonic() - 75, "")
    assert str(trial) == "Debian 12.12 with Python 3.11: make demo passed in 1 min 15 s"
