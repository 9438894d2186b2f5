"""The queue of events in front of their handlers, with their acknowledgements (FHIRcast 3.0.0, 2.5)."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from fhircast_client.engine import Engine
from fhircast_client.errors import Refuse
from fhircast_client.event_loops import PerLoop
from fhircast_client.event_names import misspelt
from fhircast_client.events import Event, Kind, make_event
from fhircast_client.failures import log_failure
from fhircast_client.following import Verdict
from fhircast_client.timestamps import now
from fhircast_client.timings import Timings

_log = logging.getLogger("fhircast_client")
#: Events in the queue. Further events are answered with 503.
MOST_WAITING = 256
_OVERTAKEN = 0
_OK, _ACCEPTED, _CONFLICT, _FAILED, _OVERLOADED = 200, 202, 409, 500, 503
#: The inboxes whose handlers called the running code.
_INSIDE: ContextVar[tuple[object, ...]] = ContextVar("inside", default=())

Handler = Callable[[Event], Awaitable[None] | None]
#: Sends an acknowledgement: its status, and the reason of a refusal.
Answer = Callable[[int, str | None], None]


class Ids(Protocol):
    """Finds the local id of an event's resource, such as an IdentityMap. Raises Refuse."""

    async def find(self, event: Event) -> Any: ...


@dataclass(frozen=True, slots=True)
class Handling:
    """The handler of an event name, with its `ids`."""

    name: str
    handler: Handler
    ids: Ids | None


class Delivery:
    """An event in the queue. `answer` sends its acknowledgement, once.

    `applies` is called when the event has its turn. `queried`: the event is the answer to "Get Current Context".
    `retry`: skip the checks for age and repeats. `done` gets whether the event was followed.
    """

    def __init__(
        self,
        event: Event,
        answer: Answer | None = None,
        *,
        applies: Callable[[], bool] = lambda: True,
        queried: bool = False,
        retry: bool = False,
    ) -> None:
        self.event, self.applies, self.queried, self.retry = event, applies, queried, retry
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self._timers: list[asyncio.TimerHandle] = []
        self.accepted = False
        self.given_up = False

    def start(self, timings: Timings, give_up: Callable[[Delivery], None]) -> None:
        """Start the timers that acknowledge in time: "202: has successfully received the event but has not yet taken
        action"."""
        if self._answer is None:
            return
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(timings.accept_after, self._accept))
        if self.event.kind not in (Kind.UPDATE, Kind.SELECT):
            self._timers.append(loop.call_later(timings.give_up, give_up, self))

    def answer(self, status: int, reason: str | None = None) -> bool:
        """Acknowledge the event. Returns False where a 202 was sent before."""
        self._stop_timers()
        if self._answer is not None and not self.accepted:
            self._answer(status, reason)
        return not self.accepted

    def finish(self, followed: bool) -> None:
        """The turn of the event is over."""
        self._stop_timers()
        if not self.done.done():
            self.done.set_result(followed)

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def _accept(self) -> None:
        if self._answer is not None:
            self._answer(_ACCEPTED, None)
            self.accepted = True


class Inbox:
    """Calls the handlers, one event after the other, in the order in which the events came.

    `handlings`: handlers by lower-case event name. `free`: a lock, held while an own open or close is being posted.
    `tell` posts a SyncError. `changed` is called when the status may have changed. `known` waits for the content of a
    context that is being fetched.
    """

    def __init__(
        self,
        engine: Engine,
        handlings: dict[str, Handling],
        timings: Timings,
        *,
        free: PerLoop[asyncio.Lock],
        tell: Callable[[Event, str], None],
        changed: Callable[[], None],
        known: Callable[[str], Awaitable[None]],
    ) -> None:
        self._engine, self._handlings, self._timings = engine, handlings, timings
        self._free, self._tell, self._changed, self._known = free, tell, changed, known
        self._waiting: PerLoop[asyncio.Queue[Delivery]] = PerLoop(asyncio.Queue)
        self._at_work = False
        self._last = False

    @property
    def names(self) -> list[str]:
        """Names of the events that have a handler."""
        return [handling.name for handling in self._handlings.values()]

    @property
    def inside(self) -> bool:
        """Whether a handler is the caller, directly or indirectly."""
        return self._at_work and self in _INSIDE.get()

    def add(self, name: str, handler: Handler, ids: Ids | None) -> None:
        """Raises ValueError for a second handler of the name."""
        if name.lower() in self._handlings:
            raise ValueError(f"{name} has a handler already")
        if wrong := misspelt(name):
            _log.warning("%s", wrong)
        self._handlings[name.lower()] = Handling(name, handler, ids)

    def handles(self, name: str) -> bool:
        """Whether events of this name have a handler."""
        return name.lower() in self._handlings

    def deliver(self, delivery: Delivery) -> None:
        """Put an event into the queue."""
        if self._waiting.here.qsize() >= MOST_WAITING:
            if delivery.event.kind is not Kind.SYNC_ERROR:
                why = "too many events wait for their handlers"
                self._engine.refused(delivery.event, why, is_over=False)
                delivery.answer(_OVERLOADED, why)
                self._changed()
            delivery.finish(False)
            return
        delivery.start(self._timings, self._give_up)
        self._waiting.here.put_nowait(delivery)

    async def idle(self) -> None:
        """Wait until all events that are in the queue now had their turn."""
        nothing = Delivery(make_event("", "heartbeat", ()), applies=lambda: False)
        self._waiting.here.put_nowait(nothing)
        await nothing.done

    async def run(self) -> None:
        """Runs until `end` is called, or until cancelled."""
        self._last = False
        while not self._last:
            delivery = await self._waiting.here.get()
            self._at_work = True
            try:
                await self._handle(delivery)
            except Exception as error:  # a fault of the engine must not stop the queue
                log_failure("an event could not be handled", error)
                self._engine.unreadable()
                delivery.answer(_FAILED)
            finally:
                self._at_work = False
                delivery.finish(False)
                self._changed()

    def end(self) -> None:
        """The handler that runs now is the last one."""
        self._last = True

    def clear(self) -> None:
        """Drop all events in the queue."""
        while not self._waiting.here.empty():
            self._waiting.here.get_nowait().finish(False)

    async def _handle(self, delivery: Delivery) -> None:
        verdict = await self._verdict(delivery)
        if verdict is Verdict.FOLLOW:
            await self._follow(delivery)
        elif verdict is not None:
            delivery.answer(_OK)

    async def _verdict(self, delivery: Delivery) -> Verdict | None:
        """The verdict for an event, once no own open or close is being posted. None: the event does not apply any more."""
        async with self._free.here:
            if not delivery.applies():
                return None
            return self._engine.begin_turn(delivery.event, now(), retry=delivery.retry)

    async def _follow(self, delivery: Delivery) -> None:
        event = delivery.event
        if event.kind is Kind.UPDATE:
            await self._known(event.anchor)
        status, reason = await self._call(delivery)
        if status == _OVERTAKEN:
            self._engine.overtaken()
            delivery.answer(_OK)
            return
        if status == _OK:
            opened = self._engine.followed(event, now(), queried=delivery.queried)
        else:
            opened = self._engine.refused(event, reason, shows=status != _CONFLICT)
        if opened is not None:
            self.deliver(Delivery(opened, applies=partial(self._engine.races.may_be_shown, opened), retry=True))
        self._changed()
        in_time = delivery.answer(status, reason if status == _CONFLICT else None)
        delivery.finish(status == _OK)
        if status != _OK and not in_time and not delivery.given_up:
            self._refuse_late(event, reason)

    async def _call(self, delivery: Delivery) -> tuple[int, str]:
        """Returns status and reason."""
        event = delivery.event
        handling = self._handlings.get(event.name.lower())
        if handling is None:
            return _OK, ""
        token = _INSIDE.set((*_INSIDE.get(), self))
        try:
            if handling.ids is not None:
                event = event.with_local(await handling.ids.find(event))
                if await self._was_overtaken(delivery):
                    return _OVERTAKEN, ""
            result = handling.handler(event)
            if inspect.isawaitable(result):
                await result
        except Refuse as refusal:
            return _CONFLICT, refusal.reason
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            return _FAILED, "it was cancelled"
        except Exception as error:
            log_failure(f"the handler of {event.name} failed", error)
            return _FAILED, f"it failed ({type(error).__name__})"
        finally:
            _INSIDE.reset(token)
        return _OK, ""

    async def _was_overtaken(self, delivery: Delivery) -> bool:
        """Whether the application opened another context while the local id was looked up. The application must go on
        showing that context."""
        return await self._verdict(delivery) is not Verdict.FOLLOW

    def _give_up(self, delivery: Delivery) -> None:
        """ "If the Subscriber cannot determine whether it will follow context within 10 seconds [...] it SHOULD send a SyncError"."""
        event = delivery.event
        if self._engine.verdict(event) is not Verdict.FOLLOW:
            return
        why = f"it was not done within {self._timings.give_up:g} s"
        delivery.given_up = True
        self._engine.refused(event, why, is_over=False)
        self._refuse_late(event, why)
        self._changed()

    def _refuse_late(self, event: Event, reason: str) -> None:
        if event.matters and self._engine.verdict(event) is Verdict.FOLLOW:
            self._tell(event, reason)
