"""The EHR: it drives. It says what the clinician opens and closes, in the specification's own messages."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from demo.fhir import Message, anchor, describe, example
from demo.screen import say
from demo.session import Session
from fhircast_hub.dev import DevIssuer


class Ehr:
    """Its token lets it publish anything and read nothing."""

    name = "ehr"

    def __init__(self, session: Session, issuer: DevIssuer) -> None:
        self._session = session
        self._token = issuer.token(scope="fhircast/*.write", client=self.name, topic=session.topic)

    async def publish(self, event: str) -> Message:
        """Publish the specification's message for this event, as of now; the message."""
        message = as_of_now(example(event), self._session.topic)
        verb = event.partition("-")[2]
        say(self.name, event, f"{verb}s {describe(anchor(message))}")
        await self._session.publish(self._token, message)
        return message


def as_of_now(message: Message, topic: str) -> Message:
    """The message with a time, an id and a topic of its own."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    return message | {"timestamp": now, "id": str(uuid.uuid4()), "event": message["event"] | {"hub.topic": topic}}
