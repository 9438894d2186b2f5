"""The core on several nodes, with clients of many behaviours and a bad network: a few hundred seeds."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import pytest

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import closing, joining, missed_events
from fhircast_hub.core.state.commands import AcksTimedOut
from tests.simulation import pictures, run
from tests.simulation import world as world_of_a_run
from tests.simulation.mutants import MUTANTS, Mutant, mutated
from tests.simulation.pictures import no_ended_derived_open_is_shown
from tests.simulation.posts import FULL, INTERESTS, NOON
from tests.simulation.run import check, failure, report, shrunk
from tests.simulation.script import Behaviour, Op, Script, script
from tests.simulation.shown import last_opens_do_not_depend_on_join_time
from tests.simulation.world import World

#: Dice of a cut that the hub is told of at once.
HEARD = 1
PROMPT = Behaviour("prompt", "same", FULL, INTERESTS[0], "an-app", "a-topic", None)

#: Seeds of a test, and number of tests. `make simulate` runs more.
SEEDS, PARTS = 50, 6


@pytest.mark.req(
    *(
        "SUB-3",
        "SUB-20",
        "SUB-11",
        "SUB-12",
        "SUB-22",
        "SUB-23",
        "LEA-4",
        "UNS-6",
        "CTX-1",
        "CTX-2",
        "CTX-5",
        "CTX-6",
        "CTX-7",
    ),
    *(
        "EVT-1",
        "EVT-11",
        "EVT-12",
        "EVT-13",
        "EVT-14",
        "EVT-16",
        "EVT-17",
        "EVT-20",
        "DER-7",
        "DER-3",
        "DER-4",
        "DER-5",
        "DER-9",
    ),
    *("SYN-1", "SYN-2", "SYN-3", "SYN-4", "SYN-5", "SYN-6", "SYN-7", "SYN-8", "SYN-10", "SYN-11", "SYN-13", "SYN-14"),
    *("CON-1", "CON-2", "CON-3", "CON-4", "CON-6", "CON-19", "CON-8", "CON-9", "CON-10", "CON-11"),
    *("CON-16", "CON-18", "LIM-1", "GET-6", "NOD-1", "NOD-2"),
)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_invariant_holds(part: int) -> None:
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        failed = check(seed)
        assert failed is None, report(failed)


@pytest.mark.req("SYN-6")
def test_a_viewer_that_never_acknowledges_works_for_an_hour() -> None:
    """Under the default policy no subscriber is reported, and no subscription is lost."""
    behaviours = PROMPT, PROMPT._replace(answers="silent", name="a-viewer")
    opens = tuple(Op(12.0, "open", 0, dice) for dice in range(300))
    world = World(
        script(1)._replace(nodes=2, rules=Rules(), policy=Policy.LENIENT, behaviours=behaviours, operations=opens)
    )
    world.run()
    assert world.clock.now - NOON > 3600
    assert not [commit for commit in world.store.commits if isinstance(commit.submission.command, AcksTimedOut)]
    assert len(world.oracle.topics["a-topic"].connected()) == 2


@pytest.mark.req("SUB-23", "LIM-1")
def test_clients_that_are_cut_every_second_leave_no_ghosts() -> None:
    """Twelve clients, for two minutes. Half of them subscribe again, half return to their endpoints."""
    behaviours = tuple(
        PROMPT._replace(returns=returns, name=f"app-{number}-{returns}")
        for number in range(6)
        for returns in ("anew", "same")
    )
    cuts = tuple(
        Op(1 / len(behaviours), "cut", number % len(behaviours), HEARD) for number in range(120 * len(behaviours))
    )
    world = World(
        script(2)._replace(
            nodes=2, rules=Rules(), policy=Policy.LENIENT, queue_messages=256, behaviours=behaviours, operations=cuts
        )
    )
    world.run()
    sessions = [commit.after for commit in world.store.commits if commit.after is not None]
    assert len(sessions) > 500
    assert max(len(session.subscriptions) for session in sessions) <= 2 * len(behaviours)
    assert len(sessions[-1].subscriptions) == len(behaviours)
    assert len(sessions[-1].retained) + len(sessions[-1].recent) + len(sessions[-1].contexts) == 0


@pytest.mark.req("DER-9", "CTX-7", "CTX-8")
@pytest.mark.parametrize(
    ("function", "text", "by"),
    [
        (closing.close_context, "if context is not None", "if False"),
        (closing.Corrector._correct_type, "open_=plan.opened_by[type_]", "open_=None"),
        (joining.plan_replay, "is_shown(last_opened, derived_type, context.implied[derived_type])", "True"),
    ],
)
def test_frames_alone_show_that_last_opens_depend_on_the_time_of_joining(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], text: str, by: str
) -> None:
    """Without the oracle: a joiner is sent another context than the one of a derived open that was not ended."""
    monkeypatch.setattr(world_of_a_run, "AFTER_EACH_DECISION", (last_opens_do_not_depend_on_join_time,))
    monkeypatch.setattr(pictures, "check_at_rest", lambda _: None)
    mutant = Mutant("a derived open stays", function, text, by, ("last_opens_do_not_depend_on_join_time",))
    assert_only_the_mutant_is_caught(mutant, coming_and_going)


def assert_only_the_mutant_is_caught(mutant: Mutant, script_of: Callable[[int], Script]) -> None:
    """All scripts hold without the mistake. With it, scripts fail by exactly the invariants `caught_by`."""
    assert {failure(script_of(seed)) for seed in range(SEEDS)} == {None}
    with mutated(mutant):
        found = {failed.invariant for seed in range(SEEDS) if (failed := failure(script_of(seed))) is not None}
    assert found == set(mutant.caught_by)


def coming_and_going(seed: int) -> Script:
    """A client publishes. Four viewers, of patients or of studies too, crash and subscribe again and again."""
    dice = random.Random(seed)
    viewers = [PROMPT._replace(returns="anew", events=INTERESTS[place], name="") for place in (3, 3, 7, 7)]
    operations = tuple(
        Op(0.5 + dice.random(), what, dice.randrange(1, 5) if what == "crash" else 0, dice.getrandbits(32))
        for what in dice.choices(("open", "close", "crash"), (4, 4, 2), k=60)
    )
    return script(seed)._replace(
        rules=Rules(), policy=Policy.OFF, queue_messages=256, behaviours=(PROMPT, *viewers), operations=operations
    )


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize(
    ("function", "text", "by"),
    [
        (closing.close_context, "if context is not None", "if False"),
        (closing.end_derived_opens, "tuple(effects), retained", "tuple(effects), []"),
    ],
)
def test_frames_alone_show_a_derived_open_that_did_not_end(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], text: str, by: str
) -> None:
    """Without the oracle: a client that was away when a derived open ended still shows its context."""
    monkeypatch.setattr(world_of_a_run, "AFTER_EACH_DECISION", ())
    monkeypatch.setattr(pictures, "AT_REST", ())
    monkeypatch.setattr(pictures, "OF_EACH_FOLLOWER", (no_ended_derived_open_is_shown,))
    mutant = Mutant("a derived open stays", function, text, by, ("no_ended_derived_open_is_shown",))
    assert_only_the_mutant_is_caught(mutant, cut_and_back)


def cut_and_back(seed: int) -> Script:
    """A client publishes. Four clients with some of its events are cut off, and return to their endpoints."""
    dice = random.Random(seed)
    patients, studies = INTERESTS[3][:2], INTERESTS[7][:4]
    interests = patients, studies, (*patients, *INTERESTS[2][:2]), (*studies, "Encounter-open", "Encounter-close")
    operations = tuple(
        Op(0.2 + dice.random(), what, dice.randrange(1, 5) if what == "cut" else 0, dice.getrandbits(32))
        for what in dice.choices(("open", "close", "cut", "home", "quiet"), (25, 25, 15, 1, 10), k=60)
    )
    return script(seed)._replace(
        rules=Rules(),
        policy=Policy.OFF,
        queue_messages=256,
        behaviours=(PROMPT, *(PROMPT._replace(events=events, name="") for events in interests)),
        operations=operations,
    )


def test_a_seed_is_one_run() -> None:
    first, second = World(script(7)), World(script(7))
    first.run()
    second.run()
    assert [commit.after for commit in first.store.commits] == [commit.after for commit in second.store.commits]
    assert first.clock.now == second.clock.now


def test_a_failure_is_shrunk() -> None:
    """Few operations are left, and they suffice for the failure."""
    with mutated(
        MUTANTS[0]._replace(
            function=missed_events.retain,
            text="retained=retained, dropped_closes=_with_dropped(dropped_closes, oldest_first)",
            by="retained={}, dropped_closes={}",
        )
    ):
        found = next(failed for seed in range(SEEDS) if (failed := check(seed)) is not None)
        small = shrunk(script(found.seed), found)
        assert small.invariant == found.invariant == "missed_events_are_sent"
        assert len(small.operations) < len(found.operations) / 4
        assert failure(script(found.seed)._replace(operations=small.operations)) is not None
        assert f"make simulate SEED={found.seed}" in report(found)


def test_one_command_runs_a_seed_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The output names the invariant and the operations that suffice. The exit code is 1."""
    broken = MUTANTS[0]
    with mutated(broken):
        seed = next(seed for seed in range(SEEDS) if check(seed) is not None)
        monkeypatch.setattr(sys, "argv", ["run", "--seed", str(seed)])
        assert run.main() == 1
        told = capsys.readouterr().out
        assert f"seed {seed} fails: {broken.caught_by[0]}" in told
        assert "shrunk to" in told
    assert run.main() == 0
    assert capsys.readouterr().out == f"seed {seed} holds\n"
