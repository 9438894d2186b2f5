"""Rows of the log: what a commit changed, and its effects, for other nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from fhircast_hub.core.state.effects import Close, Effect, EndWebhook, Post, Send, Verify
from fhircast_hub.storage.rows import Row

#: Kind, name and body of the rows that a commit changed. None: the row is deleted.
Change = tuple[str, str, bytes | None]

_encode = msgspec.msgpack.Encoder().encode
_CHANGES = msgspec.msgpack.Decoder(list[Change])
#: The number stands before the effect in the log: add new ones at the end.
_KINDS: tuple[type[Effect], ...] = (Send, Close, Verify, Post, EndWebhook)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}
_DECODERS = [msgspec.msgpack.Decoder(kind) for kind in _KINDS]
_EFFECTS = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw]])


def encode_changes(changes: Iterable[tuple[Row, bytes | None]]) -> bytes:
    """The changes of one session, without its key."""
    return _encode([(kind, name, body) for (_, _, kind, name), body in changes])


def decode_changes(text: bytes) -> list[Change]:
    """The opposite of encode_changes. Raises msgspec.MsgspecError."""
    return _CHANGES.decode(text)


def encode_effects(effects: Sequence[Effect]) -> bytes:
    """The effects, in order."""
    return _encode([(_NUMBERS[type(effect)], effect) for effect in effects])


def decode_effects(text: bytes) -> list[Effect]:
    """The opposite of encode_effects. Raises msgspec.MsgspecError, and IndexError for a kind that this hub does not know."""
    return [_DECODERS[number].decode(raw) for number, raw in _EFFECTS.decode(text)]
