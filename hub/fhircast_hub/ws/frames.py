"""WebSocket frames (RFC 6455 section 5): text frames as the server writes them, and the parts of a client's frame.

The server's frames are final, unmasked, and without extensions.
"""

from __future__ import annotations

from typing import NamedTuple

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # websockets' C version, where installed

#: Bytes of a client's frame (SYN-15). An acknowledgement takes a hundred, and may bring a long reason.
MAX_FRAME = 65536


def text_frame(payload: bytes) -> bytes:
    """The frame of a text message. Build one frame, and write it to any number of sockets."""
    return text_header(len(payload)) + payload


def text_header(size: int) -> bytes:
    """The frame header of a text message of `size` bytes."""
    if size < 126:
        return bytes((0x81, size))
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2)
    return b"\x81\x7f" + size.to_bytes(8)


def ping_frame(payload: bytes) -> bytes:
    """The frame of a ping with a payload of at most 125 bytes."""
    return bytes((0x89, len(payload))) + payload


class LongFrame(NamedTuple):
    """The frame of a long message, in two parts, so that the message is not copied."""

    header: bytes
    message: bytes


#: A frame to be written.
Frame = bytes | LongFrame


def size_of(frame: Frame) -> int:
    """Bytes of a frame."""
    return len(frame) if isinstance(frame, bytes) else len(frame.header) + len(frame.message)


def frame_of(message: bytes, longest: int) -> Frame:
    """The frame of a text message; a LongFrame if the message has more than `longest` bytes."""
    header = text_header(len(message))
    return header + message if len(message) <= longest else LongFrame(header, message)


def end_of_frame(data: bytes, start: int) -> int | None:
    """The index behind the frame that begins at `start`, also if `data` ends before. None: the header is incomplete."""
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
    """The unmasked payload of the masked frame from `start` to `end` (section 5.3)."""
    length = data[start + 1] & 0x7F
    mask = start + 2 + (0 if length < 126 else 2 if length == 126 else 8)
    return apply_mask(data[mask + 4 : end], data[mask : mask + 4])


def text_of(frame: Frame) -> bytes:
    """The message of a frame built by `frame_of`."""
    if isinstance(frame, LongFrame):
        return frame.message
    return frame[2 if frame[1] < 126 else 4 if frame[1] == 126 else 10 :]


def is_utf8(text: bytes) -> bool:
    """Whether a text message is valid (section 5.6: "The "Payload data" is text data encoded as UTF-8")."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


class FragmentedMessage:
    """Collects the frames of a fragmented message (section 5.4). Only text is kept."""

    __slots__ = ("_text",)

    def __init__(self) -> None:
        #: One buffer and no list of frames: a peer may send any number of empty frames. None: not a text message.
        self._text: bytearray | None = None

    def begin(self, *, text: bool) -> None:
        """Start with the first frame of a message."""
        self._text = bytearray() if text else None

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Add the payload of a frame."""
        if self._text is not None:
            self._text += data

    def end(self) -> bytes | None:
        """The whole text; None if the message was not text."""
        text, self._text = self._text, None
        return None if text is None else bytes(text)
