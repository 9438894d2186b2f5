"""Installs each package where nothing else is, with the versions of constraints.txt, and runs its smoke test there."""

from __future__ import annotations

import shutil
import sys
import venv
from pathlib import Path

from tools.release.commands import run
from tools.release.packages import JavaScriptPackage

SMOKE = Path(__file__).parent / "smoke"


class Environment:
    """An empty environment of Python, without pip, in a new folder."""

    def __init__(self, folder: Path, constraints: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        self._folder, self._constraints = folder, constraints

    def install(self, *wheels: str) -> None:
        """Installs wheels, given as paths with extras, and what they need. Raises ReleaseError if pip cannot."""
        pip = (sys.executable, "-m", "pip", "--python", self.python, "--quiet", "--disable-pip-version-check")
        run(*pip, "install", "--no-compile", "--constraint", self._constraints, *wheels, cwd=self._folder)

    def smoke(self, program: str, version: str) -> None:
        """Runs a smoke test in an empty folder. Raises ReleaseError with what the test says."""
        empty = self._folder / f"{program}-run"
        empty.mkdir()
        run(self.python, "-I", SMOKE / f"{program}.py", version, cwd=empty)


def try_javascript(package: JavaScriptPackage, tarball: Path, folder: Path) -> None:
    """Installs a tarball into a new folder, and imports all that it exports. Raises ReleaseError with what fails."""
    folder.mkdir()
    (folder / "package.json").write_text('{"private": true, "type": "module"}\n', encoding="utf-8")
    run("npm", "install", "--offline", "--no-audit", "--no-fund", "--no-package-lock", tarball, cwd=folder)
    shutil.copy(SMOKE / "exports.mjs", folder)
    run("node", "exports.mjs", package.name, cwd=folder)
