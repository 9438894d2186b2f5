"""An authorization server for operators: it logs everybody in, and gives a token for a code with its proof."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.auth.issuer_server import OPENID, IssuerServer


class LoginServer(IssuerServer):
    """`token` makes the token of who logs in. `asked_for` are the authorization requests so far."""

    def __init__(self, token: Callable[[], str] = lambda: "") -> None:
        super().__init__()
        self.token = token
        self.asked_for: list[dict[str, str]] = []
        #: Code -> the challenge of its request.
        self._codes: dict[str, str] = {}
        #: What is answered in place of a code. "": a code is given.
        self.error = ""
        #: The issuer that answers name. None: the server's own.
        self.named: str | None = None

    def publish_login(self) -> None:
        """Put the discovery document at its place."""
        document = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "authorization_response_iss_parameter_supported": True,
        }
        self.publish(OPENID, document)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        url = urlsplit(target)
        if url.path == "/authorize":
            answer = self._authorize(_first(url.query))
        elif url.path == "/token":
            length = next(
                (int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length:")),
                0,
            )
            body = await reader.readexactly(length)
            answer = self._exchange(method, _first(body.decode()))
        else:
            again = asyncio.StreamReader()
            again.feed_data(head.encode("latin-1"))
            again.feed_eof()
            await super()._serve(again, writer)
            return
        writer.write(answer)
        await writer.drain()
        writer.close()

    def _authorize(self, query: dict[str, str]) -> bytes:
        self.asked_for.append(query)
        code = secrets.token_hex(8)
        self._codes[code] = query["code_challenge"]
        found = {"error": self.error} if self.error else {"code": code}
        found |= {"state": query["state"], "iss": self.url if self.named is None else self.named}
        return _answer("303 See Other", {"Location": f"{query['redirect_uri']}?{urlencode(found)}"})

    def _exchange(self, method: str, form: dict[str, str]) -> bytes:
        cors = {"Access-Control-Allow-Origin": "*", "Content-Type": "application/json", "Cache-Control": "no-store"}
        proof = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(proof).rstrip(b"=").decode()
        if method != "POST" or self._codes.pop(form.get("code", ""), None) != challenge:
            return _answer("400 Bad Request", cors, {"error": "invalid_grant"})
        return _answer("200 OK", cors, {"access_token": self.token(), "token_type": "Bearer"})


def _first(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}


def _answer(status: str, headers: dict[str, str], body: object = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content
