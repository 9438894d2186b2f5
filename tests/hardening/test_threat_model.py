"""SECURITY.md: each row of its tables names what shows it, and that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = [
    *("Spoofing", "Tampering", "Repudiation", "Information disclosure", "Denial of service", "Elevation of privilege"),
]
#: Tables of what is promised, of budgets (`tests/budgets/test_table.py` compares them), and of standards; and the column that says whether a row of the latter holds.
PROMISES, BUDGETS = "What is promised", "Budgets"
STANDARDS = {
    "Measured by OWASP ASVS 5.0": 17,
    "Measured by RFC 8725 (JSON Web Tokens)": 12,
    "Measured by RFC 9700 (OAuth 2.0)": 20,
}
HOLDS = {"holds", "in part", "does not", "does not apply"}


class Row(NamedTuple):
    """A line of a table: the heading it stands under, and its cells."""

    heading: str
    cells: list[str]


def rows() -> list[Row]:
    """All lines of all tables of SECURITY.md, but their heads."""
    found, heading = [], ""
    lines = (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|") and not line.startswith("|---") and not following.startswith("|---"):
            found.append(Row(heading, [cell.strip() for cell in line.strip("|").split("|")]))
    return found


def functions(path: Path) -> set[str]:
    """The tests of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def missing(cell: str) -> list[str]:
    """Which of the tests (`file::name`) and files that a cell names are not there."""
    named = cell.split(", ")
    found = [re.fullmatch(r"`([\w./-]+?)(?:::(test_[a-z0-9_]+))?`", each) for each in named]
    return [
        each
        for each, match in zip(named, found, strict=True)
        if not match or not (ROOT / match[1]).is_file() or (match[2] and match[2] not in functions(ROOT / match[1]))
    ]


def test_each_kind_of_threat_is_there() -> None:
    """STRIDE, in its order, and none of them empty."""
    assert [kind for kind in dict.fromkeys(row.heading for row in rows()) if kind in KINDS] == KINDS


@pytest.mark.parametrize("row", [row for row in rows() if row.heading in KINDS], ids=lambda row: row.cells[0][:40])
def test_each_threat_names_a_test_that_exists(row: Row) -> None:
    """Threat, mitigation, and one test."""
    threat, mitigation, test = row.cells
    assert threat
    assert mitigation
    assert "::" in test
    assert "," not in test
    assert not missing(test)


@pytest.mark.parametrize("row", [row for row in rows() if row.heading == PROMISES], ids=lambda row: row.cells[0][:40])
def test_each_promise_names_tests_that_exist(row: Row) -> None:
    """Promise, and its tests."""
    promise, tests = row.cells
    assert promise
    assert all("::" in test for test in tests.split(", "))
    assert not missing(tests)


@pytest.mark.parametrize("row", [row for row in rows() if row.heading in STANDARDS], ids=lambda row: row.cells[0][:40])
def test_each_point_of_a_standard_says_why_and_by_what(row: Row) -> None:
    """What holds, also in part, is shown; what does not has a reason."""
    point, holds, why, shown = row.cells
    assert point
    assert why
    assert holds in HOLDS
    assert not (missing(shown) if shown else holds in ("holds", "in part"))


def test_no_point_of_a_standard_is_left_out() -> None:
    """Each has as many rows as the standard has points, of RFC 9700 those that were chosen."""
    found = [row.heading for row in rows()]
    assert {standard: found.count(standard) for standard in STANDARDS} == STANDARDS
    assert set(found) == {PROMISES, BUDGETS, *KINDS, *STANDARDS}


def test_each_attack_has_a_row() -> None:
    """No test of this folder stands for a threat that the table does not name."""
    named = {row.cells[2].strip("`").rpartition("::")[2] for row in rows() if row.heading in KINDS}
    here = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    assert {name for path in here for name in functions(path) if name.startswith("test_")} <= named
