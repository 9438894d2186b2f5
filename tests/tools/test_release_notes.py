"""tools/release/notes.py: which section of the changelog becomes the notes, and which changelog is refused."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from tools.release.commands import ReleaseError
from tools.release.notes import UNRELEASED, dated, notes, numbers, sections, unreleased

CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"
DAY = datetime.date(2026, 1, 31)
TITLE = "# Changelog\nAll changes.\n\n"
OLD = "## [0.1.0] - 2025-12-24\nThe first.\n\n### Added\n- A hub.\n"
WAITING = f"{TITLE}## [Unreleased]\n\n### Added\n- A client.\n\n{OLD}"
RELEASED = f"{TITLE}## [Unreleased]\n\n{OLD}"
MUST_BE = r"a heading must be `## \[Unreleased\]` or `## \[1.2.3\] - 2026-01-31`, not `"


def test_the_changelog_of_the_repository_can_be_released_from() -> None:
    text = CHANGELOG.read_text(encoding="utf-8")
    assert next(iter(sections(text))) == UNRELEASED


def test_the_section_of_a_version_becomes_its_notes() -> None:
    assert notes(RELEASED, "0.1.0") == "# 0.1.0\n\nThe first.\n\n### Added\n- A hub.\n"
    assert not unreleased(RELEASED)


def test_while_changes_wait_they_are_the_notes_of_a_rehearsal() -> None:
    assert unreleased(WAITING)
    for version in ("0.1.0", "0.2.0"):
        assert notes(WAITING, version) == f"# {version}, a rehearsal\n\n### Added\n- A client.\n"


def test_a_missing_section_is_said() -> None:
    with pytest.raises(ReleaseError) as refused:
        notes(RELEASED, "0.2.0")
    assert str(refused.value) == (
        "CHANGELOG.md must have a section `## [0.2.0] - <date>` for this version, or lines under Unreleased. It has neither."
    )


@pytest.mark.parametrize("section", ["", "\n\n", "### Added\n\n### Fixed\n"])
def test_an_empty_section_is_said(section: str) -> None:
    changelog = f"{TITLE}## [Unreleased]\n## [0.2.0] - 2026-01-31\n{section}{OLD}"
    with pytest.raises(ReleaseError, match=r"the section of 0.2.0 must say what changed, and it is empty"):
        notes(changelog, "0.2.0")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("## Unreleased\n", MUST_BE + "## Unreleased`"),
        ("## [Unreleased]\n## 0.1.0\n", MUST_BE + "## 0.1.0`"),
        ("## [Unreleased]\n## [0.1.0]\n", MUST_BE + r"## \[0.1.0\]`"),
        ("## [Unreleased]\n## [0.1] - 2026-01-31\n", MUST_BE),
        ("## [Unreleased]\n## [0.1.0] - 31.1.2026\n", MUST_BE),
        ("## [Unreleased]\n## [Unreleased]\n", "each heading must be there once, and Unreleased is there twice"),
        (f"## [Unreleased]\n{OLD}{OLD}", "each heading must be there once, and 0.1.0 is there twice"),
        (f"{OLD}## [Unreleased]\n", r"the first heading must be `## \[Unreleased\]`"),
        ("", r"the first heading must be `## \[Unreleased\]`"),
    ],
)
def test_a_changelog_in_another_form_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(ReleaseError, match=wrong):
        sections(TITLE + text)


def test_a_version_takes_what_waited_and_leaves_unreleased_empty() -> None:
    changelog = dated(WAITING, "0.2.0", DAY)
    assert changelog.startswith(
        f"{TITLE}## [Unreleased]\n\n## [0.2.0] - 2026-01-31\n\n### Added\n- A client.\n\n## [0.1.0]"
    )
    assert notes(changelog, "0.2.0") == "# 0.2.0\n\n### Added\n- A client.\n"
    assert notes(changelog, "0.1.0") == notes(RELEASED, "0.1.0")


def test_a_version_without_changes_is_refused() -> None:
    with pytest.raises(ReleaseError, match="Unreleased must say what changed, and it is empty"):
        dated(RELEASED, "0.2.0", DAY)


@pytest.mark.parametrize("version", ["0.1.0", "0.0.9"])
def test_a_version_must_be_later_than_all_before(version: str) -> None:
    with pytest.raises(ReleaseError, match=r"must be later than those of CHANGELOG.md, and 0.1.0 is there"):
        dated(WAITING, version, DAY)


def test_versions_compare_by_their_numbers() -> None:
    assert numbers("0.10.0") > numbers("0.9.12")


@pytest.mark.parametrize(
    "version", ["", "1.0", "1.0.0.0", "v1.0.0", "1.0.0rc1", "1.0.0-rc.1", "01.0.0", "1.0.0\n", "1.0.٣"]
)
def test_a_version_is_three_numbers(version: str) -> None:
    """Python and npm spell all others in two ways, or not at all."""
    with pytest.raises(ReleaseError, match=r"a version must be three numbers such as 0.2.0"):
        numbers(version)
