"""Whatever the environment of the tests says, the checks see none of it."""

from __future__ import annotations

import pytest

from tests.online.online_world import clean_environment


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch)
