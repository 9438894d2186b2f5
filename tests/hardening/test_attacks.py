"""One user attacks a hub in a process of its own, and no other user notices. `make attack` does the same for longer.

A failure prints what was measured. Seconds are asserted here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from tests.hardening.attacks.catalogue import ATTACKS
from tests.hardening.attacks.range import Name, Range, Result, together
from tests.process.hub_process import IssuerThread, hub_process, issuer_thread

#: Seconds of each attack, and of the measurement without one.
SECONDS, QUIET_SECONDS = 2.0, 3.0
#: Seconds of those that need more to show anything.
LONGER = {"topics of a megabyte": 4.0}
#: Budgets alone must do. The victim of one attack is that of the next, and callbacks lead to this machine.
SETTINGS = {
    "rate_limit_token": 0,
    "rate_limit_address": 0,
    "webhook_allowed_networks": ["127.0.0.0/8"],
    "console": True,
}


class Ground:
    """A hub for one attack after the other. One that did not withstand is replaced, so that each failure is its own."""

    def __init__(self, folder: Path, issuer: IssuerThread) -> None:
        self._folder, self._issuer = folder, issuer
        self._hub = ExitStack()
        self._range: Range | None = None
        self._quiet = 0.0

    def attacked(self, names: list[Name]) -> Result:
        """What these attacks at once do."""
        target = self._range or self._begin()
        self._quiet = self._quiet or uvloop.run(target.quiet(QUIET_SECONDS))
        seconds = max(LONGER.get(row, SECONDS) for row, _ in names)
        try:
            result = uvloop.run(target.attacked(names, seconds, self._quiet))
        except BaseException:
            self.end()
            raise
        if result.complaints():
            self.end()
        return result

    def _begin(self) -> Range:
        hub = hub_process(self._folder, issuers=self._issuer.settings, **SETTINGS)
        self._range = Range(self._hub.enter_context(hub), self._issuer.idp)
        return self._range

    def end(self) -> None:
        """The hub is gone; the next attack has a new one, at another port and with a new store."""
        self._hub.close()
        self._range = None
        for file in self._folder.glob("fhircast-hub.db*"):
            file.unlink()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Where the attacks of this file take place."""
    with issuer_thread() as issuer:
        ground = Ground(tmp_path_factory.mktemp("ground"), issuer)
        yield ground
        ground.end()


def check(ground: Ground, *names: Name) -> None:
    """The hub withstands these attacks at once. Where it does not, a new hub is attacked once more: the machine may have been busy."""
    result = ground.attacked(list(names))
    if result.complaints():
        result = ground.attacked(list(names))
    complaints = result.complaints()
    assert not complaints, "\n".join((*complaints, result.told()))


@pytest.mark.req("OPS-6")
@pytest.mark.parametrize("variant", ATTACKS["frames"])
def test_frames_without_end(ground: Ground, variant: str) -> None:
    """What is no acknowledgement, as fast as the hub reads."""
    check(ground, ("frames", variant))


@pytest.mark.req("OPS-6")
@pytest.mark.parametrize("variant", ATTACKS["unread answers"])
def test_answers_that_nobody_reads(ground: Ground, variant: str) -> None:
    """Two hundred connections ask for megabytes."""
    check(ground, ("unread answers", variant))


@pytest.mark.req("OPS-6")
@pytest.mark.parametrize("variant", ATTACKS["bodies slow to parse"])
def test_bodies_slow_to_parse(ground: Ground, variant: str) -> None:
    """Ten connections post the slowest JSON that is known."""
    check(ground, ("bodies slow to parse", variant))


@pytest.mark.req("OPS-6")
@pytest.mark.parametrize("variant", ATTACKS["topics of a megabyte"])
def test_topics_of_a_megabyte(ground: Ground, variant: str) -> None:
    """One user opens as much as a thousand sessions take."""
    check(ground, ("topics of a megabyte", variant))


@pytest.mark.req("OPS-6")
@pytest.mark.parametrize("variant", ATTACKS["slow bodies"])
def test_bodies_that_never_end(ground: Ground, variant: str) -> None:
    """Six hundred connections send most of a megabyte and stop; or a byte a chunk."""
    check(ground, ("slow bodies", variant))


@pytest.mark.req("OPS-6")
@pytest.mark.parametrize("variant", ATTACKS["callbacks"])
def test_callbacks_without_end(ground: Ground, variant: str) -> None:
    """Thousands of callbacks are subscribed; few are asked."""
    check(ground, ("callbacks", variant))


@pytest.mark.req("OPS-6")
@pytest.mark.parametrize("variant", ATTACKS["cheap requests"])
def test_cheap_requests_without_end(ground: Ground, variant: str) -> None:
    """Fifty connections ask for what is refused, or for what needs no token."""
    check(ground, ("cheap requests", variant))


@pytest.mark.req("OPS-6")
@pytest.mark.parametrize("variant", ATTACKS["handshakes"])
def test_handshakes_without_end(ground: Ground, variant: str) -> None:
    """A WebSocket after the other takes over an endpoint, or guesses one."""
    check(ground, ("handshakes", variant))


@pytest.mark.req("OPS-6")
@pytest.mark.parametrize("variant", ATTACKS["subscriptions"])
def test_subscriptions_and_updates_without_end(ground: Ground, variant: str) -> None:
    """Subscribing, renewing and unsubscribing on sixteen connections; updates of a large report on eight."""
    check(ground, ("subscriptions", variant))


@pytest.mark.req("OPS-6", "SYN-14")
@pytest.mark.parametrize("variant", ATTACKS["unread sockets"])
def test_sockets_that_read_nothing(ground: Ground, variant: str) -> None:
    """Their user opens megabytes meanwhile."""
    check(ground, ("unread sockets", variant))


@pytest.mark.req("OPS-6", "CSL-8", "CSL-16")
@pytest.mark.parametrize("variant", ATTACKS["console"])
def test_the_console_without_end(ground: Ground, variant: str) -> None:
    """Its open files, requests without the scope, searches for nothing, and two hundred streams that nobody reads."""
    check(ground, ("console", variant))


@pytest.mark.req("OPS-6")
def test_all_attackers_at_once(ground: Ground) -> None:
    """One of each row, ten users."""
    check(ground, *together())
