"""Plays a page of wire messages against a real hub: sends what applications send, and compares what comes.

    ```http title="Viewer to hub"        a request, as it is written but for Content-Length
    ```http title="Hub to viewer"        its answer: status, the headers that the page shows, body
    ```json title="Hub to viewer"        the next message on the viewer's socket
    ```json title="Viewer to hub"        a message on the viewer's socket
    ```text title="Hub to viewer"        `close 1000`: the hub closes the viewer's socket with this code
    ```text title="Viewer to hub"        `cut`: the viewer's network is gone

Every message must be on the page: at its end no socket has anything left to read.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import select
import socket
import struct
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPResponse
from typing import Self

from tests.docs.blocks import Block
from tests.docs.values import Values

#: Seconds until a message must have come.
PATIENCE = 20
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Socket:
    """A WebSocket, in as few lines as the page says that there are needed."""

    def __init__(self, connection: socket.socket, rest: bytes) -> None:
        self._connection, self._rest = connection, rest

    def send(self, text: str, opcode: int = _TEXT) -> None:
        """Send a masked frame."""
        payload, mask = text.encode(), os.urandom(4)
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack("!H", size)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._connection.sendall(bytes([0x80 | opcode]) + length + mask + masked)

    def receive(self) -> tuple[int, bytes]:
        """The next frame that is no ping: its opcode and payload. Pings are answered."""
        while True:
            opcode, payload = self._frame()
            if opcode != _PING:
                return opcode, payload
            self.send(payload.decode(), _PONG)

    def left(self) -> bytes:
        """The payload of a frame that has come, and nobody has read. Pings are answered, and do not count."""
        while self._has_come():
            opcode, payload = self._frame()
            if opcode != _PING:
                return payload or bytes([opcode])
            self.send(payload.decode(), _PONG)
        return b""

    def cut(self) -> None:
        """End the connection without a word."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    def close(self) -> None:
        self._connection.close()

    def _has_come(self) -> bool:
        """Whether there is a byte to read. The end of the connection is none."""
        readable, _, _ = select.select([self._connection], [], [], 0)
        return bool(self._rest or (readable and self._connection.recv(1, socket.MSG_PEEK)))

    def _frame(self) -> tuple[int, bytes]:
        first, second = self._exactly(2)
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(self._exactly(2 if size == 126 else 8), "big")
        return first & 0x0F, self._exactly(size)

    def _exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            came = self._connection.recv(65536)
            assert came, "the hub ended the connection"
            self._rest += came
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken


class Wire:
    """Plays the blocks of a page, in their order. `hosts` has the address (host:port) of each host of the page."""

    def __init__(self, hosts: dict[str, str], known: dict[str, str]) -> None:
        self._hosts = hosts
        schemes = {"https": "http", "wss": "ws"}
        urls = {f"{scheme}://{host}": f"{to}://{hosts[host]}" for host in hosts for scheme, to in schemes.items()}
        self._values = Values({**urls, **known})
        self._sockets: dict[str, Socket] = {}
        self._answer: tuple[int, str, dict[str, str], str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets.values():
            each.close()

    def play(self, block: Block) -> None:
        """Send the block, or wait for what it shows. Raises AssertionError where something else comes."""
        sender, _, receiver = block.title.lower().partition(" to ")
        try:
            if block.language == "http":
                self._http(sender, block.text)
            elif sender == "hub":
                self._expect(self._sockets[receiver], block.text)
            elif block.text.strip() == "cut":
                self._sockets.pop(sender).cut()
            else:
                self._sockets[sender].send(self._sent(block.text))
        except (AssertionError, OSError, KeyError, ValueError) as error:
            raise AssertionError(f"{block.where}: {error}") from error

    def nothing_left(self) -> None:
        """Raises AssertionError where a socket has a message that the page does not have."""
        assert self._answer is None, "the page does not have the last answer"
        left = {name: each.left() for name, each in self._sockets.items()}
        assert not any(left.values()), f"the page does not have {left}"

    def _sent(self, text: str) -> str:
        """A message with real values; its timestamps are now."""
        for example in _TIME.findall(text):
            if self._values.real(example) == example:
                self._values.learn(example, datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"))
        return self._values.real(text)

    def _expect(self, connection: Socket, text: str) -> None:
        opcode, payload = connection.receive()
        if code := re.fullmatch(r"close (\d+)\s*", text):
            assert (opcode, int.from_bytes(payload[:2], "big")) == (_CLOSE, int(code[1])), payload
            return
        assert opcode == _TEXT, (opcode, payload)
        self._values.compare(json.loads(text), json.loads(payload))

    def _http(self, sender: str, text: str) -> None:
        head, _, body = text.partition("\n\n")
        head = re.sub(r"\n\s+", "", head)  # a long line goes on in the next ones
        if head.startswith("HTTP/1.1"):
            self._compare_answer(head, body)
            return
        assert self._answer is None, "the page does not have the answer before"
        first, *lines = head.splitlines()
        method, path, version = first.split(" ")
        assert version == "HTTP/1.1"
        headers = dict(line.split(": ", 1) for line in lines)
        host = self._hosts[headers["Host"]]
        headers = {name: self._values.real(value) for name, value in headers.items()} | {"Host": host}
        if headers.get("Upgrade") == "websocket":
            self._upgrade(sender, host, self._values.real(path), headers)
            return
        # A form stands in several lines, so that people can read the form.
        form = "urlencoded" in headers.get("Content-Type", "")
        sent = self._sent("".join(line.strip() for line in body.splitlines()) if form else body)
        connection = HTTPConnection(host, timeout=PATIENCE)
        path = self._values.real(path)
        connection.request(method, path, sent.encode() or None, headers)
        answer = connection.getresponse()
        self._answer = (answer.status, answer.reason, _headers(answer), answer.read().decode())
        connection.close()

    def _upgrade(self, name: str, host: str, path: str, headers: dict[str, str]) -> None:
        address, _, port = host.partition(":")
        connection = socket.create_connection((address, int(port)), PATIENCE)
        lines = [f"GET {path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        came = b""
        while b"\r\n\r\n" not in came:
            more = connection.recv(65536)
            assert more, came
            came += more
        head, _, rest = came.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        _, status, reason = first.split(" ", 2)
        answer = {key.title(): value for key, value in (line.split(": ", 1) for line in lines)}
        accept = base64.b64encode(hashlib.sha1((headers["Sec-WebSocket-Key"] + _MAGIC).encode()).digest()).decode()
        assert answer["Sec-Websocket-Accept"] == accept
        self._answer = (int(status), reason, answer, "")
        self._sockets[name] = Socket(connection, rest)

    def _compare_answer(self, head: str, body: str) -> None:
        assert self._answer, "no request came before this answer"
        status, reason, headers, came = self._answer
        self._answer = None
        first, *lines = head.splitlines()
        assert first == f"HTTP/1.1 {status} {reason}", f"{status} {reason}: {came}"
        for name, value in (line.split(": ", 1) for line in lines):
            if name == "Location":
                self._compare_redirect(value, headers["Location"])
            else:
                self._values.compare_text(value, headers.get(name.title(), ""))
        self._values.compare_text(body, came)

    def _compare_redirect(self, example: str, real: str) -> None:
        pattern = re.escape(self._values.real(example)).replace(re.escape("code="), "code=")
        code = re.search(r"[?&]code=([^&]+)", example)
        assert code
        match = re.fullmatch(pattern.replace(re.escape(code[1]), "([^&]+)"), real)
        assert match, f"{real} came"
        self._values.learn(code[1], match[1])


def _headers(answer: HTTPResponse) -> dict[str, str]:
    return {name.title(): value for name, value in answer.getheaders()}
