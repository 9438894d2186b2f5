"""Builds the files of a release: wheels, sdists, tarballs for npm, and their sums.

All come from a copy of the sources. Times in the files are those of the last commit. So one commit always gives the same files.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

from tools.release.commands import ReleaseError, environment, run
from tools.release.packages import JavaScriptPackage, PythonPackage

SUMS = "SHA256SUMS"


def the_one(folder: Path, pattern: str) -> Path:
    """The only file of a folder with such a name. Raises ReleaseError if there is none, or more than one."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ReleaseError(f"there must be one {pattern}, not {', '.join(each.name for each in found) or 'none'}")
    return found[0]


def python(package: PythonPackage, sources: Path, out: Path, *, scratch: Path, time: int) -> list[Path]:
    """Builds a wheel and an sdist, and a second wheel from the sdist: the paths of the former two. `time` is in seconds since 1970.

    Raises ReleaseError if one cannot be built, or if the two wheels differ.
    """
    build = (sys.executable, "-m", "build", "--no-isolation")
    env = environment(SOURCE_DATE_EPOCH=str(time))
    run(*build, "--sdist", "--wheel", "--outdir", out, cwd=sources / package.folder, env=env)
    sdist, wheel = the_one(out, f"{package.stem}-*.tar.gz"), the_one(out, f"{package.stem}-*.whl")
    unpacked, again = scratch / "sdist", scratch / "wheel"
    unpacked.mkdir()
    run("tar", "--extract", "--file", sdist, cwd=unpacked)
    run(*build, "--wheel", "--outdir", again, cwd=the_one(unpacked, "*"), env=env)
    if differ := differences(wheel, the_one(again, "*.whl")):
        raise ReleaseError(f"{sdist.name} must give the same wheel as the sources; different: {', '.join(differ)}")
    return [sdist, wheel]


def differences(one: Path, other: Path) -> list[str]:
    """The files that two wheels do not have in common, or not with the same content, time and mode."""
    members = []
    for path in (one, other):
        with zipfile.ZipFile(path) as wheel:
            members.append({each.filename: (each.CRC, each.date_time, each.external_attr) for each in wheel.infolist()})
    here, there = members
    return sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))


def javascript(package: JavaScriptPackage, sources: Path, out: Path) -> Path:
    """Packs a tarball: its path. The package's script makes the types first. Raises ReleaseError if npm cannot."""
    run("npm", "pack", "--silent", "--pack-destination", out, cwd=sources / package.folder)
    return the_one(out, f"{package.name}-*.tgz")


def sums(folder: Path) -> str:
    """The digest of each file of a folder, as `sha256sum --check` reads them."""
    names = sorted(path.name for path in folder.iterdir() if path.name != SUMS)
    return "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
