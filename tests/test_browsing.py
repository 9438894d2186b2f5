"""tests/browsing.py: where no browser starts, each of its tests says why in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import shell_program

ROOT = Path(__file__).resolve().parents[1]
#: What a Node without libatomic1 says, which no test can take away from this machine.
LOADER = (
    "error while loading shared libraries: libatomic.so.1: cannot open shared object file: No such file or directory"
)
WITH_A_BROWSER = """
import pytest
from tests.browsing import playing

@pytest.fixture
async def playwright():
    async with playing() as playwright:
        yield playwright

@pytest.mark.parametrize("number", range(3))
def test_a_page(playwright, number):
    pass
"""


def test_a_library_that_the_browsers_driver_lacks_is_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Playwright itself says that a connection was closed."""
    node = pytester.mkdir("playwright") / "driver" / "node"
    node.parent.mkdir()
    shell_program(node, f"echo $0: {LOADER} >&2\nexit 127")
    monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", str(node))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(WITH_A_BROWSER)
    result = pytester.runpytest_subprocess("-o", "asyncio_mode=auto", "-p", "no:cacheprovider", "-q")
    result.assert_outcomes(errors=3)
    line = "the browser's driver does not start: libatomic.so.1 is missing; apt-get install libatomic1"
    assert [text for text in result.outlines if text.startswith("the browser")] == [line] * 3
    assert len(result.outlines) < 30
