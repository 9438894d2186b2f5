"""What the tests of the client library share: one dev hub, with the settings of the scenarios, and a look at what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.clients.places import DevHub, dev_hub, scenarios, within


@pytest.fixture(scope="package")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevHub]:
    """A dev hub for all of them."""
    settings = {name.lower(): value for name, value in scenarios()["hub"].items()}
    with dev_hub(tmp_path_factory.mktemp("hub"), **settings) as running:
        yield running


@pytest.fixture
async def nothing_left(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """After the test no task is left, and the client reported no failure of its own."""
    before = asyncio.all_tasks()
    yield
    await within(15, lambda: asyncio.all_tasks() <= before | {asyncio.current_task()}, asyncio.all_tasks)
    failures = [record.getMessage() for record in caplog.records if record.name == "fhircast_client"]
    assert not [failure for failure in failures if failure.startswith("the client failed")]
