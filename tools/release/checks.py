"""Looks into the packages: what an index refuses, what a wheel must not have, and what another bundler cannot read."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tools.release.commands import ReleaseError, run
from tools.release.packages import ROOT

PUBLINT = ROOT / "clients" / "node_modules" / ".bin" / "publint"
#: Members of package.json that make npm install more than the package.
_NEEDS = ("dependencies", "optionalDependencies", "peerDependencies")


def python(files: Sequence[Path], folder: Path) -> None:
    """Checks wheels and sdists. Raises ReleaseError with what twine or check-wheel-contents say."""
    run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=folder)
    wheels = [file for file in files if file.suffix == ".whl"]
    run(sys.executable, "-m", "check_wheel_contents", "--no-config", *wheels, cwd=folder)


def javascript(tarball: Path) -> None:
    """Checks a tarball. Raises ReleaseError with what publint says, or if the package needs others: the SBOM has none of npm's."""
    if needed := needs(tarball):
        raise ReleaseError(f"{tarball.name} must need no other package, for no SBOM names these: {', '.join(needed)}")
    run(PUBLINT, "run", tarball, "--strict", cwd=tarball.parent)


def needs(tarball: Path) -> list[str]:
    """The names of the packages that npm would install beside this one."""
    with tarfile.open(tarball) as archive:
        file = archive.extractfile("package/package.json")
        assert file
        manifest = json.load(file)
    return sorted({name for member in _NEEDS for name in manifest.get(member, {})})
