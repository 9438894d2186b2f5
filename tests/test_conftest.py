"""tests/conftest.py: FORBID_SKIPS turns a test that was left out into a failed run."""

from __future__ import annotations

from pathlib import Path

import pytest

SKIPPED_MODULE = "import pytest\n\npytest.skip('because', allow_module_level=True)\n"
LEFT_OUT = """
import pytest

@pytest.mark.skip(reason="because")
def test_skipped_by_mark():
    pass

def test_skipped_inside():
    pytest.skip("because")

@pytest.mark.xfail
def test_expected_to_fail():
    assert False

@pytest.mark.xfail(strict=False)
def test_expected_to_fail_and_passes():
    pass

def test_fine():
    pass
"""


@pytest.fixture
def repository(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder of tests with this repository's conftest, which finds the repository's own modules."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # plugins take seconds to load
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_asyncio.plugin")
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    return pytester


@pytest.mark.parametrize("forbidden", [True, False])
def test_left_out_tests_fail_the_run_only_where_that_is_forbidden(
    repository: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, forbidden: bool
) -> None:
    monkeypatch.setenv("FORBID_SKIPS", "1" if forbidden else "0")
    repository.makepyfile(test_one=LEFT_OUT, test_two=SKIPPED_MODULE)
    result = repository.runpytest_subprocess()
    result.assert_outcomes(passed=1, skipped=3, xfailed=1, xpassed=1)
    assert result.ret == (pytest.ExitCode.TESTS_FAILED if forbidden else pytest.ExitCode.OK)
    assert ("FORBID_SKIPS: 5 " in result.stdout.str()) == forbidden


def test_a_run_without_skips_is_fine(repository: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORBID_SKIPS", "1")
    repository.makepyfile("def test_fine():\n    pass\n")
    assert repository.runpytest_subprocess().ret == pytest.ExitCode.OK
