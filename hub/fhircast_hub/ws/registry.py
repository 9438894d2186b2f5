"""The sockets of this process, by connection; effects are done here."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Sequence
from typing import Protocol

from fhircast_hub.acknowledgements.timer import AckTimer
from fhircast_hub.budgets.table import BIG_FRAME
from fhircast_hub.core.state.effects import Close, Effect, EventRef, Send, WebhookEffect
from fhircast_hub.telemetry.metrics import Metrics
from fhircast_hub.ws.frames import Frame, frame_of


class Connection(Protocol):
    """What a socket can be told."""

    def write(self, frame: Frame, event_ref: EventRef | None) -> bool:
        """Write a whole WebSocket frame, which tells of `event_ref`: now (true), or when the peer reads again. Never raises."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close after what was written before. Never raises."""
        ...

    @property
    def queued(self) -> tuple[int, int]:
        """Messages and bytes that wait for the peer to read."""
        ...


class Registry:
    """Who is connected here."""

    def __init__(self, ack_timer: AckTimer, metrics: Metrics, webhooks: Callable[[WebhookEffect], None]) -> None:
        self._connections: dict[str, Connection] = {}
        self._prefix = secrets.token_hex(4)  # so that no connection of another process is called the same
        self._numbers = itertools.count()
        self._metrics = metrics
        self._sent = ack_timer.sent
        self._webhooks = webhooks  # handles webhook effects

    def __len__(self) -> int:
        return len(self._connections)

    def queued(self) -> tuple[int, int]:
        """Messages and bytes that wait in all of them for their peers to read."""
        waiting = [connection.queued for connection in self._connections.values()]
        return sum(messages for messages, _ in waiting), sum(size for _, size in waiting)

    def add(self, connection: Connection) -> str:
        """Take up a socket; its name from now on."""
        name = f"{self._prefix}-{next(self._numbers)}"
        self._connections[name] = connection
        self._metrics.sockets_opened.inc()
        return name

    def remove(self, name: str) -> None:
        """Forget a socket that is gone."""
        if self._connections.pop(name, None) is not None:
            self._metrics.sockets_closed.inc()

    def deliver(self, effects: Sequence[Effect]) -> None:
        """Do what was decided, in order: each frame is framed once and written to each of its sockets."""
        connections, sent = self._connections, 0
        for effect in effects:
            if isinstance(effect, Send):
                frame, event_ref = frame_of(effect.frame, int(BIG_FRAME.most)), effect.event_ref
                later = [
                    name
                    for name in effect.to
                    if (connection := connections.get(name)) is not None and not connection.write(frame, event_ref)
                ]
                if event_ref is not None:
                    self._sent(event_ref, effect.to, later)
                sent += len(effect.to)
            elif not isinstance(effect, Close):
                self._webhooks(effect)
            elif (closing := connections.get(effect.connection)) is not None:
                closing.close(effect.code, effect.reason)
        if sent:
            self._metrics.events_out.inc(sent)
