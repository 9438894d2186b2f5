"""`python -m demo`, as whoever clones the repository runs it: how it starts, fails and ends, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from demo import DemoError
from demo.apps import issuers
from demo.hub import SETTINGS
from demo.places import PORTS, Places, find_places
from tests.ports import free_ports
from tests.running import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def started(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """The demo as a process, in a session of its own: none of its children is left when it has ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", "--first-port", str(free_ports(len(PORTS))[0]), *arguments],
        cwd=ROOT,
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            ended = process.poll() is not None
            left = [pid for pid in session_of(process.pid) if not (ended and pid == process.pid)]
            for pid in left:
                os.kill(pid, signal.SIGKILL)
    assert ended
    assert left == []


def session_of(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[3]) == leader:
            found.append(int(stat.parent.name))
    return found


def address(process: subprocess.Popen[str]) -> str:
    """The URL that it prints."""
    assert process.stdout
    for line in process.stdout:
        if "Open this in a browser:" in line:
            return line.split()[-1]
    raise AssertionError("it ended without one")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_prints_its_url_serves_and_ends_by_a_signal(number: signal.Signals) -> None:
    """All parts answer; Ctrl-C, `kill` and a closed terminal end all of them, with exit code 0."""
    with started() as process:
        front = address(process)
        config = httpx.get(f"{front}/config.json", timeout=PATIENCE, trust_env=False).json()
        assert set(config["apps"]) == set(PORTS)
        for name, origin in config["apps"].items():
            path = "/health/ready" if name == "hub" else "/.well-known/smart-configuration" if name in {"auth", "login"} else "/"  # fmt: skip
            assert httpx.get(f"{origin}{path}", timeout=PATIENCE, trust_env=False).status_code == 200, name
        process.send_signal(number)
        _, complaints = process.communicate(timeout=30)
    assert process.returncode == 0
    assert complaints == ""


def test_a_hub_that_does_not_start_ends_it_with_a_sentence() -> None:
    """The settings of the hub in the environment count, and what is wrong with them is told."""
    with started(FHIRCAST_ACK_TIMEOUT="soon") as process:
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = complaints.splitlines()
    assert line.startswith("demo: the hub did not start: ")
    assert "FHIRCAST_ACK_TIMEOUT" in line


def taken(stack: ExitStack) -> None:
    """The usual ports are somebody's, here or already."""
    for port in PORTS.values():
        try:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        except OSError:
            pass


def test_ports_that_are_taken_are_replaced_by_free_ones() -> None:
    with ExitStack() as stack:
        taken(stack)
        places, listeners = find_places("127.0.0.1", own_hub=True)
        for listener in listeners.values():
            listener.close()
    assert not set(places.ports.values()) & set(PORTS.values())
    assert len(set(places.ports.values())) == len(PORTS)
    assert set(listeners) == set(PORTS) - {"hub"}


def test_other_ports_are_asked_for() -> None:
    """Two demos run side by side. The second demo has none of the usual ports."""
    first = free_ports(len(PORTS))[0]
    places, listeners = find_places("127.0.0.1", own_hub=True, first_port=first)
    for listener in listeners.values():
        listener.close()
    assert list(places.ports) == list(PORTS)
    assert list(places.ports.values()) == list(range(first, first + len(PORTS)))


@pytest.mark.parametrize("port", ["0", "65530", "x"])
def test_other_ports_must_be_ports(port: str) -> None:
    with started("--first-port", port) as process:
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"--first-port: expected a port from 1 to 65528, not {port}" in complaints


def test_with_a_hub_of_somebody_else_no_port_may_move() -> None:
    with ExitStack() as stack:
        taken(stack)
        with pytest.raises(DemoError, match=r"port 8081, for ehr"):
            find_places("127.0.0.1", own_hub=False)


def composed() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"])


def test_compose_runs_the_same() -> None:
    """Its hub trusts whom the demo's trusts, and every port that the demo has is there."""
    hub, demo = composed()["hub"], composed()["demo"]
    usual = Places(PORTS)
    assert hub["environment"]["FHIRCAST_PUBLIC_URL"] == usual.hub_url
    assert json.loads(hub["environment"]["FHIRCAST_ISSUERS"]) == issuers(usual)
    assert hub["environment"].items() >= SETTINGS.items()
    assert hub["ports"] == [f"127.0.0.1:{min(PORTS.values())}-{max(PORTS.values())}:{min(PORTS.values())}-{max(PORTS.values())}"]  # fmt: skip
    assert sorted(PORTS.values()) == list(range(min(PORTS.values()), max(PORTS.values()) + 1))
    assert demo["network_mode"] == "service:hub"


@pytest.mark.req("OPS-5")
def test_composed_services_may_do_no_more_than_they_need() -> None:
    """They write to /tmp and their volumes alone, and have no privilege of root's, nor a way to one."""
    for name, service in composed().items():
        rights = {key: service[key] for key in ("read_only", "tmpfs", "cap_drop", "security_opt")}
        expected = {"read_only": True, "tmpfs": ["/tmp"], "cap_drop": ["ALL"]}
        assert rights == {**expected, "security_opt": ["no-new-privileges:true"]}, name
        assert not service.keys() & {"privileged", "cap_add", "user", "pid", "ipc", "devices", "volumes"}, name


@pytest.mark.req("OPS-5")
def test_the_image_is_made_of_what_has_a_hash() -> None:
    """Each pip either demands hashes or reaches no index; both stages begin with the image that the builder may pin by digest."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    commands = re.findall(r"\bpip(?: --python \S+)? (?:install|wheel|download) .*", dockerfile)
    assert len(commands) == 5
    assert all(" --require-hashes " in each or " --no-index " in each for each in commands)
    outside = {line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM ")} - {"builder"}
    assert outside == {"${PYTHON_IMAGE}"}
    assert re.search(r"^ARG PYTHON_IMAGE=python:3[.]11-slim$", dockerfile, re.MULTILINE)


def test_the_image_has_what_compose_builds() -> None:
    """Each target is a stage, and what a stage copies is not ignored."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    wanted = {service["build"]["target"] for service in composed().values()}
    stages = {line.rpartition(" AS ")[2] for line in dockerfile.splitlines() if line.startswith("FROM ")}
    assert wanted <= stages
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in dockerfile.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert f"!{source.removeprefix('./')}" in ignored, source
                assert (ROOT / source).exists()


def test_a_hub_that_dies_is_started_again() -> None:
    """As a service manager would; whoever watches is told."""
    with started() as process:
        origin = httpx.get(f"{address(process)}/config.json", timeout=PATIENCE, trust_env=False).json()["apps"]["hub"]
        (hub,) = hubs_of(process.pid)
        os.kill(hub, signal.SIGKILL)
        assert process.stderr
        assert "restarted" in process.stderr.readline()
        transport = httpx.HTTPTransport(retries=8)
        with httpx.Client(transport=transport, timeout=PATIENCE, trust_env=False) as client:
            assert client.get(f"{origin}/health/live").status_code == 200
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


def hubs_of(pid: int) -> list[int]:
    """Its children that are a hub."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if "fhircast_hub" in Path(f"/proc/{child}/cmdline").read_text()]
