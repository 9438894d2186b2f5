"""compose.scale.yaml without Docker: its settings, its rights, and its nginx before two hubs of these settings."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml
from websockets.exceptions import ConnectionClosed

from demo.apps import issuers
from demo.hub import SETTINGS
from demo.places import PORTS, Places
from fhircast_hub.settings.errors import SettingsError
from fhircast_hub.settings.reading import load
from fhircast_hub.settings.serving import require_all
from tests.ports import free_port
from tests.postgresql.server import PostgresServer
from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, Visitor, back, hub_process
from tests.process.nginx import configured_nginx, needs_nginx
from tests.running import event

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "compose.scale.yaml").read_text(encoding="utf-8")
NGINX_CONF = (ROOT / "docs" / "nginx.scale.conf").read_text(encoding="utf-8")
SECRET = "/run/secrets/db-password"
#: What the file requires of the environment, with values.
GIVEN = {"FHIRCAST_SECRET_KEY": "0123456789abcdef" * 4}
HUBS = ("hub-1", "hub-2")


def composed(**given: str) -> dict[str, Any]:
    """The file as Compose reads it: each variable is required, so that nothing is empty by mistake."""
    text = re.sub(r"\$\{([A-Z_]+):\?[^}]+\}", lambda found: given[found[1]], TEXT)
    assert "${" not in text
    return dict(yaml.safe_load(text))


SERVICES = composed(**GIVEN)["services"]


def environ_of(hub: str, password: Path) -> dict[str, str]:
    """The environment of a hub, whose password is in this file."""
    environ: dict[str, str] = SERVICES[hub]["environment"]
    assert all(isinstance(value, str) for value in environ.values())
    assert environ["FHIRCAST_STORE_PASSWORD_FILE"] == SECRET
    return environ | {"FHIRCAST_STORE_PASSWORD_FILE": str(password)}


@pytest.fixture
def password(tmp_path: Path) -> Path:
    """The file of the database's password."""
    path = tmp_path / "db-password"
    path.write_text("hunter2\n")
    return path


@pytest.mark.req("NOD-15")
@pytest.mark.parametrize("hub", HUBS)
def test_the_settings_are_what_serve_needs(hub: str, password: Path) -> None:
    environ = environ_of(hub, password)
    settings = load(None, environ)
    require_all(settings)
    assert (settings.is_shared, settings.host, settings.allow_insecure) == (True, "127.0.0.1", False)
    assert settings.store_password == "hunter2"
    password.unlink()
    with pytest.raises(SettingsError):
        load(None, environ)


def test_the_hubs_differ_by_their_port() -> None:
    """nginx knows both ports, and all else is the same: also the key, and the bytes of all sessions."""
    services = composed(**GIVEN)["services"]
    first, second = (services[hub] for hub in HUBS)
    ports = [hub["environment"].pop("FHIRCAST_PORT") for hub in (first, second)]
    assert first == second
    assert re.findall(r"server 127[.]0[.]0[.]1:(\d+) ", NGINX_CONF) == ports
    assert first["environment"]["FHIRCAST_SECRET_KEY"] == GIVEN["FHIRCAST_SECRET_KEY"]
    assert first["environment"].keys() >= {"FHIRCAST_MAX_BYTES"}


def test_the_demo_finds_what_it_needs() -> None:
    """As in compose.yaml: the hubs trust its issuers, and its ports are where browsers look."""
    environ = SERVICES["hub-1"]["environment"]
    assert json.loads(environ["FHIRCAST_ISSUERS"]) == issuers(Places(PORTS))
    assert environ["FHIRCAST_PUBLIC_URL"] == Places(PORTS).hub_url
    assert environ.items() >= SETTINGS.items()
    usual = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["hub"]["ports"]
    assert SERVICES["net"]["ports"] == usual
    assert {name for name, each in SERVICES.items() if each.get("network_mode") != "service:net"} == {"net"}


@pytest.mark.req("OPS-5")
def test_services_may_do_no_more_than_they_need() -> None:
    """None has a privilege of root's, nor a way to one; what they write is in memory, but for the database's volume."""
    for name, service in SERVICES.items():
        rights = {key: service[key] for key in ("read_only", "cap_drop", "security_opt")}
        assert rights == {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}, name
        assert "/tmp" in service["tmpfs"]
        assert not service.keys() & {"privileged", "cap_add", "pid", "ipc", "devices"}, name
        assert "build" in service or service["user"] == {"nginx": "nginx", "db": "postgres"}[name]
    volumes = {name: service["volumes"] for name, service in SERVICES.items() if "volumes" in service}
    config = "./docs/nginx.scale.conf:/etc/nginx/fhircast.conf:ro"
    assert "entrypoint" in SERVICES["net"]  # this one only holds the network
    assert volumes == {"nginx": [config], "db": ["db:/var/lib/postgresql/data"]}


def test_the_databases_password_is_its_secret() -> None:
    """Everybody on the loopback needs it, and checksums find a page that the disk lost."""
    database, url = SERVICES["db"]["environment"], SERVICES["hub-1"]["environment"]["FHIRCAST_STORE"]
    assert url == f"postgresql://{database['POSTGRES_USER']}@127.0.0.1:5432/{database['POSTGRES_DB']}"
    assert database["POSTGRES_PASSWORD_FILE"] == SECRET
    assert database["POSTGRES_INITDB_ARGS"].split() == ["--data-checksums", "--auth-host=scram-sha-256"]
    users = {name for name, service in SERVICES.items() if service.get("secrets") == ["db-password"]}
    assert users == {"hub-1", "hub-2", "db"}
    assert composed(**GIVEN)["secrets"] == {"db-password": {"file": "./secrets/db-password"}}


class Scaled(NamedTuple):
    """Two hubs behind nginx."""

    hubs: list[HubProcess]
    origin: str
    folder: Path


def configuration(folder: Path, port: int, hub_ports: list[int]) -> str:
    """The file, whose ports and files are the test's."""
    text = NGINX_CONF.replace("/tmp/", f"{folder}/")
    for of_file, of_test in {
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "127.0.0.1:9001 ": f"127.0.0.1:{hub_ports[0]} ",
        "127.0.0.1:9002 ": f"127.0.0.1:{hub_ports[1]} ",
        "worker_processes 2;": "worker_processes 1; daemon off; master_process off;",
        "worker_connections 8192;": "worker_connections 512;",
    }.items():
        assert text.count(of_file) == 1, of_file
        text = text.replace(of_file, of_test)
    return text


@pytest.fixture
def scaled(tmp_path: Path, issuer: IssuerThread, postgres_server: PostgresServer, database: str) -> Iterator[Scaled]:
    """The hubs of the file, with the tests' issuer and database, behind its nginx."""
    port = free_port()
    password = tmp_path / "db-password"
    password.write_text(postgres_server.password)
    (tmp_path / "nginx").mkdir()
    with ExitStack() as stack:
        hubs = []
        for name in HUBS:
            environ = environ_of(name, password)
            ours = {key.removeprefix("FHIRCAST_").lower(): value for key, value in environ.items()}
            ours |= {"port": "", "store": database.replace(f":{postgres_server.password}@", "@")}
            values: dict[str, Any] = ours | {
                "issuers": issuer.settings,
                "public_url": f"http://127.0.0.1:{port}/api/hub",
            }
            hubs.append(stack.enter_context(hub_process(tmp_path, **values)))
        text = configuration(tmp_path / "nginx", port, [hub.port for hub in hubs])
        process = stack.enter_context(configured_nginx(tmp_path / "nginx", text))
        origin = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, (tmp_path / "nginx" / "stderr").read_text()
            try:
                httpx.get(origin, timeout=PATIENCE, trust_env=False)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield Scaled(hubs, origin, tmp_path / "nginx")


def visitor_of(scaled: Scaled, issuer: IssuerThread) -> Visitor:
    """A client that knows nginx alone."""
    visitor = Visitor(scaled.hubs[0], issuer.idp)
    visitor.origin, visitor.url = scaled.origin, f"{scaled.origin}/api/hub"
    return visitor


@needs_nginx
@pytest.mark.req("NOD-2", "NOD-6")
async def test_a_hub_behind_nginx_is_killed(scaled: Scaled, issuer: IssuerThread) -> None:
    """Sockets are at both. Those of the killed one come back at the other, at the same endpoint; no ticket is in a log."""
    async with visitor_of(scaled, issuer) as visitor:
        endpoints = [await visitor.subscribe(subscriber__name=f"viewer {number}") for number in range(6)]
        followers = {endpoint: await back(endpoint) for endpoint in endpoints}
        assert (await visitor.publish(event("Patient-open", "p1"))).status_code == 202
        for follower in followers.values():
            assert (await follower.next())["id"] == "Patient-open-p1"
        assert scaled.hubs[0].stop(signal.SIGKILL) == -signal.SIGKILL
        assert (await visitor.publish(event("Patient-open", "p2"))).status_code == 202
        lost = 0
        for endpoint, follower in followers.items():
            try:
                assert (await follower.next())["id"] == "Patient-open-p2"
            except ConnectionClosed:
                lost += 1
                returned = await back(endpoint)
                assert (await returned.next())["id"] == "Patient-open-p2"
                await returned.connection.close()
            await follower.connection.close()
        assert 0 < lost < len(endpoints)
        assert (await visitor.client.get(f"{scaled.origin}/metrics")).status_code == 404
    logs = (scaled.folder / "stderr").read_text() + (scaled.folder / "error.log").read_text()
    assert not any(endpoint.rpartition("/")[2] in logs for endpoint in endpoints)
