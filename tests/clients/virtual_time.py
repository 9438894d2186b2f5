"""An event loop whose time passes at once: what a client does in three hours is seen in a moment."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch


class _Skipping(selectors.DefaultSelector):
    """Waits for nothing: the time until the next timer has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everything waits, and no timer will wake it"
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nothing may go over the network or into another thread."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it to its end, however long that takes in its own time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        clock = SimpleNamespace(monotonic=runner.get_loop().time)
        with patch("fhircast_client.lease.time", clock):
            runner.run(main)
