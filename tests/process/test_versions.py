"""What runs is named by `fhircast-hub --version`, also of a wheel, and at /metrics."""

from __future__ import annotations

import platform
import re
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.process.hub_process import PATIENCE, environment
from tests.running import running_hub

ROOT = Path(__file__).parents[2]


@pytest.mark.req("OPS-32")
def test_a_wheel_names_its_versions(tmp_path: Path) -> None:
    """The wheel's own code and metadata say so, and not those of the repository. The rest is what is installed."""
    building = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(building, cwd=ROOT, capture_output=True, check=True, timeout=PATIENCE)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    metadata = next((tmp_path / "site").glob("*.dist-info/METADATA"))
    metadata.write_text(re.sub("(?m)^Version: .*$", "Version: 7.8.9", metadata.read_text(encoding="utf-8"), count=1))
    environ = environment(tmp_path) | {"PYTHONPATH": str(tmp_path / "site")}
    words = [sys.executable, "-m", "fhircast_hub", "--version"]
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=PATIENCE)
    others = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, asyncpg {version('asyncpg')}"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fhircast-hub 7.8.9\n{others}\n", "")


@pytest.mark.req("OPS-32", "OPS-1")
@pytest.mark.parametrize("store", ["sqlite", "memory"])
async def test_the_metrics_name_what_runs(tmp_path: Path, store: str) -> None:
    url = f"sqlite:///{tmp_path}/hub.db" if store == "sqlite" else "memory:"
    async with running_hub(store=url) as hub:
        text = (await hub.client.get(f"{hub.origin}/metrics")).text
    labels = f'python="{platform.python_version()}",store="{store}",version="{version("fhircast-hub")}"'
    assert f"\nfhircast_build_info{{{labels}}} 1.0\n" in text
