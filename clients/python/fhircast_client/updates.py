"""Updates and selects of shared content, and fetching of that content (FHIRcast 3.0.0, 2.9 and 2.10)."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from copy import deepcopy
from typing import Any

from fhircast_client.content import Shared
from fhircast_client.contexts import Context
from fhircast_client.engine import Engine
from fhircast_client.errors import HubError, TokenError
from fhircast_client.event_loops import PerLoop
from fhircast_client.event_signal import EventSignal
from fhircast_client.events import Event, make_event
from fhircast_client.hub import Hub
from fhircast_client.timings import Timings
from fhircast_client.update_bundle import Change, Content, Entries, read_current, select_context, update_context

Changes = Iterable[Change] | Callable[[Content], Iterable[Change] | Awaitable[Iterable[Change]]]
_log = logging.getLogger("fhircast_client")
_CONFLICT = 409
#: Calls of a function that makes the changes, at most.
_MOST_ATTEMPTS = 5


class Updates:
    """Changes and fetches shared content. `post` posts an event. `spawn` runs background tasks."""

    def __init__(
        self,
        hub: Hub,
        engine: Engine,
        topic: str,
        timings: Timings,
        event_signal: EventSignal,
        *,
        post: Callable[[Event], Awaitable[Event]],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None],
    ) -> None:
        self._hub, self._engine, self._topic, self._timings, self._event_signal = (
            hub,
            engine,
            topic,
            timings,
            event_signal,
        )
        self._post, self._spawn = post, spawn
        self._one = PerLoop(asyncio.Lock)
        self._echoes: dict[str, asyncio.Event] = {}
        self._unknown: set[str] = set()
        self._fetching: asyncio.Task[None] | None = None

    async def update(self, changes: Changes, anchor: str) -> Event:
        """Post an update of a context. A function is called again where another update came first."""
        async with self._one.here:
            for attempt in range(1, _MOST_ATTEMPTS + 1):
                version, content = await self._newest(anchor, needs_content=callable(changes))
                wanted = await _changes_for(changes, content)
                try:
                    return await self._update(anchor, wanted, version, content.urls if content else {})
                except HubError as error:
                    if error.status != _CONFLICT:
                        raise
                    self._engine.content.mark_uncertain(anchor, version)
                    if attempt == _MOST_ATTEMPTS or not callable(changes):
                        raise
        raise AssertionError  # the loop returns or raises

    async def select(self, items: Iterable[Change], anchor: str) -> Event:
        """Post a selection."""
        context = select_context(anchor, items, self._engine.following.contexts.patient_of(anchor))
        return await self._post(make_event(self._topic, f"{anchor.partition('/')[0]}-select", context))

    async def fetch(self) -> Context | None:
        """The hub's current context, None for none. Its content is kept."""
        event, version, content = await self.current()
        if event is None:
            return None
        known = self._engine.following.contexts.opens.get(event.anchor, event)
        return Context(event.anchor, known, version, None if content is None else _copied(content))

    async def current(self) -> tuple[Event | None, str | None, Entries | None]:
        """The same as `read_current`. Raises HubError, also for an answer that cannot be read."""
        asked = self._engine.content.moment
        try:
            event, version, content = read_current(await self._hub.context(), self._topic)
        except ValueError as error:
            raise HubError(0, f"the hub's answer to the current context cannot be read: {error}") from None
        if event is not None:
            self._engine.content.fetched(event.anchor, version, content, asked=asked)
        return event, version, content

    def received(self, event: Event) -> None:
        """An event came, perhaps the echo of an own update."""
        if echo := self._echoes.get(event.id):
            echo.set()

    def fetch_unknown(self, anchor: str) -> None:
        """Fetch the content of a context, where it is unknown."""
        shared = self._engine.content.get(anchor)
        if shared is None or shared.content is not None or shared.is_contentless:
            return
        self._unknown.add(anchor)
        if self._fetching is None or self._fetching.done():
            self._fetching = self._spawn(self._fetch())

    async def known(self, anchor: str) -> None:
        """Wait until the content is fetched, so that a handler of an update finds it, up to the time of a request."""
        shared = self._engine.content.get(anchor)
        if shared and shared.content is None and self._fetching is not None:
            await asyncio.wait((self._fetching,), timeout=self._timings.request)

    async def _fetch(self) -> None:
        while self._unknown:
            self._unknown.clear()
            try:
                await self.current()
            except HubError as error:
                _log.info("the shared content could not be fetched (%s)", error.status)
                self._unknown.clear()
            shared = {anchor: self._engine.content.get(anchor) for anchor in self._unknown}
            self._unknown = {anchor for anchor, known in shared.items() if known and known.content is None}

    async def _update(
        self, anchor: str, changes: Iterable[Change], version: str | None, urls: Mapping[str, str]
    ) -> Event:
        name = _update(anchor)
        context = update_context(anchor, changes, self._engine.following.contexts.patient_of(anchor), urls)
        event = make_event(self._topic, name, context, version=version)
        echo = self._echoes[event.id] = asyncio.Event()
        try:
            await self._post(event)
            if not self._engine.is_granted(name):
                self._engine.content.mark_uncertain(anchor, version)
                return event
            try:
                async with asyncio.timeout(self._timings.echo):
                    await echo.wait()
            except TimeoutError:
                self._engine.content.mark_uncertain(anchor, version)
            return event
        finally:
            del self._echoes[event.id]

    async def _newest(self, anchor: str, *, needs_content: bool) -> tuple[str | None, Entries | None]:
        """Version and content of a context now. Asks the hub where they are unknown."""
        shared = self._engine.content.get(anchor)
        if not (shared and self._follows(anchor, shared) and (shared.content is not None or not needs_content)):
            try:
                await self.current()
            except TokenError:
                raise
            except HubError as error:
                _log.info("the shared content could not be fetched (%s)", error.status)
            shared = await self._after_query(anchor)
        return (shared.version, shared.content) if shared else (None, None)

    async def _after_query(self, anchor: str) -> Shared | None:
        """The content after a request. The answer tells only the current context: for another one, wait for the missing
        update."""

        def is_known() -> bool:
            shared = self._engine.content.get(anchor)
            return shared is None or shared.is_certain or not self._engine.is_granted(_update(anchor))

        await self._event_signal.until(is_known, self._timings.echo)
        return self._engine.content.get(anchor)

    def _follows(self, anchor: str, shared: Shared) -> bool:
        return shared.is_certain and shared.version is not None and self._engine.is_granted(_update(anchor))


def _update(anchor: str) -> str:
    return f"{anchor.partition('/')[0]}-update"


def _copied(content: Content) -> Content:
    """A copy that the application may change."""
    return deepcopy(dict(content))


async def _changes_for(changes: Changes, content: Content | None) -> list[Change]:
    """The changes, from a function with its own copy of the content. Raises HubError where the content is unknown."""
    if not callable(changes):
        return list(changes)
    if content is None:
        raise HubError(0, "the content of the context is unknown: the hub does not tell it")
    found = changes(_copied(content))
    return list(await found if inspect.isawaitable(found) else found)
