"""The names that events had in 2018, for `dev --legacy`: read as today's, and written back as they were.

The core knows today's names only. The edge translates: a subscription or an event with a name of 2018 gets today's name. A frame
for a socket under /bind/ gets the name that its subscriber asked for. The frames of all others stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from fhircast_hub.core.limits import MAX_ID
from fhircast_hub.core.wire.event_names import NAMES_OF_2018, modern_name
from fhircast_hub.core.wire.json import strip_bom

#: Subscriptions, and events, of which the names are remembered: the newest.
_REMEMBERED = 10_000
#: The member hub.event of an event. Only its value is replaced: all other bytes stay as they came (EVT-15).
_NAMED = re.compile(rb'("hub\.event"\s*:\s*")([a-zA-Z-]{1,32})"')


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _Stamp(msgspec.Struct):
    id: str
    timestamp: str


_STAMP = msgspec.json.Decoder(_Stamp)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode


class LegacyNames:
    """The names that subscribers asked for, and under which events were published."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[str, ...]] = {}
        self._published: dict[tuple[str, str], str] = {}

    @contextmanager
    def translate_subscription(self, subscription_id: str, events: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """Yield today's names of `events`, for which the block is to make or renew the subscription `subscription_id`.

        From now on its frames bear the names as asked. If the block raises, they bear the names from before.
        """
        before = self._asked.get(subscription_id, ())
        _remember(self._asked, subscription_id, events)
        try:
            yield tuple({today.lower(): today for today in map(modern_name, events)}.values())
        except BaseException:
            _remember(self._asked, subscription_id, before)
            raise

    def translate_event(self, body: bytes) -> bytes:
        """The posted `body`, with today's name in place of one of 2018. Any other body is returned as it came."""
        named = _NAMED.findall(body)
        if len(named) != 1 or (name := named[0][1].decode()).lower() not in NAMES_OF_2018:
            return body
        try:
            stamp = _STAMP.decode(strip_bom(body))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return body  # the hub says what is wrong with it
        if len(stamp.id) <= MAX_ID and len(stamp.timestamp) <= MAX_ID:  # else the event is refused
            _remember(self._published, (stamp.id, stamp.timestamp), name)
        return _NAMED.sub(rb'\1%b"' % modern_name(name).encode(), body)

    def translate_frame(self, subscription_id: str, bound: str, message: bytes) -> bytes:
        """The hub's `message` as the subscription `subscription_id` is sent it; `bound` is the endpoint as its client named it.

        The clients take a message without the member `bound` for an event, so every message but an event gets it.
        """
        members = _MEMBERS.decode(message)
        asked = self._asked.get(subscription_id, ())
        if "event" in members:
            event = _MEMBERS.decode(members["event"])
            name = _TEXT.decode(event["hub.event"])
            back = self._as_asked(name, _STAMP.decode(message), asked)
            if back == name:
                return message
            members["event"] = msgspec.Raw(_encode(event | {"hub.event": back}))
            return _encode(members)
        if "hub.events" in members:
            granted = {name.lower() for name in _TEXT.decode(members["hub.events"]).split(",")}
            names = [name for name in asked if modern_name(name).lower() in granted]
            members["hub.events"] = msgspec.Raw(_encode(",".join(names))) if names else members["hub.events"]
        return _encode(members | {"bound": bound})

    def _as_asked(self, name: str, stamp: _Stamp, asked: tuple[str, ...]) -> str:
        """The name under which the event was published, if `asked` has it; else the first of `asked` that means the same."""
        names = [one for one in asked if modern_name(one).lower() == name.lower()]
        published = self._published.get((stamp.id, stamp.timestamp), name)
        if not names or published.lower() in map(str.lower, names):
            return published if names else name
        return names[0]


def _remember(memory: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > _REMEMBERED:
        del memory[next(iter(memory))]
