"""A connection of an attacker: bytes go out and come in only when an attack says so, as no library's would."""

from __future__ import annotations

import asyncio
import re
import socket
from urllib.parse import urlencode

#: Where attackers come from: another address than the victim's, so that a limit by address is theirs alone.
ADDRESS = "127.0.0.2"
#: Bytes that are read at once.
_READ = 65536
#: First byte of a server's close frame, and the mask of a client's whose key is zero.
_CLOSE, _MASKED = 0x88, 0x80
#: State of a TCP connection that neither side has ended (Linux's TCP_ESTABLISHED).
_ESTABLISHED = 1
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")


def head(method: str, path: str, token: str | None = None, **headers: str) -> bytes:
    """A request up to its body; `content_type` means Content-Type."""
    lines = [f"{method} {path} HTTP/1.1", "Host: hub"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def json_post(path: str, token: str | None, body: bytes) -> bytes:
    """A POST of an event."""
    return head("POST", path, token, content_type="application/json", content_length=str(len(body))) + body


def form_post(path: str, token: str | None, **parameters: str) -> bytes:
    """A POST of a form; `hub__topic` means hub.topic."""
    body = urlencode({name.replace("__", "."): value for name, value in parameters.items()}).encode()
    type_ = "application/x-www-form-urlencoded"
    return head("POST", path, token, content_type=type_, content_length=str(len(body))) + body


def frame(first: int, payload: bytes = b"") -> bytes:
    """A client's frame, masked with zeros; `first` is its first byte, such as 0x81 for a whole text."""
    size = len(payload)
    if size < 126:
        length = bytes((_MASKED | size,))
    elif size < 65536:
        length = bytes((_MASKED | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((_MASKED | 127,)) + size.to_bytes(8, "big")
    return bytes((first,)) + length + bytes(4) + payload


class Line:
    """One TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._came = b""

    @classmethod
    async def dial(cls, port: int, receive_bytes: int = 0) -> Line:
        """A connection to the hub; `receive_bytes` is what its kernel takes before it is read. Raises OSError."""
        sock = socket.socket()
        try:
            sock.setblocking(False)
            if receive_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            sock.bind((ADDRESS, 0))
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def send(self, data: bytes) -> None:
        """Send all of it, however long the hub takes. Raises OSError when the hub has hung up."""
        await self._loop.sock_sendall(self.sock, data)

    async def recv(self, size: int = _READ) -> bytes:
        """What has come, at least a byte. Raises ConnectionError when the hub has hung up."""
        data = await self._loop.sock_recv(self.sock, size)
        if not data:
            raise ConnectionError("the hub hung up")
        return data

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer; a switch to WebSocket is one without a body."""
        while (end := self._came.find(b"\r\n\r\n")) < 0:
            self._came += await self.recv()
        lines = self._came[:end].lower().split(b"\r\n")
        size = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        self._came = self._came[end + 4 :]
        while len(self._came) < size:
            self._came += await self.recv()
        body, self._came = self._came[:size], self._came[size:]
        return int(lines[0].split()[1]), body

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; status and body of its answer."""
        await self.send(request)
        return await self.answer()

    async def ending(self) -> str:
        """Read a WebSocket's frames until the hub hangs up; how: `closed 1008`, or `cut off`."""
        try:
            while True:
                code = self._close_code()
                if code is not None:
                    return f"closed {code}"
                self._came += await self.recv()
        except OSError:
            return "cut off"

    def _close_code(self) -> int | None:
        """Drop the frames that have come; the code of a close frame among them."""
        while len(self._came) >= 4:
            first, size = self._came[0], self._came[1]
            start = 2 if size < 126 else 4 if size == 126 else 10
            if size >= 126:
                size = int.from_bytes(self._came[2:start], "big")
            if len(self._came) < start + size:
                break
            if first == _CLOSE:
                return int.from_bytes(self._came[start : start + 2], "big")
            self._came = self._came[start + size :]
        return None

    def ended(self) -> bool:
        """Whether the hub has ended it, also where what came before is still unread."""
        return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED

    def unread(self) -> str:
        """The status of an answer that came and was not read, such as `http 401`; "" without one."""
        try:
            found = _STATUS.match(self._came or self.sock.recv(64, socket.MSG_PEEK))
        except OSError:
            return ""
        return f"http {found[1].decode()}" if found else ""

    def close(self) -> None:
        """Hang up."""
        self.sock.close()
