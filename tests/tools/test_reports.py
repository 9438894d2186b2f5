"""tools/reports.py: the first failing test and its reason, from the reports that pytest and Node write."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.node import NODE
from tools.reports import MOST, Report, read, reason

FINE = "def test_fine():\n    pass\n"
FAILS = "def test_sum():\n    assert 1 + 1 == 3\n"
BREAKS = """
import pytest

@pytest.fixture
def table():
    raise OSError("no table")

def test_with_a_table(table):
    pass
"""
SKIPS = "import pytest\n\ndef test_left_out():\n    pytest.skip('because')\n"
IN_NODE = """
import assert from "node:assert";
import { describe, it } from "node:test";

describe("sums", () => {
  it("is fine", () => {});
  it("is wrong", () => assert.equal(1 + 1, 3));
  it("is left out", { skip: "because" }, () => {});
});
"""


@pytest.fixture(autouse=True)
def _only_pytest_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reports are pytest's own, and its plugins take seconds to load."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def reported(pytester: pytest.Pytester, *arguments: str, **files: str) -> tuple[Report, str]:
    """The report of pytest on these files, and its output with what make says after it."""
    pytester.makepyfile(**files)
    pytester.makeini("[pytest]\njunit_family = xunit1\n")
    result = pytester.runpytest_subprocess("--junitxml=report.xml", "-p", "no:cacheprovider", *arguments)
    output = f"{result.stdout.str()}\n{result.stderr.str()}\nmake: *** [Makefile:78: test-some] Error {result.ret}\n"
    return read(pytester.path / "report.xml", pytester.path), output


def test_the_first_failing_test_is_named_with_its_reason(pytester: pytest.Pytester) -> None:
    found = reported(pytester, test_a=FINE, test_b=FAILS, test_c=BREAKS)
    assert reason(*found) == "test_b.py::test_sum: assert (1 + 1) == 3 (2 failed)"


def test_a_fixture_that_fails_is_named_by_its_error(pytester: pytest.Pytester) -> None:
    assert reason(*reported(pytester, test_c=BREAKS)) == "test_c.py::test_with_a_table: OSError: no table"


def test_a_library_that_a_test_lacks_is_said_as_such(pytester: pytest.Pytester) -> None:
    """By the program itself, or already in our words (tests/browsing.py)."""
    said = "the browser's driver does not start: libatomic.so.1 is missing; apt-get install libatomic1"
    loader = (
        "x/playwright/driver/node: error while loading shared libraries: libatomic.so.1: cannot open shared object file"
    )
    test = "import pytest\n\ndef test_page():\n    {}\n"
    raises, fails = test.format(f"raise OSError({loader!r})"), test.format(f"pytest.fail({said!r}, pytrace=False)")
    assert reason(*reported(pytester, test_g=raises)) == f"test_g.py::test_page: {said}"
    assert reason(*reported(pytester, test_g=fails)) == f"test_g.py::test_page: {said}"


def test_words_about_a_library_in_the_code_of_another_failing_test_mean_nothing(pytester: pytest.Pytester) -> None:
    code = "def test_h():\n    'node: error while loading shared libraries: libz.so.1: cannot open shared object file'\n    assert 0\n"
    assert reason(*reported(pytester, test_h=code)) == "test_h.py::test_h: assert 0"


def test_a_skipped_test_is_the_reason_where_skips_are_forbidden(pytester: pytest.Pytester) -> None:
    report, output = reported(pytester, test_a=FINE, test_d=SKIPS)
    assert reason(report, output, skips_forbidden=True) == "test_d.py::test_left_out: because"
    failed, output = reported(pytester, test_b=FAILS, test_d=SKIPS)
    assert reason(failed, output, skips_forbidden=True) == "test_b.py::test_sum: assert (1 + 1) == 3"


def test_tests_that_cannot_be_collected_are_named(pytester: pytest.Pytester) -> None:
    found = reported(pytester, test_e="import there_is_no_such_module\n")
    assert reason(*found) == "test_e.py::test_e: ModuleNotFoundError: No module named 'there_is_no_such_module'"


def test_a_run_without_a_test_is_told_by_what_pytest_says(pytester: pytest.Pytester) -> None:
    """A file that is not there, or a name that no test has."""
    missing = reason(*reported(pytester, "typo.py", test_a=FINE))
    assert missing == "ERROR: file or directory not found: typo.py"
    assert reason(*reported(pytester, "-k", "typo", test_a=FINE)).startswith("1 deselected in ")


def test_a_run_that_was_killed_is_told_by_what_make_says(pytester: pytest.Pytester) -> None:
    """Its report is not there."""
    found = reported(pytester, test_i="import os\n\ndef test_i():\n    os._exit(9)\n")
    assert reason(*found) == "make: *** [Makefile:78: test-some] Error 9"


def test_a_tool_without_a_report_is_told_by_its_first_line(tmp_path: Path) -> None:
    """ruff, mypy and tsc; of a report that breaks off nothing is believed."""
    (tmp_path / "half.xml").write_text("<testsuites><testcase name='x'><failure/>")
    assert read(tmp_path / "half.xml", tmp_path) == read(tmp_path / "none.xml", tmp_path) == Report()
    output = "make[1]: Entering\n\n  a.py:1:1: F401 unused import  \nmore\nmake: *** [Makefile:1: lint] Error 1\n"
    assert reason(Report(), output) == "a.py:1:1: F401 unused import"
    assert reason(Report(), "make: *** [Makefile:1: lint] Killed\n") == "make: *** [Makefile:1: lint] Killed"
    assert reason(Report(), "") == "no output"


def test_a_long_reason_is_one_line_with_a_bound(pytester: pytest.Pytester) -> None:
    long = reason(*reported(pytester, test_f="def test_long():\n    raise OSError('so ' * 999 + '\\nmore')\n"))
    assert "\n" not in long
    assert len(long) < MOST + 100
    assert long.endswith("...")


def in_node(folder: Path, text: str) -> tuple[Report, str]:
    """The report of Node on a file, and its output."""
    test = folder / "sums.test.mjs"
    test.write_text(text)
    reporters = ["--test-reporter=spec", "--test-reporter-destination=stdout"]
    reporters += ["--test-reporter=junit", f"--test-reporter-destination={folder / 'report.xml'}"]
    done = subprocess.run([NODE, "--test", *reporters, test], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    return read(folder / "report.xml", folder), done.stdout


def test_nodes_report_is_read_too(tmp_path: Path) -> None:
    """With the file relative to here, as pytest has it."""
    report, output = in_node(tmp_path, IN_NODE)
    assert reason(report, output) == "sums.test.mjs::is wrong: 2 == 3"
    assert [case.complaint for case in report.skipped] == ["because"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import 'there-is-no-such-module';", "Cannot find package 'there-is-no-such-module'"),
        (IN_NODE.replace('it("is fine"', 'before(() => { throw new Error("no hub"); });\n  it("is fine"'), "no hub"),
    ],
)
def test_what_node_says_of_no_test_is_looked_for_in_its_output(tmp_path: Path, text: str, error: str) -> None:
    """Of a file that does not load, and of a set-up that throws."""
    text = text.replace("{ describe, it }", "{ before, describe, it }")
    assert error in reason(*in_node(tmp_path, text))
