"""SECURITY.md's threat model: each row names a test, and the test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = [
    *("Spoofing", "Tampering", "Repudiation", "Information disclosure", "Denial of service", "Elevation of privilege"),
]


def rows() -> list[tuple[str, list[str]]]:
    """The cells of each row of the threat model, and the part it stands in."""
    found, kind = [], ""
    model = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("## Threat model")[2]
    for line in model.splitlines():
        if line.startswith("### "):
            kind = line[4:]
        elif line.startswith("|") and not line.startswith(("| threat", "|---")):
            found.append((kind, [cell.strip() for cell in line.strip("|").split("|")]))
    return found


def functions(path: Path) -> set[str]:
    """The tests of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_kind_of_threat_is_there() -> None:
    """STRIDE, in its order, and none of them empty."""
    assert list(dict.fromkeys(kind for kind, _ in rows())) == KINDS


@pytest.mark.parametrize("cells", [cells for _, cells in rows()], ids=lambda cells: cells[0][:40])
def test_each_row_names_a_test_that_exists(cells: list[str]) -> None:
    """Threat, mitigation, and `file::name`."""
    threat, mitigation, test = cells
    assert threat
    assert mitigation
    match = re.fullmatch(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`", test)
    assert match, test
    assert match[2] in functions(ROOT / match[1]), test


def test_each_attack_has_a_row() -> None:
    """No test of this folder stands for a threat that the table does not name."""
    named = {cells[2].strip("`").rpartition("::")[2] for _, cells in rows()}
    here = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    assert {name for path in here for name in functions(path) if name.startswith("test_")} <= named
