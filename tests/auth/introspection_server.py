"""A real authorization server that is asked what tokens mean (RFC 7662): what it was asked, by whom, and what it says."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from urllib.parse import parse_qs

from tests.auth.issuer_server import Answer, IssuerServer

INTROSPECT = "/introspect"


class IntrospectionServer(IssuerServer):
    """Beside what IssuerServer does: explains the tokens in `tokens`, and calls every other one inactive.

    `asked_by` are user and password of each question, `forms` what was asked; `instead` is answered whatever the question;
    nothing is said of tokens that begin with `silent`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[str, dict[str, Any]] = {}
        self.asked_by: list[str] = []
        self.forms: list[dict[str, list[str]]] = []
        self.instead: Answer | None = None
        self.silent: bytes | None = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            method, path, _ = head.split(" ", 2)
            self.asked[path] += 1
            self.arrived.release()
            lines = [line.partition(": ") for line in head.split("\r\n")[1:]]
            headers = {name.lower(): value for name, _, value in lines}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            await self.open.wait()
            if self.silent is not None and body.startswith(b"token=" + self.silent):
                await reader.read()  # until the hub hangs up
                return
            answer = self.answers.get(path, Answer(404))
            if method == "POST" and path == INTROSPECT:
                answer = self._explain(headers, body)
            head = f"HTTP/1.1 {answer.status} X\r\nConnection: close\r\nContent-Length: {len(answer.body)}\r\n"
            writer.write((head + "".join(f"{line}\r\n" for line in answer.headers) + "\r\n").encode() + answer.body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the hub hung up, as it may
        finally:
            writer.close()

    def _explain(self, headers: dict[str, str], body: bytes) -> Answer:
        form = parse_qs(body.decode())
        self.forms.append(form)
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        self.asked_by.append(f"{scheme} {base64.b64decode(credentials).decode()}")
        if self.instead is not None:
            return self.instead
        claims = self.tokens.get(form["token"][0], {"active": False})
        return Answer(200, json.dumps({"active": True, **claims}).encode())
