"""Keeps one subscription: subscribes, connects, renews, and reconnects (FHIRcast 3.0.0, 2.4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from fhircast_client.errors import HubError, TokenError
from fhircast_client.frames import Confirmation, denial_reason, id_in, is_denial, read_confirmation
from fhircast_client.hub import BUSY, Hub, refusal
from fhircast_client.lease import Heartbeats, Lease
from fhircast_client.proxies import UnusableProxy
from fhircast_client.socket import Channel, Connect, Socket
from fhircast_client.timings import Backoff, Timings
from fhircast_client.unreachable import why_unreachable

_log = logging.getLogger("fhircast_client.connection")
#: Handshake statuses that mean that the endpoint is gone.
_GONE = frozenset((400, 401, 403, 404, 410))
_POLICY_VIOLATION = 1008
#: Close reasons that this project's hub gives with 1008. After "more frames came ...", the endpoint is still good.
_TAKEN_OVER, _TOO_MUCH = "another socket took over this endpoint", "more frames came than acknowledge what was sent"
#: After a connection of this many first delays, the backoff begins again.
_STABLE = 10
#: Failures of an endpoint that answers, until the client makes a new subscription.
_MOST_FAILURES = 3
_HEARTBEAT = "heartbeat"


class Listener(Protocol):
    """Callbacks of a connection. None of them may block."""

    def confirmed(self, confirmation: Confirmation, *, first: bool, ordered: bool) -> None:
        """The hub confirmed the subscription, on a new socket (`first`) or for a renewal. `ordered`: the hub declares
        one order for all events."""

    def unreadable(self, channel: Channel, event_id: str) -> None:
        """A frame could not be read. `event_id` is "" where the frame has no id."""

    def received(self, channel: Channel, message: Any) -> float | None:
        """A message came that is not a confirmation. Returns the seconds until the next heartbeat for a heartbeat (0
        where it does not tell them), else None."""

    def disconnected(self, why: str) -> None:
        """There is no connection. The client reconnects."""

    def denied(self, message: dict[str, Any]) -> None:
        """The hub ended the subscription."""


@dataclass(frozen=True, slots=True)
class _Loss:
    """Why a connection ended."""

    why: str
    #: Whether the endpoint is of no use any more.
    gone: bool = False
    #: Whether to reconnect without a delay.
    at_once: bool = False
    #: The hub's text: for the user, never for a log.
    said: str = ""
    #: Seconds that the hub asks to wait.
    wait: float = 0.0

    @property
    def sentence(self) -> str:
        return f"{self.why}: {self.said}" if self.said else self.why


class Connection:
    """Keeps one subscription to `events`. `lease_seconds`: the lease to ask for. `heartbeat`: subscribe to heartbeats
    where the hub has them."""

    def __init__(
        self,
        hub: Hub,
        listener: Listener,
        connect: Connect,
        timings: Timings,
        *,
        events: Iterable[str],
        name: str,
        lease_seconds: int | None,
        heartbeat: bool,
    ) -> None:
        self._hub, self._listener, self._connect, self._timings = hub, listener, connect, timings
        self._asked, self._name, self._lease_seconds = list(events), name, lease_seconds
        self._heartbeat, self._ordered = heartbeat, False
        self._backoff = Backoff(timings.backoff_first, timings.backoff_most)
        self._failures = 0
        self._was_confirmed = False
        self._leaving = False
        self._confirmed = asyncio.Event()
        self._lease, self._beats = Lease(asked=lease_seconds), Heartbeats()
        #: The endpoint of the subscription, which is a secret. None: not subscribed.
        self.endpoint: str | None = None

    async def run(self) -> None:
        """Connect, and reconnect for ever. Raises HubError for a final refusal, TokenError when no token is good."""
        while True:
            self._confirmed.clear()
            known = self.endpoint is not None
            try:
                loss = await self._connected(await self._open())
            except HubError as error:
                if self._is_final(error):
                    raise
                loss = _of_answer(error)
            if self._leaving:
                await asyncio.Event().wait()
            self._listener.disconnected(loss.sentence)
            self._judge(loss)
            if loss.at_once or (loss.gone and known and not self._confirmed.is_set()):
                continue  # a new subscription counts as an attempt of its own, with its own delay
            _log.warning("no connection to the hub: %s; the client reconnects", loss.why)
            await asyncio.sleep(max(self._backoff.next(), loss.wait))

    def leave(self) -> str | None:
        """Returns the endpoint to unsubscribe from. The client does not reconnect after this call."""
        self._leaving = True
        return self.endpoint

    def _is_final(self, error: HubError) -> bool:
        """Whether a refusal is final. After the first confirmation, only the hub's own refusal is."""
        return error.is_final and (error.is_from_hub or not self._was_confirmed)

    def _judge(self, loss: _Loss) -> None:
        """Decide whether to keep the endpoint, and whether the backoff begins again."""
        if self._confirmed.is_set():
            self._failures = 0
            if self._lease.age > self._timings.backoff_first * _STABLE:
                self._backoff.reset()
        if loss.gone or self._failures >= _MOST_FAILURES:
            self.endpoint, self._failures = None, 0

    async def _open(self) -> Socket | _Loss:
        """Open a socket to the endpoint. Subscribes first where there is none."""
        if self.endpoint is None:
            await self._discover()
            self._lease.asking()
            self.endpoint = await self._hub.subscribe(self._asked, name=self._name, lease_seconds=self._lease_seconds)
        try:
            async with asyncio.timeout(self._timings.confirmation):
                return await self._connect(self.endpoint)
        except UnusableProxy as error:
            return _Loss(f"the hub cannot be reached: {error}")
        except Exception as error:
            if refused := refusal(error):
                return self._refused(refused)
            if not _is_network(error):
                self._failures += 1
            return _Loss(f"the hub cannot be reached: {why_unreachable(error, self.endpoint)}")

    def _refused(self, answer: HubError) -> _Loss:
        """The hub refused the handshake. A busy hub keeps the endpoint until the lease ends."""
        if answer.status not in BUSY or self._lease.is_over:
            self._failures += 1
        why, gone = f"the hub refused the connection ({answer.status})", answer.status in _GONE
        return _Loss(why, gone, said=answer.message, wait=answer.retry_after or 0.0)

    async def _discover(self) -> None:
        """Read the hub's configuration, which an update of the hub may change. While the hub is away, the last one
        holds."""
        try:
            declared = await self._hub.configuration()
        except HubError:
            return
        self._ordered = declared.orders_events
        if self._heartbeat and _HEARTBEAT in declared.events and _HEARTBEAT not in self._asked:
            self._asked.append(_HEARTBEAT)

    async def _connected(self, socket: Socket | _Loss) -> _Loss:
        """Runs until the socket is lost. Returns the reason."""
        if isinstance(socket, _Loss):
            return socket
        channel = Channel(socket)
        self._beats.start()
        try:
            return await _first(self._read(channel), self._write(channel), self._silence(), self._renewals())
        finally:
            await channel.close()

    async def _read(self, channel: Channel) -> _Loss:
        denial: dict[str, Any] | None = None

        def receive(message: Any) -> bool:
            nonlocal denial
            self._beats.heard()
            if is_denial(message):
                denial = message
                self._listener.denied(message)
            elif confirmation := read_confirmation(message):
                self._confirm(confirmation)
            else:
                self._beats.expect(self._listener.received(channel, message))
            return denial is not None

        await channel.read(receive, lambda frame: self._listener.unreadable(channel, id_in(frame)))
        if denial is not None:
            return _Loss("the hub ended the subscription", gone=True, said=denial_reason(denial))
        return _of_close(channel)

    async def _write(self, channel: Channel) -> _Loss:
        await channel.write()
        return _of_close(channel)

    def _confirm(self, confirmation: Confirmation) -> None:
        first = not self._confirmed.is_set()
        self._lease.granted(confirmation.lease_seconds, new_socket=first)
        self._confirmed.set()
        self._was_confirmed = True
        self._listener.confirmed(confirmation, first=first, ordered=self._ordered)

    async def _silence(self) -> _Loss:
        """Three heartbeats are missing, so the connection is dead."""
        await self._beats.missed()
        return _Loss("the hub sent nothing for three heartbeats")

    async def _renewals(self) -> _Loss:
        """Renew the lease whenever a renewal is due."""
        try:
            async with asyncio.timeout(self._timings.confirmation):
                await self._confirmed.wait()
        except TimeoutError:
            self._failures += 1
            return _Loss("the hub did not confirm the subscription")
        while True:
            await self._lease.due()
            loss = await self._renew()
            if loss:
                return loss

    async def _renew(self) -> _Loss | None:
        """Renew on the same endpoint, with a fresh token. Retries until the lease ends."""
        backoff = Backoff(self._timings.backoff_first, self._timings.backoff_most)
        while True:
            self._lease.asking()
            try:
                endpoint = await self._hub.subscribe(
                    self._asked,
                    name=self._name,
                    lease_seconds=self._lease_seconds,
                    endpoint=self.endpoint,
                    fresh_token=True,
                )
            except HubError as error:
                if isinstance(error, TokenError) and self._is_final(error):
                    raise
                if error.status in (404, 410) and error.is_hubs:
                    return _Loss("the hub ended the subscription", gone=True)
                if self._is_final(error):
                    _log.warning("the hub does not renew the subscription (%s)", error.status)
                    await self._lease.over()
                elif await self._lease.lasts(max(backoff.next(), error.retry_after or 0.0)):
                    continue
                return _Loss("the hub did not renew the subscription", gone=True)
            if endpoint == self.endpoint:
                self._lease.promised()
                return None
            self.endpoint = endpoint
            return _Loss("the hub moved the subscription", at_once=True)


def _of_answer(error: HubError) -> _Loss:
    if not error.status:
        return _Loss(error.message)
    return _Loss(f"the hub answered {error.status}", said=error.message, wait=error.retry_after or 0.0)


def _of_close(channel: Channel) -> _Loss:
    """A socket that was taken over gives up its endpoint. Otherwise two clients would take the endpoint from each other
    for ever."""
    said = channel.close_reason
    if channel.close_code != _POLICY_VIOLATION:
        return _Loss("the connection to the hub was lost", said=said)
    if said == _TOO_MUCH:
        return _Loss(f"the hub closed the connection: {_TOO_MUCH}")
    if said in ("", _TAKEN_OVER):
        return _Loss("another connection took over the subscription", gone=True)
    return _Loss(f"the hub closed the connection ({_POLICY_VIOLATION})", gone=True, said=said)


def _is_network(error: Exception) -> bool:
    """Whether a connection broke or could not be made. Such errors say nothing about the endpoint."""
    return isinstance(error, OSError | EOFError) or isinstance(error.__cause__, OSError | EOFError)


async def _first(*chores: Coroutine[Any, Any, _Loss]) -> _Loss:
    """Runs all coroutines until the first one ends, and cancels the others. Returns or raises the result of the first
    one."""
    tasks = [asyncio.create_task(chore) for chore in chores]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return next(task for task in tasks if task in done).result()
