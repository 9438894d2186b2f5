"""nginx as a process of a test: one worker, whose files are all in the test's folder."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.hub_process import PATIENCE
from tools.packages import PATH

NGINX = shutil.which("nginx", path=PATH)

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is missing; make test installs it")


@contextmanager
def nginx(folder: Path, http: str) -> Iterator[subprocess.Popen[bytes]]:
    """nginx with these directives in its `http` block, until the block ends."""
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = (
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}"
        f" http {{ {temporary} {http} }}"
    )
    with configured_nginx(folder, text) as process:
        yield process


@contextmanager
def configured_nginx(folder: Path, text: str) -> Iterator[subprocess.Popen[bytes]]:
    """nginx with this configuration, until the block ends. What it prints is in the folder's file `stderr`."""
    assert NGINX
    main = folder / "nginx.conf"
    main.write_text(text)
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen([NGINX, "-c", str(main), "-e", f"{folder}/error.log"], stderr=stderr)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)
