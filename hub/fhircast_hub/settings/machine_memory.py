"""The memory available to this process: the container's limit, or the machine's memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def available(root: Path = Path("/")) -> int:
    """Bytes: the machine's memory, or the smallest limit of this process's control groups (versions 2 and 1)."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:  # hierarchy:controllers:path; version 2 names no controllers
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / "sys/fs/cgroup" / controllers
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            # In a container the path may be the host's, while only its end is mounted here. The top then has the limit.
            folder = top / path.strip("/")
            for group in (folder, *folder.parents):
                if group.is_relative_to(top):
                    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                        yield int((group / name).read_text())
