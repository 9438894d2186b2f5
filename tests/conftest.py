"""What holds for every test: a clean environment, no timing by hypothesis, and no test left out in silence."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable

import pytest
import uvloop
from hypothesis import settings

pytest_plugins = ("pytester", "tests.postgresql.fixtures")

# Somebody's exported FHIRCAST_PORT must not reach the tests, nor a collector.
for name in [name for name in os.environ if name.startswith(("FHIRCAST_", "OTEL_"))]:
    del os.environ[name]

# How long one example takes says more about the machine than about the code.
settings.register_profile("hub", deadline=None, print_blob=True)
settings.load_profile("hub")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop that the hub runs on: its transports differ from asyncio's where it matters."""
    return {"uvloop": uvloop.new_event_loop}


#: Outcomes of a test that did not run, or was allowed to fail.
LEFT_OUT = ("skipped", "xfailed", "xpassed")


def left_out(config: pytest.Config) -> int:
    """How many tests were left out in this run, where FORBID_SKIPS forbids it; else 0."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("FORBID_SKIPS", "0") in {"", "0"} or reporter is None:
        return 0
    return sum(len(reporter.stats.get(outcome, ())) for outcome in LEFT_OUT)


def pytest_collection_finish() -> None:
    """The collected tests stay to the end. The garbage collector does not look at them again: a tenth of the time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if left_out(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := left_out(config):
        terminalreporter.write_line(f"FORBID_SKIPS: {count} skipped or expected to fail, none may be", red=True)
