"""The resources: those of data/, and those written since. In memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

Resource = dict[str, Any]

DATA = Path(__file__).parent / "data"


#: The types that can be written.
WRITABLE = ("DiagnosticReport", "Observation")


class Store:
    """Resources by type and id. Do not change a resource that was read."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._types: dict[str, dict[str, Resource]] = {type_: {} for type_ in WRITABLE}
        #: The bytes of each written resource, by type and id.
        self.written: dict[str, int] = {}
        for resource in resources:
            self._types.setdefault(resource["resourceType"], {})[resource["id"]] = resource

    @property
    def types(self) -> tuple[str, ...]:
        """The known types, by name."""
        return tuple(sorted(self._types))

    def all(self, type_: str) -> list[Resource]:
        """All resources of a type, in the order of the file. Raises KeyError for an unknown type."""
        return list(self._types[type_].values())

    def get(self, type_: str, id_: str) -> Resource | None:
        """One resource, or None. Raises KeyError for an unknown type."""
        return self._types[type_].get(id_)

    def find(self, name: str) -> Resource | None:
        """By type and id, such as "Patient/patient-1". None where there is none."""
        type_, _, id_ = name.partition("/")
        return self._types.get(type_, {}).get(id_)

    def put(self, resource: Resource) -> None:
        """Keep a resource, in the place of the one with this type and id."""
        self._types[resource["resourceType"]][resource["id"]] = resource
        self.written[f"{resource['resourceType']}/{resource['id']}"] = size(resource)

    def copy(self) -> Store:
        """An independent copy."""
        return Store(resource for type_ in self._types.values() for resource in type_.values())

    def resolve(self, reference: dict[str, str]) -> Resource:
        """The target of a reference: {"reference": "Patient/patient-1"}. Raises KeyError where there is none."""
        type_, _, id_ = reference["reference"].partition("/")
        return self._types[type_][id_]


def size(resource: Resource) -> int:
    """The resource as JSON."""
    return len(json.dumps(resource, ensure_ascii=False).encode())


@cache
def load() -> Store:
    """The demo's records."""
    files = sorted(DATA.glob("*.json"))
    return Store(resource for file in files for resource in json.loads(file.read_text(encoding="utf-8")))
