"""Plays every message of the pages for clients without our libraries against a real hub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import of_page, titled
from tests.docs.login_server import LoginServer, login_server
from tests.docs.wire import Wire
from tests.ports import free_port
from tests.process.hub_process import HubProcess, hub_process

LOGIN_PAGE, WIRE_PAGE = "docs/from-ccow/login.md", "docs/from-ccow/wire.md"
#: Seconds until a program must be done.
PATIENCE = 30


@pytest.fixture
def login() -> Iterator[LoginServer]:
    with login_server(f"http://127.0.0.1:{free_port()}/api/hub") as server:
        yield server


@pytest.fixture
def hub(tmp_path: Path, login: LoginServer) -> Iterator[HubProcess]:
    """A hub whose only issuer is the login server. A lost viewer is reported after a second, so that nobody waits long."""
    port = int(login.hub_url.split(":")[2].split("/")[0])
    with hub_process(tmp_path, port=port, issuers=login.settings(), store="memory:", reconnect_grace=1) as hub:
        yield hub


def wire(hub: HubProcess, login: LoginServer) -> Wire:
    """The hosts of the pages, and the tokens that the pages shorten."""
    hosts = {
        "hub.hospital.example": f"127.0.0.1:{hub.port}",
        "login.hospital.example": login.origin.removeprefix("http://"),
    }
    tokens = {"login": login.system_token()}
    for client in ("record", "viewer"):
        tokens[client] = login.user_token(client, "fhircast/*.*")
    return Wire(hosts, {f"eyJhbGciOiJFUzI1NiJ9.{name}": token for name, token in tokens.items()} | _urls(hub))


def _urls(hub: HubProcess) -> dict[str, str]:
    """The hub's addresses as a part of a query has them."""
    return {
        f"{example}%3A%2F%2Fhub.hospital.example": f"{real}%3A%2F%2F127.0.0.1%3A{hub.port}"
        for example, real in {"https": "http", "wss": "ws"}.items()
    }


@pytest.mark.req("SES-1", "SES-2", "SUB-1")
def test_the_messages_of_a_native_login(hub: HubProcess, login: LoginServer) -> None:
    with wire(hub, login) as player:
        for block in of_page(LOGIN_PAGE):
            if block.language == "http":
                player.play(block)
        player.nothing_left()


@pytest.mark.req("SES-1")
def test_the_program_that_logs_in(hub: HubProcess, login: LoginServer, tmp_path: Path) -> None:
    """The browser is curl, which follows the redirect to the program."""
    (program,) = [block for block in of_page(LOGIN_PAGE) if block.file == "login.py"]
    shown = titled(LOGIN_PAGE, "The program shows")
    source = program.text.replace("https://login.hospital.example", login.origin)
    path = tmp_path / program.file
    path.write_text(source.replace("https://hub.hospital.example", hub.origin), encoding="utf-8")
    environ = os.environ | {"BROWSER": "curl --noproxy * -sL -o /dev/null %s &", "NO_PROXY": "*", "no_proxy": "*"}
    command = [sys.executable, str(path)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    expected = shown.text.replace("https://hub.hospital.example", hub.origin).split("…")[0]
    assert done.stdout.startswith(expected)
    assert len(done.stdout.splitlines()[1]) == len("hub.topic ") + 36


@pytest.mark.req("SUB-1", "SUB-3", "SUB-12", "SUB-31", "EVT-1", "SYN-1", "SYN-7", "SYN-22", "GET-2", "UNS-6")
def test_the_messages_of_a_session(hub: HubProcess, login: LoginServer) -> None:
    with wire(hub, login) as player:
        for block in of_page(WIRE_PAGE):
            if block.title and not block.file:
                player.play(block)
        player.nothing_left()
