"""How many new callbacks a user may bring."""

from __future__ import annotations

import pytest

from fhircast_hub.webhook import new_callbacks
from fhircast_hub.webhook.new_callbacks import BURST, SECONDS_EACH, NewCallbacks

ANN, BOB, EVE = ("realm", "user:ann"), ("realm", "user:bob"), ("realm", "user:eve")


@pytest.mark.req("WHK-13")
def test_new_callbacks_come_in_a_burst_and_then_at_a_rate() -> None:
    """And each user's are counted apart."""
    callbacks = NewCallbacks()
    for _ in range(BURST):
        assert callbacks.wait(EVE, 100.0) == 0
        callbacks.take(EVE, 100.0)
    assert callbacks.wait(EVE, 100.0) == SECONDS_EACH
    assert callbacks.wait(EVE, 100.5) == SECONDS_EACH - 0.5
    assert callbacks.wait(ANN, 100.0) == 0
    assert callbacks.wait(EVE, 100.0 + SECONDS_EACH) == 0
    callbacks.take(EVE, 100.0 + SECONDS_EACH)
    assert callbacks.wait(EVE, 100.0 + SECONDS_EACH) == SECONDS_EACH
    for _ in range(BURST):  # all is forgotten after a while
        callbacks.take(EVE, 1000.0)
    assert callbacks.wait(EVE, 1000.0) == SECONDS_EACH


@pytest.mark.req("WHK-13")
def test_the_counters_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were used last are kept."""
    monkeypatch.setattr(new_callbacks, "MAX_USERS", 2)
    callbacks = NewCallbacks()
    for user in (ANN, BOB, ANN, EVE):
        callbacks.take(user, 1.0)
    assert list(callbacks._empty_at) == [ANN, EVE]
