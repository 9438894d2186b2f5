"""The changelog's sections: a version's section becomes the notes of its release.

The heading `## [Unreleased]` always comes first. Changes since the last release stand below. A release gives these lines a
heading of its own, `## [0.2.0] - 2026-01-31`, and leaves Unreleased empty.
"""

from __future__ import annotations

import datetime
import re

from tools.release.commands import ReleaseError

UNRELEASED = "Unreleased"
_HEADING = re.compile(rf"## \[(?:{UNRELEASED}\]|(?P<version>\d+\.\d+\.\d+)\] - \d{{4}}-\d\d-\d\d)\s*")


def sections(changelog: str) -> dict[str, str]:
    """The text below each heading, by version, in the changelog's order. Raises ReleaseError for headings that no release can have."""
    found: dict[str, str] = {}
    for block in re.split(r"^(?=## )", changelog, flags=re.MULTILINE)[1:]:
        heading, _, text = block.partition("\n")
        match = _HEADING.fullmatch(heading)
        if match is None:
            raise ReleaseError(
                f"CHANGELOG.md: a heading must be `## [{UNRELEASED}]` or `## [1.2.3] - 2026-01-31`, not `{heading}`"
            )
        name = match["version"] or UNRELEASED
        if name in found:
            raise ReleaseError(f"CHANGELOG.md: each heading must be there once, and {name} is there twice")
        found[name] = text.strip()
    if next(iter(found), "") != UNRELEASED:
        raise ReleaseError(f"CHANGELOG.md: the first heading must be `## [{UNRELEASED}]`")
    return found


def is_empty(section: str) -> bool:
    """Whether the section has headings and blank lines alone."""
    return all(not line.strip() or line.startswith("#") for line in section.splitlines())


def unreleased(changelog: str) -> bool:
    """Whether changes wait for a release. Raises ReleaseError as `sections`."""
    return not is_empty(sections(changelog)[UNRELEASED])


def notes(changelog: str, version: str) -> str:
    """The notes of a release: its section; those of a rehearsal: the section Unreleased, where that has lines.

    Raises ReleaseError if the section is missing or empty.
    """
    found = sections(changelog)
    if not is_empty(found[UNRELEASED]):
        return f"# {version}, a rehearsal\n\n{found[UNRELEASED]}\n"
    if version not in found:
        raise ReleaseError(
            f"CHANGELOG.md must have a section `## [{version}] - <date>` for this version, or lines under {UNRELEASED}. It has neither."
        )
    if is_empty(found[version]):
        raise ReleaseError(f"CHANGELOG.md: the section of {version} must say what changed, and it is empty")
    return f"# {version}\n\n{found[version]}\n"


def dated(changelog: str, version: str, date: datetime.date) -> str:
    """The changelog with the lines of Unreleased under a heading of this version and date.

    Raises ReleaseError if there is nothing to release, or if this version or a later one has a section.
    """
    found = sections(changelog)
    if is_empty(found[UNRELEASED]):
        raise ReleaseError(f"CHANGELOG.md: {UNRELEASED} must say what changed, and it is empty")
    if later := [name for name in found if name != UNRELEASED and numbers(name) >= numbers(version)]:
        raise ReleaseError(f"the version must be later than those of CHANGELOG.md, and {later[0]} is there")
    heading = f"## [{UNRELEASED}]\n"
    return changelog.replace(heading, f"{heading}\n## [{version}] - {date.isoformat()}\n", 1)


def numbers(version: str) -> tuple[int, ...]:
    """`0.10.2` as (0, 10, 2), which compare as versions do. Raises ReleaseError for other forms."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version, re.ASCII):
        raise ReleaseError(
            f"a version must be three numbers such as 0.2.0, which Python and npm read alike, not {version!r}"
        )
    return tuple(map(int, version.split(".")))
