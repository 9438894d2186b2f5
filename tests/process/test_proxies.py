"""SEC-6: the hub starts whatever the environment says of proxies, and tells in a line what cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ports import free_port
from tests.process.hub_process import HubProcess, IssuerThread, Visitor, command, environment
from tests.proxy_environment import ODD
from tests.running import TOPIC, until
from tests.tokens import Idp

AFAR = Idp("https://login.invalid")


def environ_of(folder: Path, issuer: IssuerThread) -> dict[str, str]:
    """An environment at which httpx raises in several ways, and an issuer that is asked through its proxy."""
    port = free_port()
    issuers = [*issuer.settings, {"issuer": AFAR.issuer, "audience": AFAR.audience}]
    settings = environment(folder, port=port, public_url=f"http://127.0.0.1:{port}/api/hub", issuers=issuers)
    proxies = {"ALL_PROXY": "socks5://me:s3cr3t@h:1080", "HTTP_PROXY": "foo bar", "NO_PROXY": ODD}
    return settings | proxies


@pytest.mark.req("SEC-6")
def test_check_config(tmp_path: Path, issuer: IssuerThread) -> None:
    """Exit code 0, and stderr has the notes of realms alone."""
    done = command(tmp_path, "check-config", environ=environ_of(tmp_path, issuer))
    assert done.returncode == 0
    assert [line.split()[:3] for line in done.stderr.splitlines()] == [["note", "FHIRCAST_ISSUERS", "realm"]] * 2


@pytest.mark.req("SEC-6", "SEC-1")
async def test_serve(tmp_path: Path, issuer: IssuerThread) -> None:
    """It serves; an issuer on loopback is asked directly; one beyond the proxy is not reached, and one line says why."""
    with HubProcess(tmp_path, ("serve",), environ_of(tmp_path, issuer)) as hub:
        async with Visitor(hub, issuer.idp) as visitor:
            assert (await visitor.context()).status_code == 200
            for _ in range(2):
                afar = await visitor.context(AFAR.token(), TOPIC)
                assert (afar.status_code, "Retry-After" in afar.headers) == (503, True)
        await until(lambda: bool(hub.lines("proxy cannot be used")))
        (line,) = hub.lines("proxy cannot be used")
        assert line["reason"] == "ALL_PROXY names a SOCKS proxy, and the Python package socksio is not installed"
        assert hub.stop() == 0
        assert "Traceback" not in hub.stdout + hub.stderr
        assert "s3cr3t" not in hub.stdout + hub.stderr
