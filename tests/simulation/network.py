"""The network: virtual time, and TCP connections that delay, stall and break. Each connection keeps the order of its frames."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

#: Frames in flight, or unread at the client, at which the hub's transport is full.
WINDOW = 3


class Clock:
    """Virtual time. Calls are made in the order of their times, and for equal times in the order of planning."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._asked = 0

    def __call__(self) -> float:
        return self.now

    def at(self, when: float, then: Callable[..., None], *args: Any) -> None:
        """Call `then(*args)` at this time."""
        self._asked += 1
        heapq.heappush(self._heap, (max(when, self.now), self._asked, then, args))

    def after(self, seconds: float, then: Callable[..., None], *args: Any) -> None:
        self.at(self.now + seconds, then, *args)

    def run(self, until: float) -> None:
        """Make all calls that are due by `until`."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, then, args = heapq.heappop(heap)
            then(*args)
        self.now = until


class End(Protocol):
    """One end of a link."""

    def arrived(self, link: Link, what: str, payload: Any) -> None:
        """A frame, ping, pong or close was received."""
        ...

    def ended(self, link: Link) -> None:
        """The connection ended without a close frame."""
        ...


class Hub(End, Protocol):
    """The hub's end of a link."""

    def resume(self) -> None:
        """The transport takes frames again."""
        ...


class Link:
    """A TCP connection between a client and the hub. On a broken one all frames are lost; each end learns of the break later."""

    def __init__(self, clock: Clock, rng: random.Random, client: End) -> None:
        self._clock = clock
        self._random = rng.random
        self._latency = rng.choice((0.001, 0.005, 0.02, 0.1))
        self.client = client
        self.hub: Hub | None = None
        self.broken = False
        self.reading = True
        self.confirmed = -1  # commit of the last confirmation
        self.granted: frozenset[str] | None = None  # events of the last confirmation
        self.denied = False
        self.replay_size = 0.0  # frames that waited when the hub accepted this connection
        self.came = 0  # received frames
        self.newest = -1  # newest commit of a received frame
        self.unread: deque[tuple[str, Any]] = deque()
        self.on_the_way = 0  # down
        self.going_up = 0
        self._up = self._down = 0.0  # arrival of the last frame

    @property
    def full(self) -> bool:
        """Whether the hub's transport is full."""
        return self.on_the_way + len(self.unread) >= WINDOW

    @property
    def idle(self) -> bool:
        """Whether no frame is in flight or unread."""
        return not self.on_the_way and not self.going_up and not self.unread

    def down(self, what: str, payload: Any = None) -> None:
        """Send from the hub to the client."""
        self.on_the_way += 1
        if not self.broken:
            self._down = max(self._down, self._clock.now + self._delay())
            self._clock.at(self._down, self._downward, what, payload)

    def up(self, what: str, payload: Any = None) -> None:
        """Send from the client to the hub."""
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
        """Break the connection. Each end is told after so many seconds; None: never, so its pings must find out."""
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
