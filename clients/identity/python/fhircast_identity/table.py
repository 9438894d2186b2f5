"""A table of local ids that the application itself provides: a dict, rows, or a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, Protocol

from fhircast_identity.local import Local, Query, Resource
from fhircast_identity.rules import DICOM_UID, fhir_identifier

_RECORD = ("local_id", "family", "birth_date", "gender")
_LONG = ("system", "value", "code")


class Named(Protocol):
    """The kind of identifier in a column: a rule such as System, TypeCode or StudyUid."""

    @property
    def system(self) -> str: ...
    @property
    def code(self) -> str: ...


@dataclass(frozen=True)
class Row:
    """One identifier of one record."""

    value: str
    system: str
    code: str
    record: Local

    def answers(self, query: Query) -> bool:
        """Whether the row matches. A row without system or code matches any. A query without codes matches a coded row
        only by its system: otherwise two different kinds of numbers could match."""
        if self.value != query.value or self.system not in ("", query.system):
            return False
        return not self.code or self.code in query.codes or bool(self.system and not query.codes)


class Table:
    """Local ids by identifier, for one resource type.

    Keys of `records`: `(system, value)`, or a value alone, which matches any system. Values: a local id, a record (a
    dict of local_id, family, birth_date, gender) or a list of these. Write a Study Instance UID without `urn:oid:`, and
    a FHIR server's id as `(its base address, "Patient/123")`. Raises ValueError for a record that cannot be read.
    """

    name = "the table"

    def __init__(self, records: Mapping[str | tuple[str, str], Any], *, type: str = "Patient") -> None:
        rows = []
        for key, records_of_key in records.items():
            system, value = ("", key) if isinstance(key, str) else key
            for record in records_of_key if isinstance(records_of_key, list) else [records_of_key]:
                local = _local({"local_id": record} if isinstance(record, str) else record, type)
                rows.append(_row(value, system, "", local))
        self._fill(rows, type)

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, Any]],
        *,
        type: str = "Patient",
        columns: Mapping[str, str] | None = None,
        identifiers: Mapping[str, Named] | None = None,
    ) -> Table:
        """A table from rows, as of a CSV file, a database or JSON. A row maps columns to cells: a string, "" or None.

        The columns are local_id, system, value, code, family, birth_date and gender, with one row for each identifier.
        Each row must have local_id and value. `columns` renames columns: {"local_id": "PatNo"}. With `identifiers`,
        each identifier has a column of its own: {"nin": System("urn:oid:...")}. Empty identifiers are left out. Each
        row must have the columns of both. Raises ValueError with the number of the row, counted from 1.
        """
        return cls._of(enumerate(rows, 1), type, _Columns(columns or {}, identifiers or {}))

    @classmethod
    def from_csv(
        cls,
        path: str | PathLike[str],
        *,
        type: str = "Patient",
        columns: Mapping[str, str] | None = None,
        identifiers: Mapping[str, Named] | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8-sig",
    ) -> Table:
        """A table from a CSV file with a header row. See `from_rows` for the columns.

        Raises OSError, and ValueError with the number of the row. The header is row 1.
        """
        with open(path, encoding=encoding, newline="") as lines:
            try:
                cells = list(csv.reader(lines, delimiter=delimiter, strict=True))
            except csv.Error as error:
                raise ValueError(f"the file is not CSV: {error}") from None
        named = _Columns(columns or {}, identifiers or {})
        return cls._of(_csv_rows(cells, named), type, named)

    @classmethod
    def _of(cls, numbered: Iterable[tuple[int, Mapping[str, Any]]], kind: str, columns: _Columns) -> Table:
        table = cls({}, type=kind)
        table._fill((row for number, cells in numbered for row in columns.rows(number, cells, kind)), kind)
        return table

    def _fill(self, rows: Iterable[Row], kind: str) -> None:
        self._type = kind
        self._by_value: dict[str, list[Row]] = {}
        self._by_id: dict[str, list[Row]] = {}
        for row in rows:
            self._by_value.setdefault(row.value, []).append(row)
            self._by_id.setdefault(row.record.id, []).append(row)

    async def find(self, query: Query) -> list[Local]:
        """The records that have the identifier."""
        if query.type != self._type:
            return []
        return [row.record for row in self._by_value.get(query.value, ()) if row.answers(query)]

    async def known(self, kind: str, local_id: str) -> list[Local]:
        """The record of a local id with all its identifiers."""
        rows = self._by_id.get(local_id, []) if kind == self._type else []
        shown = tuple(
            fhir_identifier(row.value, row.system, row.code) for row in rows if not row.value.startswith(f"{kind}/")
        )
        # Each row has its own record. Records of one id may differ, and all must be compared.
        return [_with(record, shown) for record in dict.fromkeys(_key(row.record) for row in rows)]


def _key(local: Local) -> tuple[str, str, str | None, str | None, str | None]:
    return local.id, local.type, local.family, local.birth_date, local.gender


def _with(key: tuple[str, str, str | None, str | None, str | None], identifiers: tuple[Resource, ...]) -> Local:
    return Local(*key, identifiers=identifiers, source=Table.name)


def _local(record: Mapping[str, str], kind: str) -> Local:
    if unknown := set(record) - set(_RECORD):
        raise ValueError(f"a record has only {', '.join(_RECORD)}, not {', '.join(sorted(unknown))}")
    cells = {name: str(record.get(name) or "").strip() for name in _RECORD}
    return Local(
        cells["local_id"],
        kind,
        cells["family"] or None,
        cells["birth_date"] or None,
        cells["gender"] or None,
        source=Table.name,
    )


def _row(value: str, system: str, code: str, local: Local) -> Row:
    bare = value.strip().removeprefix("urn:oid:") if system.strip() == DICOM_UID else value.strip()
    return Row(bare, system.strip(), code, local)


class _Columns:
    """The columns that a table reads, and the identifiers in a row."""

    def __init__(self, columns: Mapping[str, str], identifiers: Mapping[str, Named]) -> None:
        self._identifiers = identifiers
        self._names = {name: columns.get(name, name) for name in (*_RECORD, *(() if identifiers else _LONG))}
        required = {"local_id", *columns, *(() if identifiers else ("value",))}
        self._required = {self._names.get(name, name) for name in required} | set(identifiers)
        self.read = {*self._names.values(), *identifiers}

    def check(self, where: str, present: Collection[str]) -> None:
        """Raises ValueError where a required column is missing."""
        if missing := sorted(self._required.difference(present)):
            raise ValueError(f"{where} lacks {', '.join(missing)}")

    def rows(self, number: int, cells: Mapping[str, Any], kind: str) -> Iterator[Row]:
        """The identifiers of a row. Raises ValueError with the row's number."""
        self.check(f"row {number}", cells)
        try:
            texts = {column: _cell(column, cells.get(column)) for column in self.read}
            if not any(texts.values()):
                return
            local = _local({name: texts[self._names[name]] for name in _RECORD}, kind)
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from None
        for system, value, code in self._found(texts):
            if value:
                yield _row(value, system, code, local)

    def _found(self, texts: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
        if not self._identifiers:
            system, value, code = (texts[self._names[name]] for name in _LONG)
            yield system, value, code
        for column, rule in self._identifiers.items():
            yield rule.system, texts[column], rule.code


def _cell(column: str, cell: Any) -> str:
    if cell is not None and not isinstance(cell, str):
        raise ValueError(f"{column} must be a string")
    return (cell or "").strip()


def _csv_rows(lines: list[list[str]], columns: _Columns) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a file with their numbers. Empty rows are left out."""
    header = [cell.strip() for cell in (lines[0] if lines else [])]
    columns.check("the header", header)
    if twice := sorted({column for column in columns.read if header.count(column) > 1}):
        raise ValueError(f"the header repeats {', '.join(twice)}")
    for number, line in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in line):
            continue
        if len(line) != len(header):
            raise ValueError(f"row {number} has {len(line)} cells, the header {len(header)}")
        yield number, dict(zip(header, line, strict=True))
