"""Where events wait for their handlers, and are acknowledged in time (FHIRcast 3.0.0, 2.5): one event after the other."""

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
#: Events that may wait for their handlers; what comes beyond them is answered with 503.
MOST_WAITING = 256
_OVERTAKEN = 0
_OK, _ACCEPTED, _CONFLICT, _FAILED, _OVERLOADED = 200, 202, 409, 500, 503
#: The handlers that the code that runs was called by.
_INSIDE: ContextVar[tuple[object, ...]] = ContextVar("inside", default=())

Handler = Callable[[Event], Awaitable[None] | None]
#: Answers an event: its status, and the reason of a refusal.
Answer = Callable[[int, str | None], None]


class Ids(Protocol):
    """Finds whom an event is about, such as an IdentityMap; raises Refuse."""

    async def find(self, event: Event) -> Any: ...


@dataclass(frozen=True, slots=True)
class Handling:
    """The handler of the events of a name, and who finds whom they are about."""

    name: str
    handler: Handler
    ids: Ids | None


class Delivery:
    """An event on its way to its handler, answered once, where `answer` is given.

    `applies` is asked when its turn has come. `told`: the hub only named it when it was asked what is open. `again`: neither its age
    nor that it is a repeat counts. `done` is completed with whether it was followed.
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
        """From now on it is answered in time: "202: has successfully received the event but has not yet taken action"."""
        if self._answer is None:
            return
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(timings.accept_after, self._accept))
        if self.event.kind not in (Kind.UPDATE, Kind.SELECT):
            self._timers.append(loop.call_later(timings.give_up, give_up, self))

    def answer(self, status: int, reason: str | None = None) -> bool:
        """Answer it; False when it had been answered with 202 before."""
        self._stop_timers()
        if self._answer is not None and not self.accepted:
            self._answer(status, reason)
        return not self.accepted

    def finish(self, followed: bool) -> None:
        """Its turn is over."""
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
    """Hands events to their handlers, one after the other, in the order in which they came.

    `handlings` are the handlers by name in lower case. `free` is held while an own open or close is on its way; `tell` posts a
    SyncError, `changed` learns that the status may be another one; `known` waits until what is shared in a context is known, if it is
    on its way.
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
        """The names of the events that have a handler."""
        return [handling.name for handling in self._handlings.values()]

    @property
    def inside(self) -> bool:
        """Whether the caller is a handler, or was called by one."""
        return self._at_work and self in _INSIDE.get()

    def add(self, name: str, handler: Handler, ids: Ids | None) -> None:
        """Raises ValueError where there is one already."""
        if name.lower() in self._handlings:
            raise ValueError(f"expected one handler for {name}, got a second")
        if wrong := misspelt(name):
            _log.warning("%s", wrong)
        self._handlings[name.lower()] = Handling(name, handler, ids)

    def handles(self, name: str) -> bool:
        """Whether events of this name have a handler."""
        return name.lower() in self._handlings

    def deliver(self, delivery: Delivery) -> None:
        """Let it have its turn."""
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
        """Until all that came before now has had its turn."""
        nothing = Delivery(make_event("", "heartbeat", ()), applies=lambda: False)
        self._waiting.here.put_nowait(nothing)
        await nothing.done

    async def run(self) -> None:
        """Until `end` was called, or cancelled."""
        self._last = False
        while not self._last:
            delivery = await self._waiting.here.get()
            self._at_work = True
            try:
                await self._handle(delivery)
            except Exception as error:  # of the engine's: the next event must have its turn
                log_failure("an event could not be handled", error)
                self._engine.unreadable()
                delivery.answer(_FAILED)
            finally:
                self._at_work = False
                delivery.finish(False)
                self._changed()

    def end(self) -> None:
        """The handler that runs, if one does, is the last."""
        self._last = True

    def clear(self) -> None:
        """Nothing waits any more."""
        while not self._waiting.here.empty():
            self._waiting.here.get_nowait().finish(False)

    async def _handle(self, delivery: Delivery) -> None:
        verdict = await self._verdict(delivery)
        if verdict is Verdict.FOLLOW:
            await self._follow(delivery)
        elif verdict is not None:
            delivery.answer(_OK)

    async def _verdict(self, delivery: Delivery) -> Verdict | None:
        """What is to be done with it, once no own open or close is on its way; None where it does not apply any more."""
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
        """Status and reason."""
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
        """Whether the application opened something else while it was found out whom the event is about: it must go on showing that."""
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
