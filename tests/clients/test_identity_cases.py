"""Local ids: the cases that the Python and the JavaScript library share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fhircast_client.errors import Refuse
from fhircast_identity import IdentityMap, Local, LookupFailed, Mismatch, NoMatch, Query, SeveralMatches, Table
from fhircast_identity.family_names import spellings
from fhircast_identity.rules import in_force
from tests.clients.identity_cases import CASES, rule, tables

KINDS = {kind.__name__: kind for kind in (NoMatch, SeveralMatches, Mismatch, LookupFailed)}


def named(entry: dict[str, Any]) -> Any:
    return pytest.param(entry, id=entry["name"], marks=pytest.mark.req(*entry.get("proves", ["IDM-2"])))


def cases(part: str) -> list[Any]:
    return [named(entry) for entry in CASES[part]]


def values(resource: Any) -> list[str]:
    """What of a resource no refusal may tell."""
    if isinstance(resource, dict):
        return [value for name, inner in resource.items() if name != "resourceType" for value in values(inner)]
    if isinstance(resource, list):
        return [value for inner in resource for value in values(inner)]
    return [resource] if isinstance(resource, str) else []


async def found(case: dict[str, Any]) -> Local:
    """What an IdentityMap of this case finds."""
    rules = {kind: [rule(given) for given in of_kind] for kind, of_kind in case["rules"].items()}
    ids = IdentityMap(rules, tables())
    if "event" in case:
        event: Any = SimpleNamespace(**case["event"])
        return await ids.find(event)
    return await ids.find_resource(case["resource"], case.get("patient"), url=case.get("url", ""))


@pytest.mark.parametrize("case", cases("cases"))
async def test_case(case: dict[str, Any]) -> None:
    """The local id, or the refusal with its whole sentence."""
    if "local" in case:
        assert (await found(case)).id == case["local"]
        return
    with pytest.raises(Refuse) as refused:
        await found(case)
    assert type(refused.value) is KINDS[case["refused"]]
    assert refused.value.reason == case["reason"]
    sent = [value for value in values(case.get("resource")) if any(letter.isdigit() for letter in value)]
    assert not [value for value in sent if value in refused.value.reason]


@pytest.mark.req("IDM-3")
@pytest.mark.parametrize(("one", "other", "same"), CASES["names"])
def test_family_names(one: str, other: str, same: bool) -> None:
    """Spellings of one name, and names that are not."""
    assert bool(spellings(one) & spellings(other)) is same
    assert spellings(one) & spellings(one)


@pytest.mark.req("IDM-1")
@pytest.mark.parametrize(("item", "expected"), CASES["in_force"]["items"])
def test_in_force(item: dict[str, Any], expected: bool) -> None:
    """Whether an identifier or a name still counts at that moment."""
    assert in_force(item, datetime.fromisoformat(CASES["in_force"]["now"])) is expected


@pytest.mark.req("IDM-3")
def test_a_name_from_outside_has_not_endlessly_many_spellings() -> None:
    assert len(spellings("å" * 10_000)) <= 64
    assert spellings("å" * 1000) == spellings("Å" * 1000)


@pytest.mark.parametrize("case", cases("rows"))
async def test_rows(case: dict[str, Any]) -> None:
    """What a table from rows answers, or why the rows cannot be read."""
    await check_table(case, lambda options: Table.from_rows(case["rows"], **options))


@pytest.mark.parametrize("case", cases("csv"))
async def test_csv(case: dict[str, Any], tmp_path: Path) -> None:
    """What a table from a file answers, or why the file cannot be read."""
    path = tmp_path / "patients.csv"
    path.write_bytes(case["content"].encode())
    await check_table(case, lambda options: Table.from_csv(path, **options))


async def check_table(case: dict[str, Any], make: Callable[[dict[str, Any]], Table]) -> None:
    options = dict(case.get("options", {}))
    options["identifiers"] = {column: rule(given) for column, given in options.get("identifiers", {}).items()}
    if "error" in case:
        with pytest.raises(ValueError, match=case["error"]):
            make(options)
        return
    table = make(options)
    for ask in case["asks"]:
        query = Query("Patient", ask["value"], ask.get("system", ""), tuple(ask.get("codes", ())))
        answer = await table.find(query)
        assert [local.id for local in answer] == ask["ids"], ask
        assert [local.family for local in answer] == ask.get("families", [local.family for local in answer])


@pytest.mark.parametrize("case", cases("publishable"))
async def test_publishable(case: dict[str, Any]) -> None:
    """The resources to publish, the anchor first, or the refusal."""
    ids = IdentityMap({}, tables())
    if "resources" in case:
        assert await ids.publishable(case["type"], case["id"]) == case["resources"]
        return
    with pytest.raises(Refuse) as refused:
        await ids.publishable(case["type"], case["id"])
    assert type(refused.value) is KINDS[case["refused"]]
    assert refused.value.reason == case["reason"]


@pytest.mark.req("IDM-2")
@pytest.mark.parametrize(
    "record", [{"local_id": ""}, {"local_id": "1", "birth_date": "13.05.1970"}, {"local_id": "1", "surname": "X"}]
)
def test_a_record_that_cannot_be_read(record: dict[str, str]) -> None:
    """A misspelt member or a strange date must not pass for "nothing to compare"."""
    with pytest.raises(ValueError, match=r"local id|birth date|surname"):
        Table({"4438001": record})
