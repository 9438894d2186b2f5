"""SIGHUP reads the settings again: issuers, the log's level, the certificate. The signal never ends the hub."""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.ports import free_port
from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, Visitor, hub_process, issuer_thread
from tests.process.workers_world import WorkersProcess, settings_of, wait


class Files:
    """A hub's settings file. `write` replaces it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "hub.toml"

    def write(self, *issuers: IssuerThread | list[dict[str, str]], level: str = "info", more: str = "") -> None:
        """Let the file name these issuers and this level."""
        tables = [
            f'[[ISSUERS]]\nissuer = "{each["issuer"]}"\naudience = "{each["audience"]}"\njwks_uri = "{each["jwks_uri"]}"\n'
            for issuer in issuers
            for each in (issuer if isinstance(issuer, list) else issuer.settings)
        ]
        self.path.write_text(f'LOG_LEVEL = "{level}"\n{more}\n{"".join(tables)}')

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("serve", "--config", str(self.path))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def second() -> Iterator[IssuerThread]:
    """An authorization server that the hub does not know at its start."""
    with issuer_thread() as issuer:
        yield issuer


def started(folder: Path, files: Files) -> HubProcess:
    """A hub that takes issuers and level from the file; use it with `with`."""
    return hub_process(folder, *files.arguments, store="memory:")


def reloaded(hub: HubProcess, event: str = "settings reloaded") -> None:
    """Send SIGHUP, and wait until the log has one more line of this name."""
    before = len(hub.lines(event))
    hub.send(signal.SIGHUP)
    wait(lambda: len(hub.lines(event)) > before)


async def status(hub: HubProcess, issuer: IssuerThread) -> int:
    """What a token of this issuer gets."""
    async with Visitor(hub, issuer.idp) as visitor:
        return (await visitor.context()).status_code


@pytest.mark.req("OPS-20")
async def test_sighup_changes_the_issuers(
    tmp_path: Path, files: Files, issuer: IssuerThread, second: IssuerThread
) -> None:
    """A removed issuer is trusted no more, and a new one is at once. Sockets stay open."""
    files.write(issuer)
    with started(tmp_path, files) as hub:
        async with Visitor(hub, issuer.idp) as visitor:
            endpoint = await visitor.subscribe()
            async with visitor.follow(endpoint) as follower:
                assert await status(hub, second) == 401
                files.write(second)
                reloaded(hub)
                assert await follower.silent()
        assert (await status(hub, issuer), await status(hub, second)) == (401, 200)
        assert hub.stop() == 0


@pytest.mark.req("OPS-20", "OPS-44")
def test_sighup_changes_the_level_of_the_log(tmp_path: Path, files: Files, issuer: IssuerThread) -> None:
    """Of all loggers, also of those that wrote before. The signal is confirmed at each level."""
    files.write(issuer)
    with started(tmp_path, files) as hub:
        wait(lambda: _writes_a_line(hub, issuer))
        files.write(issuer, level="warning")
        reloaded(hub)
        wait(lambda: not _writes_a_line(hub, issuer))
        told = len(hub.lines("issuer"))
        reloaded(hub)
        assert len(hub.lines("issuer")) == told, "the other lines of the level info stay away"
        files.write(issuer, level="info")
        reloaded(hub)
        assert _writes_a_line(hub, issuer)
        assert hub.stop() == 0
        assert hub.lines("stopped")


def _writes_a_line(hub: HubProcess, issuer: IssuerThread) -> bool:
    """Whether a request is a line of the log. The line is written before the answer to a second request."""
    before = len(hub.lines("request"))
    asyncio.run(status(hub, issuer))
    asyncio.run(status(hub, issuer))
    return len(hub.lines("request")) > before


@pytest.mark.req("OPS-20", "SEC-3")
async def test_a_mistake_in_the_file_changes_nothing(tmp_path: Path, files: Files, issuer: IssuerThread) -> None:
    """The log names the setting. A file without issuers is such a mistake."""
    files.write(issuer)
    elsewhere = [{"issuer": "http://b.example", "audience": "hub", "jwks_uri": "http://b.example/jwks"}]
    with started(tmp_path, files) as hub:
        for text, reason in (
            ('LOG_LEVEL = "loud"', "FHIRCAST_LOG_LEVEL"),
            ('LOG_LEVEL = "info"', "FHIRCAST_ISSUERS is required"),
            ("[[", "cannot be read as TOML"),
        ):
            files.path.write_text(text)
            reloaded(hub, "settings not reloaded")
            assert any(reason in line["reason"] for line in hub.lines("settings not reloaded"))
            assert await status(hub, issuer) == 200
        files.write(issuer, elsewhere, more="ALLOW_INSECURE = true")  # which needs a restart, so the issuer is wrong
        reloaded(hub, "settings not reloaded")
        assert "must be an https URL" in hub.lines("settings not reloaded")[-1]["reason"]
        assert await status(hub, issuer) == 200
        files.write(issuer, more="ACK_TIMEOUT = 3")
        reloaded(hub)
        wait(lambda: bool(hub.lines("settings need a restart")))
        assert hub.lines("settings need a restart")[-1]["reason"] == "FHIRCAST_ACK_TIMEOUT"


@pytest.mark.req("OPS-20")
def test_sighup_never_ends_a_hub_that_starts(tmp_path: Path, files: Files, issuer: IssuerThread) -> None:
    """From the first moment of `serve` on. The signal waits until the hub can take it."""
    files.write(issuer)
    hub = started(tmp_path, files)
    ends = time.monotonic() + PATIENCE
    while not hub.lines("starting") and time.monotonic() < ends:
        if _blocks_hangup(hub.process.pid):
            hub.send(signal.SIGHUP)
    with hub:
        wait(lambda: bool(hub.lines("settings reloaded")))
        assert hub.stop() == 0


@pytest.mark.req("OPS-20", "OPS-3")
def test_sighup_never_ends_a_hub_that_stops(tmp_path: Path, files: Files, issuer: IssuerThread) -> None:
    """Until the process is gone: the exit code is that of an orderly end."""
    files.write(issuer)
    with started(tmp_path, files) as hub:
        hub.send(signal.SIGTERM)
        while hub.process.poll() is None:
            hub.send(signal.SIGHUP)
        assert hub.process.returncode == 0


def _blocks_hangup(pid: int) -> bool:
    """Whether the process keeps SIGHUP waiting: before, Python itself is starting."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigBlk:"):
            return bool(int(line.split()[1], 16) & 1)
    return False


@pytest.mark.req("OPS-20")
def test_sighup_replaces_the_certificate(tmp_path: Path, files: Files, issuer: IssuerThread) -> None:
    """New connections get the renewed certificate. Unusable files change nothing."""
    certificate, key = make_certificate(tmp_path)
    files.write(issuer)
    port = free_port()
    url = f"https://127.0.0.1:{port}/api/hub"
    tls = ("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key))
    hub = hub_process(tmp_path, *files.arguments, *tls, port=port, public_url=url, store="memory:")
    try:
        wait(lambda: bool(hub.lines("listening")))
        before = ssl.get_server_certificate(("127.0.0.1", port))
        good, folder = key.read_bytes(), tmp_path / "renewed"
        folder.mkdir()
        renewed, new_key = make_certificate(folder)
        certificate.write_bytes(renewed.read_bytes())
        reloaded(hub, "certificate not reloaded")
        assert ssl.get_server_certificate(("127.0.0.1", port)) == before
        assert key.read_bytes() == good
        key.write_bytes(new_key.read_bytes())
        reloaded(hub, "certificate reloaded")
        assert ssl.get_server_certificate(("127.0.0.1", port)) == renewed.read_text()
        assert hub.stop() == 0
    finally:
        hub.__exit__()


@pytest.mark.req("OPS-20", "NOD-15")
async def test_sighup_reaches_all_workers(
    tmp_path: Path, files: Files, issuer: IssuerThread, second: IssuerThread, database: str
) -> None:
    """Also a worker that takes the place of a dead one later. A mistake reaches none."""
    files.write(issuer)
    settings = settings_of(database, issuer) | {"issuers": None}  # the file has the issuers

    def reloaded_by() -> list[int]:
        return sorted(line["worker"] for line in workers.hub.lines("settings reloaded") if "worker" in line)

    with WorkersProcess(tmp_path, 2, *files.arguments[1:], **settings) as workers:
        files.write(second)
        workers.hub.send(signal.SIGHUP)
        wait(lambda: reloaded_by() == [0, 1])
        workers.kill(0)
        wait(lambda: workers.events("worker started").count(0) == 2 and len(workers.up()) == 2)
        files.path.write_text("[[")
        workers.hub.send(signal.SIGHUP)
        wait(lambda: bool(workers.hub.lines("settings not reloaded")))
        assert reloaded_by() == [0, 1]
        for _ in range(20):  # each by a new connection, to either worker
            assert (await status(workers.hub, issuer), await status(workers.hub, second)) == (401, 200)
        assert workers.hub.stop() == 0


@pytest.mark.req("OPS-19")
def test_the_log_tells_issuers_start_and_end(tmp_path: Path, files: Files, issuer: IssuerThread) -> None:
    """Each with the version, so that the log of an upgrade says what runs."""
    files.write(issuer)
    with started(tmp_path, files) as hub:
        wait(lambda: bool(hub.lines("listening")))
        assert hub.stop() == 0
    (told,) = hub.lines("issuer")
    (expected,) = issuer.settings
    assert (told["issuer"], told["audience"], told["jwks"]) == tuple(
        expected[name] for name in ("issuer", "audience", "jwks_uri")
    )
    assert (told["realm"], told["user_claim"]) == (expected["issuer"], "sub")
    (start,), (listening,), (stopped,) = (hub.lines(name) for name in ("starting", "listening", "stopped"))
    assert listening["port"] == hub.port
    shown = subprocess.run(
        [sys.executable, "-m", "fhircast_hub", "--version"], capture_output=True, text=True, check=True, env=hub.environ
    )
    versions = {line["version"] for line in (start, listening, stopped)}
    assert versions == {shown.stdout.split()[1]}
