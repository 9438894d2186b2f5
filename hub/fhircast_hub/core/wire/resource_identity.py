"""The business identifiers of a resource. An update must not give other values to those of the open context (CON-17).

Nothing is validated here (FHIRcast 3.0.0, 2.10: "A Hub is not responsible for structurally validating FHIR resources"):
unreadable identifiers are ignored.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

import msgspec

#: The system of a Study Instance UID, and the prefix of its value. Some clients leave the prefix out.
_DICOM_UID, _OID = "urn:dicom:uid", "urn:oid:"
#: Codes that are read of a type. A type has one in each of a few code systems.
_MAX_CODES = 16
#: Characters that some clients put around values.
_PADDING = " \t\r\n\0"

#: Values by (system, code). System or code may be "".
_Values = dict[tuple[str, str], set[str]]


class _Identifier(NamedTuple):
    """An identifier that is in use."""

    #: "": the identifier has no system.
    system: str
    #: Codes of Identifier.type.
    codes: frozenset[str]
    value: str


class _Resource(msgspec.Struct):
    """The members of a resource that have identifiers."""

    identifier: msgspec.Raw = msgspec.Raw(b"null")
    accession: msgspec.Raw = msgspec.Raw(b"null")
    uid: msgspec.Raw = msgspec.Raw(b"null")
    basedOn: msgspec.Raw = msgspec.Raw(b"null")


class _Item(msgspec.Struct):
    resource: _Resource


_RESOURCE, _ITEM = msgspec.json.Decoder(_Resource), msgspec.json.Decoder(_Item)


def identity_size(opened: Iterable[bytes], shared: bytes) -> int:
    """How many bytes `changed_identity` reads of these. Comparing a megabyte takes 0.1 s."""
    resources = [*(_ITEM.decode(item).resource for item in opened), _RESOURCE.decode(shared)]
    return sum(len(memoryview(raw)) for each in resources for raw in msgspec.structs.astuple(each))


def changed_identity(opened: Iterable[bytes], shared: bytes) -> str:
    """The member by which a shared resource differs from the opened one: `identifier` or `basedOn`. "": they are the same.

    `opened` are items of the open's context, as JSON; `shared` is a resource. The two differ if both have values in a system, and
    none in common. The same holds for each type in a system. Identifiers without a system are compared by their types. An
    update may leave a value out, or add one beside a value that stays.
    """
    before: dict[str, list[_Identifier]] = defaultdict(list)
    for item in opened:
        for member, identifiers in _identifiers(_decode(_ITEM.decode(item).resource)).items():
            before[member] += identifiers
    for member, identifiers in _identifiers(_decode(_RESOURCE.decode(shared))).items():
        if _differ(before[member], identifiers):
            return member
    return ""


def _differ(before: list[_Identifier], after: list[_Identifier]) -> bool:
    directions = (
        (_values(before), _values(after, of_any_system=True)),
        (_values(before, of_any_system=True), _values(after)),
    )
    return any(
        system_and_code in new and values.isdisjoint(new[system_and_code])
        for old, new in directions
        for system_and_code, values in old.items()
    )


def _values(identifiers: list[_Identifier], *, of_any_system: bool = False) -> _Values:
    """The values by system and type. With `of_any_system`, those of a type are listed without their system, too."""
    values: _Values = defaultdict(set)
    for system, codes, value in identifiers:
        for code in {"", *codes} if system else codes or {""}:
            values[system, code].add(value)
        for code in codes if of_any_system else ():
            values["", code].add(value)
    return dict(values)


def _decode(resource: _Resource) -> dict[str, Any]:
    # Numbers stay strings: Python makes no int of more than 4,300 digits.
    members = msgspec.structs.asdict(resource).items()
    return {name: json.loads(bytes(raw), parse_int=str, parse_float=str) for name, raw in members}


def _identifiers(resource: dict[str, Any]) -> dict[str, list[_Identifier]]:
    """The identifiers of a resource, and those of the orders that it is based on.

    "the accession number of the order is provided in the DiagnosticReport's `basedOn` array" (profile
    FHIRcastDiagnosticReportOpen).
    """
    # In FHIR STU3, a study has the members accession and uid for its two numbers.
    own = [*_objects(resource.get("identifier")), *_objects(resource.get("accession"))]
    own.append({"system": _DICOM_UID, "value": resource.get("uid")})
    orders = [each for order in _objects(resource.get("basedOn")) for each in _objects(order.get("identifier"))]
    return {member: _in_use(found) for member, found in (("identifier", own), ("basedOn", orders))}


def _in_use(identifiers: Iterable[dict[str, Any]]) -> list[_Identifier]:
    found = []
    for identifier in identifiers:
        value = _text(identifier.get("value")).strip(_PADDING).removeprefix(_OID)
        if value and identifier.get("use") != "old":
            found.append(_Identifier(_text(identifier.get("system")).strip(_PADDING), _codes(identifier), value))
    return found


def _codes(identifier: dict[str, Any]) -> frozenset[str]:
    """The codes of the identifier's type, of every code system: R3 and R4 have different systems for MR and ACSN."""
    codings = (each for type_ in _objects(identifier.get("type")) for each in _objects(type_.get("coding")))
    return frozenset(filter(None, (_text(coding.get("code")) for coding in islice(codings, _MAX_CODES))))


def _objects(value: object) -> list[dict[str, Any]]:
    """The objects in an array, or the object in place of an array."""
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
