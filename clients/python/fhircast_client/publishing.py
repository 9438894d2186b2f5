"""What this application publishes (FHIRcast 3.0.0, 2.6 and 2.10), one open or close at a time, and what is sent again."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

from fhircast_client.contents import Shared
from fhircast_client.errors import HubError, TokenError
from fhircast_client.events import Event, Kind, kind_of, make_event
from fhircast_client.hub import Hub
from fhircast_client.outcomes import make_sync_error
from fhircast_client.sharing import Change, Content, Entries, read_current, select_context, update_context
from fhircast_client.state import Context, SessionState
from fhircast_client.timing import Backoff, Timings, timestamp_now

Changes = Iterable[Change] | Callable[[Content], Iterable[Change] | Awaitable[Iterable[Change]]]
_log = logging.getLogger("fhircast_client")
_CONFLICT = 409
#: How often a function makes its changes, and how often a SyncError is posted.
_MOST_ATTEMPTS = 5
_MOST_POSTS = 3
#: Seconds after which an open that was sent again and named by no SyncError counts as followed, beyond `resend`.
_QUIET = 2.0


class Publisher:
    """Posts events, and keeps the state in step with what the hub accepted. `changed` learns that the state did.

    `free` is held while an own open or close is on its way, so that what comes in the meantime waits for the hub's answer.
    """

    def __init__(
        self,
        hub: Hub,
        state: SessionState,
        topic: str,
        timings: Timings,
        *,
        name: str,
        granted: Callable[[str], bool],
        changed: Callable[[], None],
    ) -> None:
        self._hub, self._state, self._topic, self._timings, self._name = hub, state, topic, timings, name
        self._granted, self._changed = granted, changed
        self.free = asyncio.Lock()
        self._updating = asyncio.Lock()
        self._echoes: dict[str, asyncio.Event] = {}
        self._news = asyncio.Event()
        self._named: dict[str, asyncio.Event] = {}
        self._last_open: Event | None = None

    async def publish(
        self,
        name: str,
        context: Iterable[Mapping[str, Any]],
        *,
        id: str | None = None,
        timestamp: str | None = None,
    ) -> Event:
        """Post an event; the event, when the hub has accepted it."""
        if not kind_of(name).changes_context:
            return await self._post(make_event(self._topic, name, context, id=id, timestamp=timestamp))
        async with self.free:
            stamp = timestamp or timestamp_now(self._state.newest)
            return await self._post(make_event(self._topic, name, context, id=id, timestamp=stamp))

    async def update(self, changes: Changes, anchor: str) -> Event:
        """Post an update of what is shared in a context. A function is called again where somebody else was faster."""
        async with self._updating:
            for attempt in range(1, _MOST_ATTEMPTS + 1):
                version, content = await self._newest(anchor, needs_content=callable(changes))
                made = await _made(changes, content)
                try:
                    return await self._update(anchor, made, version, content.urls if content else {})
                except HubError as error:
                    if error.status != _CONFLICT:
                        raise
                    self._state.contents.doubt(anchor, version)
                    if attempt == _MOST_ATTEMPTS or not callable(changes):
                        raise
        raise AssertionError  # the loop returns or raises

    async def select(self, items: Iterable[Change], anchor: str) -> Event:
        """Post what is selected in a context."""
        context = select_context(anchor, items, self._state.patient_of(anchor))
        return await self._post(make_event(self._topic, f"{anchor.partition('/')[0]}-select", context))

    async def fetch(self) -> Context | None:
        """What the hub says is current, None for nothing; its content is known from now on."""
        event, version, content = await self.current()
        if event is None:
            return None
        return Context(event.anchor, event, version, None if content is None else _copied(content))

    async def current(self) -> tuple[Event | None, str | None, Entries | None]:
        """As `read_current`. Raises HubError, also for an answer that cannot be read."""
        asked = self._state.contents.moment
        try:
            event, version, content = read_current(await self._hub.context(), self._topic)
        except ValueError as error:
            raise HubError(0, f"the hub's answer to the current context cannot be read: {error}") from None
        if event is not None:
            self._state.contents.fetched(event.anchor, version, content, asked=asked)
        return event, version, content

    def came(self, event: Event) -> None:
        """An event came: perhaps an own update, perhaps one that was missing."""
        self._news.set()
        if echo := self._echoes.get(event.id):
            echo.set()

    async def refuse(self, about: Event, reason: str) -> None:
        """Tell the others that an event which was answered with 202 is not followed."""
        event = make_sync_error(self._topic, about, self._name, reason)
        backoff = Backoff(self._timings.backoff_first, self._timings.backoff_most)
        for _ in range(_MOST_POSTS):
            try:
                await self._post(event)
            except HubError as error:
                if isinstance(error, TokenError) or 400 <= error.status < 429:
                    break
                await asyncio.sleep(max(backoff.next(), error.retry_after or 0.0))
            else:
                return
        _log.warning("the others could not be told that an event is not followed")

    def to_resend(self, event_id: str) -> Event | None:
        """The own open that a SyncError named, where it is the newest and `resend` does not look after it already."""
        if named := self._named.get(event_id):
            named.set()
            return None
        event = self._last_open
        wanted = self._timings.resend and event is not None and event.id == event_id and self._state.is_newest(event)
        return event if wanted else None

    async def resend(self, event: Event) -> None:
        """ "SHOULD resend this event at regular intervals until sync is reestablished or another, newer, event has been received" (2.6)."""
        interval = self._timings.resend or 0.0
        named = self._named[event.id] = asyncio.Event()
        try:
            while True:
                await asyncio.sleep(interval)
                named.clear()  # before it is sent: who refuses at once may be heard of sooner than the hub's answer
                if not await self._sent_again(event):
                    return
                try:
                    async with asyncio.timeout(interval + _QUIET):
                        await named.wait()
                except TimeoutError:
                    self._state.sync.quiet(event.id)
                    self._changed()
                    return
        finally:
            del self._named[event.id]

    async def _sent_again(self, event: Event) -> bool:
        """Whether it was worth it: not once something newer came, or the hub says no."""
        async with self.free:
            if not self._state.is_newest(event):
                return False
            try:
                await self._hub.publish(event.body)
            except HubError as error:
                return error.status in (0, 429) or error.status >= 500
        return True

    async def _post(self, event: Event) -> Event:
        self._state.sending(event)
        before = self._last_open
        if event.kind in (Kind.OPEN, Kind.HOME):
            self._last_open = event
        try:
            await self._hub.publish(event.body)
        except BaseException as error:
            self._state.not_sent(event)
            if isinstance(error, HubError) and error.status and self._last_open is event:
                self._last_open = before  # it was refused: what was open before still is
            raise
        self._state.sent(event)
        if event.kind is Kind.CLOSE and not self._granted(event.name):
            self._state.contents.closed(event.anchor)
        elif event.kind is Kind.OPEN and not self._granted(event.name):
            self._state.contents.forget(event.anchor)
        self._changed()
        return event

    async def _update(
        self, anchor: str, changes: Iterable[Change], version: str | None, urls: Mapping[str, str]
    ) -> Event:
        name = _update(anchor)
        context = update_context(anchor, changes, self._state.patient_of(anchor), urls)
        event = make_event(self._topic, name, context, version=version)
        echo = self._echoes[event.id] = asyncio.Event()
        try:
            await self._post(event)
            if not self._granted(name):
                self._state.contents.doubt(anchor, version)
                return event
            try:
                async with asyncio.timeout(self._timings.echo):
                    await echo.wait()
            except TimeoutError:
                self._state.contents.doubt(anchor, version)
            return event
        finally:
            del self._echoes[event.id]

    async def _newest(self, anchor: str, *, needs_content: bool) -> tuple[str | None, Entries | None]:
        """Version and content of a context now; the hub is asked where they are not known."""
        shared = self._state.contents.get(anchor)
        if not (shared and self._follows(anchor, shared) and (shared.content is not None or not needs_content)):
            try:
                await self.current()
            except TokenError:
                raise
            except HubError as error:
                _log.info("what is shared could not be fetched (%s)", error.status)
            shared = await self._told(anchor)
        return (shared.version, shared.content) if shared else (None, None)

    async def _told(self, anchor: str) -> Shared | None:
        """What is known after the hub was asked. Of a context that is not current it says nothing: the missing update will come."""
        try:
            async with asyncio.timeout(self._timings.echo):
                while (
                    (shared := self._state.contents.get(anchor)) and not shared.sure and self._granted(_update(anchor))
                ):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return self._state.contents.get(anchor)

    def _follows(self, anchor: str, shared: Shared) -> bool:
        return shared.sure and shared.version is not None and self._granted(_update(anchor))


def _update(anchor: str) -> str:
    return f"{anchor.partition('/')[0]}-update"


def _copied(content: Content) -> Content:
    """For the application, which may do with it as it likes."""
    return deepcopy(dict(content))


async def _made(changes: Changes, content: Content | None) -> list[Change]:
    """The changes; a function is given a content of its own. Raises HubError where there is none to give."""
    if not callable(changes):
        return list(changes)
    if content is None:
        raise HubError(0, "what is shared in the context is not known: the hub does not tell")
    found = changes(_copied(content))
    return list(await found if inspect.isawaitable(found) else found)
