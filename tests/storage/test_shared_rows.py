"""The rows of a store that several nodes share: another node that applies the changed rows has the same session."""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from msgspec.structs import replace

from fhircast_hub.core.rules.last_opens import NOTHING_OPENED
from fhircast_hub.core.state.commands import Command
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import Audience, Content, LastOpen, Outgoing, Queue, Session, Shared
from fhircast_hub.storage.row_reader import apply_changes, session_of
from fhircast_hub.storage.rows import changes, shared_changes
from tests.core.world import CLOSES, OPENS, World, frozen, patient
from tests.simulation.posts import REALM
from tests.simulation.script import script
from tests.simulation.world import World as Simulated
from tests.storage.shared_rows_world import SHARED_KINDS, Follower, Walk
from tests.storage.sqlite_world import FULL, KEY

Rows = list[tuple[str, str, bytes | None]]

SEEDS, STEPS = 8, 250
EVENT_REF = EventRef("e1", "e1", "Patient-open")
AUDIENCES = (
    Audience(frozenset({"patient-open", "home-open"}), (LastOpen("patient/p1"), *NOTHING_OPENED[1:]), ("c-1", "c-2")),
    Audience(frozenset({"heartbeat"}), NOTHING_OPENED, ("hook-1",)),
)
HOOKS = frozenset({"hook-1"})
SHARED = replace(FULL, audiences=AUDIENCES, webhook_connections=HOOKS, next_heartbeat=30.5, poster="n1")


def rows_of(before: Session | None, after: Session | None) -> Rows:
    return [(kind, name, body) for (_, _, kind, name), body in shared_changes(KEY, before, after)]


def kinds_of(rows: Rows) -> dict[str, dict[str, bytes]]:
    kinds: dict[str, dict[str, bytes]] = {}
    for kind, name, body in rows:
        assert body is not None
        kinds.setdefault(kind, {})[name] = body
    return kinds


@pytest.fixture(scope="module")
def walks() -> list[Walk]:
    """Random walks. Each command was followed by a second node."""
    walks = [Walk(seed) for seed in range(SEEDS)]
    for walk in walks:
        for _ in range(STEPS):
            walk.step()
    return walks


def test_another_node_has_the_session_after_each_command(walks: list[Walk]) -> None:
    """The walks follow, accept each kind of command, and refuse some."""
    accepted = sum((walk.accepted for walk in walks), Counter[str]())
    assert {kind.__name__ for kind in typing.get_args(Command)} == set(accepted)
    assert accepted.total() > SEEDS * STEPS / 2
    assert sum(walk.refused for walk in walks) > SEEDS


@pytest.mark.parametrize("seed", range(4))
def test_another_node_has_the_session_after_each_commit_of_a_simulation(seed: int) -> None:
    run = Simulated(script(seed))
    run.run()
    last: Session | None = None
    follower = Follower(KEY._replace(realm=REALM, topic="a-topic"))
    for commit in run.store.commits:
        if commit.submission.topic == "a-topic":
            for before, after in ((last, commit.before), (commit.before, commit.after)):
                if before is not after:
                    follower.follow(before, after)
            last = commit.after
    assert len(run.store.commits) > 20


def test_a_session_arrives_whole() -> None:
    """Where the session was not known, and where all its rows are read."""
    rows = rows_of(None, SHARED)
    assert apply_changes(None, KEY, rows) == SHARED
    assert session_of(*KEY, kinds_of(rows[::-1])) == SHARED
    assert session_of(*KEY, kinds_of([row for row in rows if row[0] not in SHARED_KINDS])) == FULL


def test_subscriptions_are_read_by_the_time_of_their_connection_or_loss() -> None:
    first = FULL.subscriptions["subscription_id"]
    ids = {"c": 3.0, "b": 1.0, "a": 3.0}
    parts = {id_: replace(first, subscription_id=id_, connected_or_lost_at=at) for id_, at in ids.items()}
    session = session_of(*KEY, kinds_of(rows_of(None, replace(SHARED, subscriptions=parts))))
    assert list(session.subscriptions) == ["b", "a", "c"]


def test_posts_of_another_subscription_are_taken_over_in_order() -> None:
    """The older post goes before the newer one, and the queue of the other subscription is gone."""
    older, newer = Outgoing("old", EVENT_REF, b"older"), Outgoing("hook", EVENT_REF, b"newer")
    before = replace(SHARED, outbox={"old": Queue({3: older}, 5), "hook": Queue({5: newer}, 5)}, last_post_number=5)
    taken = replace(older, subscription_id="hook")
    expected = replace(before, outbox={"hook": Queue({3: taken, 5: newer}, 10)})
    after = apply_changes(before, KEY, rows_of(before, expected))
    assert after == expected
    assert list(after.outbox["hook"].posts) == [3, 5]
    newest_first = sorted(rows_of(None, before), reverse=True)
    assert list(session_of(*KEY, kinds_of(newest_first)).outbox) == ["old", "hook"]


def test_full_urls_that_stay_are_the_same_object() -> None:
    """One resource has a new entry with the fullUrl of before."""
    entries = [b'{"fullUrl":"urn:uuid:1","resource":{"n":%d}}' % number for number in (1, 2)]
    contents = [
        Content({"observation/1": Shared(1, entry)}, len(entry), (b"1",), {"urn:uuid:1": "observation/1"})
        for entry in entries
    ]
    before, expected = (replace(SHARED, contents={"patient/p1": content}) for content in contents)
    after = apply_changes(before, KEY, rows_of(before, expected))
    assert after == expected
    assert after.contents["patient/p1"].urls is contents[0].urls


def test_a_forgotten_session_leaves_no_row() -> None:
    """A session that begins again in the same transaction has nothing of the session of before."""
    gone, begun = rows_of(SHARED, None), replace(FULL, contexts={}, outbox={}, home=b"", contents={})
    assert {row[:2] for row in gone} == {row[:2] for row in rows_of(None, SHARED)}
    assert all(body is None for _, _, body in gone)
    assert apply_changes(SHARED, KEY, gone) is None
    assert apply_changes(SHARED, KEY, gone + rows_of(None, begun)) == begun
    assert apply_changes(None, KEY, gone) is None


def test_an_open_does_not_write_the_names_of_a_thousand_connections() -> None:
    """The names stay the same object at another node."""
    world = World()
    world.join("viewer", f"{OPENS},{CLOSES}")
    assert world.session
    (audience,) = world.session.audiences
    crowd = replace(audience, members=(*audience.members, *(f"c-{number}" for number in range(999))))
    before = replace(world.session, audiences=(crowd,))
    world.session = before
    world.publish("Patient-open", patient("p1"))
    rows = rows_of(before, world.session)
    assert [kind for kind, _, _ in rows] == ["head", "context", "audience"]
    after = apply_changes(before, KEY, rows)
    assert after == world.session
    assert after.audiences[0].members is crowd.members
    assert after.subscriptions is before.subscriptions


def test_connections_are_written_only_when_they_change() -> None:
    """Equal members are not written, even where they are another object. Nor is an equal row of connections."""
    same = replace(
        SHARED, audiences=tuple(replace(audience, members=tuple(sorted(audience.members))) for audience in AUDIENCES)
    )
    assert [kind for kind, _, _ in rows_of(SHARED, same)] == ["head"]
    again = replace(SHARED, webhook_connections=frozenset(["hook-1"]))
    assert [kind for kind, _, _ in rows_of(SHARED, again)] == ["head"]
    for changed in (replace(SHARED, next_heartbeat=60.5), replace(SHARED, poster="n2"), replace(SHARED, poster="")):
        rows = rows_of(SHARED, changed)
        assert [kind for kind, _, _ in rows] == ["head", "connections"]
        after = apply_changes(SHARED, KEY, rows)
        assert after == changed
        assert after.webhook_connections is SHARED.webhook_connections


@pytest.mark.parametrize("place", range(len(rows_of(None, SHARED))), ids=lambda place: rows_of(None, SHARED)[place][0])
def test_a_row_that_cannot_be_read_is_refused(place: int) -> None:
    """The session of before stays as it was."""
    rows, value = rows_of(None, SHARED), frozen(SHARED)
    kind, name, _ = rows[place]
    rows[place] = kind, name, b"\xc1"
    for session in (SHARED, None):
        with pytest.raises(msgspec.MsgspecError):
            apply_changes(session, KEY, rows)
    with pytest.raises(msgspec.MsgspecError):
        session_of(*KEY, kinds_of(rows))
    assert frozen(SHARED) == value


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda rows: rows[1:], KeyError),
        (lambda rows: [row for row in rows if row[:2] != ("members", "1")], KeyError),
        (lambda rows: [row for row in rows if row[:2] != ("audience", "0")], KeyError),
        (lambda rows: [row for row in rows if row[1] != "0"], KeyError),
        (lambda rows: [(kind, "x" if kind == "retained" else name, body) for kind, name, body in rows], ValueError),
    ],
    ids=["no head", "no members", "no audience", "a gap", "no number"],
)
def test_rows_that_do_not_belong_together_are_refused(change: Callable[[Rows], Rows], error: type[Exception]) -> None:
    rows = change(rows_of(None, SHARED))
    with pytest.raises(error):
        apply_changes(None, KEY, rows)
    with pytest.raises(error):
        session_of(*KEY, kinds_of(rows))


def test_a_store_with_one_process_has_no_connections() -> None:
    assert not {kind for (_, _, kind, _), _ in changes(KEY, None, SHARED)} & SHARED_KINDS
    assert list(changes(KEY, None, SHARED)) == list(changes(KEY, None, FULL))
