"""WebSocket frames (RFC 6455 section 5.2), as the server writes them: final, unmasked, without extensions."""

from __future__ import annotations

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # the fast one, where there is one


def text_frame(payload: bytes) -> bytes:
    """The frame of a text message; built once, whatever the number of sockets it is written to."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload


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


def text_of(frame: bytes) -> bytes:
    """The text of a frame that `text_frame` built."""
    return frame[2 if frame[1] < 126 else 4 if frame[1] == 126 else 10 :]


def is_utf8(text: bytes) -> bool:
    """Whether a text message is what it must be (section 5.6: "The "Payload data" is text data encoded as UTF-8")."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
