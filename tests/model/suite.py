"""The scenarios that are searched: some in each run of the tests, all by `make model`.

The budgets say which faults may come, in any combination and at any step. Sockets, deaths, sleeps and returns of subscribers
multiply the states. So the short scenarios have fewer events where they have more faults.

A thousand states take a third of a second. Measured numbers of states with four events: 11,576 without a fault, 12,000 of updates
with a death, 175,151 of updates with lost answers and a failover, 227,105 of updates with a sleep, 605,416 of opens with
a lost answer. Opens have more than updates: each open is another revision. Opens with a death or a failover were not counted.
"""

from __future__ import annotations

from tests.model.scenarios import Scenario
from tests.model.world import Budget

_EACH, _TWO, _ONE = ((0, 0), (0, 1), (0, 2)), ((0, 0), (0, 1)), ((0, 0),)
_TWO_SESSIONS = ((0, 2), (1, 2))
_POSTS = Scenario("posts of an event, a lost answer", (0,), callback=True, subs=(), budget=Budget(lost_answers=1))
#: The database loses its last commit, and gives the commit's position to another one.
_LOSS = Scenario(
    "two events, an asynchronous failover",
    (0, 0),
    subs=_TWO,
    budget=Budget(failovers=1),
    lost_rows=1,
    again=True,
    nodes=2,
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
    _POSTS,
    _POSTS._replace(name="posts of an event, a failover", budget=Budget(failovers=1)),
    Scenario("posts of an event, a death", events=(0,), callback=True, subs=(), budget=Budget(deaths=1)),
    _LOSS,
    _LOSS._replace(name="two events, an asynchronous failover, other positions", again=False),
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
    _POSTS._replace(name="posts of two events, a lost answer", events=(0, 0)),
)
