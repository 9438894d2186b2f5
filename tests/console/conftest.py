"""Fixtures of the console's tests."""

from __future__ import annotations

import pytest

from fhircast_hub.console import paced, sessions, state, streams


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams look often, and nothing is kept from one look to the next."""
    monkeypatch.setattr(streams, "INTERVAL", 0.01)
    for module, name in ((state, "SECONDS"), (state, "TOGETHER"), (sessions, "SECONDS"), (paced, "REST")):
        monkeypatch.setattr(module, name, 0.0)
