"""How much memory a process may take, by the control groups of a machine that is made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fhircast_hub.settings.machine_memory import available

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.req("LIM-2")
@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "1000", "memory.max": "2000"}, 1000),
        ("0::/a/b", {"a/b/memory.max": "500\n", "a/memory.max": "1000"}, 500),
        ("0::/", {"memory.max": "700"}, 700),
        ("0::/../of/the/host", {"memory.max": "800"}, 800),
        ("4:memory:/docker/x\n3:cpu:/", {"memory/memory.limit_in_bytes": "900"}, 900),
        ("4:memory:/x", {"memory/x/memory.limit_in_bytes": "9223372036854771712"}, MACHINE),
        ("0::/a", {"a/memory.max": "max"}, MACHINE),
        (None, {}, MACHINE),
    ],
)
def test_the_least_of_all_limits_counts(
    tmp_path: Path, groups: str | None, limits: dict[str, str], expected: int
) -> None:
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(f"{groups}\n")
    for name, limit in limits.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(limit)
    assert available(tmp_path) == expected
