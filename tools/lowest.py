"""`make lowest`: the tests of the Python clients, with the oldest versions that their pyproject.toml promise.

A virtual environment has these, and for all else that the tests need it looks into that of the tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

FOLDER = Path("build/lowest")
#: What the tests use of the repository itself: a command each, and what is known of the package.
PACKAGES = (Path("clients/python"), Path("clients/identity/python"), Path("."))
CLIENTS = PACKAGES[:2]
#: What builds packages, looks at browsers, or has nothing to do with other packages.
LEFT_OUT = ("test_packages.py", "test_example_page.py", "test_engine.py", "test_engine_mutants.py")


def lowest(folder: Path) -> list[str]:
    """What a package needs, each at its oldest version: `httpx>=0.28,<1` as `httpx==0.28`. Packages of the repository are left out.

    Raises ValueError for what has no oldest version.
    """
    needed = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    found = []
    for requirement in needed:
        parts = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9][0-9.]*)(?:,.*)?", requirement)
        if parts is None:
            raise ValueError(f"{folder}: a requirement must have its oldest version, not be {requirement}")
        if not parts[1].startswith("fhircast-"):
            found.append(f"{parts[1]}=={parts[2]}")
    return found


def main() -> int:
    """Exit code of the tests."""
    oldest = sorted({each for folder in CLIENTS for each in lowest(folder)})
    print(f"{FOLDER}: {', '.join(oldest)}", flush=True)
    venv.create(FOLDER, with_pip=True, clear=True)
    python = FOLDER / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    own = [f"--editable=./{each}" for each in PACKAGES]
    subprocess.run([*install, *oldest], check=True)
    subprocess.run([*install, "--no-deps", *own], check=True)
    site = next((FOLDER / "lib").glob("python*/site-packages"))
    (site / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    ignored = [f"--ignore=tests/clients/{name}" for name in LEFT_OUT]
    tests = [str(python), "-m", "pytest", "-q", "tests/clients", "tests/settings/test_outbound_proxies.py", *ignored]
    path = f"{Path(sys.executable).parent.absolute()}:{os.environ['PATH']}"  # Node
    return subprocess.run(tests, env=os.environ | {"PATH": path}).returncode


if __name__ == "__main__":
    sys.exit(main())
