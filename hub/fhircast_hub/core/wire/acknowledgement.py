"""Acknowledgements as they come over a socket (FHIRcast 3.0.0, 2.5 "Event Notification Response"): `{"id", "status"}`, and a reason.

Clients write them by hand, cut texts in the middle of a character, and forget to escape. Where id and status can be read, they
count, whatever else the frame holds (SYN-15).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import msgspec

#: Characters of the reason that a refusal may give, for people to read; the rest is cut off.
MAX_REASON = 256

_STATUS = re.compile(rb'"?\s*([1-5]\d\d)(?!\d)', re.ASCII)
#: What would begin a new line, turn a line around, or cannot be seen, in a text of a client's as others are shown it: every white
#: space and control, and what Unicode calls a format, but the joiners that scripts and emoji are written with.
_UNSEEN = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]+"
)
#: What stands before the next member, and between its name and its value.
_BEFORE = re.compile(r"[\s,]*")
_COLON = re.compile(r"\s*:\s*")
#: Takes line ends in texts, and numbers of any length.
_lenient = json.JSONDecoder(strict=False, parse_int=str, parse_float=str).raw_decode
#: Members and bytes of what is no JSON that are looked at: a millisecond's work, whatever is in them.
_MAX_MEMBERS, _MAX_LENIENT = 64, 24 << 10
#: Characters of a status that are looked at.
_MAX_STATUS = 32


class Acknowledgement(NamedTuple):
    """The `id` of the event; the `status`, None where it says none that can be read; and the `reason`, on one line, "" without."""

    id: str
    status: int | None
    reason: str


class _Members(msgspec.Struct):
    id: str
    status: msgspec.Raw = msgspec.Raw(b"")
    reason: msgspec.Raw = msgspec.Raw(b"")


_DECODER = msgspec.json.Decoder(_Members)


def read_acknowledgement(message: bytes) -> Acknowledgement | None:
    """The acknowledgement in a text frame; None if there is none."""
    try:
        members = _DECODER.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_leniently(message)
    return Acknowledgement(members.id, _status(members.status), _reason(members.reason))


def _read_leniently(message: bytes) -> Acknowledgement | None:
    """The members of what is no JSON, one by one up to the first that cannot be read; without a byte order mark, and with U+FFFD
    for what is no UTF-8. An acknowledgement must have an id and a status there."""
    if b"id" not in message or b"status" not in message:
        return None
    text = message[:_MAX_LENIENT].decode("utf-8-sig", "replace").lstrip(" \t\r\n[")
    found: dict[str, tuple[str, object]] = {}
    for name, written, value in islice(_members(text), _MAX_MEMBERS):
        found.setdefault(name, (written, value))
    (_, id_), (status, _), (_, reason) = (found.get(name, ("", None)) for name in ("id", "status", "reason"))
    if not isinstance(id_, str) or not found["id"][0].startswith('"') or "status" not in found:
        return None
    return Acknowledgement(id_, _status(status.encode(errors="replace")), readable(reason))


def _members(text: str) -> Iterator[tuple[str, str, object]]:
    """Name, start of the value as it is written, and value, of each member of a JSON object as far as that can be read."""
    place = 1 if text.startswith("{") else len(text)
    with contextlib.suppress(ValueError, RecursionError, IndexError):
        while True:
            name, place = _lenient(text, _end(_BEFORE, text, place))
            start = _end(_COLON, text, place)
            if not isinstance(name, str) or start == place:
                return
            value, place = _lenient(text, start)
            yield name, text[start : start + _MAX_STATUS], value


def _end(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    return found.end() if found else place


def _status(written: bytes | msgspec.Raw) -> int | None:
    """A number, or text that begins with one (SYN-1)."""
    found = _STATUS.match(written)
    return int(found[1]) if found else None


def _reason(written: msgspec.Raw) -> str:
    """The reason as it was written in JSON, for people to read."""
    if not bytes(written).startswith(b'"'):
        return ""
    return readable(_lenient(bytes(written).decode(errors="replace"))[0])


def readable(reason: object) -> str:
    """A client's text as people are shown it: on one line, with U+FFFD for halves of a character; "" where there is none that is text."""
    if not isinstance(reason, str):
        return ""
    whole = reason[: MAX_REASON + 1].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _UNSEEN.sub(" ", whole[:MAX_REASON]).strip()
