"""`make release`: builds all packages, checks them, tries each where nothing else is installed, and writes notes, SBOM and sums.

    python -m tools.release            a rehearsal, unless the last commit is a release
    python -m tools.release --final    the files to publish; refuses what is only a rehearsal

Nothing is published. docs/releasing.md has the steps of a release.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.checks import duration
from tools.release import build, checks, sbom, source, version
from tools.release.commands import ReleaseError
from tools.release.environments import Environment, try_javascript
from tools.release.notes import notes, unreleased
from tools.release.packages import CLIENT, HUB, IDENTITY, JAVASCRIPT, PYTHON, ROOT
from tools.release.source import Commit

FOLDER = Path("build/release")


def missing(number: str, changelog: str, commit: Commit) -> list[str]:
    """Why the files are not to be published, as sentences without a full stop. An empty list for a release."""
    why = {
        "CHANGELOG.md has lines under Unreleased": unreleased(changelog),
        "files differ from the last commit": not commit.clean,
        f"commit {commit.name} has no tag v{number}": f"v{number}" not in commit.tags,
    }
    return [reason for reason, applies in why.items() if applies]


@contextmanager
def step(what: str) -> Iterator[None]:
    """Prints what was done, and how long it took."""
    began = time.monotonic()
    yield
    print(f"release: {what}, {duration(time.monotonic() - began)}", flush=True)


class Release:
    """Makes the files of one version in `out`, with a scratch folder for all else."""

    def __init__(self, number: str, commit: Commit, scratch: Path) -> None:
        self.number, self._commit, self._scratch = number, commit, scratch
        self._sources, self.out = scratch / "sources", scratch / "out"
        self.out.mkdir()

    def make(self) -> None:
        """All steps, in order. Raises ReleaseError at the first that fails."""
        source.copy(ROOT, self._sources)
        self._python()
        self._javascript()
        with step("wrote the notes and the sums"):
            changelog = (self._sources / version.CHANGELOG).read_text(encoding="utf-8")
            (self.out / "notes.md").write_text(notes(changelog, self.number), encoding="utf-8")
            (self.out / build.SUMS).write_text(build.sums(self.out), encoding="utf-8")

    def _folder(self, name: str) -> Path:
        folder = self._scratch / name
        folder.mkdir()
        return folder

    def _python(self) -> None:
        files: list[Path] = []
        for package in PYTHON:
            with step(f"built {package.name}: a wheel and an sdist, which gives the same wheel"):
                scratch = self._folder(f"build-{package.name}")
                files += build.python(package, self._sources, self.out, scratch=scratch, time=self._commit.time)
        with step("checked wheels and sdists: twine, check-wheel-contents"):
            checks.python(files, self.out)
        hub, client, identity = (build.the_one(self.out, f"{each.stem}-*.whl") for each in PYTHON)
        with step(f"installed and tried {HUB.name}"):
            beside_hub = self._tried("hub", f"{hub}[{HUB.extra}]")
        with step("wrote the SBOM: cyclonedx-bom"):
            path = self.out / f"{HUB.name}-{self.number}.cdx.json"
            sbom.write(beside_hub.python, self._sources, path, self._commit.time)
        with step(f"installed and tried {CLIENT.name}[testing]"):
            beside_hub.install(f"{hub}[{HUB.extra}]", f"{client}[testing]")
            beside_hub.smoke("fake_hub", self.number)
        with step(f"installed and tried {CLIENT.name}"):
            self._tried("client", str(client))
        with step(f"installed and tried {IDENTITY.name}"):
            self._tried("identity", str(client), str(identity))

    def _tried(self, program: str, *wheels: str) -> Environment:
        """A new environment, in which these are installed and passed a smoke test."""
        place = Environment(self._scratch / f"installed-{program}", self._sources / "constraints.txt")
        place.install(*wheels)
        place.smoke(program, self.number)
        return place

    def _javascript(self) -> None:
        for package in JAVASCRIPT:
            with step(f"packed, checked, installed and tried {package.name} for npm: publint"):
                tarball = build.javascript(package, self._sources, self.out)
                checks.javascript(tarball)
                try_javascript(package, tarball, self._scratch / f"npm-{package.name}")


def make(into: Path, *, final: bool) -> str:
    """Makes a release in the folder `into`, anew: the last line to print. Raises ReleaseError where something is wrong."""
    number, commit = version.current(ROOT), source.last_commit(ROOT)
    changelog = (ROOT / version.CHANGELOG).read_text(encoding="utf-8")
    notes(changelog, number)  # raises before any work is done
    rehearsal = "; ".join(missing(number, changelog, commit))
    if final and rehearsal:
        raise ReleaseError(f"this would be a rehearsal of {number}, not the release: {rehearsal}")
    if into.exists():
        if not (into / build.SUMS).is_file():
            raise ReleaseError(f"{into} must be the folder of an earlier release, or not be there")
        shutil.rmtree(into)  # first, so that a failure leaves no old files behind
    with tempfile.TemporaryDirectory(prefix="fhircast-release-") as scratch:
        release = Release(number, commit, Path(scratch))
        release.make()
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(release.out, into)
    if rehearsal:
        return f"a rehearsal of {number} passed; the files in {into} are not to be published: {rehearsal}"
    return f"{number} is ready in {into}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 where all packages passed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--final", action="store_true", help="refuse what is not a release")
    parser.add_argument("--into", type=Path, default=FOLDER, help=f"the folder of the files, made anew; {FOLDER}")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        last = make(given.into, final=given.final)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(f"release: not tried here: the image, and extras of the hub but {HUB.extra}")
    print(f"release: {last}; {duration(time.monotonic() - began)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
