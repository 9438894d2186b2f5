"""A cache of answers. Concurrent callers share one request."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fhircast_identity.local import Local, Query

Answer = tuple[Local, ...]
#: Seconds for which an answer is kept that leads to a refusal: somebody may be about to correct the data.
REFUSED_SECONDS = 3.0


@dataclass
class _Kept:
    answer: Answer
    until: float


class Answers:
    """At most `size` answers, each for `seconds`. The least recently used one is dropped. Failures are not kept."""

    def __init__(self, seconds: float, size: int, clock: Callable[[], float]) -> None:
        self._seconds, self._size, self._clock = seconds, size, clock
        self._kept: OrderedDict[Query, _Kept] = OrderedDict()
        self._asked: dict[Query, asyncio.Task[Answer]] = {}

    async def get(self, query: Query, ask: Callable[[Query], Awaitable[Answer]]) -> Answer:
        """The answer to `query`. Calls `ask` where the answer is unknown, and raises its exceptions."""
        kept = self._kept.get(query)
        if kept and kept.until > self._clock():
            self._kept.move_to_end(query)
            return kept.answer
        task = self._asked.get(query)
        if task is None:
            task = self._asked[query] = asyncio.ensure_future(self._ask(query, ask))
            task.add_done_callback(lambda done: self._answered(query, done))
        # A caller that is cancelled must not cancel the request of the others.
        return await asyncio.shield(task)

    def expire_soon(self, query: Query) -> None:
        """Keep this answer only for a short time, because it has led to a refusal."""
        if kept := self._kept.get(query):
            kept.until = min(kept.until, self._clock() + REFUSED_SECONDS)

    async def _ask(self, query: Query, ask: Callable[[Query], Awaitable[Answer]]) -> Answer:
        answer = await ask(query)
        certain = len({local.id for local in answer}) == 1
        seconds = self._seconds if certain else min(self._seconds, REFUSED_SECONDS)
        self._kept[query] = _Kept(answer, self._clock() + seconds)
        self._kept.move_to_end(query)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return answer

    def _answered(self, query: Query, task: asyncio.Task[Answer]) -> None:
        self._asked.pop(query, None)
        if not task.cancelled():
            task.exception()  # otherwise asyncio reports a failure that nobody waits for any more
