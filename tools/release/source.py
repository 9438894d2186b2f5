"""What a release is made of: the files that git knows, copied to where nothing else is, and the commit that they belong to."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.release.commands import ReleaseError
from tools.release.packages import SOURCES


@dataclass(frozen=True)
class Commit:
    """The last commit. `time` is in seconds since 1970."""

    name: str
    time: int
    #: Whether all files are as in the commit.
    clean: bool
    tags: tuple[str, ...]


def _git(root: Path, *words: str) -> str:
    """What git prints. The repository may belong to another user than the one who releases."""
    command = ("git", "-C", str(root), "-c", f"safe.directory={root}", *words)
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise ReleaseError(f"git must know {root}: {getattr(error, 'stderr', '') or error}") from None


def last_commit(root: Path) -> Commit:
    """Raises ReleaseError if this is no clone of git."""
    name, time = _git(root, "log", "-1", "--format=%h %ct").split()
    status, tags = _git(root, "status", "--porcelain"), _git(root, "tag", "--points-at", "HEAD")
    return Commit(name, int(time), clean=not status, tags=tuple(tags.split()))


def copy(root: Path, folder: Path) -> None:
    """Copies the sources of the packages into a new folder, without files that git ignores. `npm pack` finds its tools there.

    Raises ReleaseError if this is no clone of git.
    """
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SOURCES)
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():  # and not deleted
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target)
            target.chmod(0o755 if (root / name).stat().st_mode & 0o100 else 0o644)
    modules = folder / "clients" / "node_modules"
    modules.mkdir()
    (modules / ".bin").symlink_to(root / "clients" / "node_modules" / ".bin")
