"""One HTTP question to a server of the hospital, whose answer is JSON. Addresses name patients: no log sees them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

#: An answer about one patient or study is smaller.
_MOST_BYTES = 8 * 1024 * 1024
_asking: ContextVar[bool] = ContextVar("asking", default=False)
# httpx logs the address of every request, and here that is the patient's number.
logging.getLogger("httpx").addFilter(lambda record: not _asking.get())


class Unanswered(Exception):
    """A server's answer is none. The message holds nothing of the patient."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer's status, what its JSON says (None where there is no JSON), and the text of its Warning headers."""

    status: int
    said: Any
    warning: str


async def ask(http: httpx.AsyncClient, address: str, parameters: Iterable[tuple[str, str]], accept: str) -> Answered:
    """GET `address`.

    Redirects are not followed: an identifier is not handed on to whom nobody named. Raises httpx.HTTPError, and
    Unanswered for an answer without end.
    """
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in parameters)
    token = _asking.set(True)
    try:
        request = http.build_request("GET", f"{address}?{query}", headers={"Accept": accept})
        answer = await http.send(request, stream=True, follow_redirects=False)
        try:
            content = await _content(answer)
        finally:
            await answer.aclose()
    finally:
        _asking.reset(token)
    return Answered(answer.status_code, _json(content), answer.headers.get("Warning", ""))


async def _content(answer: httpx.Response) -> bytes:
    content = bytearray()
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > _MOST_BYTES:
            raise Unanswered(f"more than {_MOST_BYTES} bytes")
    return bytes(content)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def token(system: str, value: str) -> str:
    """A search token `system|value`; without a system, one that says there is none."""
    return f"{escaped(system)}|{escaped(value)}"


def escaped(part: str) -> str:
    """A part of a search parameter, with the escapes of FHIR search."""
    for sign in ("\\", "|", ",", "$"):
        part = part.replace(sign, f"\\{sign}")
    return part
