"""The network: virtual time, and TCP connections that delay, stall and break. In one connection order holds, between two nothing does."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

#: Frames that may be on their way, or lie unread at the client, before the hub's transport takes no more.
WINDOW = 3


class Clock:
    """Virtual time: what is to happen when, in an order that depends on nothing but what was asked."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._asked = 0

    def __call__(self) -> float:
        return self.now

    def at(self, when: float, then: Callable[..., None], *args: Any) -> None:
        """Call `then(*args)` at that time, after all that was asked for the same time before."""
        self._asked += 1
        heapq.heappush(self._heap, (max(when, self.now), self._asked, then, args))

    def after(self, seconds: float, then: Callable[..., None], *args: Any) -> None:
        self.at(self.now + seconds, then, *args)

    def run(self, until: float) -> None:
        """Let everything happen that is due by `until`."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, then, args = heapq.heappop(heap)
            then(*args)
        self.now = until


class End(Protocol):
    """One end of a link."""

    def arrived(self, link: Link, what: str, payload: Any) -> None:
        """Something came."""
        ...

    def ended(self, link: Link) -> None:
        """The connection is gone, without a word."""
        ...


class Hub(End, Protocol):
    """The hub's end of a link."""

    def resume(self) -> None:
        """There is room again."""
        ...


class Link:
    """A TCP connection between a client and the hub. While `broken`, all that is sent is lost; each end learns it in its own time."""

    def __init__(self, clock: Clock, rng: random.Random, client: End) -> None:
        self._clock = clock
        self._random = rng.random
        self._latency = rng.choice((0.001, 0.005, 0.02, 0.1))
        self.client = client
        self.hub: Hub | None = None
        self.broken = False
        self.reading = True
        self.confirmed = -1  # the commit that the last confirmation came of
        self.granted: frozenset[str] | None = None  # the events of that confirmation
        self.denied = False
        self.told_first = 0.0  # frames that the hub had to say when it accepted this connection
        self.came = 0  # frames that came
        self.newest = -1  # commit that something came of
        self.unread: deque[tuple[str, Any]] = deque()
        self.on_the_way = 0  # down
        self.going_up = 0
        self._up = self._down = 0.0  # when the last thing sent arrives

    @property
    def full(self) -> bool:
        """Whether the hub's transport takes no more."""
        return self.on_the_way + len(self.unread) >= WINDOW

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way, and nothing lies unread."""
        return not self.on_the_way and not self.going_up and not self.unread

    def down(self, what: str, payload: Any = None) -> None:
        """The hub sends."""
        self.on_the_way += 1
        if not self.broken:
            self._down = max(self._down, self._clock.now + self._delay())
            self._clock.at(self._down, self._downward, what, payload)

    def up(self, what: str, payload: Any = None) -> None:
        """The client sends."""
        if not self.broken:
            self.going_up += 1
            self._up = max(self._up, self._clock.now + self._delay())
            self._clock.at(self._up, self._upward, what, payload)

    def read(self) -> None:
        """The client reads again."""
        self.reading = True
        while self.unread and self.reading and not self.broken:
            self.client.arrived(self, *self.unread.popleft())
        if not self.broken and self.hub is not None:
            self.hub.resume()

    def cut(self, hub_learns: float | None, client_learns: float | None) -> None:
        """Nothing arrives any more; each end learns it after so many seconds (None: never, unless it finds out)."""
        if self.broken:
            return
        self.broken = True
        if hub_learns is not None and self.hub is not None:
            self._clock.after(hub_learns, self.hub.ended, self)
        if client_learns is not None:
            self._clock.after(client_learns, self.client.ended, self)

    def _delay(self) -> float:
        share = self._random()
        return self._latency * (1 + share) if share < 0.97 else self._latency + 2.5 * self._random()

    def _downward(self, what: str, payload: Any) -> None:
        if self.broken:
            return
        self.on_the_way -= 1
        if self.reading and not self.unread:
            self.client.arrived(self, what, payload)
            if self.hub is not None:
                self.hub.resume()
        else:
            self.unread.append((what, payload))

    def _upward(self, what: str, payload: Any) -> None:
        if not self.broken and self.hub is not None:
            self.going_up -= 1
            self.hub.arrived(self, what, payload)
