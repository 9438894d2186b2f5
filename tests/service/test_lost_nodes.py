"""The service takes over a session of a dead node before it does what is overdue there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules.webhook_outbox import connection_name
from fhircast_hub.core.state.commands import Connected, Disconnected, NodeLost, Publish, Subscribe
from fhircast_hub.core.state.effects import Effect, Post
from fhircast_hub.core.wire.close_codes import ABNORMAL
from fhircast_hub.core.wire.event import parse_event
from fhircast_hub.service.service import Service
from fhircast_hub.service.session_log import SessionLog
from fhircast_hub.service.usage import LocalUsage
from fhircast_hub.storage.memory import MemoryStore
from tests.core.world import KEY, TOPIC, body, label, message, patient, token
from tests.running import Clock


class NamedStore(MemoryStore):
    """A store whose process has a name. Sessions stay where another process takes over."""

    node = "n1"


@pytest.mark.req("NOD-3", "WHK-8")
async def test_what_is_overdue_waits_for_the_posts_of_a_dead_node() -> None:
    """The SyncError about a lost subscriber is younger than the open that the dead node did not post."""
    clock, posts = Clock(), list[str]()

    def deliver(effects: Sequence[Effect]) -> None:
        posts.extend(label(effect.frame) for effect in effects if isinstance(effect, Post))

    log: Any = SessionLog(str, clock)
    store = NamedStore()
    service = Service(store, clock, Rules(), LocalUsage(9, 9), log)
    await service.start(deliver)
    await service.submit(KEY, Subscribe(token(), TOPIC, "lost", ("Patient-open",), name="A"))
    await service.submit(KEY, Connected("lost", "n1-1"))
    events = "Patient-open", "SyncError"
    await service.submit(KEY, Subscribe(token(), TOPIC, "hook", events, callback="https://app.example"))
    await service.submit(KEY, Connected("hook", connection_name("hook")))
    await service.submit(KEY, Publish(token(), parse_event(body(message("Patient-open", patient("p1"))))))
    await service.submit(KEY, Disconnected("lost", "n1-1", clock.now, ABNORMAL))
    posts.clear()
    clock.now += Rules().reconnect_grace
    store.node = "n2"
    await service.submit(KEY, NodeLost("n1"))
    await service.tick()
    assert posts == ["Patient-open p1", "SyncError"]
    await service.stop()
