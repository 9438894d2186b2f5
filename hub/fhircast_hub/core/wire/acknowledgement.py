"""Acknowledgements from a socket (FHIRcast 3.0.0, 2.5 "Event Notification Response"): `{"id", "status"}`, and maybe a reason.

Clients write them by hand, cut texts in the middle of a character, and forget to escape. An acknowledgement counts wherever its id
and status can be read, whatever else the frame holds (SYN-15).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from itertools import islice

import msgspec

#: Characters of a reason. The rest is cut off.
MAX_REASON = 256

#: Nearly all statuses, as clients write them, and what they mean. None: there is no status.
_SUCCESSES: dict[int | str | None, int | None] = {200: 200, "200": 200, "200 OK": 200, 202: 202, "202": 202, None: None}
_STATUS = re.compile(r'"?\s*([1-5]\d\d)(?!\d)', re.ASCII)
#: Characters of a client's text that people must not be shown: white space, controls, and Unicode's format characters.
#: Format characters could reverse a line. The joiners of scripts and emoji stay.
_INVISIBLE = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]+"
)
#: The characters before a member, and those between its name and its value.
_BEFORE = re.compile(r"[\s,]*")
_COLON = re.compile(r"\s*:\s*")
#: Accepts line ends in strings, and numbers of any length.
_lenient = json.JSONDecoder(strict=False, parse_int=str, parse_float=str).raw_decode
#: Members and bytes that are read of a frame that is no JSON. Takes a millisecond, whatever they hold.
_MAX_MEMBERS, _MAX_LENIENT = 64, 24 << 10
#: Characters of a status that are read.
_MAX_STATUS = 32


class Acknowledgement(msgspec.Struct, gc=False):
    """The answer of a client to one event."""

    #: The id of the event.
    id: str
    #: An HTTP status. None: there is no readable status.
    status: int | None
    #: The reason on one line. "": there is none, or the status is a success and nobody reads the reason.
    reason: str


class _Members(msgspec.Struct, gc=False):
    id: str
    status: int | str | None = None
    reason: msgspec.Raw = msgspec.Raw(b"")


class _OddMembers(msgspec.Struct):
    """Members with a status of any other type, such as a fraction."""

    id: str
    status: msgspec.Raw = msgspec.Raw(b"")
    reason: msgspec.Raw = msgspec.Raw(b"")


_decode = msgspec.json.Decoder(_Members).decode
_decode_odd = msgspec.json.Decoder(_OddMembers).decode


def read_acknowledgement(message: bytes) -> Acknowledgement | None:
    """The acknowledgement in a text frame. None: the frame has none."""
    try:
        members = _decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_odd(message)
    if members.status in _SUCCESSES:
        return Acknowledgement(members.id, _SUCCESSES[members.status], "")  # a success needs no reason
    return Acknowledgement(members.id, _status(str(members.status)), _reason(members.reason))


def _read_odd(message: bytes) -> Acknowledgement | None:
    try:
        members = _decode_odd(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_leniently(message)
    return Acknowledgement(members.id, _status(bytes(members.status).decode(errors="replace")), _reason(members.reason))


def _read_leniently(message: bytes) -> Acknowledgement | None:
    """The acknowledgement in a frame that strict decoding refuses. None: the frame has no id, or no status.

    Members are read up to the first unreadable one. A byte order mark is skipped, and U+FFFD replaces what is no UTF-8.
    """
    if b"id" not in message or b"status" not in message:
        return None
    text = message[:_MAX_LENIENT].decode("utf-8-sig", "replace").lstrip(" \t\r\n[")
    found: dict[str, tuple[str, object]] = {}
    for name, written, value in islice(_readable_members(text), _MAX_MEMBERS):
        found.setdefault(name, (written, value))
    (_, id_), (status, _), (_, reason) = (found.get(name, ("", None)) for name in ("id", "status", "reason"))
    if not isinstance(id_, str) or not found["id"][0].startswith('"') or "status" not in found:
        return None
    return Acknowledgement(id_, _status(status), displayable(reason))


def _readable_members(text: str) -> Iterator[tuple[str, str, object]]:
    """The readable members of a JSON object: name, first characters of the value as written, value."""
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


def _status(written: str) -> int | None:
    """The status, written as a number or as a string that begins with one, with or without its quote (SYN-18)."""
    found = _STATUS.match(written)
    return int(found[1]) if found else None


def _reason(written: msgspec.Raw) -> str:
    """The reason, from its JSON. "": it is no string."""
    if not bytes(written).startswith(b'"'):
        return ""
    return displayable(_lenient(bytes(written).decode(errors="replace"))[0])


def displayable(text: object) -> str:
    """A client's text for display: one line of at most MAX_REASON characters, with U+FFFD for unpaired surrogates.

    "": the value is no string.
    """
    if not isinstance(text, str):
        return ""
    whole = text[: MAX_REASON + 1].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _INVISIBLE.sub(" ", whole[:MAX_REASON]).strip()
