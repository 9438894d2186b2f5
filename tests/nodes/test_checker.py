"""The checker of histories: what it must refuse. Each mutant is the accepted history with one thing that must not be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.nodes.checker import Record, check

TOPIC, GRACE = "t", 3.0
ORDER = ["open a", "open b", "close b", "open c", "close a", "open d"]


def _post(event: str, begin: float, end: float, status: int = 202) -> Record:
    return {"op": "post", "topic": TOPIC, "event": event, "begin": begin, "end": end, "status": status}


def _get(begin: float, patient: str) -> Record:
    return {"op": "get", "topic": TOPIC, "begin": begin, "end": begin + 0.1, "patient": patient}


def _connection(name: str, node: int, confirmed: float, end: float, *events: str, **more: Any) -> Record:
    record = {
        "op": "connection",
        "name": name,
        "topic": TOPIC,
        "node": node,
        "endpoint": name,
        "begin": confirmed - 0.1,
    }
    record |= {"confirmed": confirmed, "end": end, "open": False, "left": False, "code": 1006}
    return record | {"frames": [{"at": end, "event": each} for each in events]} | more


def _lost(name: str, at: float, id_: str = "1") -> Record:
    return {"at": at, "lost": name, "id": id_}


def _history() -> list[Record]:
    """A history that holds. Nobody knows of `open d`, for no answer came, and still it is in the order."""
    throughout = _connection("throughout", 1, 1, 90, *ORDER, open=True)
    throughout["frames"].append(_lost("leaver", 45))
    return [
        _post("open a", 2, 2.1),
        _post("open b", 3, 6, 0),
        _post("open b", 6.2, 6.3),
        _post("close b", 7, 7.1),
        _post("open c", 8, 8.1),
        _post("close a", 9, 9.1),
        _post("open d", 10, 13, 503),
        _post("open e", 11, 11.1, 503),
        _get(1, ""),
        _get(2.5, "a"),
        _get(7.5, ""),
        _get(9.5, "c"),
        throughout,
        # Its node is killed. It is back in time, and is sent the close that it missed, a close twice, and the newest open.
        _connection("mover", 0, 1, 7.2, "open a", "open b", "close b"),
        _connection("mover", 1, 9.3, 90, "close b", "close a", "open c", "open d", open=True),
        # A newest event is repeated: it is sent twice.
        _connection("late", 2, 6.5, 90, "open b", "close b", "open c", "open c", "close a", "open d", open=True),
        _connection("leaver", 3, 1, 40.5, *ORDER, left=True),
        {"op": "fault", "kind": "kill", "nodes": [0], "begin": 7.15, "end": 8},
        {"op": "fault", "kind": "stop", "nodes": [2], "begin": 20, "end": 25},
        {"op": "fault", "kind": "kill", "nodes": [3], "begin": 40, "end": 42},
    ]


def _named(history: list[Record], name: str, number: int = 0) -> Record:
    return [each for each in history if each.get("name") == name][number]


def _frames(name: str, *events: str, number: int = 0) -> Callable[[list[Record]], object]:
    """A change: a connection was sent these events instead."""
    return lambda history: _named(history, name, number).update(frames=[{"at": 20.0, "event": each} for each in events])


class Mutant(NamedTuple):
    """A history that must be refused, with these words; or another order of events."""

    mistake: str
    said: str
    change: Callable[[list[Record]], object] = lambda history: None
    order: list[str] = ORDER


MUTANTS = [
    Mutant("an accepted event is lost", "is not in the order", order=[each for each in ORDER if each != "close a"]),
    Mutant("an event is committed twice", "in the order twice", order=[*ORDER, "open c"]),
    Mutant("an event is nobody's", "nobody posted", order=[*ORDER, "open x"]),
    Mutant("an event is refused", "refused with 409", lambda history: history.append(_post("open f", 11, 12, 409))),
    Mutant(
        "a later event comes before an accepted one",
        "comes before it in the order",
        order=["open b", "open a", *ORDER[2:]],
    ),
    Mutant("GET answers an old context", "older or newer", lambda history: history.append(_get(8.5, "b"))),
    Mutant("GET answers a context of the future", "older or newer", lambda history: history.append(_get(7.5, "c"))),
    Mutant("GET answers nothing", "older or newer", lambda history: history.append(_get(9.5, ""))),
    Mutant("a gap in a stream", "throughout at node 1", _frames("throughout", *ORDER[:2], *ORDER[3:])),
    Mutant(
        "two events change places",
        "throughout at node 1",
        _frames("throughout", "open a", "open b", "open c", "close b", "close a", "open d"),
    ),
    Mutant("an event is told again later", "throughout at node 1", _frames("throughout", *ORDER, "close a")),
    Mutant("an event that is not in the order", "throughout at node 1", _frames("throughout", *ORDER, "open e")),
    Mutant("a stream ends early", "was not told", _frames("throughout", *ORDER[:3])),
    Mutant("a stream is silent", "was not told", _frames("throughout")),
    Mutant("no replay", "mover at node 1", _frames("mover", "close b", "close a", number=1)),
    Mutant("a close is missed", "mover at node 1", _frames("mover", "close b", "open c", "open d", number=1)),
    Mutant("an old replay", "late at node 2", _frames("late", "open a", "close b", "open c", "close a", "open d")),
    Mutant(
        "reported though back in time",
        "mover is reported lost",
        lambda history: _named(history, "throughout")["frames"].append(_lost("mover", 11, "2")),
    ),
    Mutant(
        "reported though its node slept for a moment only",
        "late is reported lost",
        lambda history: _named(history, "throughout")["frames"].append(_lost("late", 24, "2")),
    ),
    Mutant(
        "reported by two nodes",
        "leaver is reported lost",
        lambda history: _named(history, "late")["frames"].append(_lost("leaver", 46, "2")),
    ),
    Mutant(
        "reported before the time",
        "leaver is reported lost",
        lambda history: _named(history, "throughout")["frames"][-1].update(at=41),
    ),
    Mutant(
        "not reported",
        "leaver is not reported lost",
        lambda history: _named(history, "throughout")["frames"].pop(),
    ),
]


def test_a_history_that_holds() -> None:
    assert check(_history(), {TOPIC: ORDER}, GRACE) == []


def test_a_report_is_seen_by_many() -> None:
    history = _history()
    _named(history, "late")["frames"].append(_lost("leaver", 45.5))
    assert check(history, {TOPIC: ORDER}, GRACE) == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.mistake)
def test_mutants_of_the_history(mutant: Mutant) -> None:
    history = copy.deepcopy(_history())
    mutant.change(history)
    found = check(history, {TOPIC: mutant.order}, GRACE)
    assert any(mutant.said in line for line in found), found
