"""At the end of a run of these tests: the code blocks that no test runs, with their reasons."""

from __future__ import annotations

import pytest

from tests.docs.blocks import of_page
from tools.site import pages


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = [block for page in pages() for block in of_page(page) if block.not_run]
    terminalreporter.section(f"{len(found)} code blocks of the site are not run")
    for block in found:
        terminalreporter.write_line(f"{block.where}: {block.not_run}")
