"""Acknowledgements as they come over a socket (FHIRcast 3.0.0, 2.5 "Event Notification Response"): `{"id", "status"}`, and a reason.

Clients write them by hand, cut texts in the middle of a character, and forget to escape. Where id and status can be read, they
count, whatever else the frame holds (SYN-15).
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import msgspec

#: Characters of the reason that a refusal may give, for people to read; the rest is cut off.
MAX_REASON = 256

_STATUS = re.compile(rb"""["']?\s*([1-5]\d\d)(?!\d)""", re.ASCII)
#: What would begin a new line, or cannot be seen, in the reason as others are shown it.
_UNSEEN = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
#: The members, in what is no JSON.
_ID = re.compile(r"""(["'])id\1\s*:\s*(["'])((?:[^"'\\]|\\.)*)\2""")
_WRITTEN_STATUS = re.compile(r"""(["'])status\1\s*:\s*(["']?\s*[1-5]\d\d(?!\d))""", re.ASCII)
#: Takes line ends in texts, and numbers of any length.
_lenient = json.JSONDecoder(strict=False, parse_int=str, parse_float=str).raw_decode


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
    """As far as it can be read: without its byte order mark, with U+FFFD for what is no UTF-8, and if need be by looking for the members."""
    if b"id" not in message or b"status" not in message:
        return None
    text = message.decode("utf-8-sig", "replace").strip()
    try:
        read, _ = _lenient(text)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        id_, status = _ID.search(text), _WRITTEN_STATUS.search(text)
        return Acknowledgement(id_[3], _status(status[2].encode()), "") if id_ and status else None
    if not isinstance(read.get("id"), str):
        return None
    return Acknowledgement(
        read["id"], _status(str(read.get("status")).encode(errors="replace")), _shown(read.get("reason"))
    )


def _status(written: bytes | msgspec.Raw) -> int | None:
    """A number, or text that begins with one (SYN-1)."""
    found = _STATUS.match(written)
    return int(found[1]) if found else None


def _reason(written: msgspec.Raw) -> str:
    """The reason as it was written in JSON, for people to read."""
    if not bytes(written).startswith(b'"'):
        return ""
    return _shown(_lenient(bytes(written).decode(errors="replace"))[0])


def _shown(reason: object) -> str:
    """On one line, with U+FFFD for halves of a character; "" where there is none that is text."""
    if not isinstance(reason, str):
        return ""
    whole = reason[: MAX_REASON + 1].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _UNSEEN.sub(" ", whole[:MAX_REASON]).strip()
