"""A hub as hospitals run it: a process of its own, known by its port, its signals, its exit code and what it prints."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import fhircast_hub
from tests.auth.issuer_server import JWKS, IssuerServer
from tests.ports import free_port
from tests.running import NO_TLS, Clock, Follower, RunningHub
from tests.tokens import Idp

#: Seconds until a process must answer, or be gone, on a machine that does much else.
PATIENCE = 60
#: What a child process is given of this one's environment: no proxy, nobody's settings.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR")

#: Where this process has the hub from: the child runs the same, whichever checkout is installed.
_CODE = str(Path(fhircast_hub.__path__[0]).parent)


def environment(folder: Path, **settings: Any) -> dict[str, str]:
    """The environment of a hub whose files are in `folder`; `port=1` is FHIRCAST_PORT, and None leaves one out."""
    given = {
        f"FHIRCAST_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
        if value is not None
    }
    inherited = {name: os.environ[name] for name in _KEPT if name in os.environ}
    inherited["PYTHONPATH"] = _CODE
    return {**inherited, "XDG_RUNTIME_DIR": str(folder), **given}


def command(folder: Path, *arguments: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `fhircast-hub` to its end, in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "fhircast_hub", *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class HubProcess:
    """A running `fhircast-hub`; with `with`, ready within the block and gone after it.

    What it prints is in two files, so that it never waits for a reader.
    """

    def __init__(self, folder: Path, arguments: tuple[str, ...], environ: dict[str, str]) -> None:
        self.environ = environ
        self.port = int(environ["FHIRCAST_PORT"])
        self.origin = f"http://{'[::1]' if environ.get('FHIRCAST_HOST') == '::1' else '127.0.0.1'}:{self.port}"
        self._stdout, self._stderr = folder / f"{self.port}.stdout", folder / f"{self.port}.stderr"
        with self._stdout.open("ab") as stdout, self._stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fhircast_hub", *arguments],
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def stdout(self) -> str:
        """All of it so far, also of hubs on this port before."""
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        """The same."""
        return self._stderr.read_text()

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """Its whole log lines so far; only those called `event`, if it is given. The hub may be writing the last one."""
        lines = [json.loads(line) for line in self._stdout.read_bytes().split(b"\n")[:-1]]
        return [line for line in lines if event in ("", line["event"])]

    def wait_until_ready(self) -> None:
        """Until /health/ready says so."""
        deadline = time.monotonic() + PATIENCE
        with httpx.Client(timeout=PATIENCE, trust_env=False, verify=NO_TLS) as client:
            while time.monotonic() < deadline:
                assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.stderr}"
                try:
                    if client.get(f"{self.origin}/health/ready").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.02)
        raise AssertionError(f"not ready within {PATIENCE} s: {self.stdout} {self.stderr}")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Its exit code, negative after a signal that it died of."""
        return self.process.wait(PATIENCE)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal that ends it; the exit code."""
        self.send(number)
        return self.ended()


def hub_process(folder: Path, *arguments: str, **settings: Any) -> HubProcess:
    """`fhircast-hub serve`, or what `arguments` say, on a free port; use it with `with`. `environ`: variables beside the settings."""
    environ: dict[str, str] = settings.pop("environ", {})
    port = str(settings.pop("port", None) or free_port())
    values = {"port": port, "public_url": f"http://127.0.0.1:{port}/api/hub", **settings}
    return HubProcess(folder, arguments or ("serve",), environment(folder, **values) | environ)


class IssuerThread:
    """An issuer that outlives the event loops of the tests; `settings` is what FHIRCAST_ISSUERS says of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._server = IssuerServer()
        asyncio.run_coroutine_threadsafe(self._server.start(), loop).result(PATIENCE)
        self.idp = Idp(self._server.url)
        self._server.publish(JWKS, self.idp.jwks())
        url = self._server.url
        self.settings = [{"issuer": url, "audience": self.idp.audience, "jwks_uri": url + JWKS}]

    def publish(self, path: str, document: dict[str, Any]) -> None:
        """Answer a path with a document."""
        self._server.publish(path, document)

    def stop(self) -> None:
        """Refuse connections."""
        asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(PATIENCE)


@contextmanager
def issuer_thread() -> Iterator[IssuerThread]:
    """An issuer in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        issuer = IssuerThread(loop)
        yield issuer
        issuer.stop()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Visitor(RunningHub):
    """The clients of a hub in another process: all of RunningHub but its `hub`. Use it as `async with`."""

    def __init__(self, hub: HubProcess, idp: Idp) -> None:
        self.idp, self.clock, self.port = idp, Clock(time.time()), hub.port
        self._tokens, self._of_known_key = {}, set()
        self.origin, self.url = hub.origin, f"{hub.origin}/api/hub"
        self.client = httpx.AsyncClient(trust_env=False, timeout=PATIENCE, verify=NO_TLS)

    async def __aenter__(self) -> Visitor:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()


async def back(endpoint: str) -> Follower:
    """A socket at an endpoint, as soon as a hub takes one."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                follower = Follower(await connect(endpoint, compression=None, proxy=None))
                assert (await follower.next())["hub.mode"] == "subscribe"
            except (OSError, ConnectionClosed, InvalidStatus):
                await asyncio.sleep(0.02)
            else:
                return follower
