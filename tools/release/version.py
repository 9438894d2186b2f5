"""`make version VERSION=0.2.0`: gives all packages a version, and the changelog's unreleased lines a heading.

All packages of a release have one version. Each package is built from a folder of its own, so each has to state the version.
This file writes every place. `make release` and a test compare all places.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.release.commands import ReleaseError
from tools.release.notes import dated, numbers
from tools.release.packages import JAVASCRIPT, PYTHON, ROOT

CHANGELOG = "CHANGELOG.md"


@dataclass(frozen=True)
class Place:
    """Where a version stands: a file, and the text before and after the version, which is there once."""

    path: str
    before: str
    after: str

    def _found(self, text: str) -> re.Match[str]:
        found = list(re.finditer(f'(?<={re.escape(self.before)})[^\\s"]+?(?={re.escape(self.after)})', text))
        if len(found) != 1:
            raise ReleaseError(
                f"{self.path} must have one `{self.before}1.2.3{self.after}`, and has {len(found)}".replace("\n", "")
            )
        return found[0]

    def read(self, root: Path) -> str:
        """The version. Raises ReleaseError if the place is not there once."""
        return self._found((root / self.path).read_text(encoding="utf-8"))[0]

    def replaced(self, text: str, version: str) -> str:
        """The file's text with this version. Raises ReleaseError as `read`."""
        found = self._found(text)
        return text[: found.start()] + version + text[found.end() :]


#: The first place is the one that counts; the others must agree.
PLACES = (
    *(Place(f"{each.folder}/pyproject.toml".removeprefix("./"), '\nversion = "', '"\n') for each in PYTHON),
    *(Place(f"{each.folder}/package.json", '\n  "version": "', '",\n') for each in JAVASCRIPT),
    *(Place(f"{each.folder}/README.md", f"npm install ./{each.name}-", ".tgz\n") for each in JAVASCRIPT),
)


def current(root: Path) -> str:
    """The version of all packages. Raises ReleaseError if one has another."""
    version = PLACES[0].read(root)
    for place in PLACES[1:]:
        if (other := place.read(root)) != version:
            raise ReleaseError(
                f"{place.path} must have the version of {PLACES[0].path}, {version}, not {other}. To write all: make version VERSION={version}"
            )
    numbers(version)
    return version


def change(root: Path, version: str, date: datetime.date) -> list[str]:
    """Writes the version everywhere, and the date into the changelog: the paths of the files that changed.

    Raises ReleaseError, and writes nothing, where a place is missing or where `dated` refuses.
    """
    numbers(version)
    paths = dict.fromkeys((*(place.path for place in PLACES), CHANGELOG))
    before = {path: (root / path).read_text(encoding="utf-8") for path in paths}
    after = dict(before)
    after[CHANGELOG] = dated(before[CHANGELOG], version, date)
    for place in PLACES:
        after[place.path] = place.replaced(after[place.path], version)
    changed = [path for path in before if after[path] != before[path]]
    for path in changed:
        (root / path).write_text(after[path], encoding="utf-8")
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 where everything is written, else 1."""
    parser = argparse.ArgumentParser(prog="make version VERSION=0.2.0", description=__doc__.partition("\n")[0])
    parser.add_argument("version", help="three numbers, such as 0.2.0")
    version = parser.parse_args(arguments).version
    try:
        changed = change(ROOT, version, datetime.datetime.now(datetime.UTC).date())
    except ReleaseError as error:
        print(f"version: {error}", file=sys.stderr)
        return 1
    print(f"version: {version} is in {', '.join(changed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
