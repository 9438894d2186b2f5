"""`make hashes`: writes `requirements/*.txt`, the versions and hashes of all that the image is made of.

pip is asked what it would install, and installs nothing. pip asks whichever index this machine's settings name, and the files name none.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

FOLDER = Path("requirements")
#: The image's Python, its machines, and what version of glibc it may have: a wheel is made for one of these or an older one.
PYTHON, MACHINES, GLIBC = "3.11", ("x86_64", "aarch64"), (28, 36, 41)
HEADER = """\
# {what}: version and hash of each wheel, for Linux on {machines} with Python {python}.
# `make hashes` writes this file. Change constraints.txt, and run that.
"""
#: The files, and what each is for.
WHAT = {
    "build": "What builds the hub's wheel",
    "hub": "What the hub needs",
    "demo": "What the demo needs beside the hub",
}

#: Hashes by name and version, as `name==version`.
Pins = dict[str, set[str]]


def wanted(project: dict[str, Any]) -> dict[str, list[str]]:
    """The requirements of pyproject.toml that each file fulfils, those of the hub also for the demo. The image has each store."""
    extras = project["project"]["optional-dependencies"]
    hub = [*project["project"]["dependencies"], *extras["postgresql"]]
    return {"build": project["build-system"]["requires"], "hub": hub, "demo": [*hub, *extras["demo"]]}


def tags(machine: str, glibc: int) -> list[str]:
    """The platforms whose wheels run there, the newest first."""
    levels = [f"manylinux_2_{minor}_{machine}" for minor in range(glibc, 16, -1)]
    return [*levels, f"manylinux2014_{machine}", f"linux_{machine}"]


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def found(report: dict[str, Any]) -> Pins:
    """What pip's report says that it would install. Raises ValueError for what has no SHA-256."""
    pins: Pins = defaultdict(set)
    for each in report["install"]:
        name = normal(each["metadata"]["name"])
        digest = each["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if not digest:
            raise ValueError(f"{name} must have a file with a SHA-256, and this machine's index has none")
        pins[f"{name}=={each['metadata']['version']}"].add(digest)
    return pins


def ask(requirements: list[str], machine: str, glibc: int) -> Pins:
    """What pip would install of these on such a machine. Raises CalledProcessError, and ValueError as `found`."""
    platforms = [f"--platform={tag}" for tag in tags(machine, glibc)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
        command += ["--ignore-installed", "--only-binary=:all:", f"--target={folder}", f"--report={report}"]
        command += ["--implementation=cp", f"--python-version={PYTHON}", *platforms, "--constraint=constraints.txt"]
        subprocess.run([*command, *requirements], check=True)
        return found(json.loads(report.read_text(encoding="utf-8")))


def written(name: str, pins: Pins) -> str:
    """The text of a file."""
    lines = [HEADER.format(what=WHAT[name], machines=" and ".join(MACHINES), python=PYTHON)]
    for pin, digests in sorted(pins.items()):
        lines.append(" \\\n".join([pin, *(f"    --hash=sha256:{digest}" for digest in sorted(digests))]) + "\n")
    return "".join(lines)


def main() -> int:
    """0; 1 where this Python is not the image's, for pip takes conditions of packages to be about the Python that it runs on."""
    if sys.version_info[:2] != tuple(map(int, PYTHON.split("."))) or sys.platform != "linux":
        print(f"Python must be {PYTHON} on Linux, not {sys.version.split()[0]} on {sys.platform}", file=sys.stderr)
        return 1
    pins: dict[str, Pins] = {}
    for name, requirements in wanted(tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))).items():
        pins[name] = defaultdict(set)
        for machine in MACHINES:
            for glibc in GLIBC:
                for pin, digests in ask(requirements, machine, glibc).items():
                    pins[name][pin] |= digests
    pins["demo"] = {pin: digests for pin, digests in pins["demo"].items() if pin not in pins["hub"]}
    FOLDER.mkdir(exist_ok=True)
    for name, each in pins.items():
        (FOLDER / f"{name}.txt").write_text(written(name, each), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
