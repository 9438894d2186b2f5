"""Random walks on three nodes, which die at times: the session's poster always has all unfinished work for callbacks."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from fhircast_hub.core.rules.nodes import nodes_of
from fhircast_hub.core.state.commands import Command, NodeLost, Restarted
from fhircast_hub.core.state.effects import EndWebhook, Post, Verify
from fhircast_hub.core.state.session import Outcome, Session
from tests.storage.shared_rows_world import NODES, Walk

SEEDS, STEPS = 16, 200


class Mortal(Walk):
    """A walk whose nodes die a while before they are found lost. Each commit's work goes to its poster.

    Where there is none, the poster of before has the work, else the node that decided.
    """

    def __init__(self, seed: int) -> None:
        #: Node -> posts by number, and verifications by subscription_id.
        self.work: dict[str, set[int | str]] = {node: set() for node in NODES}
        #: Name of the dead node that nobody has noticed. "": all nodes live.
        self.dead = ""
        self.seen: Counter[str] = Counter()
        self._fate = random.Random(seed)
        super().__init__(seed)

    def do(self, command: Command, node: str | None = None) -> Outcome:
        if isinstance(command, NodeLost | Restarted):  # new processes of these names have nothing to do yet
            for name in [command.node] if isinstance(command, NodeLost) else NODES:
                self.work[name] = set()
        before = self.session
        outcome = super().do(command, node)
        self._give(before, outcome)
        self._check()
        assert not isinstance(command, NodeLost) or command.node not in nodes_of(outcome.session)
        return outcome

    def _give(self, before: Session | None, outcome: Outcome) -> None:
        for effect in outcome.effects:
            if isinstance(effect, Verify | Post | EndWebhook):
                poster = (outcome.session.poster if outcome.session else "") or (before.poster if before else "")
                if not isinstance(effect, EndWebhook):
                    self.work[poster or self.node].add(
                        effect.number if isinstance(effect, Post) else effect.subscription_id
                    )

    def _check(self) -> None:
        if self.session is None:
            return
        posts = {number for queue in self.session.outbox.values() for number in queue.posts}
        asked = {id_ for id_, each in self.subscriptions().items() if each.callback and each.never_connected}
        if posts | asked and self.session.poster != self.dead:
            self.seen["work"] += 1
            assert posts | asked <= self.work[self.session.poster]

    def lose_node(self) -> None:
        """A node dies, mostly the poster. Or another node notices that."""
        if not self.dead:
            poster = self.session.poster if self.session else ""
            others = [node for node in NODES if node != self.node]
            self.dead = poster if poster in others else self._fate.choice(others)
            self.work[self.dead] = set()
        elif self.session:
            dead, self.dead = self.dead, ""
            self.seen["takeover"] += dead == self.session.poster
            self.do(NodeLost(dead))

    def choose_node(self) -> str:
        return self._fate.choice([node for node in NODES if node != self.dead])

    def restart(self) -> None:
        self.dead = ""
        super().restart()


@pytest.mark.req("NOD-3")
def test_the_poster_has_all_unfinished_work() -> None:
    """Unless the poster is dead, and nobody has noticed."""
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        walk = Mortal(seed)
        for number in range(STEPS):
            walk.step()
            if number % 8 == 0:
                walk.lose_node()
        seen += walk.seen
    assert min(seen["work"] / 20, seen["takeover"]) > SEEDS, seen
