"""`make release` as a whole, on this checkout: the files that it leaves, and what it says. What is not tried is said."""

from __future__ import annotations

import email
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.hashes import normal
from tools.release.packages import JAVASCRIPT, PYTHON, ROOT, PythonPackage
from tools.release.version import current

VERSION = current(ROOT)
SBOM = f"fhircast-hub-{VERSION}.cdx.json"
#: Seconds for all, on a machine that does much else. Idle, all takes about one minute.
PATIENCE = 900


@dataclass(frozen=True)
class Done:
    folder: Path
    output: str


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One run, with its files in a temporary folder."""
    folder = tmp_path_factory.mktemp("release") / "files"
    command = (sys.executable, "-m", "tools.release", "--into", folder)
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 0, run.stdout + run.stderr
    return Done(folder, run.stdout)


def test_a_release_has_all_packages_notes_sbom_and_sums(done: Done) -> None:
    python = {f"{each.stem}-{VERSION}{end}" for each in PYTHON for end in (".tar.gz", "-py3-none-any.whl")}
    javascript = {f"{each.name}-{VERSION}.tgz" for each in JAVASCRIPT}
    expected = python | javascript | {"notes.md", SBOM, "SHA256SUMS"}
    assert {path.name for path in done.folder.iterdir()} == expected
    lines = (done.folder / "SHA256SUMS").read_text().splitlines()
    assert {line.split()[1] for line in lines} == expected - {"SHA256SUMS"}
    subprocess.run(("sha256sum", "--check", "--strict", "SHA256SUMS"), cwd=done.folder, check=True, capture_output=True)


def test_every_step_is_told_with_its_time(done: Done) -> None:
    steps = [line for line in done.output.splitlines() if re.fullmatch(r"release: .*, (\d+ min )?\d+ s", line)]
    for each in PYTHON:
        assert any(f"built {each.name}" in line for line in steps)
        assert any(f"installed and tried {each.name}," in line for line in steps)
    assert any("installed and tried fhircast-client[testing]," in line for line in steps)
    assert sum("for npm" in line for line in steps) == len(JAVASCRIPT)
    for tool in ("twine", "check-wheel-contents", "cyclonedx-bom", "publint"):
        assert any(tool in line for line in steps), tool
    assert "release: not tried here: the image, and extras of the hub but postgresql\n" in done.output
    verdict = done.output.splitlines()[-1]
    assert re.match(rf"release: ({VERSION} is ready in|a rehearsal of {VERSION} passed; the files) ", verdict), verdict


@pytest.mark.parametrize("package", PYTHON, ids=lambda package: package.name)
def test_a_wheel_has_the_version_and_an_sdist_no_other_folders(package: PythonPackage, done: Done) -> None:
    with zipfile.ZipFile(done.folder / f"{package.stem}-{VERSION}-py3-none-any.whl") as wheel:
        metadata = email.message_from_bytes(wheel.read(f"{package.stem}-{VERSION}.dist-info/METADATA"))
    assert (metadata["Name"], metadata["Version"]) == (package.name, VERSION)
    with tarfile.open(done.folder / f"{package.stem}-{VERSION}.tar.gz") as sdist:
        tops = {Path(name).parts[1] for name in sdist.getnames() if len(Path(name).parts) > 1}
    assert not {"tests", "demo", "tools", "build"} & tops


def test_the_sbom_names_the_hub_and_what_its_image_is_made_of(done: Done) -> None:
    text = (done.folder / SBOM).read_text(encoding="utf-8")
    found = json.loads(text)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    root = found["metadata"]["component"]
    assert (root["name"], root["version"], root["type"]) == ("fhircast-hub", VERSION, "application")
    names = {normal(each["name"]) for each in found["components"]}
    image = (ROOT / "requirements" / "hub.txt").read_text(encoding="utf-8")
    assert {"starlette", "uvicorn", "asyncpg", "cryptography"} <= names
    assert names <= {match[1] for match in re.finditer(r"^([a-z0-9-]+)==", image, re.MULTILINE)}
    assert "file:" not in text, "the SBOM must not name a path of the machine that made it"


def test_the_notes_name_the_version(done: Done) -> None:
    text = (done.folder / "notes.md").read_text(encoding="utf-8")
    assert re.match(rf"# {VERSION}(, a rehearsal)?\n\n\S", text)
