"""Local ids: what servers may answer that leads to another patient, shared by the Python and the JavaScript library."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhircast_client.errors import Refuse
from fhircast_identity import FhirSearch, IdentityMap, LookupFailed, PixManager, QidoRs, System
from tests.clients.identity_cases import CASES, MRN, patient, rule
from tests.clients.test_identity_cases import KINDS, cases

BASE = "https://fhir.example/fhir"
RESOLVERS: dict[str, Any] = {"fhir": FhirSearch, "pix": PixManager, "qido": QidoRs}


def answering(answer: dict[str, Any]) -> httpx.AsyncClient:
    """A server that gives this answer."""
    response = httpx.Response(answer["status"], json=answer["body"], headers=answer.get("headers"))
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda request: response))


@pytest.mark.parametrize("case", cases("servers"))
async def test_answer(case: dict[str, Any]) -> None:
    ((kind, options),) = case["ask"].items()
    rules = {type_: [rule(given) for given in of_type] for type_, of_type in case["rules"].items()}
    async with answering(case["answer"]) as http:
        ids = IdentityMap(rules, [RESOLVERS[kind](BASE, http, **options)])
        if "local" in case:
            assert (await ids.find_resource(case["resource"], case.get("patient"))).id == case["local"]
            return
        with pytest.raises(Refuse) as refused:
            await ids.find_resource(case["resource"], case.get("patient"))
    assert type(refused.value) is KINDS[case["refused"]]
    assert refused.value.reason == case["reason"]


@pytest.mark.req("IDM-2", "IDM-4")
async def test_an_answer_without_end_is_none() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * (1 << 20)

    async with httpx.AsyncClient(
        transport=httpx.MockTransport(lambda request: httpx.Response(200, content=endless()))
    ) as http:
        with pytest.raises(LookupFailed):
            await IdentityMap({"Patient": [System(MRN)]}, [FhirSearch(BASE, http)]).find_resource(patient())
    assert sent < 20


def test_every_resolver_has_cases() -> None:
    assert {kind for case in CASES["servers"] for kind in case["ask"]} == set(RESOLVERS)
