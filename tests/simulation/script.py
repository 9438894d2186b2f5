"""The script of a run, drawn from its seed: the rules, the nodes, the behaviours of clients, and a list of operations.

Each operation has its own random seed, `dice`. So an operation can be left out without changing the others.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core.limits import Rules
from tests.simulation.posts import INTERESTS, TOKENS, Token

#: Operations of a run, and how often each is drawn.
WEIGHTS = {
    "open": 22,
    "close": 8,
    "home": 3,
    "update": 14,
    "select": 2,
    "say": 3,
    "retry": 8,
    "join": 3,
    "leave": 4,
    "cut": 8,
    "crash": 3,
    "stall": 4,
    "renew": 5,
    "unsubscribe": 2,
    "evict": 1,
    "stop": 1,
    "restart": 1,
    "kill": 1,
    "quiet": 4,
}
_NAMES, _WEIGHTS = tuple(WEIGHTS), tuple(WEIGHTS.values())
OPERATIONS = 45


class Op(NamedTuple):
    """An operation: `wait` seconds after the previous operation, the client with the number `who` does `what`."""

    wait: float
    what: str
    who: int
    dice: int

    def __str__(self) -> str:
        return f"+{self.wait:<8.3f}{self.what:<12} client {self.who}  {self.dice:#010x}"


class Behaviour(NamedTuple):
    """The behaviour of a client.

    `answers` says how it acknowledges: prompt, silent, slow, refusing or fickle. `returns` says how it comes back: to the same
    endpoint, by a new subscription (anew), or never.
    """

    answers: str
    returns: str
    token: Token
    events: tuple[str, ...]
    name: str
    topic: str
    lease: int | None


class Script(NamedTuple):
    """A run."""

    seed: int
    nodes: int
    rules: Rules
    policy: Policy
    queue_messages: int
    behaviours: tuple[Behaviour, ...]
    operations: tuple[Op, ...]


def script(seed: int) -> Script:
    """The run of this seed."""
    rng = random.Random(seed)
    topics = ("a-topic",) if rng.random() < 0.8 else ("a-topic", "b-topic")
    behaviours = tuple(_behaviour(rng, number, rng.choice(topics)) for number in range(rng.randint(3, 6)))
    rules = Rules(
        default_lease=rng.choice((7200, 7200, 7200, 60)),
        connect_timeout=20,
        max_subscriptions=rng.choice((64, 64, 3)),
        session_ttl=rng.choice((86400, 40)),
        retained_messages=rng.choice((256, 256, 2)),
    )
    operations = tuple(_operation(rng, len(behaviours)) for _ in range(OPERATIONS))
    return Script(
        seed=seed,
        nodes=rng.choice((1, 2, 2, 3)),
        rules=rules,
        policy=rng.choice((Policy.LENIENT, Policy.LENIENT, Policy.STRICT, Policy.OFF)),
        queue_messages=rng.choice((256, 4, 8)),
        behaviours=behaviours,
        operations=operations,
    )


def _behaviour(rng: random.Random, number: int, topic: str) -> Behaviour:
    return Behaviour(
        answers=rng.choice(("prompt", "prompt", "prompt", "silent", "slow", "refusing", "fickle")),
        returns=rng.choice(("same", "same", "same", "anew", "anew", "never")),
        token=rng.choice(TOKENS) if number else TOKENS[0],
        events=rng.choice(INTERESTS) if number else INTERESTS[0],
        name=rng.choice((f"app-{number}", f"app-{number}", f"app-{number}", "a-twin", "")),
        topic=topic,
        lease=rng.choice((None, None, None, 45)),
    )


def _operation(rng: random.Random, clients: int) -> Op:
    pace = rng.random()
    wait = rng.random() * (0.03 if pace < 0.45 else 1.5 if pace < 0.85 else 12.0)
    return Op(round(wait, 3), rng.choices(_NAMES, _WEIGHTS)[0], rng.randrange(clients), rng.getrandbits(32))
