"""The hub, as a process of its own: `fhircast-hub serve`, with its store and its log in a folder that goes with it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import httpx

from demo import DemoError
from fhircast_hub.dev import AUDIENCE

#: Seconds that the hub has to start, and to stop.
PATIENCE = 10
#: Lines of its log that are shown when something went wrong.
SHOWN = 20


@asynccontextmanager
async def running_hub(issuer: str, port: int | None) -> AsyncIterator[str]:
    """A hub that trusts this issuer, ready; its hub.url. Raises DemoError if it does not start or does not end well."""
    port = port or _free_port()
    url = f"http://127.0.0.1:{port}/api/hub"
    with TemporaryDirectory(prefix="fhircast-demo-") as folder, open(Path(folder, "hub.log"), "w+b") as log:
        environ = _environ(url, port, issuer, store=f"sqlite:///{folder}/hub.db")
        process = await _start(environ)
        logging = asyncio.create_task(_until_listening(process, log))
        try:
            await _ready(process, logging, f"http://127.0.0.1:{port}/health/ready")
            logging = asyncio.create_task(_keep_log(process, log))
            yield url
        except Exception:
            _show(log)
            raise
        finally:
            await _stop(process)
            await logging
        if process.returncode:
            raise DemoError(f"the hub ended with exit code {process.returncode}")


def _environ(url: str, port: int, issuer: str, store: str) -> dict[str, str]:
    """The caller's environment, whose other settings of the hub count, with what the demo stands on."""
    return os.environ | {
        "FHIRCAST_HOST": "127.0.0.1",
        "FHIRCAST_PORT": str(port),
        "FHIRCAST_PUBLIC_URL": url,
        # No jwks_uri: the hub finds the keys by the issuer's discovery document.
        "FHIRCAST_ISSUERS": json.dumps([{"issuer": issuer, "audience": AUDIENCE}]),
        "FHIRCAST_STORE": store,
        "FHIRCAST_LOG_FORMAT": "json",
        "FHIRCAST_LOG_LEVEL": "info",
        "NO_PROXY": "127.0.0.1",
    }


async def _start(environ: dict[str, str]) -> Process:
    """In a process group of its own: a Ctrl-C in the terminal is for the demo, which then stops the hub."""
    command = (sys.executable, "-m", "fhircast_hub", "serve")
    return await asyncio.create_subprocess_exec(*command, env=environ, stdout=PIPE, stderr=PIPE, process_group=0)


async def _until_listening(process: Process, log: IO[bytes]) -> bool:
    """Keep the log up to the line that says the hub's port is open. False if the hub ended before."""
    assert process.stdout
    async for line in process.stdout:
        log.write(line)
        if b'"event":"starting"' in line:
            return True
    return False


async def _keep_log(process: Process, log: IO[bytes]) -> None:
    assert process.stdout
    async for line in process.stdout:
        log.write(line)


async def _ready(process: Process, listening: asyncio.Task[bool], url: str) -> None:
    """Return when the hub is ready: its port takes the question while it starts, and answers when it has."""
    try:
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            if await listening and (await client.get(url)).status_code == httpx.codes.OK:
                return
    except (TimeoutError, httpx.TransportError):
        pass
    raise DemoError(f"the hub did not start: {await _reason(process)}")


async def _reason(process: Process) -> str:
    """The line on stderr with which the hub refused to start."""
    assert process.stderr
    await _stop(process)
    lines = (await process.stderr.read()).decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), f"it was not ready within {PATIENCE} s")


async def _stop(process: Process) -> None:
    """End it as an operator would; by force where that does not help, or nobody waits for it any more."""
    try:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise


def _show(log: IO[bytes]) -> None:
    log.seek(0)
    for line in log.read().decode(errors="replace").splitlines()[-SHOWN:]:
        print(f"hub.log  {line}", file=sys.stderr)


def _free_port() -> int:
    """The hub must know its public URL before it listens, so the port is chosen here."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
