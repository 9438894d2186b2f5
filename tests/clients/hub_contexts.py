"""Random events, and what the hub's core makes of them: the measure of the contexts of JavaScript's fake hub."""

from __future__ import annotations

import json
import math
import random
import uuid
from typing import Any

from fhircast_client.events import context_of, make_event
from fhircast_client.events import parse_event as parse_message
from fhircast_client.update_bundle import update_context
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.scopes import Scopes
from fhircast_hub.core.decide import decide
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import HubError
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules.contexts import current_context
from fhircast_hub.core.rules.joining import replay
from fhircast_hub.core.state.commands import Connected, Publish, Subscribe
from fhircast_hub.core.state.effects import Send
from fhircast_hub.core.wire.event import parse_event
from fhircast_hub.core.wire.event_names import CATALOGUE

TOPIC, NOW = "session", 1_769_851_800.0
_VERSION = "context.versionId"
_ANCHORS = (
    "Patient/p1",
    "Patient/p2",
    "ImagingStudy/s1",
    "ImagingStudy/s2",
    "DiagnosticReport/r1",
    "DiagnosticReport/r2",
)
_EVENTS = (*CATALOGUE, "org.example.zoomed")
_RULES = Rules(derive_opens=False, derive_closes=False)  # the fake hub derives nothing
Message = dict[str, Any]


class Ids:
    """Version 4 UUIDs."""

    def uuid(self) -> str:
        return str(uuid.uuid4())


class HubContexts:
    """A session with one subscriber, who asked for every event, and who posted them all."""

    def __init__(self) -> None:
        everything = Scopes(frozenset("*"), frozenset("*"))
        self._principal = Principal("realm", "user", "client", everything, math.inf)
        self._versions: list[str] = []
        self._session = decide(
            None, Subscribe(self._principal, TOPIC, "subscription", _EVENTS), Env(NOW, Ids(), _RULES)
        ).session
        self._session = decide(self._session, Connected("subscription", "socket"), Env(NOW, Ids(), _RULES)).session

    def accept(self, message: Message) -> Message:
        """The status with which it is answered, what is told then, what is current and what somebody who joins is told."""
        told: list[Message] = []
        status = 202
        try:
            posted = parse_event(json.dumps(self._with_version(message)).encode())
            outcome = decide(self._session, Publish(self._principal, posted), Env(NOW, Ids(), _RULES))
        except HubError as error:
            status = error.status
        else:
            self._session = outcome.session
            told = [json.loads(effect.frame) for effect in outcome.effects if isinstance(effect, Send)]
        for one in told:
            version = one["event"].get(_VERSION)
            if version and version not in self._versions:
                self._versions.append(version)
        return self._seen(status, told)

    def _seen(self, status: int, told: list[Message]) -> Message:
        assert self._session
        current = json.loads(current_context(self._session, self._principal, TOPIC, _RULES))
        version = current.pop(_VERSION)
        frames, _ = replay(self._session, frozenset(map(str.lower, _EVENTS)), _RULES)
        seen = {
            "status": status,
            "told": told[0] if told else None,
            "current": current,
            "version": version if version in self._versions else "",
            "replay": [json.loads(frame) for frame, _ in frames],
        }
        assert len(told) <= 1
        text = json.dumps(seen)
        for number, given in enumerate(self._versions):
            text = text.replace(given, f"v{number}")
        numbered: Message = json.loads(text)
        return numbered

    def _with_version(self, message: Message) -> Message:
        number = message["event"].get(_VERSION)
        if number is None:
            return message
        known = dict(enumerate(self._versions))
        return {**message, "event": {**message["event"], _VERSION: known.get(int(number[1:]), "none")}}


class RandomEvents:
    """Events as applications may post them, in an order that makes little sense."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._posted: list[Message] = []
        self._versions: dict[str, str] = {}  # the newest that was told, by anchor

    def next(self) -> Message:
        """The next event; its timestamp is that of all, for the hub goes by arrival."""
        if self._posted and self._chance.random() < 0.15:
            return self._chance.choice(self._posted[-6:])
        name, context, version = self._event()
        event = make_event(TOPIC, name, context, timestamp="2026-01-31T09:30:00Z", version=version, own=False)
        self._posted.append(event.body)
        return event.body

    def heard(self, seen: Message) -> None:
        """What came of the event that was the last."""
        event = parse_message(seen["told"]) if seen["told"] else None
        if event and event.version:
            self._versions[event.anchor] = event.version

    def _event(self) -> tuple[str, list[Message], str | None]:
        chance = self._chance.random()
        anchor = self._chance.choice(_ANCHORS)
        type_ = anchor.partition("/")[0]
        if chance < 0.4:
            return f"{type_}-open", _opened(anchor), None
        if chance < 0.55:
            return f"{type_}-close", _opened(anchor), None
        if chance < 0.65:
            return "Home-open", [], None
        if chance < 0.7:
            return "org.example.zoomed", [], None
        if chance < 0.77:
            return f"{type_}-select", update_context(anchor, [])[:-1], None
        version = self._versions.get(anchor) if self._chance.random() < 0.7 else self._chance.choice([None, "v0", "v3"])
        return f"{type_}-update", self._update(anchor), version

    def _update(self, anchor: str) -> list[Message]:
        ids = self._chance.sample(["o1", "o2", "o3"], self._chance.randint(1, 2))
        return update_context(
            anchor,
            [
                {"resourceType": "Observation", "id": id_} if self._chance.random() < 0.7 else f"Observation/{id_}"
                for id_ in ids
            ],
        )


def _opened(anchor: str) -> list[Message]:
    type_, _, id_ = anchor.partition("/")
    resources = [{"resourceType": type_, "id": id_}]
    return context_of(resources if type_ == "Patient" else [*resources, {"resourceType": "Patient", "id": "p1"}])
