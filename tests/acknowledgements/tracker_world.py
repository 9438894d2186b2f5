"""A node whose tracker observes frames and acknowledgements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fhircast_hub.acknowledgements.tracker import AckTracker, Policy
from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.commands import Command
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import Subscription

TIMEOUT = 10.0
HERE, THERE = SessionKey("a-realm", "here"), SessionKey("a-realm", "there")


def subscription(
    subscription_id: str, delivered_until: float = 0, *, acknowledges: bool = False, missed_acks: int = 0
) -> Subscription:
    """The smallest subscription that has had a socket."""
    return Subscription(
        subscription_id,
        "ann",
        subscription_id,
        ("Patient-open",),
        9e9,
        0,
        delivered_until=delivered_until,
        acknowledges=acknowledges,
        missed_acks=missed_acks,
    )


def event_ref(id_: str = "e", *, reportable: bool = True) -> EventRef:
    """A reference to the event of this id."""
    return EventRef(id_, id_, "Patient-open", "patient/p1", reportable=reportable)


def reply(id_: str = "e", status: object = 200) -> bytes:
    """An acknowledgement as the specification has it."""
    return json.dumps({"id": id_, "status": status}).encode()


class Node(AckTracker):
    """A tracker, by default with the default policy. A connection's name is its subscription's with a stroke."""

    def __init__(self, *present: str, policy: Policy = Policy.LENIENT) -> None:
        super().__init__(policy, TIMEOUT)
        for subscription_id in present:
            self.comes(subscription_id)

    def comes(self, subscription_id: str, at: float = 0, *, as_: str = "", key: SessionKey = HERE, **more: Any) -> None:
        self.connected(key, subscription(subscription_id, at, **more), as_ or f"{subscription_id}'", at)

    def says(self, subscription_id: str, message: bytes, at: float = 0) -> list[Command] | None:
        """The commands that this text on its connection causes. None: the text acknowledges nothing."""
        answer = self.acknowledged(f"{subscription_id}'", message, at)
        return list(answer[1]) if answer else None

    def tells(self, of: EventRef, *subscription_ids: str, at: float = 0, later: Sequence[str] = ()) -> None:
        self.sent(
            of,
            tuple(f"{subscription_id}'" for subscription_id in subscription_ids),
            at,
            [f"{subscription_id}'" for subscription_id in later],
        )

    def missing(self, at: float) -> list[tuple[str, str]]:
        """The subscriptions with a missed acknowledgement at this time, and the event of each."""
        found = self.timed_out(at)
        return [
            (missed_ack.subscription_id, missed_ack.event_ref.id)
            for _, command in found
            for missed_ack in command.missed
        ]

    @property
    def memory(self) -> int:
        """The number of remembered entries."""
        return len(self._topics) + len(self._peers) + len(self._latest) + len(self._waiting)
