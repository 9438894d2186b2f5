"""What is published: four packages, as a stranger installs them, and programs of strict type checkers against them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import uuid
import venv
import zipfile
from pathlib import Path

import pytest

from tests.clients.places import DevHub

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "clients"
PYTHON = {
    "fhircast_client": CLIENTS / "python",
    "fhircast_identity": CLIENTS / "identity" / "python",
    "fhircast_hub": ROOT,
}
JAVASCRIPT = {
    "fhircast-client": CLIENTS / "javascript",
    "fhircast-identity": CLIENTS / "identity" / "javascript",
}
#: What has a README and a LICENSE of its own.
FOLDERS = [PYTHON["fhircast_client"], PYTHON["fhircast_identity"], *JAVASCRIPT.values()]
PROGRAMS = Path(__file__).parent / "programs"
LICENSE = (ROOT / "LICENSE").read_bytes()
#: Seconds that a tool may take.
PATIENCE = 120


def run(*command: str | Path, cwd: Path) -> str:
    """What a tool of .venv prints; its failure fails the test with all that it said."""
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def npm_packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tarballs that npm would publish, by name."""
    folder = tmp_path_factory.mktemp("npm")
    for each in JAVASCRIPT.values():
        run("npm", "pack", "--silent", "--pack-destination", folder, cwd=each)
    return {name: next(folder.glob(f"{name}-*.tgz")) for name in JAVASCRIPT}


@pytest.fixture(scope="module")
def python_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels and the sdists, and with nothing else."""
    folder = tmp_path_factory.mktemp("python")
    for each in PYTHON.values():
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=each)
    return folder


# What is in them


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(CLIENTS)))
def test_every_package_has_the_license_of_the_repository(folder: Path) -> None:
    assert (folder / "LICENSE").read_bytes() == LICENSE


@pytest.mark.parametrize("name", JAVASCRIPT)
def test_a_tarball_has_license_readme_types_and_no_tests(name: str, npm_packages: dict[str, Path]) -> None:
    with tarfile.open(npm_packages[name]) as tarball:
        names = {member.name.removeprefix("package/") for member in tarball}
    sources = {each.relative_to(JAVASCRIPT[name]).as_posix() for each in (JAVASCRIPT[name] / "src").glob("*.js")}
    types = {each.replace("src/", "types/").replace(".js", ".d.ts") for each in sources}
    maps = {f"{each}.map" for each in types}
    examples = {each for each in names if each.startswith("example/")}
    assert names == {"LICENSE", "README.md", "package.json"} | sources | types | maps | examples


@pytest.mark.parametrize("name", PYTHON)
def test_a_wheel_and_an_sdist_have_the_license_and_who_made_them(name: str, python_packages: Path) -> None:
    with zipfile.ZipFile(next(python_packages.glob(f"{name}-*.whl"))) as wheel:
        files = wheel.namelist()
        info = next(each for each in files if each.endswith(".dist-info/METADATA")).rpartition("/")[0]
        assert wheel.read(f"{info}/licenses/LICENSE") == LICENSE
        metadata = wheel.read(f"{info}/METADATA").decode()
    assert f"{name}/py.typed" in files
    assert {each.partition("/")[0] for each in files} == {name, info}
    for field in ("Author: The fhircast-hub maintainers", "Project-URL: ", "License-Expression: Apache-2.0"):
        assert f"\n{field}" in metadata
    with tarfile.open(next(python_packages.glob(f"{name}-*.tar.gz"))) as sdist:
        names = {member.name.partition("/")[2] for member in sdist}
    source, readme = (f"hub/{name}", "hub/README.md") if name == "fhircast_hub" else (name, "README.md")
    assert {"LICENSE", readme, "pyproject.toml", f"{source}/__init__.py"} <= names


@pytest.mark.req("CSL-11")
def test_the_hubs_wheel_has_the_page_of_the_console(python_packages: Path) -> None:
    folder = ROOT / "hub" / "fhircast_hub" / "console" / "page"
    with zipfile.ZipFile(next(python_packages.glob("fhircast_hub-*.whl"))) as wheel:
        for path in folder.iterdir():
            assert wheel.read(f"fhircast_hub/console/page/{path.name}") == path.read_bytes()


@pytest.mark.parametrize("folder", [*FOLDERS, ROOT / "hub"], ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_readme_links_to_nothing_outside_its_package(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert target.startswith(("https://", "#")) or (folder / target).resolve().is_relative_to(folder), target
        assert target.startswith(("https://", "#")) or (folder / target).exists(), target


# What the two programs print, at a hub

PRINTED = """\
["the FHIR server"]
["opened","Patient/d25d57a2-1cad-5e20-8ade-d80f726e11ab","local-17","Østby",true]
["Observation/o2",1,false]
["closed","Patient/d25d57a2-1cad-5e20-8ade-d80f726e11ab",null]
["connected",true,"Patient/p1"]
[400,true]
["ended",false,"Stopped"]
[true,true]
[409]
"""


def session(hub: DevHub) -> tuple[str, str, str]:
    """The arguments of a program: hub.url, a topic of its own, and a token."""
    return f"http://127.0.0.1:{hub.process.port}/api/hub", str(uuid.uuid4()), hub.token


# TypeScript


@pytest.fixture(scope="module")
def consumer(npm_packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which both packages are installed, beside what its author has: React, and the package ws."""
    folder = tmp_path_factory.mktemp("consumer")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    run("npm", "install", "--offline", "--no-audit", "--no-fund", *npm_packages.values(), cwd=folder)
    types = folder / "node_modules" / "@types"
    types.mkdir()
    for name in ("react", "ws", "@types/react", "@types/ws", "@types/node"):
        (folder / "node_modules" / name).symlink_to(CLIENTS / "node_modules" / name)
    return folder


#: The options of a project that `npm create vite` makes of its template react-ts, and those of a service in Node.
VITE = {"module": "esnext", "moduleResolution": "bundler", "verbatimModuleSyntax": True, "jsx": "react-jsx"}
NODE = {"module": "nodenext", "moduleResolution": "nodenext", "jsx": "react-jsx"}


@pytest.mark.parametrize("options", [VITE, NODE], ids=["vite", "node"])
def test_a_program_in_typescript_is_checked_strictly_and_runs(
    options: dict[str, object], consumer: Path, hub: DevHub
) -> None:
    strict = {
        "strict": True,
        "noUncheckedIndexedAccess": True,
        "exactOptionalPropertyTypes": True,
        "erasableSyntaxOnly": True,
        "skipLibCheck": False,
        "outDir": "made",
        "target": "es2023",
        "lib": ["es2023", "dom"],
        "types": ["node"],
        **options,
    }
    sources = {"program.ts": (PROGRAMS / "program.ts").read_text(encoding="utf-8"), "hook.tsx": hook()}
    for name, source in sources.items():
        (consumer / name).write_text(source, encoding="utf-8")
    (consumer / "tsconfig.json").write_text(json.dumps({"compilerOptions": strict, "files": list(sources)}))
    run(CLIENTS / "node_modules" / ".bin" / "tsc", "--project", consumer, cwd=consumer)
    assert run("node", "made/program.js", *session(hub), cwd=consumer) == PRINTED


def hook() -> str:
    """The React hook of the README."""
    readme = (CLIENTS / "javascript" / "README.md").read_text(encoding="utf-8")
    return readme.partition("```tsx\n")[2].partition("```\n")[0]


# Python


def test_a_program_in_python_is_checked_strictly_and_runs(python_packages: Path, tmp_path: Path, hub: DevHub) -> None:
    venv.create(tmp_path, with_pip=False)
    site = next((tmp_path / "lib").glob("python*/site-packages"))
    for wheel in python_packages.glob("*.whl"):
        with zipfile.ZipFile(wheel) as files:
            files.extractall(site)
    for each in Path(sysconfig.get_path("purelib")).iterdir():  # what they need, and not the repository's own
        if "fhircast" not in each.name and each.suffix != ".pth":
            (site / each.name).symlink_to(each)
    python = tmp_path / "bin" / "python"
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\nwarn_unused_ignores = true\n")
    found = run(
        python, "-c", "import fhircast_client, fhircast_identity; print(fhircast_client.__file__)", cwd=tmp_path
    )
    assert Path(found.strip()).is_relative_to(tmp_path)
    command = (sys.executable, "-m", "mypy", "--config-file", config, "--python-executable", python)
    run(*command, "--cache-dir", tmp_path / "cache", PROGRAMS / "program.py", cwd=tmp_path)
    assert run(python, PROGRAMS / "program.py", *session(hub), cwd=tmp_path) == PRINTED
