"""tools/release/version.py: all packages have one version, and `make version` writes all places or none."""

from __future__ import annotations

import datetime
import json
import shutil
import tomllib
from pathlib import Path

import pytest

from tools.release import version
from tools.release.commands import ReleaseError
from tools.release.notes import notes
from tools.release.packages import JAVASCRIPT, PYTHON, ROOT
from tools.release.version import CHANGELOG, PLACES, Place, change, current, main

DAY = datetime.date(2026, 1, 31)
WAITING = "# Changelog\n\n## [Unreleased]\n- A change.\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the places, whose changelog has a change that waits."""
    for place in PLACES:
        (tmp_path / place.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / place.path, tmp_path / place.path)
    (tmp_path / CHANGELOG).write_text(WAITING, encoding="utf-8")
    return tmp_path


def texts(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in root.rglob("*") if path.is_file()}


def test_all_packages_of_the_repository_have_one_version() -> None:
    number = current(ROOT)
    for python in PYTHON:
        project = tomllib.loads((ROOT / python.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert (project["name"], project["version"]) == (python.name, number)
    for javascript in JAVASCRIPT:
        manifest = json.loads((ROOT / javascript.folder / "package.json").read_text(encoding="utf-8"))
        assert (manifest["name"], manifest["version"]) == (javascript.name, number)


def test_a_version_is_written_everywhere_and_nothing_else_changes(repository: Path) -> None:
    before, old = texts(repository), current(repository)
    changed = change(repository, "12.34.56", DAY)
    after = texts(repository)
    assert current(repository) == "12.34.56"
    assert sorted(changed) == sorted(before)
    assert notes(after[CHANGELOG], "12.34.56") == "# 12.34.56\n\n- A change.\n"
    for place in PLACES:
        assert after[place.path].replace("12.34.56", old) == before[place.path]


def test_the_version_that_is_there_already_can_be_the_first_release(repository: Path) -> None:
    """The first release has the version with which the repository began."""
    assert change(repository, current(repository), DAY) == [CHANGELOG]


@pytest.mark.parametrize("place", PLACES[1:], ids=lambda place: place.path)
def test_another_version_in_one_place_is_said(place: Place, repository: Path) -> None:
    file = repository / place.path
    file.write_text(place.replaced(file.read_text(encoding="utf-8"), "9.9.9"), encoding="utf-8")
    with pytest.raises(ReleaseError) as refused:
        current(repository)
    assert str(refused.value).startswith(f"{place.path} must have the version of pyproject.toml, ")
    assert "not 9.9.9" in str(refused.value)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.path)
def test_where_a_place_is_gone_nothing_is_written(place: Place, repository: Path) -> None:
    (repository / place.path).write_text("\n", encoding="utf-8")
    before = texts(repository)
    with pytest.raises(ReleaseError, match=r"must have one .* and has 0"):
        change(repository, "12.34.56", DAY)
    assert texts(repository) == before


def test_a_refused_version_is_told_and_nothing_is_written(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(version, "ROOT", repository)
    before = texts(repository)
    assert main(["1.0"]) == 1
    assert capsys.readouterr().err.startswith("version: a version must be three numbers such as 0.2.0")
    assert texts(repository) == before
    assert main(["12.34.56"]) == 0
    assert capsys.readouterr().out.startswith("version: 12.34.56 is in pyproject.toml, ")
