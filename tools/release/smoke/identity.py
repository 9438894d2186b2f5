"""Tries an installed fhircast-identity: one patient is found by a number, and another one is refused."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version
from pathlib import Path

import fhircast_identity
from fhircast_client import Refuse
from fhircast_identity import IdentityMap, System, Table

NUMBERS = "urn:oid:2.16.578.1.12.4.1.4.1"


def patient(number: str) -> dict[str, object]:
    return {"resourceType": "Patient", "identifier": [{"system": NUMBERS, "value": number}]}


async def main() -> None:
    ids = IdentityMap(
        {"Patient": [System(NUMBERS, "national number")]}, [Table({(NUMBERS, "13057000001"): "local-17"})]
    )
    found = await ids.find_resource(patient("13057000001"))
    assert found.id == "local-17", found
    reason = ""
    try:
        await ids.find_resource(patient("13057000002"))
    except Refuse as refused:
        reason = refused.reason
    assert reason, "an unknown patient must be refused"


folder = Path(fhircast_identity.__path__[0])
assert folder.is_relative_to(sys.prefix), f"the module must be the installed one, not {folder}"
assert (folder / "py.typed").is_file(), "the marker of types must be there"
assert version("fhircast-identity") == sys.argv[1], version("fhircast-identity")
asyncio.run(main())
