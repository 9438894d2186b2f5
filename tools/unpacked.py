"""Programs of Debian's packages that the tests use without an installation.

    python -m tools.unpacked promtool caddy

Installed, these packages would start servers on ports of the machine. So a package is fetched, and its program unpacked
into build/unpacked. The programs need nothing else of Debian's. A program on the PATH is taken instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "unpacked"
#: The package of each program.
PACKAGES = {
    "caddy": "caddy",  # tests/process/test_caddy.py: the Caddyfile of docs/tls.md
    "promtool": "prometheus",  # tests/docs/test_alerts.py: the alert rules of docs/how-to/alerts.md
}


def unpacked(program: str) -> Path:
    """The program, or a link to the one on the PATH. `make test` and this module bring it."""
    path = FOLDER / program
    assert path.exists(), f"{program} is missing; `make test` or `python -m tools.unpacked {program}` brings it"
    return path


def provide(program: str, folder: Path = FOLDER) -> str:
    """Put this program into this folder. Returns why this failed, or ""."""
    folder.mkdir(parents=True, exist_ok=True)
    path, package = folder / program, PACKAGES[program]
    if found := shutil.which(program):
        path.unlink(missing_ok=True)
        path.symlink_to(found)
        return ""
    if shutil.which("apt-get") is None:
        return f"{program} is required, and not on the PATH"
    with TemporaryDirectory() as fetched:
        failure = _fetched(package, fetched)
        if failure and os.geteuid() == 0:
            failure = _run("apt-get", "--quiet", "update") or _fetched(package, fetched)
        if failure:
            return f"{failure}Debian's package {package} cannot be fetched. Perhaps root must run `apt-get update`."
        (archive,) = Path(fetched).glob(f"{package}_*.deb")
        if failure := _run("dpkg-deb", "--extract", str(archive), fetched):
            return failure
        path.unlink(missing_ok=True)  # perhaps a link
        shutil.copy2(Path(fetched) / "usr" / "bin" / program, path)
    return ""


def _fetched(package: str, folder: str) -> str:
    return _run("apt-get", "--quiet", "download", package, folder=folder)


def _run(*command: str, folder: str | None = None) -> str:
    """All that the command said where it failed, and "" where it did not."""
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout + "\n" if done.returncode else ""


def main(programs: Sequence[str]) -> int:
    """Bring these programs, which are names in PACKAGES. Exit code 1 where one is missing afterwards."""
    if unknown := [program for program in programs if program not in PACKAGES]:
        print(f"the programs must be among {', '.join(PACKAGES)}, not {', '.join(unknown)}", file=sys.stderr)
        return 1
    complaints = [complaint for program in programs if (complaint := provide(program))]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
