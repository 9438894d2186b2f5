"""The heartbeat (SYN-13): an event of the hub's own for those who asked for it, so that they notice a dead connection.

STU3 took it out of the specification; clients of STU2 still ask for it, and compare its name in lower case.
"""

from __future__ import annotations

from msgspec.structs import replace

from fhircast_hub.core.env import Env
from fhircast_hub.core.rules import audiences
from fhircast_hub.core.state.effects import Effect, EventRef, Send
from fhircast_hub.core.state.session import Session
from fhircast_hub.core.wire.frames import event_frame
from fhircast_hub.core.wire.json import encode
from fhircast_hub.core.wire.timestamps import rfc3339

_NAME = "heartbeat"


def plan(session: Session, env: Env) -> Session:
    """The session with the time of its next heartbeat, if anybody who is connected wants one."""
    wanted = any(_NAME in audience.keys for audience in session.audiences)
    if wanted == (session.next_heartbeat is not None):
        return session
    return replace(session, next_heartbeat=env.now + env.rules.heartbeat_seconds if wanted else None)


def beat(session: Session, env: Env) -> tuple[Session, tuple[Effect, ...]]:
    """The heartbeat, if it is due."""
    if session.next_heartbeat is None or session.next_heartbeat > env.now:
        return session, ()
    id_ = env.ids.uuid()
    context = encode([{"key": "period", "decimal": str(env.rules.heartbeat_seconds)}])
    frame = event_frame(session.topic, _NAME, id_, rfc3339(env.now), context)
    sent = Send(audiences.subscribed(session.audiences, _NAME), frame, EventRef(id_, id_, _NAME, reportable=False))
    return replace(session, next_heartbeat=env.now + env.rules.heartbeat_seconds), (sent,)
