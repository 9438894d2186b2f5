"""The heartbeat (SYN-13): an event of the hub's own for those who asked for it, so that they notice a dead connection.

STU3 took it out of the specification; clients of STU2 still ask for it, and compare its name in lower case.
"""

from __future__ import annotations

from msgspec.structs import replace

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import audiences
from fhircast_hub.core.state.effects import Effect, Notice, Send
from fhircast_hub.core.state.session import Ids, Session
from fhircast_hub.core.wire.frames import made_event
from fhircast_hub.core.wire.json import encode
from fhircast_hub.core.wire.timestamps import rfc3339

_NAME = "heartbeat"


def planned(session: Session, now: float, rules: Rules) -> Session:
    """The session with the time of its next heartbeat, if anybody who is connected wants one."""
    wanted = any(_NAME in audience.keys for audience in session.audiences)
    if wanted == (session.beat is not None):
        return session
    return replace(session, beat=now + rules.heartbeat_seconds if wanted else None)


def beat(session: Session, now: float, ids: Ids, rules: Rules) -> tuple[Session, tuple[Effect, ...]]:
    """The heartbeat, if it is due."""
    if session.beat is None or session.beat > now:
        return session, ()
    id_ = ids.uuid()
    context = encode([{"key": "period", "decimal": str(rules.heartbeat_seconds)}])
    frame = made_event(session.topic, _NAME, id_, rfc3339(now), context)
    sent = Send(audiences.subscribed(session.audiences, _NAME), frame, Notice(id_, id_, _NAME, matters=False))
    return replace(session, beat=now + rules.heartbeat_seconds), (sent,)
