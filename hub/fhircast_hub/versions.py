"""What runs: the versions of the hub, of Python and of the stores' libraries (OPS-32)."""

from __future__ import annotations

import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("fhircast-hub")
    except PackageNotFoundError:  # run from the sources alone
        return "unknown"


#: Version of the installed package.
VERSION = _installed()


def python_version() -> str:
    """Version of the interpreter."""
    return platform.python_version()


def versions() -> str:
    """All versions, for bug reports. The first line has the hub's alone, for scripts."""
    try:
        asyncpg = f"asyncpg {version('asyncpg')}"
    except PackageNotFoundError:
        asyncpg = "without asyncpg for PostgreSQL"
    return f"fhircast-hub {VERSION}\nPython {python_version()}, SQLite {sqlite3.sqlite_version}, {asyncpg}"
