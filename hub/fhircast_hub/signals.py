"""Signals before there is an event loop, and after it (OPS-20). This module imports nothing that takes time."""

from __future__ import annotations

import signal


def hold_hangup() -> None:
    """Keep SIGHUP waiting. By default the signal ends a process that starts or stops."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def let_hangup() -> None:
    """Take SIGHUP from now on, and one that waits."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
