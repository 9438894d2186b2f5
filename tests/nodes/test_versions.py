"""The checker of updates: histories that it must refuse. Each mutant is the accepted history with one change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.nodes.checker import Record
from tests.nodes.versions import check_versions

TOPIC = "report"


def _update(event: str, prior: str, begin: float, status: int = 202) -> Record:
    times = {"begin": begin, "end": begin + 0.5}
    return {"op": "update", "topic": TOPIC, "event": event, "prior": prior, "status": status, **times}


def _told(event: str, prior: str, version: str) -> Record:
    return {"at": 0.0, "update": event, "prior": prior, "version": version}


def _version(begin: float, version: str) -> Record:
    return {"op": "version", "topic": TOPIC, "begin": begin, "end": begin + 0.1, "version": version}


def _connection(name: str, *frames: Record, **more: Any) -> Record:
    return {"op": "connection", "topic": TOPIC, "name": name, "frames": list(frames), "open": True, **more}


def _opened(version: str) -> Record:
    return {"at": 0.0, "event": "open r1", "version": version}


def _history() -> list[Record]:
    """Versions 0 to 3. Of two updates on version 0 one wins; the update to version 2 got no answer."""
    first, second, third = _told("a", "0", "1"), _told("c", "1", "2"), _told("d", "2", "3")
    return [
        _update("a", "0", 1),
        _update("b", "0", 1, 409),
        _update("c", "1", 2, 0),
        _update("d", "2", 3),
        _version(1.6, "1"),
        _version(1.7, "2"),
        _version(4, "3"),
        _connection("throughout", _opened("0"), first, second, third),
        _connection("mover", _opened("0"), first, open=False),
        _connection("mover", second, _opened("2"), third),
    ]


def _frames(place: int, *frames: Record) -> Callable[[list[Record]], object]:
    return lambda history: history[place].update(frames=list(frames))


MUTANTS: dict[str, tuple[str, Callable[[list[Record]], object]]] = {
    "two winners": ("does not follow 0", lambda history: history[1].update(status=202)),
    "an accepted update is lost": ("was answered with 202", lambda history: history.append(_update("e", "3", 5))),
    "an update is refused": ("refused with 400", lambda history: history[1].update(status=400)),
    "others are told another winner": ("has the successors", _frames(8, _opened("0"), _told("b", "0", "x"))),
    "a gap": ("throughout was at 1", _frames(7, _opened("0"), _told("a", "0", "1"), _told("d", "2", "3"))),
    "an open of an old version": ("mover was at 2", _frames(9, _told("c", "1", "2"), _opened("1"))),
    "the last update is not told": ("not told the last version", _frames(9, _opened("2"))),
    "GET answers an old version": ("is older than 3", lambda history: history.append(_version(4, "2"))),
}


def test_a_history_that_holds() -> None:
    assert check_versions(_history(), TOPIC) == []


@pytest.mark.parametrize("mistake", MUTANTS)
def test_mutants_of_the_history(mistake: str) -> None:
    said, change = MUTANTS[mistake]
    history = _history()
    change(history)
    found = check_versions(history, TOPIC)
    assert any(said in line for line in found), found
