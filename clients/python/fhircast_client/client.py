"""FHIRcastClient: takes part in a FHIRcast session."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Self, TypeVar, overload

import httpx

from fhircast_client.connection import Connection
from fhircast_client.contexts import Context
from fhircast_client.errors import HubError
from fhircast_client.event_loops import OneLoop
from fhircast_client.events import Event, Resource, WireMessage, context_of
from fhircast_client.failures import log_failure
from fhircast_client.hub import Hub
from fhircast_client.inbox import Delivery, Handler, Ids
from fhircast_client.session import Session
from fhircast_client.socket import Connect
from fhircast_client.socket import connect as open_channel
from fhircast_client.status import Status
from fhircast_client.timings import Timings
from fhircast_client.tokens import Tokens, TokenSource
from fhircast_client.update_bundle import Change, reference
from fhircast_client.updates import Changes

_log = logging.getLogger("fhircast_client")
_H = TypeVar("_H", bound=Handler)
_S = TypeVar("_S", bound=Callable[[Status], object])
_W = TypeVar("_W", bound=Callable[[WireMessage], object])


class FHIRcastClient:
    """A client of the session `topic` at the hub `hub_url`.

    `token`: the access token, or a function that returns one. The function is called for the first request, after a 401
    and for every renewal. `name`: the subscriber.name that other users read when this application does not follow.
    `lease_seconds`: the lease to ask for. `heartbeat`: subscribe to heartbeats where the hub has them. `tls`: the
    trusted certificates, by default those of the system. `http` and `connect` (from an endpoint to a WebSocket) replace
    the client's own.

    Raises ValueError for a hub.url without scheme or host, an empty topic, or a token that cannot be sent.
    """

    def __init__(
        self,
        hub_url: str,
        topic: str,
        *,
        token: TokenSource | None = None,
        name: str = "",
        lease_seconds: int | None = None,
        heartbeat: bool = True,
        timings: Timings = Timings(),  # noqa: B008  # it cannot be changed
        tls: ssl.SSLContext | None = None,
        http: httpx.AsyncClient | None = None,
        connect: Connect | None = None,
    ) -> None:
        self._name, self._timings, self._connect = name, timings, connect or partial(open_channel, tls=tls)
        self._lease_seconds, self._heartbeat = lease_seconds, heartbeat
        self._hub = Hub(
            hub_url, topic, tokens=Tokens(token), timeout=timings.request, wire=self._wire, http=http, tls=tls
        )
        self._session = Session(
            self._hub, topic, timings, name=name, spawn=self._spawn, changed=self._changed, wire=self._wire
        )
        self._loop = OneLoop()
        self._connection: Connection | None = None
        self._main: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._stopping = False
        self._error: BaseException | None = None
        self._on_status: list[Callable[[Status], object]] = []
        self._on_wire: list[Callable[[WireMessage], object]] = []

    # Before the start

    @overload
    def on(self, name: str, handler: None = None, *, ids: Ids | None = None) -> Callable[[_H], _H]: ...

    @overload
    def on(self, name: str, handler: _H, *, ids: Ids | None = None) -> _H: ...

    def on(self, name: str, handler: _H | None = None, *, ids: Ids | None = None) -> _H | Callable[[_H], _H]:
        """Call `handler` with every event of this name. A decorator where no handler is given. With `ids`,
        `event.local` is what `ids.find` returned.

        An event is followed when its handler returns, and not when the handler raises Refuse. Raises ValueError for a
        second handler of a name, and RuntimeError once the client runs.
        """
        if self._main is not None:
            raise RuntimeError("add handlers before the client starts: the subscription names their events")
        if handler is None:
            return lambda given: self.on(name, given, ids=ids)
        self._session.inbox.add(name, handler, ids)
        return handler

    def on_status(self, listener: _S) -> _S:
        """Call `listener` with every new status."""
        self._on_status.append(listener)
        return listener

    def on_wire(self, listener: _W) -> _W:
        """Call `listener` with every message, without tokens and endpoints. Messages contain patient data."""
        self._on_wire.append(listener)
        return listener

    # Start and stop

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Subscribe. Returns when the hub has confirmed. Retries while the hub cannot be reached.

        Raises HubError for a final refusal, TokenError when no token is good, RuntimeError when the client runs
        already.
        """
        self._enter()
        if self._main is not None:
            raise RuntimeError("the client runs already")
        self._error = None
        self._main = main = asyncio.create_task(self._run())
        main.add_done_callback(self._ended)
        joined = asyncio.create_task(self._session.joined.here.wait())
        try:
            await asyncio.wait((main, joined), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            started = joined.done()
            joined.cancel()
        if not started:
            self._raise()
            raise HubError(0, "the client was stopped before the hub had confirmed")

    async def stop(self) -> None:
        """Unsubscribe, close, and end all tasks. May be called at any time. A handler that calls `stop` runs to its
        end."""
        self._enter()
        main, inside = self._main, self._session.inbox.inside
        if main is None:
            await self._hub.close()
            return
        try:
            if not self._stopping:
                self._stopping = True
                if inside:
                    self._session.inbox.end()
                await self._unsubscribe()
        finally:
            if not inside:
                main.cancel()
                await asyncio.wait((main,))

    async def run(self) -> None:
        """Run until `stop`, or until a final refusal. Starts the client where needed. Raises HubError and TokenError."""
        self._enter()
        if self._main is None and self._error is None:
            await self.start()
        if self._main is not None:
            try:
                await asyncio.wait((self._main,))
            except asyncio.CancelledError:
                await self.stop()
                raise
        self._raise()

    # Publishing

    async def open(self, *resources: Resource) -> Event:
        """Open a context in all applications. The first resource is the anchor. Returns the event once the hub has
        accepted it.

        Raises HubError, and ValueError for a resource without type or id.
        """
        self._enter()
        return await self._session.publisher.open(*_about("open", resources))

    async def close(self, *resources: Resource) -> Event:
        """Close a context in all applications, the same way as `open`."""
        self._enter()
        return await self._session.publisher.publish(*_about("close", resources))

    async def publish(
        self,
        name: str,
        context: Iterable[Mapping[str, Any]],
        *,
        id: str | None = None,
        timestamp: str | None = None,
    ) -> Event:
        """Publish any event. `context` is the array of `{"key", "resource"}` items. Defaults: a new UUID as `id`, now
        as `timestamp`. Returns the event once the hub has accepted it. Raises HubError."""
        self._enter()
        return await self._session.publisher.publish(name, context, id=id, timestamp=timestamp)

    async def update(self, changes: Changes, anchor: Change | None = None) -> Event:
        """Change the shared content of a context, by default of the current one. Resources are put, references such as
        "Observation/o1" are deleted. A function gets the content (by reference) and returns the changes. It is
        called again where another update came first, five times at most. Returns the event once the hub has accepted
        it and, with a subscription to updates, its echo came.

        Raises HubError, with status 409 where another update came first, and ValueError where there is no context.
        """
        self._enter()
        return await self._session.updates.update(changes, self._anchor(anchor))

    async def select(self, items: Iterable[Change], anchor: Change | None = None) -> Event:
        """Publish what is selected in a context, by default in the current one: resources or references. An empty list
        clears the selection."""
        self._enter()
        return await self._session.updates.select(items, self._anchor(anchor))

    async def fetch(self) -> Context | None:
        """Ask the hub for the current context, None for none. No handler is called. Raises HubError, 404 where the hub
        does not tell."""
        self._enter()
        return await self._session.updates.fetch()

    async def catch_up(self) -> bool:
        """Call the handler again with the last event that was refused or failed, if no newer change came. Returns
        whether the event is followed now.

        Raises RuntimeError within a handler, which would wait for itself, and where the client does not run.
        """
        self._enter()
        if self._session.inbox.inside or self._main is None:
            raise RuntimeError("catch_up needs a running client, and cannot be called in a handler")
        event = self._session.engine.to_catch_up()
        if event is None:
            return False
        delivery = Delivery(event, applies=lambda: self._session.engine.to_catch_up() is event, retry=True)
        self._session.inbox.deliver(delivery)
        return await delivery.done

    # State

    @property
    def context(self) -> Context | None:
        """The current context: the newest open that was followed or published here and is not closed."""
        return self._session.engine.current

    @property
    def contexts(self) -> dict[str, Context]:
        """All open contexts that were followed or published here, by anchor ("Patient/p1")."""
        return self._session.engine.contexts

    @property
    def status(self) -> Status:
        """Whether this application shows the same context as the others."""
        return self._session.engine.sync.status

    @property
    def events(self) -> tuple[str, ...]:
        """Names of the events that the hub granted. Empty before the confirmation."""
        return self._session.engine.granted

    async def _run(self) -> None:
        """The client's main task, until it is cancelled, a handler stops it, or the hub refuses for good."""
        self._connection = Connection(
            self._hub,
            self._session,
            self._connect,
            self._timings,
            events=self._session.wanted,
            name=self._name,
            lease_seconds=self._lease_seconds,
            heartbeat=self._heartbeat,
        )
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self._connection.run())
                await self._session.inbox.run()
                raise asyncio.CancelledError
        except* HubError as errors:
            self._error = _first(errors)
        finally:
            await self._hub.close()

    def _ended(self, main: asyncio.Task[None]) -> None:
        self._main, self._connection, self._group, self._stopping = None, None, None, False
        if not main.cancelled() and (error := main.exception()):
            log_failure("the client failed", error)
            self._error = error
        self._session.ended(str(self._error) if self._error else "Stopped")

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    async def _unsubscribe(self) -> None:
        """ "During a normal shutdown of a Subscriber, it SHALL unsubscribe" (2.5). A hub that is away notices by itself."""
        endpoint = self._connection.leave() if self._connection else None
        if endpoint is None:
            return
        try:
            async with asyncio.timeout(self._timings.request):
                await self._hub.unsubscribe(endpoint, self._name)
        except (HubError, TimeoutError):
            _log.info("the client could not unsubscribe")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run a background task while the client runs. Returns None where the client does not run any more."""
        beside = _beside(work)
        try:
            if self._group is not None and not self._stopping:
                task = self._group.create_task(beside)
                # a task that is cancelled before its first step never ran
                task.add_done_callback(lambda _: work.close())
                return task
        except RuntimeError:  # the task group is ending
            _log.debug("the client ends")
        beside.close()
        work.close()
        return None

    def _enter(self) -> None:
        """Raises RuntimeError where the client is in use in another event loop, or still runs in a loop that stands
        still."""
        self._loop.enter()
        self._hub.enter()
        if self._main is None or self._main.get_loop() is asyncio.get_running_loop():
            return
        if not self._main.get_loop().is_closed():
            raise RuntimeError("the client still runs in another event loop: await stop() there first")
        self._main = self._connection = self._group = None
        self._session.ended("Its event loop was closed")

    def _anchor(self, anchor: Change | None) -> str:
        if anchor is not None:
            return reference(anchor)
        current = self._session.engine.following.contexts.current
        if current is None or not current.anchor:
            raise ValueError("no context is open here, so an anchor is required")
        return current.anchor

    def _changed(self, status: Status) -> None:
        _call_all(self._on_status, status)

    def _wire(self, message: WireMessage) -> None:
        _call_all(self._on_wire, message)


def _about(verb: str, resources: tuple[Resource, ...]) -> tuple[str, list[dict[str, Any]]]:
    """Name and context of an open or close. Raises ValueError for a resource without type or id."""
    if not resources:
        raise ValueError("a resource is required")
    type_, _, _ = reference(resources[0]).partition("/")
    return f"{type_}-{verb}", context_of(resources)


def _call_all(listeners: Iterable[Callable[[Any], object]], value: Any) -> None:
    """Call all listeners. A listener that fails does not stop the others."""
    for listener in tuple(listeners):
        try:
            listener(value)
        except Exception as error:
            log_failure("a listener failed", error)


async def _beside(work: Coroutine[Any, Any, None]) -> None:
    """A background task that fails must not stop the client."""
    try:
        await work
    except Exception as error:
        log_failure("the client failed beside", error)


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    """The first error in a group."""
    found = errors.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
