"""HTTP requests to servers of the hospital, with JSON answers. Addresses contain patient data and must not be logged."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

#: No answer about one patient or study is larger.
_MOST_BYTES = 8 * 1024 * 1024
_asking: ContextVar[bool] = ContextVar("asking", default=False)
# httpx logs the address of every request, which contains the patient's number.
logging.getLogger("httpx").addFilter(lambda record: not _asking.get())


class UnusableAnswer(Exception):
    """A server gave no usable answer. The message contains no patient data."""


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """An HTTP answer: its status, its JSON (None where it is not JSON), and the text of its Warning headers."""

    status: int
    json: Any
    warning: str


async def ask(http: httpx.AsyncClient, address: str, parameters: Iterable[tuple[str, str]], accept: str) -> JsonAnswer:
    """GET `address`.

    Redirects are not followed: identifiers go only to the configured server. Raises httpx.HTTPError, and UnusableAnswer
    for an answer that is too large.
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
    return JsonAnswer(answer.status_code, _json(content), answer.headers.get("Warning", ""))


async def _content(answer: httpx.Response) -> bytes:
    content = bytearray()
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > _MOST_BYTES:
            raise UnusableAnswer(f"more than {_MOST_BYTES} bytes")
    return bytes(content)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def token(system: str, value: str) -> str:
    """A search token `system|value`. An empty system means an identifier without a system."""
    return f"{escaped(system)}|{escaped(value)}"


def escaped(part: str) -> str:
    """A part of a search parameter, escaped as in FHIR search."""
    for sign in ("\\", "|", ",", "$"):
        part = part.replace(sign, f"\\{sign}")
    return part
