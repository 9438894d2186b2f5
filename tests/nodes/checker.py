"""Checker: do the histories of all clients fit the one order of each session's events? Returns the violations.

The checker knows the hub's promises only, and none of its code. A history is a list of records, with monotonic times in seconds:
- post: `topic`, `event` (`open p` or `close p`, each event of its own patient), `begin`, `end`, `status` (0: no answer)
- get: `topic`, `begin`, `end`, `patient` (of the current context, "": there is none)
- connection: `name` of the subscriber, `topic`, `node`, `endpoint`, `begin` (of the handshake), `confirmed`, `end`,
  `open` (whether it was still open when the run ended), `left` (whether the subscriber then stayed away on purpose), `code`,
  and `frames`: each `at` with `event`, or with `lost` (the name of a lost subscriber) and `id` (of the SyncError)
- fault: `kind`, `nodes`, `begin`, `end`
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

Record = dict[str, Any]
ACCEPTED, SERVER_ERROR = 202, 500
#: Seconds that an absence must stay below RECONNECT_GRACE, for clients and hubs notice its ends at different times.
MARGIN = 0.5
#: Seconds after which an event that was answered with 202 is late at a socket of a node without trouble.
LATE = 5.0
#: Seconds after which an absent subscriber must have been reported: its node is dead after some, and an outage takes some.
REPORTED = 25.0
#: Contexts that a session may have open. With one more, the oldest is closed.
MOST_OPEN = 64
#: Seconds without its database, or asleep, after which others may count a node as dead. Its sockets are lost then.
DEAD = 7.5


class Order:
    """The one order of a topic's events, and what must be true at each place. Place n is after n events."""

    def __init__(self, topic: str, events: Sequence[str], history: Iterable[Record]) -> None:
        self.events = list(events)
        self.places = {event: place for place, event in enumerate(events)}
        self.posts = [each for each in history if each["op"] == "post" and each["topic"] == topic]
        self.begun: dict[str, float] = {}
        for post in self.posts:
            self.begun[post["event"]] = min(post["begin"], self.begun.get(post["event"], post["begin"]))
        self.accepted = sorted(
            (each["end"], self.places.get(each["event"], -1)) for each in self.posts if each["status"] == ACCEPTED
        )
        #: The newest open that is not closed, and what GET answers.
        self.newest, self.shown = [""], [""]
        #: Closes of contexts that had to make room.
        self.evicted: set[str] = set()
        opened: dict[str, None] = {}
        for event in events:
            patient = _patient(event)
            if _closes(event):
                if len(opened) > MOST_OPEN:
                    self.evicted.add(event)
                opened.pop(patient, None)
                self.shown.append("" if self.shown[-1] == patient else self.shown[-1])
            else:
                opened[patient] = None
                self.shown.append(patient)
            self.newest.append(next(reversed(opened), ""))
        self._times = [at for at, _ in self.accepted]
        self._most = [0]
        for _, place in self.accepted:
            self._most.append(max(self._most[-1], place + 1))

    def least(self, at: float) -> int:
        """The place that everybody must have reached who asks at this time: all that was answered with 202 before."""
        return self._most[bisect_left(self._times, at)]

    def most(self, at: float) -> int:
        """The place that nobody can be beyond at this time: what was not posted before cannot be known."""
        return 1 + max(
            (self.places[each] for each, begun in self.begun.items() if begun < at and each in self.places), default=-1
        )

    def repeated(self, event: str) -> bool:
        """Whether somebody posted the event more than once."""
        return [post["event"] for post in self.posts].count(event) > 1


def check(history: Sequence[Record], orders: Mapping[str, Sequence[str]], grace: float) -> list[str]:
    """All violations, a line each. `orders` are the events of each topic, `grace` is RECONNECT_GRACE in seconds."""
    found: list[str] = []
    topics = sorted({each["topic"] for each in history if "topic" in each})
    for topic in topics:
        order = Order(topic, orders.get(topic, ()), history)
        connections = sorted(
            (each for each in _of(history, "connection") if each["topic"] == topic), key=lambda each: each["begin"]
        )
        found += [f"{topic}: {line}" for line in _posts(order)]
        found += [
            f"{topic}: {line}" for get in _of(history, "get") if get["topic"] == topic for line in _get(order, get)
        ]
        faults = list(_of(history, "fault"))
        found += [f"{topic}: {line}" for line in _streams(order, connections, faults)]
        found += [f"{topic}: {line}" for line in _losses(connections, faults, grace)]
    return found


def _posts(order: Order) -> Iterable[str]:
    """Every 202 is in the order, no event twice, and none that began after another's 202 comes before that."""
    if len(order.places) < len(order.events):
        yield f"events are in the order twice: {sorted({each for each in order.events if order.events.count(each) > 1})}"
    yield from (
        f"{event} is in the order, and nobody posted it"
        for event in order.events
        if event not in order.begun and event not in order.evicted
    )
    for post in order.posts:
        if post["status"] not in (0, ACCEPTED) and post["status"] < SERVER_ERROR:
            yield f"{post['event']} was refused with {post['status']}"
    for event in {post["event"] for post in order.posts if post["status"] == ACCEPTED}:
        if event not in order.places:
            yield f"{event} was answered with 202, and is not in the order"
    for event, begun in order.begun.items():
        if event in order.places and order.places[event] < order.least(begun):
            yield f"{event} began after the 202 of {order.events[order.least(begun) - 1]}, and comes before it in the order"


def _get(order: Order, get: Record) -> Iterable[str]:
    """An answer is as new as the last 202 before its request, and not from the future."""
    least, most = order.least(get["begin"]), order.most(get["end"])
    if get["patient"] not in order.shown[least : most + 1]:
        yield f"GET at {get['begin']:.3f} answers {get['patient'] or 'nothing'}, which is older or newer than it may be"


def _streams(order: Order, connections: Sequence[Record], faults: Sequence[Record]) -> Iterable[str]:
    """What each connection was sent; a returning subscriber is sent all closes since."""
    reached: dict[str, int] = {}
    for each in connections:
        place = _stream(order, each, reached.get(each["endpoint"]))
        where = f"{each['name']} at node {each['node']}, connected at {each['confirmed']:.3f}"
        if place is None:
            yield f"{where}: {_events(each)} is no replay and part of the order"
            reached.pop(each["endpoint"], None)
            continue
        reached[each["endpoint"]] = place
        end = each["end"] if each["open"] else _first(each, faults)
        for post in order.posts:
            told = post["status"] != ACCEPTED or order.places.get(post["event"], -1) < place
            if not told and order.begun[post["event"]] > each["confirmed"] and post["end"] < end - LATE:
                yield f"{where}: was not told {post['event']}, which was answered with 202 at {post['end']:.3f}"
                break


def _stream(order: Order, connection: Record, reached: int | None) -> int | None:
    """The place that a connection reached. None: its frames are not a replay and then all events from there on."""
    seen = [event for event, _ in groupby(_events(connection))]  # a repeat of the newest event is sent again
    for split in range(len(seen) + 1):
        live = seen[split:]
        if live and live[0] not in order.places:
            return None
        starts = [order.places[live[0]]] if live else list(range(len(order.events), -1, -1))
        if live and order.repeated(live[0]):
            starts.append(starts[0] + 1)
        for start in starts:
            new = live[1:] if live and start > order.places[live[0]] else live
            follows = order.events[start : start + len(new)] == new and start >= order.least(connection["begin"])
            if follows and _is_replay(order, seen[:split], start, reached):
                return start + len(new)
    return None


def _is_replay(order: Order, replay: list[str], start: int, reached: int | None) -> bool:
    """Closes from before, in their order, with all since `reached`; then the newest open that is not closed, always."""
    newest = [f"open {order.newest[start]}"] if order.newest[start] else []
    closes = replay[: len(replay) - len(newest)]
    if replay[len(closes) :] != newest or not all(map(_closes, closes)):
        return False
    places = [order.places.get(each, start) for each in closes]
    missed = {each for each in order.events[start if reached is None else reached : start] if _closes(each)}
    return all(one < other for one, other in pairwise([*places, start])) and missed <= set(closes)


def _losses(connections: Sequence[Record], faults: Sequence[Record], grace: float) -> Iterable[str]:
    """A subscriber that is back in time is not reported lost. A subscriber that stays away is reported once."""
    reports: dict[str, dict[str, float]] = {}
    for frame in (frame for each in connections for frame in each["frames"] if "lost" in frame):
        ids = reports.setdefault(frame["lost"], {})
        ids[frame["id"]] = min(frame["at"], ids.get(frame["id"], frame["at"]))
    finish = max((each["end"] for each in connections), default=0.0)
    for name in {each["name"] for each in connections} | set(reports):
        own = [each for each in connections if each["name"] == name]
        backs = [each["confirmed"] for each in own[1:]] + [finish]
        absences = [
            (_first(each, faults, lost=True), back, each)
            for each, back in zip(own, backs[: len(own)], strict=True)
            if not each["open"]
        ]
        for at in sorted(reports.get(name, {}).values()):
            causes = [each for each in absences if _explains(each[0], each[1], at, grace)]
            if causes:
                absences.remove(causes[0])  # one absence explains one report
            else:
                yield f"{name} is reported lost at {at:.3f}, once too often or though in time"
        for begin, back, each in absences:
            if each["left"] and back - begin > REPORTED and _witnessed(connections, faults, begin):
                yield f"{name} is not reported lost, absent from {begin:.3f} to {back:.3f}"


def _explains(begin: float, back: float, at: float, grace: float) -> bool:
    """Whether an absence is long enough for a report at this time."""
    return back - begin > grace - MARGIN and begin + grace - MARGIN < at < back + REPORTED


def _witnessed(connections: Sequence[Record], faults: Sequence[Record], begin: float) -> bool:
    """Whether somebody was connected from now on until a report must have come."""
    return any(each["confirmed"] < begin and _first(each, faults, lost=True) > begin + REPORTED for each in connections)


def _first(connection: Record, faults: Sequence[Record], *, lost: bool = False) -> float:
    """The end of a connection, or the first fault of its node before. `lost`: only faults by which a node loses its sockets."""
    begun = [
        each["begin"]
        for each in faults
        if connection["node"] in each["nodes"] and each["end"] > connection["confirmed"]
        if not lost or each["kind"] == "kill" or each["end"] - each["begin"] > DEAD
    ]
    return float(min([connection["end"], *begun]))


def _events(connection: Record) -> list[str]:
    return [frame["event"] for frame in connection["frames"] if "event" in frame]


def _of(history: Iterable[Record], operation: str) -> Iterable[Record]:
    return (each for each in history if each["op"] == operation)


def _closes(event: str) -> bool:
    return event.startswith("close ")


def _patient(event: str) -> str:
    return event.partition(" ")[2]
