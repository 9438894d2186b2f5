"""Mutants: the algorithm with a single mistake. A search of the named scenario must break one of the named invariants."""

from __future__ import annotations

from typing import NamedTuple

from fhircast_hub.core import decide
from fhircast_hub.core.rules import connections, content
from tests.model import database, duties, following
from tests.model.scenarios import Scenario
from tests.model.world import Budget
from tests.simulation.mutants import Mutant

#: Sockets at each node, or at some.
EACH, ONE = ((0, 0), (0, 1), (0, 2)), ((0, 0),)

PLAIN = Scenario("two events", events=(0, 0), subs=EACH)
THREE = Scenario("three events", events=(0, 0, 0), subs=EACH)
NOTICES = Scenario("two events with notices", events=(0, 0), subs=EACH, notices=True)
SESSIONS = Scenario("two sessions", events=(0, 1), subs=((0, 2), (1, 2)))
SLOW = SESSIONS._replace(name="two sessions, with slow commits", slow_commits=True)
SLEEP = Scenario("a node sleeps", events=(0,), subs=ONE, budget=Budget(sleeps=1))
SLOW_SLEEP = SLEEP._replace(name="a node sleeps during a slow commit", slow_commits=True, nodes=2)
DEATH = Scenario("a node dies", events=(0,), subs=EACH, budget=Budget(deaths=1, returns=1), time=True)
FAILOVER = Scenario("a failover", events=(0, 0), subs=EACH, budget=Budget(failovers=1))
POSTS = Scenario("a callback", events=(0,), subs=((0, 1),), callback=True)
POSTS_SLEEP = Scenario(
    "a callback, and its node sleeps", events=(0,), subs=(), callback=True, budget=Budget(sleeps=1), nodes=2
)
POSTS_DEATH = Scenario("a callback, and its node dies", events=(0,), subs=(), callback=True, budget=Budget(deaths=1))
POSTS_LOST = Scenario("a callback, and a lost answer", (0,), subs=(), callback=True, budget=Budget(lost_answers=1))
LOSS = Scenario(
    "an asynchronous failover",
    (0, 0),
    subs=((0, 0), (0, 1)),
    budget=Budget(failovers=1),
    lost_rows=1,
    again=True,
    nodes=2,
)
LOST = Scenario("updates and a lost answer", updates=True, events=(0, 0), subs=EACH, budget=Budget(lost_answers=1))


class InModel(NamedTuple):
    """A mutant, and the scenario whose search must find it."""

    mutant: Mutant
    scenario: Scenario


MUTANTS = (
    InModel(
        Mutant(
            "a post overtakes those that have yet to be begun anew",
            duties.holds_posts,
            "resumes(node, topic) and not values.waiting_posts(after) <= set(posts)",
            "False",
            ("posts_come_in_order",),
        ),
        POSTS_LOST,
    ),
    InModel(
        Mutant(
            "a node commits and confirms before it knows that the database lost commits",
            following.knows,
            "not newest[0] or newest in map(place_of, world.log)",
            "True",
            ("reads_are_fresh", "database_holds_what_was_decided"),
        ),
        LOSS,
    ),
    InModel(
        Mutant(
            "a node does not look for its own commits in the log",
            following.has_lost_own,
            "not set(node.own) <= set(map(place_of, world.log))",
            "False",
            ("followers_were_told_all",),
        ),
        LOSS._replace(name="an asynchronous failover, other positions", again=False, nodes=3),
    ),
    InModel(
        Mutant(
            "commits are not compared with the revision",
            database.is_current,
            "world.sessions[commit.cause.topic].revision == commit.expected",
            "True",
            ("one_commit_for_each_revision", "database_holds_what_was_decided"),
        ),
        PLAIN,
    ),
    InModel(
        Mutant(
            "a node delivers what the notice says, instead of the log",
            following.take_notice,
            "return read_log(values, world, n)",
            "row = next(row for row in world.log if row.written == written)\n"
            "    return duties.hand_on(values, world, n, row.topic, row.before, row.before, row.effects, written)",
            ("sockets_are_told_the_log",),
        ),
        NOTICES,
    ),
    InModel(
        Mutant(
            "the cursor is a serial id: a later commit may have a lower one",
            database.positions_are_locked,
            "bool(world.begun)",
            "False",
            ("followers_were_told_all", "later_requests_come_later"),
        ),
        SLOW,
    ),
    InModel(
        Mutant(
            "the standby that takes over is asynchronous",
            database.lost_rows,
            "scenario.lost_rows",
            "1",
            ("accepted_events_stay",),
        ),
        FAILOVER,
    ),
    InModel(
        Mutant(
            "a node that was marked dead is not fenced",
            database.may_write,
            "not is_marked(world, commit.node)",
            "True",
            ("dead_nodes_write_nothing",),
        ),
        SLEEP,
    ),
    InModel(
        Mutant(
            "every node that hears of a post claims it",
            duties.posts_here,
            "== name",
            '!= ""',
            ("one_node_posts",),
        ),
        POSTS,
    ),
    InModel(
        Mutant(
            "a node that may have been marked dead posts",
            duties.may_post,
            "node.life == UP",
            "node.life in (0, 1)",
            ("one_node_posts",),
        ),
        POSTS_SLEEP,
    ),
    InModel(
        Mutant(
            "nobody takes over the posts of a dead node",
            connections.node_lost,
            "effects + webhook_outbox.unfinished(session, env.now) if takes_over else effects",
            "effects",
            ("no_post_is_lost",),
        ),
        POSTS_DEATH,
    ),
    InModel(
        Mutant(
            "a node is marked while its commit is under way",
            database.may_mark,
            "and all(row.origin != name for row in world.begun)",
            "",
            ("dead_nodes_write_nothing",),
        ),
        SLOW_SLEEP,
    ),
    InModel(
        Mutant(
            "a node skips what others committed before its own commit",
            following.skip_own,
            "position == node.cursor + 1",
            "position > node.cursor",
            ("followers_were_told_all",),
        ),
        SESSIONS._replace(name="two sessions of one node"),
    ),
    InModel(
        Mutant(
            "a node reads its own commit before the commit is answered",
            following.answer_comes_first,
            "row.origin == node.name and node.commit is not None and place_of(row) not in node.own",
            "False",
            ("sockets_are_told_the_log",),
        ),
        PLAIN,
    ),
    InModel(
        Mutant(
            "a node reads again what it has committed itself",
            following.read_log,
            "if place_of(row) in now.own:",
            "if False:",
            ("sockets_are_told_the_log", "nobody_waits"),
        ),
        SESSIONS._replace(name="two sessions, sockets at the writer", subs=((0, 0), (1, 0), (0, 1), (1, 1))),
    ),
    InModel(
        Mutant(
            "a read is answered without asking the database",
            database.confirms,
            "world.sessions[topic].revision == revision",
            "True",
            ("reads_are_fresh",),
        ),
        PLAIN,
    ),
    InModel(
        Mutant(
            "a repeated update is applied again",
            content.apply_update,
            "return None",
            "event = replace(event, versions=(context.version,))",
            ("accepted_events_stay",),
        ),
        LOST,
    ),
    InModel(
        Mutant(
            "a node skips its own commit of which it had no answer",
            following.hear,
            "return duties.abandon(values, world, n, topic)",
            "return world",
            ("followers_were_told_all",),
        ),
        Scenario("a lost answer", events=(0,), subs=ONE, budget=Budget(lost_answers=1)),
    ),
    InModel(
        Mutant(
            "a loss is reported by each node that ticks",
            decide._tick,
            "after = connections.stop_waiting(after, subscription)",
            "",
            ("losses_are_reported_once",),
        ),
        DEATH,
    ),
    InModel(
        Mutant(
            "the sockets of other nodes are lost too",
            connections._lose_sockets,
            "each.connection and node_of(each.connection) == command.node",
            "each.connection",
            ("losses_are_reported_once",),
        ),
        DEATH,
    ),
    InModel(
        Mutant(
            "a fenced node keeps its sockets",
            duties.begin_anew,
            "if sub.node == node.name:",
            "if False:",
            ("fenced_nodes_have_no_sockets",),
        ),
        SLEEP,
    ),
)
