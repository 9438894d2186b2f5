"""Runs the tools of a release, in an environment that has nothing of this checkout."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

#: Seconds that a tool may take. The slowest ones install packages.
PATIENCE = 600
#: Variables that would let a tool see this checkout, or the settings of somebody's hub.
_LEFT_OUT = ("FHIRCAST_", "PYTHON", "VIRTUAL_ENV")


class ReleaseError(Exception):
    """Why there is no release, in sentences for the maintainer."""


def environment(**more: str) -> dict[str, str]:
    """The variables of a tool. Programs of the environment that runs this, such as Node, come first on its PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
    programs = Path(sys.executable).parent.absolute()
    return kept | {"PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}", "NO_COLOR": "1"} | more


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """What the tool printed. Raises ReleaseError with all that the tool printed if it fails, or takes too long."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=environment() if env is None else env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
        )
    except FileNotFoundError:
        raise ReleaseError(f"{words[0]} must be there, and is not. `make release` installs all tools first.") from None
    except subprocess.TimeoutExpired:
        raise ReleaseError(f"`{shlex.join(words)}` must end within {PATIENCE} s, and did not") from None
    if done.returncode:
        raise ReleaseError(f"`{shlex.join(words)}` ended with exit code {done.returncode}:\n{done.stdout.strip()}")
    return done.stdout
