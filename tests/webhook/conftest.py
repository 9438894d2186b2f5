"""Fixtures of the webhook tests."""

from __future__ import annotations

import pytest

from fhircast_hub.webhook import deliver, verify


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Between two attempts is no time; how long it would have been, before it was made uneven."""
    waited: list[float] = []

    def no_pause(seconds: float) -> float:
        waited.append(seconds)
        return 0.001

    for module in (deliver, verify):
        monkeypatch.setattr(module, "jittered", no_pause)
    return waited
