"""What identifies a resource of the open context: its business identifiers, which no update gives other values (CON-17).

Nothing is validated here (FHIRcast 3.0.0, 2.10: "A Hub is not responsible for structurally validating FHIR resources"): what
cannot be read identifies nothing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

import msgspec

#: The system of a Study Instance UID, whose value is the UID with this before it; not everybody writes that.
_DICOM_UID, _OID = "urn:dicom:uid", "urn:oid:"
#: Codes of a type that are looked at: one in each of a few code systems.
_MAX_CODES = 16
#: What some put around values.
_PADDING = " \t\r\n\0"

#: Values by the system and the code of the type, either of which may be "".
_Values = dict[tuple[str, str], set[str]]


class _Identifier(NamedTuple):
    """An identifier that is in use: its system ("" without one), the codes of its type, and its value."""

    system: str
    codes: frozenset[str]
    value: str


class _Resource(msgspec.Struct):
    """The members that identify a resource."""

    identifier: msgspec.Raw = msgspec.Raw(b"null")
    accession: msgspec.Raw = msgspec.Raw(b"null")
    uid: msgspec.Raw = msgspec.Raw(b"null")
    basedOn: msgspec.Raw = msgspec.Raw(b"null")


class _Item(msgspec.Struct):
    resource: _Resource


_RESOURCE, _ITEM = msgspec.json.Decoder(_Resource), msgspec.json.Decoder(_Item)


def identity_size(opened: Iterable[bytes], shared: bytes) -> int:
    """The bytes of the members that `changed_identity` reads: a megabyte of them takes a tenth of a second."""
    resources = [*(_ITEM.decode(item).resource for item in opened), _RESOURCE.decode(shared)]
    return sum(len(memoryview(raw)) for each in resources for raw in msgspec.structs.astuple(each))


def changed_identity(opened: Iterable[bytes], shared: bytes) -> str:
    """The member by which `shared` is another one than the `opened`, "" where it is not: `identifier`, or `basedOn`.

    `opened` are items of the open's context, as JSON, and `shared` is a resource. The resource is another one where the open gave values
    in a system, and the resource has others there, and none of these. The same holds for each type in a system. Identifiers
    without a system are compared by their types. A value may be left out, or added beside one that stays.
    """
    before: dict[str, list[_Identifier]] = defaultdict(list)
    for item in opened:
        for member, identifiers in _identifiers(_read(_ITEM.decode(item).resource)).items():
            before[member] += identifiers
    for member, identifiers in _identifiers(_read(_RESOURCE.decode(shared))).items():
        if _differ(before[member], identifiers):
            return member
    return ""


def _differ(before: list[_Identifier], after: list[_Identifier]) -> bool:
    ways = (
        (_values(before), _values(after, of_any_system=True)),
        (_values(before, of_any_system=True), _values(after)),
    )
    return any(kind in new and values.isdisjoint(new[kind]) for old, new in ways for kind, values in old.items())


def _values(identifiers: list[_Identifier], *, of_any_system: bool = False) -> _Values:
    """The values of each kind; `of_any_system`: what has a system and a type is also there as if it had no system."""
    values: _Values = defaultdict(set)
    for system, codes, value in identifiers:
        for code in {"", *codes} if system else codes or {""}:
            values[system, code].add(value)
        for code in codes if of_any_system else ():
            values["", code].add(value)
    return dict(values)


def _read(resource: _Resource) -> dict[str, Any]:
    # Numbers stay text: Python refuses to make an int of more than 4,300 digits.
    members = msgspec.structs.asdict(resource).items()
    return {name: json.loads(bytes(raw), parse_int=str, parse_float=str) for name, raw in members}


def _identifiers(resource: dict[str, Any]) -> dict[str, list[_Identifier]]:
    """Of a resource, and of the orders it is based on: "the accession number of the order is provided in the DiagnosticReport's
    `basedOn` array" (profile FHIRcastDiagnosticReportOpen)."""
    # STU3 of FHIR has members of their own for the two numbers of a study.
    own = [*_objects(resource.get("identifier")), *_objects(resource.get("accession"))]
    own.append({"system": _DICOM_UID, "value": resource.get("uid")})
    orders = [each for order in _objects(resource.get("basedOn")) for each in _objects(order.get("identifier"))]
    return {member: _in_use(some) for member, some in (("identifier", own), ("basedOn", orders))}


def _in_use(identifiers: Iterable[dict[str, Any]]) -> list[_Identifier]:
    found = []
    for identifier in identifiers:
        value = _text(identifier.get("value")).strip(_PADDING).removeprefix(_OID)
        if value and identifier.get("use") != "old":
            found.append(_Identifier(_text(identifier.get("system")).strip(_PADDING), _codes(identifier), value))
    return found


def _codes(identifier: dict[str, Any]) -> frozenset[str]:
    """Those of its type, whatever code system they are of: R3 and R4 call that of MR and ACSN differently."""
    codings = (each for type_ in _objects(identifier.get("type")) for each in _objects(type_.get("coding")))
    return frozenset(filter(None, (_text(coding.get("code")) for coding in islice(codings, _MAX_CODES))))


def _objects(value: object) -> list[dict[str, Any]]:
    """The objects in an array, or the one that stands in its place."""
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
