"""WebSocket frames (RFC 6455 section 5.2), as the server writes them: final, unmasked, without extensions."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # the fast one, where there is one


def text_frame(payload: bytes) -> bytes:
    """The frame of a text message; built once, whatever the number of sockets it is written to."""
    return text_header(len(payload)) + payload


def text_header(size: int) -> bytes:
    """What stands before a text message of so many bytes."""
    if size < 126:
        return bytes((0x81, size))
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2)
    return b"\x81\x7f" + size.to_bytes(8)


class Long(NamedTuple):
    """The frame of a long message, in two parts: the message is not copied for it."""

    header: bytes
    message: bytes


#: A frame as it is written.
Frame = bytes | Long


def size_of(frame: Frame) -> int:
    """Bytes of a frame."""
    return len(frame) if isinstance(frame, bytes) else len(frame.header) + len(frame.message)


def frame_of(message: bytes, longest: int) -> Frame:
    """The frame of a text message, in one part up to so many bytes."""
    if len(message) <= longest:
        return text_frame(message)
    return Long(text_header(len(message)), message)


def put(transport: asyncio.WriteTransport, frame: Frame) -> None:
    """Write a frame."""
    if isinstance(frame, bytes):
        transport.write(frame)
    else:
        transport.write(frame.header)
        transport.write(frame.message)


def end_of_frame(data: bytes, start: int) -> int | None:
    """Where the frame that begins at `start` ends; None if its header has not all come. `data` may be shorter than that."""
    if len(data) < start + 2:
        return None
    masked, length = data[start + 1] & 0x80, data[start + 1] & 0x7F
    header = start + 2
    if length > 125:
        size = 2 if length == 126 else 8
        if len(data) < header + size:
            return None
        length = int.from_bytes(data[header : header + size])
        header += size
    return header + (4 if masked else 0) + length


def payload(data: bytes, start: int, end: int) -> bytes:
    """What a masked frame from `start` to `end` says (section 5.3)."""
    length = data[start + 1] & 0x7F
    mask = start + 2 + (0 if length < 126 else 2 if length == 126 else 8)
    return apply_mask(data[mask + 4 : end], data[mask : mask + 4])


def text_of(frame: Frame) -> bytes:
    """The text of a frame that `frame_of` built."""
    if isinstance(frame, Long):
        return frame.message
    return frame[2 if frame[1] < 126 else 4 if frame[1] == 126 else 10 :]


def is_utf8(text: bytes) -> bool:
    """Whether a text message is what it must be (section 5.6: "The "Payload data" is text data encoded as UTF-8")."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
