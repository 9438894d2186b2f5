"""The software bill of materials of the hub, in CycloneDX: all that pip installed beside the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tools.hashes import normal
from tools.release.commands import ReleaseError, environment, run

SPECIFICATION = "1.6"


def pins(constraints: str) -> dict[str, str]:
    """The versions of a file of constraints, by normal name."""
    lines = (line.partition("==") for line in constraints.splitlines() if line and not line.startswith("#"))
    return {normal(name): version for name, _, version in lines}


def unpinned(sbom: dict[str, Any], pinned: dict[str, str]) -> list[str]:
    """The components whose versions are not those of the constraints, as `name==version`."""
    found = ((normal(each["name"]), each["version"]) for each in sbom.get("components", []))
    return sorted(f"{name}=={version}" for name, version in found if pinned.get(name) != version)


def write(python: Path, sources: Path, path: Path, time: int) -> None:
    """Describes the hub's environment in JSON, which is validated. `time` is in seconds since 1970.

    Raises ReleaseError if the tool fails, or if a component has another version than constraints.txt says.
    """
    tool = (sys.executable, "-m", "cyclonedx_py", "environment", "--validate", "--output-reproducible")
    output = ("--spec-version", SPECIFICATION, "--output-format", "JSON", "--output-file", path)
    root = ("--pyproject", sources / "pyproject.toml", "--mc-type", "application")
    run(*tool, *output, *root, python, cwd=sources, env=environment(SOURCE_DATE_EPOCH=str(time)))
    pinned = pins((sources / "constraints.txt").read_text(encoding="utf-8"))
    if wrong := unpinned(json.loads(path.read_text(encoding="utf-8")), pinned):
        raise ReleaseError(f"{path.name} must have the versions of constraints.txt, and has {', '.join(wrong)}")
