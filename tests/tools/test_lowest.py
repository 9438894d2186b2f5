"""tools/lowest.py: the oldest versions that the clients promise, with which `make lowest` runs their tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.lowest import CLIENTS, LEFT_OUT, lowest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("folder", CLIENTS, ids=str)
def test_every_dependency_of_a_client_has_an_oldest_version(folder: Path) -> None:
    assert "httpx==0.28" in lowest(ROOT / folder)


def test_what_is_left_out_is_there() -> None:
    assert all((ROOT / "tests" / "clients" / name).is_file() for name in LEFT_OUT)


def test_the_oldest_version_is_the_lower_bound(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\ndependencies = ["a-b>=1.2,<3", "c[d]>=4", "fhircast-client>=0.1"]\n')
    assert lowest(tmp_path) == ["a-b==1.2", "c==4"]
    for wrong in ("a", "a<2", "a~=1.0", "a>=1; python_version < '3.12'"):
        file.write_text(f'[project]\ndependencies = ["{wrong}"]\n')
        with pytest.raises(ValueError, match="a requirement must have its oldest version, not be a"):
            lowest(tmp_path)
