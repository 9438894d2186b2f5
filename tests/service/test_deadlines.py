"""Deadlines: each session gets its Tick once and in time, whatever was set before."""

from __future__ import annotations

import random

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.service.deadlines import Deadlines

A, B, C = (SessionKey("realm", name) for name in "abc")


def test_nothing_is_due_where_nothing_is_set() -> None:
    """Without a deadline, nothing is next."""
    deadlines = Deadlines()
    assert deadlines.next() is None
    assert deadlines.due(1e12) == []


def test_what_is_due_comes_once_in_order() -> None:
    """A deadline is due at its time, the earliest first. Then it is forgotten until it is set again."""
    deadlines = Deadlines()
    for key, at in ((B, 20.0), (A, 10.0), (C, 30.0)):
        deadlines.set(key, at)
    assert deadlines.due(9.999) == []
    assert deadlines.due(20.0) == [A, B]
    assert deadlines.due(20.0) == []
    assert deadlines.next() == 30.0
    deadlines.set(A, 20.0)
    assert deadlines.due(40.0) == [A, C]
    assert deadlines.next() is None


def test_only_what_becomes_the_earliest_is_told() -> None:
    """The timer is set anew when a deadline is now the earliest of all, and else left alone."""
    deadlines = Deadlines()
    assert deadlines.set(A, 10.0)
    assert not deadlines.set(B, 20.0)
    assert deadlines.set(B, 5.0)
    assert not deadlines.set(B, 5.0)
    assert not deadlines.set(A, 11.0)
    assert not deadlines.set(C, None)


def test_a_deadline_that_was_moved_is_due_at_its_new_time_only() -> None:
    """Sooner, later, removed or restored: the last deadline counts."""
    deadlines = Deadlines()
    deadlines.set(A, 10.0)
    deadlines.set(A, 30.0)
    assert deadlines.next() == 30.0
    assert deadlines.due(20.0) == []
    deadlines.set(A, 15.0)
    assert deadlines.due(20.0) == [A]
    assert deadlines.due(40.0) == []
    deadlines.set(B, 10.0)
    deadlines.set(B, None)
    assert deadlines.next() is None
    deadlines.set(B, 10.0)
    deadlines.set(B, 30.0)
    deadlines.set(B, 10.0)
    assert deadlines.due(40.0) == [B]
    assert deadlines.due(40.0) == []


def test_two_sessions_at_one_time_are_both_due() -> None:
    """Neither deadline hides the other."""
    deadlines = Deadlines()
    deadlines.set(B, 10.0)
    deadlines.set(A, 10.0)
    assert sorted(deadlines.due(10.0)) == [A, B]


def test_outdated_entries_do_not_pile_up() -> None:
    """A session that is renewed for years keeps a handful of entries, not one for each renewal."""
    deadlines = Deadlines()
    for at in range(10_000):
        deadlines.set(A, 1e9 + at)
        deadlines.set(B, 1e9 - at)
    assert len(deadlines._heap) < 100
    assert deadlines.due(2e9) == [B, A]


def test_it_agrees_with_a_list_that_is_searched() -> None:
    """Through ten thousand random changes, `next` and `due` equal a plain search."""
    chance = random.Random(4711)
    keys = [SessionKey("realm", str(number)) for number in range(40)]
    deadlines, plain = Deadlines(), dict[SessionKey, float]()
    for _ in range(10_000):
        key, at = chance.choice(keys), float(chance.randrange(1000))
        if chance.random() < 0.02:
            due = deadlines.due(at)
            assert sorted(due) == sorted(each for each, when in plain.items() if when <= at)
            times = [plain.pop(each) for each in due]
            assert times == sorted(times)
        elif chance.random() < 0.2:
            deadlines.set(key, None)
            plain.pop(key, None)
        else:
            changed = plain.get(key) != at
            plain[key] = at
            assert deadlines.set(key, at) == (changed and min(plain.values()) == at)
        assert deadlines.next() == min(plain.values(), default=None)
