"""clients/identity/cases.json: the cases of local ids that both client libraries are tested with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fhircast_identity import LogicalId, StudyUid, System, Table, TypeCode

CASES: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "clients" / "identity" / "cases.json").read_text(encoding="utf-8")
)
NIN, MRN = "urn:oid:2.16.578.1.12.4.1.4.1", "urn:oid:2.999.19.5"


def rule(given: dict[str, Any]) -> System | TypeCode | StudyUid | LogicalId:
    """A rule as the file writes it."""
    if "study_uid" in given:
        return StudyUid()
    if "logical_id" in given:
        return LogicalId(given["logical_id"], assumed=given.get("assumed", False))
    if "code" in given:
        return TypeCode(given["code"], given.get("system", ""))
    return System(given["system"], given.get("label", ""))


def tables() -> list[Table]:
    """The tables of the file."""
    return [Table(_records(table["rows"]), type=table["type"]) for table in CASES["tables"].values()]


def _records(rows: list[dict[str, str]]) -> dict[str | tuple[str, str], list[dict[str, str]]]:
    records: dict[str | tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        key = (row["system"], row["value"]) if "system" in row else row["value"]
        record = {name: value for name, value in row.items() if name not in ("system", "value")}
        records.setdefault(key, []).append(record)
    return records


def patient(value: str = "4438001", system: str = MRN, **members: Any) -> dict[str, Any]:
    """A Patient with one identifier."""
    return {"resourceType": "Patient", "id": "p1", "identifier": [{"system": system, "value": value}], **members}


def study(uid: str, **members: Any) -> dict[str, Any]:
    """An ImagingStudy with its Study Instance UID."""
    return {
        "resourceType": "ImagingStudy",
        "id": "s1",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}],
        **members,
    }


def accession(number: str, **members: Any) -> dict[str, Any]:
    """An ImagingStudy that only an accession number identifies."""
    identifier = {"type": {"coding": [{"code": "ACSN"}]}, "value": number}
    return {"resourceType": "ImagingStudy", "id": "s1", "identifier": [identifier], **members}
