"""Debian's packages that a target of the Makefile needs.

    python3 -m tools.packages test

Root gets the missing ones by apt-get, all in one call. Other users are told one command that names all, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import ctypes
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

from tools.libraries import missing_library

#: Says what is wrong, or "" where nothing is.
Check = Callable[[], str]

#: The tests use these too. Daemons are not on the PATH of Debian's ordinary users.
#: The Chromium without a screen draws all windows at once. The package `chromium` draws covered windows only once a second.
CHROMIUM = "/usr/bin/chromium-headless-shell"
DICOMWEB = tuple(
    f"{folder}/libOrthancDicomWeb.so*"
    for folder in ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")
)
POSTGRESQL = "/usr/lib/postgresql/*/bin/initdb"
#: While this file is there, Debian makes no database cluster as it installs PostgreSQL, and starts no server on port 5432.
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/fhircast-hub-tests.conf")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
#: Seconds that apt-get waits for another apt-get to end, such as that of Debian's own upgrades.
APT_PATIENCE = 300
APT = ("apt-get", "--quiet", "--yes", "-o", f"DPkg::Lock::Timeout={APT_PATIENCE}")


def starts(*command: str) -> Check:
    """A program that ends well when called so."""

    def check() -> str:
        if shutil.which(command[0], path=PATH) is None:
            return "is not there"
        done = subprocess.run(command, env=os.environ | {"PATH": PATH}, capture_output=True, text=True)
        if done.returncode:
            return missing_library(done.stderr) or f"`{shlex.join(command)}` ended with exit code {done.returncode}"
        return ""

    return check


def loads(library: str) -> Check:
    """A shared library that the loader finds."""

    def check() -> str:
        try:
            ctypes.CDLL(library)
        except OSError as error:
            return str(error)
        return ""

    return check


def lies(*patterns: str) -> Check:
    """A file of one of these names."""
    return lambda: "" if any(glob.glob(pattern) for pattern in patterns) else f"{patterns[0]} is not there"


def postgresql_binaries() -> Path | None:
    """The folder with PostgreSQL's server programs, of the newest version; Debian keeps these off the PATH."""
    found = [Path(path).parent for path in glob.glob(POSTGRESQL)]
    if found:
        return max(found, key=lambda folder: [int(part) for part in re.findall(r"\d+", folder.parent.name)])
    initdb = shutil.which("initdb", path=PATH)
    return Path(initdb).resolve().parent if initdb else None


def serves_databases() -> str:
    """Whether PostgreSQL's server programs start."""
    folder = postgresql_binaries()
    if folder is None:
        return f"{POSTGRESQL} is not there"
    complaints = (starts(str(folder / name), "--version")() for name in ("initdb", "postgres"))
    return next((complaint for complaint in complaints if complaint), "")


def makes_environments() -> str:
    """Whether `python3 -m venv` can bring pip; Debian keeps that in python3-venv. An environment with pip is enough."""
    if find_spec("ensurepip") or not starts(".venv/bin/python", "-m", "pip", "--version")():
        return ""
    return "the module ensurepip is not there"


#: By package: what shows that it is there.
CHECKS: Mapping[str, Check] = {
    "python3-venv": makes_environments,
    "git": starts("git", "--version"),
    "curl": starts("curl", "--version"),
    "nginx": starts("nginx", "-v"),
    "orthanc": starts("Orthanc", "--version"),
    "orthanc-dicomweb": lies(*DICOMWEB),
    "postgresql": serves_databases,
    "chromium-headless-shell": starts(CHROMIUM, "--version"),
    "libatomic1": loads("libatomic.so.1"),  # for the Node that Playwright brings
    "systemd": starts("systemd-analyze", "--version"),  # reads the unit of docs/how-to/systemd.md
    "docker-compose": starts("docker-compose", "version"),  # reads docs/how-to/compose.production.yaml; needs no Docker
    "gcc": starts("gcc", "--version"),
    "libc6-dev": lies("/usr/include/stdio.h"),
    "debootstrap": starts("debootstrap", "--version"),
}
_BROWSER = ("chromium-headless-shell", "libatomic1")
_ARCHIVE = ("orthanc", "orthanc-dicomweb")
#: By purpose, which is what the Makefile asks for: the packages.
NEEDED: Mapping[str, Sequence[str]] = {
    "venv": ("python3-venv",),
    "test": ("python3-venv", "git", "curl", "nginx", "postgresql", "systemd", "docker-compose", *_ARCHIVE, *_BROWSER),
    "browser": ("python3-venv", *_BROWSER),
    "javascript": ("python3-venv", *_ARCHIVE),
    "bench": ("python3-venv", "gcc", "libc6-dev", "postgresql"),
    "fresh": ("git", "debootstrap"),
}


def wrong(packages: Iterable[str]) -> dict[str, str]:
    """The packages that are missing, or do not work, and what is wrong with each."""
    return {name: complaint for name in packages if (complaint := CHECKS[name]())}


def command_for(packages: Iterable[str]) -> str:
    """One line for a shell that installs them, also where no list of packages was fetched yet.

    `su -` and not `su`, for root's PATH: an ordinary user's has no /usr/sbin, where dpkg has its helpers.
    """
    install = f"apt-get update && apt-get install --yes --no-install-recommends {' '.join(packages)}"
    return f"{'sudo sh' if shutil.which('sudo') else 'su -'} -c '{install}'"


def install(packages: Sequence[str]) -> str:
    """By apt-get, as root: what went wrong, or "". The lists of packages are fetched where they are not there, or too old."""
    wanted = ("install", "--no-install-recommends", *packages)
    with _no_cluster() if "postgresql" in packages else nullcontext():
        if not _apt_get(*wanted):
            return ""
        stale = _apt_get("update")
        failure = _apt_get(*wanted)
    return stale + failure if failure else ""


@contextmanager
def _no_cluster() -> Iterator[None]:
    """Nothing of this stays: whoever installs another version of PostgreSQL later gets Debian's cluster as usual."""
    made = [folder for folder in (NO_CLUSTER.parent, NO_CLUSTER.parent.parent) if not folder.exists()]
    NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
    NO_CLUSTER.write_text("create_main_cluster = false\n", encoding="ascii")
    try:
        yield
    finally:
        NO_CLUSTER.unlink()
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()


def _apt_get(*words: str) -> str:
    """All that it said where it failed, and "" where it did not."""
    command = (*APT, *words)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    return f"{done.stdout}`{shlex.join(command)}` ended with exit code {done.returncode}\n" if done.returncode else ""


def provide(packages: Sequence[str]) -> int:
    """Exit code 0 where all are there, in the end."""
    missing = wrong(packages)
    if not missing:
        return 0
    names = list(missing)
    if shutil.which("apt-get") is None:
        print(
            f"apt-get is required, to install Debian's {' '.join(names)}. Install their like by hand.",
            file=sys.stderr,
        )
    elif os.geteuid() != 0:
        print(f"Packages are missing. This installs them:\n    {command_for(names)}", file=sys.stderr)
    else:
        print(f"installing Debian's {' '.join(names)}", file=sys.stderr)
        failure = install(names)
        missing = wrong(names)
        if not failure and not missing:
            return 0
        print(failure.strip() or "apt-get installed the packages, but some do not work:", file=sys.stderr)
    for name, complaint in missing.items():
        print(f"  {name}: {complaint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("purpose", choices=NEEDED)
    sys.exit(provide(NEEDED[parser.parse_args().purpose]))
