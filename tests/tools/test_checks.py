"""tools/checks.py: what `make test` runs, when, and what its last lines say."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools.checks import QUICK, REST, SOME, Part, Result, duration, summary

ROOT = Path(__file__).resolve().parents[2]
FINE = "@true"
REPORT = (
    '<testsuites><testcase name="{name}" classname="c" file="f.js"><{kind} message="{why}"/></testcase></testsuites>'
)


class Repository:
    """A folder with a Makefile of these recipes; targets that are not given pass."""

    def __init__(self, folder: Path, **recipes: str) -> None:
        self.folder = folder
        targets = {part.target: FINE for part in (*QUICK, *REST, *SOME)}
        given = targets | {name.replace("_", "-"): recipe for name, recipe in recipes.items()}
        text = "".join(f"{target}:\n\t{recipe}\n" for target, recipe in given.items())
        (folder / "Makefile").write_text(text)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tools.checks", *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "FORBID_SKIPS": "0"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, dict[str, str], str]:
        """The exit code; by part, what the summary says; the last line."""
        with self.start(*arguments, **environment) as process:
            output, _ = process.communicate(timeout=60)
        return process.returncode, summarised(output), output.splitlines()[-1]


def summarised(output: str) -> dict[str, str]:
    """By part, what the summary says of it, without how long it took."""
    lines = output.partition("--- summary\n")[2].splitlines()[:-1]
    parts = (re.split(r" {2,}", line, maxsplit=1) for line in lines)
    return {name: re.sub(r" (in|after) \d+ s", "", says) for name, says in parts}


def test_each_part_is_said_to_have_passed(tmp_path: Path) -> None:
    code, parts, last = Repository(tmp_path).run()
    assert (code, set(parts.values())) == (0, {"passed"})
    assert list(parts) == [
        "lint",
        "types",
        "requirements",
        "clients",
        "tests",
        "pages and models",
        "browser",
        "demo and logins",
        "nodes",
        "JavaScript",
        "attacks",
    ]
    assert re.fullmatch(r"all passed, \d+ s", last)


def test_where_a_quick_part_fails_the_long_ones_are_not_run(tmp_path: Path) -> None:
    """The other quick parts still run, so that one run shows all of their failures."""
    repository = Repository(tmp_path, types="@echo 'a.py:1: error: no'; exit 1", test_others="@touch was-run")
    code, parts, last = repository.run()
    assert code == 1
    assert parts["types"] == "failed: a.py:1: error: no"
    assert (parts["lint"], parts["requirements"]) == ("passed", "passed")
    assert {parts[part.name] for part in REST} == {"not run: types failed"}
    assert last.startswith(
        "not passed: types, clients, tests, pages and models, browser, demo and logins, nodes, JavaScript, attacks, "
    )
    assert not (tmp_path / "was-run").exists()


def test_a_failing_part_is_told_by_its_first_failing_test_and_the_others_are_run(tmp_path: Path) -> None:
    report = REPORT.format(name="t", kind="failure", why="no")
    recipe = f"@echo lots; echo '{report}' > build/checks/test-demo.xml; exit 2"
    code, parts, last = Repository(tmp_path, test_demo=recipe).run()
    assert (code, parts["demo and logins"]) == (1, "failed: f.js::t: no")
    assert (parts["tests"], parts["JavaScript"]) == ("passed", "passed")
    assert last.startswith("not passed: demo and logins, ")


def test_a_report_of_an_earlier_run_is_not_believed(tmp_path: Path) -> None:
    repository = Repository(tmp_path, javascript="@echo 'a.js(1,1): error TS1'; exit 2")
    (tmp_path / "build" / "checks").mkdir(parents=True)
    report = REPORT.format(name="old", kind="failure", why="old")
    (tmp_path / "build" / "checks" / "javascript.xml").write_text(report)
    assert repository.run()[1]["JavaScript"] == "failed: a.js(1,1): error TS1"


def test_a_skipped_test_is_named_where_its_runner_fails_for_it(tmp_path: Path) -> None:
    """As pytest does, by tests/conftest.py."""
    report = REPORT.format(name="t", kind="skipped", why="because")
    repository = Repository(tmp_path, test_demo=f"@echo '{report}' > build/checks/test-demo.xml; exit 1")
    assert repository.run(FORBID_SKIPS="1")[1]["demo and logins"] == "failed: f.js::t: because"


@pytest.mark.parametrize("forbidden", [True, False])
def test_a_skipped_test_of_any_part_fails_the_run_where_that_is_forbidden(tmp_path: Path, forbidden: bool) -> None:
    """Node's runner has no such switch of its own."""
    report = REPORT.format(name="t", kind="skipped", why="because")
    repository = Repository(tmp_path, javascript=f"@echo '{report}' > build/checks/javascript.xml")
    code, parts, _ = repository.run(FORBID_SKIPS=str(int(forbidden)))
    assert (code, parts["JavaScript"]) == ((1, "failed: f.js::t: because") if forbidden else (0, "passed (1 skipped)"))


def test_tests_that_run_alone_have_the_terminal(tmp_path: Path) -> None:
    """For a debugger: what they print comes as they print it."""
    repository = Repository(tmp_path, test_some="@echo question?; read answer < answers")
    os.mkfifo(tmp_path / "answers")
    with repository.start("--some") as process:
        assert process.stdout
        while "question?" not in process.stdout.readline():
            assert process.poll() is None
        (tmp_path / "answers").write_text("answer\n")
        output, _ = process.communicate(timeout=60)
    assert summarised(output)["tests"] == "passed"


def test_some_tests_have_a_summary_too(tmp_path: Path) -> None:
    code, parts, _ = Repository(tmp_path, test_some="@echo no; exit 1").run("--some")
    wanted = {"lint": "passed", "types": "passed", "requirements": "passed", "tests": "failed: exit code 2"}
    assert (code, parts) == (1, wanted)


def test_what_was_given_to_make_reaches_the_parts_and_its_jobs_do_not(tmp_path: Path) -> None:
    """`make -j4 test ARGS=...`"""
    flags = "k -j4 --jobserver-auth=3,4 -- ARGS=tests/core\\ -junk"
    repository = Repository(tmp_path, javascript="@echo $(ARGS) of $(MAKEFLAGS); exit 1")
    code, parts, _ = repository.run(MAKEFLAGS=flags)
    assert (code, parts["JavaScript"]) == (
        1,
        "failed: tests/core -junk of k --no-print-directory -- ARGS=tests/core -junk",
    )


def test_what_a_part_printed_stands_before_the_summary(tmp_path: Path) -> None:
    """Whole, and not among that of others."""
    with Repository(tmp_path, test_demo="@echo one; echo two", test_others="@echo three").start() as process:
        output, _ = process.communicate(timeout=60)
    assert "--- demo and logins: passed\none\ntwo\n" in output
    assert output.index("three") < output.index("--- summary")


def test_a_run_that_is_stopped_ends_its_children_and_says_so(tmp_path: Path) -> None:
    repository = Repository(tmp_path, types="@echo begun > begun; sleep 600")
    os.mkfifo(tmp_path / "begun")
    begun = os.open(tmp_path / "begun", os.O_RDWR)  # does not wait for the writer
    with repository.start() as process:
        assert process.stdout
        while process.stdout.readline() != "--- lint: passed\n":
            assert process.poll() is None
        assert select.select([begun], [], [], 60)[0] == [begun]
        os.close(begun)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    parts = summarised(output)
    assert process.returncode == 1
    assert (parts["lint"], parts["types"]) == ("passed", "failed: stopped")
    assert {parts[name] for name in ("tests", "JavaScript")} == {"not run: stopped"}


def test_how_long_each_part_and_all_took_is_said() -> None:
    results = [
        Result(Part("lint", "lint"), "passed", "", 2.4),
        Result(Part("types", "types"), "passed", "", 25, skipped=2),
        Result(Part("tests", "test-others"), "failed", "x", 663),
        Result(Part("JavaScript", "javascript"), "not run", "y"),
    ]
    assert summary(results, 723)[-5:] == [
        "lint              passed in 2 s",
        "types             passed in 25 s (2 skipped)",
        "tests             failed after 11 min 3 s: x",
        "JavaScript        not run: y",
        "not passed: tests, JavaScript, 12 min 3 s",
    ]
    assert duration(59.6) == "1 min 0 s"


def test_every_part_has_a_target_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for part in (*QUICK, *REST, *SOME):
        assert re.search(rf"^{part.target}:", makefile, re.MULTILINE), part.target
