"""One HTTP question to a server of the hospital, whose answer is JSON. Addresses name patients: no log sees them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

import httpx

_asking: ContextVar[bool] = ContextVar("asking", default=False)
# httpx logs the address of every request, and here that is the patient's number.
logging.getLogger("httpx").addFilter(lambda record: not _asking.get())


class Unanswered(Exception):
    """A server's answer is none. The message holds nothing of the patient."""


async def ask(
    http: httpx.AsyncClient, address: str, parameters: Iterable[tuple[str, str]], accept: str
) -> tuple[int, Any]:
    """GET `address`; its status and what its JSON says, None where there is no JSON.

    Redirects are not followed: an identifier is not handed on to whom nobody named. Raises httpx.HTTPError.
    """
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in parameters)
    token = _asking.set(True)
    try:
        answer = await http.get(f"{address}?{query}", headers={"Accept": accept}, follow_redirects=False)
    finally:
        _asking.reset(token)
    try:
        return answer.status_code, answer.json()
    except ValueError:
        return answer.status_code, None


def token(system: str, value: str) -> str:
    """A search token `system|value`; without a system, one that says there is none."""
    return f"{escaped(system)}|{escaped(value)}"


def escaped(part: str) -> str:
    """A part of a search parameter, with the escapes of FHIR search."""
    for sign in ("\\", "|", ",", "$"):
        part = part.replace(sign, f"\\{sign}")
    return part
