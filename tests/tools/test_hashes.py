"""The files of hashes: what pip reports gets into them, and those of the repository are complete and as the tests have it."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.hashes import FOLDER, GLIBC, MACHINES, PYTHON, WHAT, found, tags, wanted, written

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "0123456789abcdef" * 4


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pinned(name: str) -> dict[str, str]:
    """The versions of a file, by name. Each line of it is a comment, a version, or a hash of the version above."""
    versions: dict[str, str] = {}
    text = (ROOT / FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    for block in re.sub(r"#.*\n", "", text).replace(" \\\n", " ").splitlines():
        match = re.fullmatch(r"([a-z0-9-]+)==(\S+)((?: +--hash=sha256:[0-9a-f]{64})+)", block)
        assert match, block
        versions[match[1]] = match[2]
    return versions


def closure(requirements: list[str], machine: str) -> set[str]:
    """The names of all that these need on such a machine, as the installed packages say it."""
    about = {
        "python_version": PYTHON,
        "python_full_version": f"{PYTHON}.0",
        "sys_platform": "linux",
        "os_name": "posix",
    }
    about |= {"platform_system": "Linux", "platform_machine": machine, "implementation_name": "cpython"}
    about |= {"platform_python_implementation": "CPython"}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(each), "") for each in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({**about, "extra": extra}):
            continue
        for wished in ("", *requirement.extras):
            key = canonicalize_name(requirement.name), wished
            if key not in seen:
                seen.add(key)
                waiting += [(Requirement(each), wished) for each in requires(requirement.name) or ()]
    return {name for name, _ in seen}


@pytest.mark.req("OPS-5")
@pytest.mark.parametrize("name", WHAT)
def test_a_file_has_the_versions_that_the_tests_run_with(name: str) -> None:
    """Those of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constrained = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if line[0] != "#"}
    found_ = pinned(name)
    assert found_ == {each: constrained[canonicalize_name(each)] for each in found_}


@pytest.mark.req("OPS-5")
@pytest.mark.parametrize("machine", MACHINES)
def test_the_files_have_all_that_is_needed_and_no_more(machine: str) -> None:
    """What the hub, the demo and the hub's wheel need, and what these need in turn."""
    needed = {name: closure(requirements, machine) for name, requirements in wanted(project()).items()}
    files = {name: set(pinned(name)) for name in WHAT}
    assert files["build"] == needed["build"]
    assert files["hub"] == needed["hub"]
    assert files["demo"] == needed["demo"] - needed["hub"]


def test_what_pip_reports_is_written() -> None:
    """Sorted, by the normal form of the name, with each hash once."""
    item = {
        "metadata": {"name": "Some_Package", "version": "1.0"},
        "download_info": {"archive_info": {"hashes": {"sha256": DIGEST}}},
    }
    pins = found({"install": [item, item]})
    pins["some-package==1.0"].add("f" * 64)
    _, _, *lines = written("hub", pins | {"a==2": {DIGEST}}).splitlines()
    assert lines == [
        "a==2 \\",
        f"    --hash=sha256:{DIGEST}",
        "some-package==1.0 \\",
        f"    --hash=sha256:{DIGEST} \\",
        f"    --hash=sha256:{'f' * 64}",
    ]


def test_what_has_no_hash_is_refused() -> None:
    """As a folder, or a repository, has none."""
    item = {"metadata": {"name": "a", "version": "1"}, "download_info": {"dir_info": {}}}
    with pytest.raises(ValueError, match="a must have a file with a SHA-256"):
        found({"install": [item]})


def test_wheels_for_an_older_glibc_count_too() -> None:
    """The newest first, as pip prefers them."""
    for machine in MACHINES:
        listed = tags(machine, max(GLIBC))
        assert listed[0] == f"manylinux_2_{max(GLIBC)}_{machine}"
        assert {f"manylinux_2_17_{machine}", f"manylinux2014_{machine}", f"linux_{machine}"} <= set(listed)
