"""The connected sockets of this process. Effects are carried out here, in the order of the commits."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from fhircast_hub.acknowledgements.timer import AckTimer
from fhircast_hub.budgets.table import BIG_FRAME
from fhircast_hub.core.rules.nodes import socket_name
from fhircast_hub.core.state.effects import Close, Effect, EventRef, Send, WebhookEffect
from fhircast_hub.telemetry.metrics import Metrics
from fhircast_hub.ws.frames import Frame, frame_of

#: Bytes of a message above which its frame is written in two parts.
_BIG = int(BIG_FRAME.most)


class Connection(Protocol):
    """A socket, as the registry sees it: a `SocketWriter` (ws/socket_writer.py)."""

    def write(self, frame: Frame, event_ref: EventRef | None) -> bool:
        """Write a whole frame, which carries the event `event_ref`. False: queued until the peer reads. Never raises."""
        ...

    def gather(self) -> None:
        """Hold the frames that are written from now on, for one write of all."""
        ...

    def release(self) -> None:
        """Write the held frames, and hold no more."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close after the queued frames. Never raises."""
        ...

    @property
    def queued(self) -> tuple[int, int]:
        """Frames and bytes that wait for the peer to read."""
        ...


class Registry:
    """The connected sockets, by connection name."""

    def __init__(
        self,
        ack_timer: AckTimer,
        metrics: Metrics,
        webhooks: Callable[[WebhookEffect], None],
        node: Callable[[], str] = lambda: "",
    ) -> None:
        self._connections: dict[str, Connection] = {}
        #: Keeps names apart from those of earlier processes, where the hub is one process.
        self._prefix = secrets.token_hex(4)
        #: The name of this node. "": the hub is one process.
        self.node = node
        self._numbers = itertools.count()
        self._metrics = metrics
        self._sent = ack_timer.sent
        #: Carries out webhook effects.
        self._webhooks = webhooks

    def __len__(self) -> int:
        return len(self._connections)

    def queued(self) -> tuple[int, int]:
        """Frames and bytes that wait in all sockets for their peers to read."""
        queues = [connection.queued for connection in self._connections.values()]
        return sum(frames for frames, _ in queues), sum(size for _, size in queues)

    def queued_of(self, name: str) -> tuple[int, int] | None:
        """Frames and bytes that wait in one socket. None: this is no name of a socket of this process."""
        connection = self._connections.get(name)
        return None if connection is None else connection.queued

    def add(self, connection: Connection) -> str:
        """Register a socket. Returns the name of its connection."""
        name = socket_name(self.node() or self._prefix, next(self._numbers))
        self._connections[name] = connection
        self._metrics.sockets_opened.inc()
        return name

    def remove(self, name: str) -> None:
        """Forget a socket; an unknown name is ignored."""
        if self._connections.pop(name, None) is not None:
            self._metrics.sockets_closed.inc()

    def has(self, name: str) -> bool:
        """Whether this is the name of a socket of this process."""
        return name in self._connections

    def close(self, names: Iterable[str], code: int, reason: str) -> None:
        """Close these sockets after the queued frames. Unknown names are ignored."""
        for name in names:
            if (connection := self._connections.get(name)) is not None:
                connection.close(code, reason)

    def close_all(self, code: int, reason: str) -> None:
        """Close every socket after the queued frames."""
        self.close(list(self._connections), code, reason)

    def deliver(self, effects: Sequence[Effect]) -> None:
        """Carry out effects in order. Each message is framed once, and that frame is written to all its sockets.

        The frames for one socket leave in one write.
        """
        if len(effects) < 2:
            self._carry_out(effects)
            return
        gathering = self._gather(effects)
        try:
            self._carry_out(effects)
        finally:
            for connection in gathering:
                connection.release()

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        sent = 0
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect)
                sent += len(effect.to)
            elif not isinstance(effect, Close):
                self._webhooks(effect)
            elif (closing := self._connections.get(effect.connection)) is not None:
                closing.close(effect.code, effect.reason)
        if sent:
            self._metrics.events_out.inc(sent)

    def _send(self, send: Send) -> None:
        frame, event_ref, connections = frame_of(send.frame, _BIG), send.event_ref, self._connections
        queued = []
        for name in send.to:
            connection = connections.get(name)
            if connection is not None and not connection.write(frame, event_ref):
                queued.append(name)
        if event_ref is not None:
            self._sent(event_ref, send.to, queued or ())

    def _gather(self, effects: Sequence[Effect]) -> list[Connection]:
        """Let the sockets that get several frames hold them."""
        once: set[str] = set()
        again: set[str] = set()
        for effect in effects:
            if isinstance(effect, Send):
                again.update(once.intersection(effect.to))
                once.update(effect.to)
        gathering = [connection for name in again if (connection := self._connections.get(name)) is not None]
        for connection in gathering:
            connection.gather()
        return gathering
