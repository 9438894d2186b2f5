"""AUT-17, OPS-4: no hub without issuers, but `fhircast-hub dev`, which is for one machine and says so."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.ports import free_port
from tests.process.hub_process import PATIENCE, HubProcess, command, environment, hub_process
from tests.running import Follower, event
from tests.webhook.callback_server import CallbackServer

#: Where `fhircast-hub` and `websockets` are, for a shell that has activated the environment.
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """`fhircast-hub dev`."""
    with hub_process(tmp_path_factory.mktemp("dev"), "dev", public_url=None) as hub:
        yield hub


@pytest.fixture(scope="module")
def legacy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """`fhircast-hub dev --legacy`."""
    with hub_process(tmp_path_factory.mktemp("legacy"), "dev", "--legacy", public_url=None) as hub:
        yield hub


def banner(hub: HubProcess) -> list[str]:
    """The lines that a developer is shown at the start."""
    shown, last, _ = hub.stdout.partition("Another token: ")
    assert last
    return shown.splitlines()


def pasted(script: str, hub: HubProcess) -> str:
    """What a shell prints for these lines."""
    assert shutil.which("curl"), "this test needs curl: it pastes the commands of the banner into a shell"
    path = f"{BIN}{os.pathsep}{hub.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu"],
        input=script,
        env=hub.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def curl_lines(hub: HubProcess) -> str:
    """The banner's commands but the one that needs another terminal."""
    lines = banner(hub)
    start = next(number for number, line in enumerate(lines) if line.startswith("export "))
    return "\n".join(line for line in lines[start:] if not line.startswith("websockets "))


def token_of(hub: HubProcess) -> str:
    """The token in the banner."""
    (token,) = re.findall(r"^export TOKEN=(.*)$", hub.stdout, re.MULTILINE)
    return str(token)


def read(hub: HubProcess, token: str) -> int:
    """The status of reading the context of a new topic with this token."""
    (hub_url,) = re.findall(r"^export HUB=https?://[^/]+(.*)$", hub.stdout, re.MULTILINE)
    with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
        url = f"{hub.origin}{hub_url}/{uuid.uuid4()}"
        return client.get(url, headers={"Authorization": f"Bearer {token}"}).status_code


def form(events: str = "Patient-open", **more: str) -> dict[str, str]:
    """A subscription to the topic `old`."""
    asked = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": "old", "hub.events": events}
    return asked | {name.replace("__", "."): value for name, value in more.items()}


@pytest.mark.req("AUT-17", "SEC-3")
def test_serve_does_not_start_without_issuers(tmp_path: Path) -> None:
    """Exit code 2, and one line that names the setting and the way to try the hub out."""
    done = command(tmp_path, "serve", environ=environment(tmp_path, port=free_port()))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"FHIRCAST_ISSUERS is required: .*fhircast-hub dev\n", done.stderr)


@pytest.mark.req("AUT-17")
def test_dev_refuses_to_listen_to_others(tmp_path: Path) -> None:
    """Any host but a loopback one is refused with one line."""
    done = command(tmp_path, "dev", environ=environment(tmp_path, port=free_port(), host="0.0.0.0"))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"FHIRCAST_HOST must be .*, not '0\.0\.0\.0': .*\n", done.stderr)


@pytest.mark.req("AUT-17")
def test_dev_says_in_a_line_that_its_key_has_no_place(tmp_path: Path) -> None:
    """Where the key's file cannot be made, dev does not start without it."""
    environ = environment(tmp_path, port=free_port()) | {"XDG_RUNTIME_DIR": str(tmp_path / "missing")}
    done = command(tmp_path, "dev", environ=environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r".*missing.*No such file or directory.*\n", done.stderr)


@pytest.mark.req("AUT-17")
def test_dev_listens_on_loopback_and_says_that_it_is_insecure(dev: HubProcess) -> None:
    """The first word is INSECURE, and another address of this machine, on the same interface, finds nobody."""
    assert banner(dev)[0].startswith("INSECURE")
    with httpx.Client(timeout=PATIENCE, trust_env=False) as client, pytest.raises(httpx.ConnectError):
        client.get(f"http://127.0.0.2:{dev.port}/health/live")


@pytest.mark.req("AUT-17")
def test_the_commands_of_the_banner_work_when_pasted(dev: HubProcess) -> None:
    """Subscribe, publish, read: each answers as the comment above it promises."""
    subscribed, published, context = re.split(r"(HTTP/1\.1 202 Accepted\r?\n(?:.+\n)*)", pasted(curl_lines(dev), dev))
    assert re.match(rf'{{"hub.channel.endpoint":"ws://localhost:{dev.port}/api/hub/ws/[\w-]{{43}}"}}', subscribed)
    assert "x-request-id" in published
    assert '"context.type":"Patient"' in context
    assert '"id": "p1"' in context


@pytest.mark.req("AUT-17")
async def test_the_command_that_follows_works_when_pasted(dev: HubProcess) -> None:
    """With the endpoint put in, it shows the confirmation."""
    (line,) = [line for line in banner(dev) if line.startswith("websockets ")]
    endpoint = re.search(r"ws://[^\"]+", await asyncio.to_thread(pasted, curl_lines(dev), dev))
    assert endpoint
    program, argument = line.replace("ENDPOINT", endpoint[0]).split()
    process = await asyncio.create_subprocess_exec(
        BIN / program, argument, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=dev.environ
    )
    assert process.stdout
    try:
        shown = await asyncio.wait_for(process.stdout.readuntil(b"hub.lease_seconds"), PATIENCE)
    finally:
        process.kill()
        await process.communicate()
    assert b'"hub.topic":"demo"' in shown


@pytest.mark.req("AUT-17")
def test_token_mints_for_the_dev_hub_that_runs(dev: HubProcess) -> None:
    """The banner's command for another token gives one of that user and scope, which the hub takes."""
    (line,) = re.findall(r"^Another token: (.*)$", dev.stdout, re.MULTILINE)
    token = pasted(line, dev).strip()
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(timeout=PATIENCE, trust_env=False, base_url=f"{dev.origin}/api/hub", headers=headers) as client:
        assert client.get("/topic-of-clinician-2").status_code == 200
        assert client.post("", data=form()).status_code == 202
        refused = client.post("", json=event("Patient-open", topic="old"))
        assert (refused.status_code, "insufficient_scope" in refused.headers["WWW-Authenticate"]) == (403, True)


@pytest.mark.req("AUT-17")
def test_token_fails_when_no_dev_hub_runs(tmp_path: Path) -> None:
    """Exit code 2, one line that says how to start one."""
    done = command(tmp_path, "token", environ=environment(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r".*fhircast-hub dev\n", done.stderr)


@pytest.mark.req("AUT-17")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_key_is_private_and_gone_with_the_hub(tmp_path: Path, number: signal.Signals) -> None:
    """Whoever can read the file is every clinician: only its owner can, while the hub runs."""
    with hub_process(tmp_path, "dev", public_url=None) as hub:
        (key,) = tmp_path.glob("fhircast-hub-dev-*")
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert hub.stop(number) == 0
    assert not list(tmp_path.glob("fhircast-hub-dev-*"))


@pytest.mark.req("AUT-17")
def test_no_token_for_a_dev_hub_that_was_killed(tmp_path: Path) -> None:
    """A key that kill -9 left behind is not taken for a running hub."""
    with hub_process(tmp_path, "dev", public_url=None) as hub:
        assert hub.stop(signal.SIGKILL) == -signal.SIGKILL
        done = command(tmp_path, "token", environ=hub.environ)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.req("AUT-17")
def test_a_dev_hub_that_cannot_start_leaves_the_running_one_its_key(tmp_path: Path) -> None:
    """Started twice by mistake: the second says that the port is taken, and `token` still mints for the first."""
    with hub_process(tmp_path, "dev", public_url=None) as hub:
        second = command(tmp_path, "dev", environ=hub.environ)
        assert (second.returncode, "FHIRCAST_PORT" in second.stderr) == (2, True)
        assert read(hub, command(tmp_path, "token", environ=hub.environ).stdout.strip()) == 200


@pytest.mark.req("AUT-17")
@pytest.mark.parametrize(
    ("settings", "environ"),
    [
        pytest.param({"host": "::1"}, {}, id="IPv6"),
        pytest.param({"public_url": "http://localhost:{port}"}, {}, id="at the root"),
        pytest.param({}, {"http_proxy": "http://127.0.0.1:9"}, id="behind a proxy"),
    ],
)
def test_dev_finds_its_own_keys(tmp_path: Path, settings: dict[str, str], environ: dict[str, str]) -> None:
    """On the other loopback address, with a hub.url without a path, and past the proxy of the hospital."""
    port = str(free_port())
    given = {name: value.format(port=port) for name, value in settings.items()}
    with HubProcess(tmp_path, ("dev",), environment(tmp_path, port=port, **given) | environ) as hub:
        assert read(hub, token_of(hub)) == 200


@pytest.mark.req("OPS-4", "OPS-8", "OPS-9")
def test_token_mints_for_the_dev_hub_on_the_port(tmp_path: Path) -> None:
    """Of two that run each takes the tokens for its own port, and no others; each has a file of its own."""
    with hub_process(tmp_path, "dev", public_url=None) as one, hub_process(tmp_path, "dev", public_url=None) as two:
        assert len(list(tmp_path.glob("fhircast-hub-dev-*"))) == 2
        for own, other in ((one, two), (two, one)):
            token = command(tmp_path, "token", "--port", str(own.port), environ=own.environ).stdout.strip()
            assert (read(own, token), read(other, token)) == (200, 401)


@pytest.mark.req("OPS-4", "OPS-9")
def test_token_asks_which_of_several_dev_hubs_is_meant(tmp_path: Path) -> None:
    """Without a port, or with that of another: exit code 2, and one line with the ports of those that run."""
    with hub_process(tmp_path, "dev", public_url=None) as one, hub_process(tmp_path, "dev", public_url=None) as two:
        ports = ", ".join(map(str, sorted((one.port, two.port))))
        for given, text in (((), "--port is required"), (("--port", "1"), ", not 1;")):
            done = command(tmp_path, "token", *given, environ=one.environ)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
            assert text in done.stderr
            assert ports in done.stderr
        two.stop(signal.SIGKILL)
        token = command(tmp_path, "token", environ=one.environ).stdout.strip()
        assert read(one, token) == 200, "a hub that was killed does not count"
        done = command(tmp_path, "token", "--port", str(two.port), environ=one.environ)
        assert (done.returncode, str(one.port) in done.stderr) == (2, True)


@pytest.mark.req("OPS-4", "OPS-8")
def test_the_file_of_a_dev_hub_that_was_killed_is_no_obstacle(tmp_path: Path) -> None:
    """The next one on its port has the file; what is no file of a dev hub is passed by."""
    (tmp_path / f"fhircast-hub-dev-{os.getuid()}-x.json").write_text("{}")
    (tmp_path / f"fhircast-hub-dev-{os.getuid()}-99.json").mkdir()
    with hub_process(tmp_path, "dev", public_url=None) as killed:
        killed.stop(signal.SIGKILL)
    with hub_process(tmp_path, "dev", port=killed.port, public_url=None) as hub:
        token = command(tmp_path, "token", environ=hub.environ).stdout.strip()
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.get(f"{hub.origin}/api/hub/t", trust_env=False, headers=headers, timeout=PATIENCE)
        assert answer.status_code == 200


@pytest.mark.req("OPS-4", "OPS-8")
def test_port_0_is_a_free_port(tmp_path: Path) -> None:
    """hub.url in the banner names it, so do the command for another token and the key's file; and its tokens count."""
    environ = environment(tmp_path, port=0)
    process = subprocess.Popen(
        [sys.executable, "-m", "fhircast_hub", "dev"], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        shown = ""
        while "Another token" not in shown:
            shown += process.stdout.readline()
            assert process.poll() is None, shown
        (port,) = re.findall(r"^export HUB=http://localhost:([1-9]\d*)/api/hub$", shown, re.MULTILINE)
        assert f"Another token: fhircast-hub token --port {port} " in shown
        token = command(tmp_path, "token", "--port", port, environ=environ).stdout.strip()
        with httpx.Client(timeout=PATIENCE, trust_env=False, headers={"Authorization": f"Bearer {token}"}) as client:
            assert client.get(f"http://127.0.0.1:{port}/api/hub/a-topic").status_code == 200
    finally:
        process.kill()
        process.communicate()


@pytest.mark.req("OPS-4", "WHK-10")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_callbacks_on_this_machine_are_allowed(dev: HubProcess, host: str) -> None:
    """By http, by each of its names: asked, and told. A name is resolved: it leads to loopback, and may be posted to."""
    topic = f"hooked at {host}"
    headers = {"Authorization": f"Bearer {token_of(dev)}"}
    async with (
        CallbackServer("::1" if host == "[::1]" else "127.0.0.1") as server,
        httpx.AsyncClient(
            timeout=PATIENCE, trust_env=False, base_url=f"{dev.origin}/api/hub", headers=headers
        ) as client,
    ):
        await client.post("", json=event("Patient-open", "p1", topic=topic))
        asked = {
            "hub.channel.type": "webhook",
            "hub.mode": "subscribe",
            "hub.topic": topic,
            "hub.events": "Patient-open",
        }
        answer = await client.post("", data=asked | {"hub.callback": f"http://{host}:{server.port}/callback"})
        assert (answer.status_code, answer.text) == (202, "{}")
        await server.posted(1)
        assert (len(server.gets()), server.news()) == (1, ["Patient-open p1"])


@pytest.mark.req("OPS-4")
def test_the_environment_says_where_callbacks_may_be(tmp_path: Path) -> None:
    """Where it allows no network, loopback is refused as by any hub."""
    with hub_process(tmp_path, "dev", public_url=None, webhook_allowed_networks=[]) as hub:
        asked = {"hub.channel.type": "webhook", "hub.mode": "subscribe", "hub.topic": "t", "hub.events": "Patient-open"}
        with httpx.Client(
            timeout=PATIENCE, trust_env=False, headers={"Authorization": f"Bearer {token_of(hub)}"}
        ) as client:
            answer = client.post(f"{hub.origin}/api/hub", data=asked | {"hub.callback": "http://127.0.0.1:9/callback"})
            assert (answer.status_code, "hub.callback" in answer.text) == (400, True)


@pytest.mark.req("AUT-17", "AUT-35")
async def test_legacy_serves_a_client_that_chooses_its_endpoint(legacy: HubProcess) -> None:
    """Without a token: subscribed, connected at /bind/ and its own UUID, confirmed, told, renewed, unsubscribed."""
    assert sum(line.startswith("INSECURE") for line in banner(legacy)) == 2
    chosen = str(uuid.uuid4())
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, base_url=f"{legacy.origin}/api/hub") as client:
        first = await client.post("", data=form(hub__channel__endpoint=chosen))
        assert (first.status_code, first.json()["hub.channel.endpoint"]) == (
            202,
            f"ws://localhost:{legacy.port}/bind/{chosen}",
        )
        async with connect(f"ws://127.0.0.1:{legacy.port}/bind/{chosen}", proxy=None) as connection:
            follower = Follower(connection)
            assert (await follower.next())["hub.events"] == "Patient-open"
            assert (await client.post("", json=event("Patient-open", topic="old"))).status_code == 202
            assert await follower.names(1) == ["Patient-open"]
            again = await client.post("", data=form("Patient-open,Patient-close", hub__channel__endpoint=chosen))
            assert again.status_code == 202
            assert (await follower.next())["hub.events"] == "Patient-open,Patient-close"
            assert (await client.post("", json=event("Patient-close", topic="old"))).status_code == 202
            assert await follower.names(1) == ["Patient-close"]
            over = await client.post("", data=form(hub__channel__endpoint=chosen, hub__mode="unsubscribe"))
            assert over.status_code == 202
            assert (await follower.next())["hub.mode"] == "denied"
            assert await follower.closed() == 1000


@pytest.mark.req("AUT-17", "SUB-20")
async def test_a_legacy_renewal_answers_with_the_same_endpoint(legacy: HubProcess) -> None:
    """The address that was answered first, not the name that the client gave."""
    chosen = form(hub__channel__endpoint=str(uuid.uuid4()), subscriber__name="renewing")
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, base_url=f"{legacy.origin}/api/hub") as client:
        answers = [(await client.post("", data=chosen)).json() for _ in range(2)]
    assert answers[0] == answers[1]


@pytest.mark.req("AUT-17", "SUB-21", "SUB-11", "AUT-35")
async def test_plain_dev_serves_no_legacy_client(dev: HubProcess) -> None:
    """Without a token 401 to a form and to an event, with one 404 to an endpoint of its choosing; /bind/ leads nowhere."""
    chosen = str(uuid.uuid4())
    token = token_of(dev)
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, base_url=f"{dev.origin}/api/hub") as client:
        assert (await client.post("", data=form(hub__channel__endpoint=chosen))).status_code == 401
        assert (await client.post("", json=event("Patient-open", topic="old"))).status_code == 401
        asked = form(hub__channel__endpoint=chosen, hub__topic="new")
        answer = await client.post("", data=asked, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 404
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(f"ws://127.0.0.1:{dev.port}/bind/{chosen}", proxy=None):
            pass
    assert refusal.value.response.status_code == 404


@pytest.mark.req("OPS-4", "AUT-17")
@pytest.mark.parametrize(("arguments", "taken"), [((), 202), (("--legacy",), 400)])
def test_a_callback_on_this_machine_needs_a_token(tmp_path: Path, arguments: tuple[str, ...], taken: int) -> None:
    """`dev --legacy` asks for none, so any web page could make the hub ask what else runs here."""
    with hub_process(tmp_path, "dev", *arguments, public_url=None) as hub:
        form = {"hub.channel.type": "webhook", "hub.mode": "subscribe", "hub.topic": "t", "hub.events": "Patient-open"}
        callback = {"hub.callback": f"http://127.0.0.1:{free_port()}/"}
        headers = {"Authorization": f"Bearer {token_of(hub)}"}
        answer = httpx.post(
            f"{hub.origin}/api/hub", data=form | callback, headers=headers, timeout=PATIENCE, trust_env=False
        )
        assert answer.status_code == taken, answer.text


# The console


@pytest.mark.req("CSL-12")
def test_dev_prints_a_link_to_the_console(dev: HubProcess) -> None:
    """Its token is for the console alone, and the other one is not for the console."""
    (origin, token) = re.findall(r"^console   (http://localhost:\d+)/console#token=(\S+)$", dev.stdout, re.MULTILINE)[0]
    assert origin == f"http://localhost:{dev.port}"
    with httpx.Client(timeout=PATIENCE, trust_env=False, base_url=dev.origin) as client:
        assert client.get("/console").headers["content-type"].startswith("text/html")
        for given, status in ((token, 200), (token_of(dev), 403)):
            assert client.get("/console/state", headers={"Authorization": f"Bearer {given}"}).status_code == status
    assert token != token_of(dev)


@pytest.mark.req("CSL-12")
def test_a_setting_switches_the_console_of_dev_off(tmp_path: Path) -> None:
    with hub_process(tmp_path, "dev", public_url=None, console=False) as hub:
        assert "/console" not in hub.stdout
        with httpx.Client(timeout=PATIENCE, trust_env=False, base_url=hub.origin) as client:
            assert client.get("/console").status_code == 404
