"""The scenarios that are searched: some in each run of the tests, all by `make model`; and those that show known gaps.

The budgets say which faults may come, in any combination and at any step. Sockets, deaths, sleeps and returns of subscribers
multiply the states. So the short scenarios have fewer events where they have more faults.

A thousand states take a third of a second. Measured numbers of states with four events: 11,576 without a fault, 12,000 of updates
with a death, 175,151 of updates with lost answers and a failover, 227,105 of updates with a sleep, 605,416 of opens with
a lost answer. Opens have more than updates: each open is another revision. Opens with a death or a failover were not counted.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.model.scenarios import Scenario
from tests.model.world import Budget

_EACH, _TWO, _ONE = ((0, 0), (0, 1), (0, 2)), ((0, 0), (0, 1)), ((0, 0),)
_TWO_SESSIONS = ((0, 2), (1, 2))
#: Without the first of the known gaps below.
_HELD = Scenario(
    "posts of an event, held back after a lost answer",
    events=(0,),
    callback=True,
    subs=(),
    holds_posts=True,
    budget=Budget(lost_answers=1),
)

#: Searched to the last state in each run of the tests.
SHORT = (
    Scenario("four events", subs=_EACH),
    Scenario("three events, and a node without sockets", events=(0, 0, 0), subs=_TWO),
    Scenario("four updates of one version, a lost answer", updates=True, subs=_EACH, budget=Budget(lost_answers=1)),
    Scenario("four updates of one version, a death", updates=True, subs=_EACH, budget=Budget(deaths=1)),
    Scenario("two events with notices", events=(0, 0), subs=_EACH, notices=True),
    Scenario("three events of two sessions, slow commits", (0, 0, 1), subs=_TWO_SESSIONS, slow_commits=True),
    Scenario("two events, a lost answer", events=(0, 0), subs=_EACH, budget=Budget(lost_answers=1)),
    Scenario("two events, a failover", events=(0, 0), subs=_EACH, budget=Budget(failovers=1)),
    Scenario("an event, a death, a return", events=(0,), subs=_EACH, budget=Budget(deaths=1, returns=1), time=True),
    Scenario("an event, a sleep", events=(0,), subs=_EACH, budget=Budget(sleeps=1)),
    Scenario("a slow commit, a sleep", events=(0,), subs=_ONE, slow_commits=True, budget=Budget(sleeps=1)),
    Scenario("posts of two events", events=(0, 0), callback=True, subs=()),
    _HELD,
    _HELD._replace(name="posts of an event, held back after a failover", budget=Budget(failovers=1)),
    Scenario("posts of an event, a death", events=(0,), callback=True, subs=(), budget=Budget(deaths=1)),
)

#: Each has three nodes and four events, unless its name says otherwise.
WHOLE = (
    Scenario("four events", subs=_EACH),
    Scenario("four events, and a node without sockets", subs=_TWO),
    Scenario("four events, and two nodes without sockets", subs=_ONE),
    Scenario("three events with notices", events=(0, 0, 0), subs=_EACH, notices=True),
    Scenario("four events of two sessions, slow commits", events=(0, 0, 1, 1), subs=_TWO_SESSIONS, slow_commits=True),
    Scenario(
        "four updates of one version, two lost answers, a failover",
        updates=True,
        subs=_EACH,
        budget=Budget(lost_answers=2, failovers=1),
    ),
    Scenario("four events, a lost answer", subs=_EACH, budget=Budget(lost_answers=1)),
    Scenario("four events, a failover", subs=_EACH, budget=Budget(failovers=1)),
    Scenario("four events, a death", subs=_EACH, budget=Budget(deaths=1)),
    Scenario("four updates of one version, a sleep", updates=True, subs=_EACH, budget=Budget(sleeps=1)),
    Scenario("two events, a sleep", events=(0, 0), subs=_EACH, budget=Budget(sleeps=1)),
    Scenario("four posts", callback=True, subs=()),
)


class Gap(NamedTuple):
    """A scenario in which the hub of today breaks an invariant, and which."""

    scenario: Scenario
    invariant: str


_POSTS = Scenario("posts after an unknown outcome", (0,), callback=True, subs=(), budget=Budget(lost_answers=1))
_LOSS = Scenario("an asynchronous failover", subs=_TWO, budget=Budget(failovers=1), lost_rows=1, again=True)

GAPS = (
    # A node that lost the answer to a commit with posts begins them anew later. Until then it posts what comes after them.
    Gap(_POSTS, "posts_come_in_order"),
    Gap(_POSTS._replace(name="posts after a failover", budget=Budget(failovers=1)), "posts_come_in_order"),
    # The database lost its last commit, and gave the commit's position to another one. Nodes tell both apart only when they
    # read the log. A node that commits first decides on what was lost, and its compare-and-set succeeds.
    Gap(_LOSS._replace(events=(0, 0)), "reads_are_fresh"),
    # The node's own commit was lost, and the node had read no row beyond. So its reading finds nothing wrong.
    Gap(
        _LOSS._replace(name="a lost commit of the node's own", events=(0, 0), again=False),
        "followers_were_told_all",
    ),
)
