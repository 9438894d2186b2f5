"""The command line, as a process of its own at a real hub, and `check` at hubs that go wrong at each step."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhircast_client.check import Step, _Hub, check
from fhircast_client.cli import main
from fhircast_client.event_names import CATALOGUE, meant, never_matches, shown
from fhircast_client.printing import event_line
from fhircast_client.socket import Socket
from fhircast_client.socket import connect as open_channel
from fhircast_client.testing import Answer, FakeHub
from fhircast_hub.core.wire.event_names import NAMES_OF_2018
from fhircast_hub.core.wire.event_names import never_matches as hubs_never_matches
from tests.clients.fakes import HangsUp, Sockets, Through, patient
from tests.clients.places import DevHub
from tests.process.hub_process import free_port
from tests.proxy_environment import ODD, say_of_proxies

#: Seconds until a process must have said what is expected.
PATIENCE = 30
NYGARD = {**patient("p1"), "name": [{"family": "Nygård", "given": ["Ingrid"]}]}


class Terminal:
    """`fhircast`, with the settings of one session: `listen` in a process of its own, the others in this one."""

    def __init__(
        self, hub: DevHub, folder: Path, patch: pytest.MonkeyPatch, printed: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.token, self._patch, self._printed = folder, hub.token, patch, printed
        url, topic = f"http://127.0.0.1:{hub.process.port}/api/hub", str(uuid.uuid4())
        self.environ = {"FHIRCAST_HUB": url, "FHIRCAST_TOPIC": topic, "FHIRCAST_TOKEN": hub.token}

    def file(self, content: Any) -> str:
        """The path of a file that holds this."""
        path = self.folder / f"{uuid.uuid4()}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return str(path)

    async def run(self, *arguments: str, stdin: str = "", **environ: str) -> tuple[int, str, str]:
        """Run a command to its end: its exit code and what it printed."""
        for name, value in (self.environ | environ).items():
            self._patch.setenv(name, value)
        self._patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), "ascii"))
        async with asyncio.timeout(PATIENCE):
            code = await asyncio.to_thread(main, arguments)
        printed = self._printed.readouterr()
        return code, printed.out, printed.err

    async def start(self, *arguments: str, **environ: str) -> asyncio.subprocess.Process:
        """Run a command in a process of its own."""
        pipe = asyncio.subprocess.PIPE
        settings = {"PATH": os.environ["PATH"], "PYTHONUTF8": "1"} | self.environ | environ
        command = (sys.executable, "-m", "fhircast_client.cli", *arguments)
        return await asyncio.create_subprocess_exec(*command, env=settings, stdout=pipe, stderr=pipe)

    @asynccontextmanager
    async def listening(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """`fhircast listen` once it has joined; after the block it ends by Ctrl-C, with exit code 0."""
        process = await self.start("listen", *arguments)
        try:
            said = await line(process.stderr)
            if "did you mean" in said:
                said = await line(process.stderr)
            assert "connected, in sync" in said
            yield process
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def line(stream: asyncio.StreamReader | None) -> str:
    """The next line that a process prints."""
    assert stream
    async with asyncio.timeout(PATIENCE):
        return (await stream.readline()).decode()


@pytest.fixture
def terminal(
    hub: DevHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    return Terminal(hub, tmp_path, monkeypatch, capsys)


async def test_listen_prints_what_open_and_close_publish(terminal: Terminal) -> None:
    file = terminal.file(NYGARD)
    async with terminal.listening() as listener:
        code, out, _ = await terminal.run("open", file)
        assert (code, "Patient/p1" in out) == (0, True)
        heard = await line(listener.stdout)
        assert all(part in heard for part in ("Patient-open", "Patient/p1", "Nygård, Ingrid"))
        assert (await terminal.run("close", file))[0] == 0
        assert "Patient-close" in await line(listener.stdout)


async def test_listen_prints_messages_as_lines_and_refuses_where_it_is_told_to(terminal: Terminal) -> None:
    async with terminal.listening("patient-OPEN", "Patient-open", "--json", "--refuse", "unsaved notes") as listener:
        code, out, _ = await terminal.run("open", "-", "--json", stdin=json.dumps(NYGARD, ensure_ascii=False))
        published = json.loads(out)
        heard = json.loads(await line(listener.stdout))
        assert code == 0
        assert heard["id"] == published["id"]
        assert heard["event"]["context"][0]["resource"] == NYGARD
        assert "out of sync" in (said := await line(listener.stderr))
        assert "unsaved notes" in said


async def test_listen_ends_when_nobody_reads_what_it_prints(terminal: Terminal) -> None:
    process = await terminal.start("listen", "Patient-open")
    await line(process.stderr)
    assert process.stdout
    process.stdout._transport.close()  # type: ignore[attr-defined]
    await terminal.run("open", terminal.file(NYGARD))
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 0


async def test_context_shows_what_is_open(terminal: Terminal) -> None:
    assert (await terminal.run("context"))[:2] == (0, "nothing is open\n")
    assert json.loads((await terminal.run("context", "--json"))[1]) is None
    study = {"resourceType": "ImagingStudy", "id": "s1", "description": "CT of the chest"}
    await terminal.run("open", terminal.file(study), terminal.file(NYGARD))
    shown = (await terminal.run("context"))[1]
    assert all(part in shown for part in ("ImagingStudy/s1", "CT of the chest", "Nygård, Ingrid", "version"))
    whole = json.loads((await terminal.run("context", "--json"))[1])
    assert [item["resource"]["id"] for item in whole["event"]["context"]] == ["s1", "p1"]


async def test_check_says_that_all_is_well_and_changes_no_context(terminal: Terminal) -> None:
    await terminal.run("open", terminal.file(NYGARD))
    code, out, err = await terminal.run("check")
    assert (code, err) == (0, "")
    steps = [shown.split()[:2] for shown in out.splitlines()]
    assert steps == [["ok", name] for name in ("discovery", "token", "subscribe", "socket", "confirmation", "echo")]
    lines = [json.loads(shown) for shown in (await terminal.run("check", "--json"))[1].splitlines()]
    assert [step["good"] for step in lines] == [True] * 6
    assert "Patient/p1" in (await terminal.run("context"))[1]
    assert terminal.token not in out


@pytest.mark.req("SEC-6")
async def test_check_whatever_the_environment_says_of_proxies(terminal: Terminal) -> None:
    said = {"ALL_PROXY": "socks5://me:s3cr3t@h:1080", "HTTPS_PROXY": "foo bar"}
    check = await terminal.start("check", **said, NO_PROXY=f"127.0.0.1,{ODD}")
    out, err = [text.decode() for text in await check.communicate()]
    assert (check.returncode, err) == (0, ""), out
    assert [shown.split()[0] for shown in out.splitlines()] == ["ok"] * 6


@pytest.mark.req("SEC-6")
async def test_a_proxy_that_cannot_be_used_is_one_sentence(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    say_of_proxies(monkeypatch, ALL_PROXY="socks5://me:s3cr3t@h:1080", NO_PROXY=ODD)
    expected = "ALL_PROXY names a SOCKS proxy, and the Python package socksio is not installed"
    code, out, err = await terminal.run("check")
    assert (code, err) == (1, "")
    assert out.splitlines()[0] == f"FAILED  discovery     {expected}"
    assert out.splitlines()[-1] == f"FAILED  subscribe     {expected}"
    code, out, err = await terminal.run("context")
    assert (code, out, err) == (1, "", f"fhircast: the hub cannot be reached: {expected}\n")


@pytest.mark.req("SEC-6")
async def test_a_socket_that_would_go_through_a_proxy_that_cannot_be_used(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    say_of_proxies(monkeypatch, WS_PROXY="socks5://me:s3cr3t@h:1080")
    expected = "WS_PROXY names a SOCKS proxy, and the Python package python-socks is not installed"
    code, out, _ = await terminal.run("check")
    assert (code, out.splitlines()[-1]) == (1, f"FAILED  socket        {expected}")
    listener = await terminal.start("listen", WS_PROXY="foo bar")
    try:
        shown = await line(listener.stderr)
    finally:
        listener.kill()
        await listener.communicate()
    assert "the hub cannot be reached: WS_PROXY: expected the URL of a proxy" in shown


@pytest.mark.req("SEC-6")
async def test_a_socket_goes_through_the_proxy_of_the_environment(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    async with await asyncio.start_server(tunnel, "127.0.0.1", 0) as proxy:
        port = int(terminal.environ["FHIRCAST_HUB"].split(":")[2].partition("/")[0])
        say_of_proxies(monkeypatch, WS_PROXY=f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        code, out, _ = await terminal.run("check")
        assert code == 0, out
    assert asked == [f"CONNECT 127.0.0.1:{port} HTTP/1.1".encode()]


@pytest.mark.req("SEC-6")
async def test_what_a_proxy_refuses_is_not_taken_for_the_hubs_answer(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        say_of_proxies(monkeypatch, WS_PROXY=address)
        code, out, _ = await terminal.run("check")
        listener = await terminal.start("listen", WS_PROXY=address)
        try:
            shown = await line(listener.stderr)
        finally:
            listener.kill()
            await listener.communicate()
    assert (code, out.splitlines()[-1]) == (1, "FAILED  socket        the proxy answered 403 to CONNECT")
    assert "the hub cannot be reached: the proxy answered 403 to CONNECT" in shown


async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
    sink.close()


@pytest.mark.req("CLT-17")
async def test_check_names_what_no_event_can_be_called(terminal: Terminal) -> None:
    """Of its own names that is a failure, though they are granted, and all other steps go well; with the name that was meant."""
    code, out, _ = await terminal.run("check", "--events", "Patient-open,ImagingStudy-zoom")
    assert code == 1
    (failed,) = (shown for shown in out.splitlines() if not shown.startswith("ok"))
    assert failed.startswith("FAILED  names ")
    assert "ImagingStudy-zoom (did you mean ImagingStudy-open?)" in failed
    assert "Patient-open" not in failed


@pytest.mark.req("CLT-17")
async def test_check_names_who_subscribed_to_what_no_event_can_be_called(terminal: Terminal) -> None:
    """The hub says so of everybody who takes part; that is no failure of this connection."""
    async with terminal.listening("DiagnosticReport-opened", "Patient-open", "--name", "Dictation"):
        code, out, _ = await terminal.run("check")
    assert code == 0
    (said,) = (shown for shown in out.splitlines() if not shown.startswith("ok"))
    assert said.startswith("-       participants  Dictation has subscribed to DiagnosticReport-opened")
    assert "did you mean DiagnosticReport-open?" in said


async def test_check_ends_with_1_where_a_step_fails(terminal: Terminal) -> None:
    code, out, _ = await terminal.run("check", FHIRCAST_TOKEN="not-a-token-of-this-hub")
    assert code == 1
    assert "FAILED  subscribe     HTTP 401" in out
    assert "not-a-token" not in out


async def test_what_the_hub_refuses_ends_with_1_and_its_words_and_no_token(terminal: Terminal) -> None:
    file = terminal.file(NYGARD)
    listen = await terminal.start("listen", FHIRCAST_TOKEN="a-bad-token")
    out, err = [text.decode() for text in await listen.communicate()]
    for code, printed, said in (
        (listen.returncode, out, err),
        await terminal.run("open", file, FHIRCAST_TOKEN="a-bad-token"),
        await terminal.run("context", FHIRCAST_TOKEN="a-bad-token"),
    ):
        assert (code, printed) == (1, "")
        assert said.count("401") == 1, "a failure is said once"
        assert len(said.splitlines()) == 1
        assert "a-bad-token" not in said
        assert "Traceback" not in said


async def test_what_is_asked_wrongly_ends_with_2_and_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--hub", "http://hub.invalid", "--topic", "t"]
    (tmp_path / "text").write_text("no JSON")
    (tmp_path / "bytes").write_bytes(b"\xff")
    (tmp_path / "list").write_text("[]")
    (tmp_path / "anonymous").write_text('{"resourceType": "Patient"}')
    cases = {
        ("context", "--topic", "t"): "FHIRCAST_HUB",
        ("context", "--hub", "http://hub.invalid"): "FHIRCAST_TOPIC",
        ("context", *where, "--token-file", str(tmp_path / "none")): "No such file",
        ("open", *where, str(tmp_path / "none")): "No such file",
        ("open", *where, str(tmp_path / "bytes")): "UTF-8",
        ("open", *where, str(tmp_path / "text")): "is not JSON",
        ("open", *where, str(tmp_path / "list")): "FHIR resource",
        ("open", *where, str(tmp_path / "anonymous")): "FHIR resource",
        ("check", *where, "--token-file", str(tmp_path / "bytes")): "UTF-8",
    }
    for arguments, reason in cases.items():
        assert await asyncio.to_thread(main, arguments) == 2, arguments
        assert reason in capsys.readouterr().err


async def test_a_token_that_cannot_be_sent_is_named_without_being_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("sécret")
    where = ["--hub", "http://hub.invalid", "--topic", "t", "--token-file", str(tmp_path / "token")]
    codes = [await asyncio.to_thread(main, [command, *where]) for command in ("context", "check")]
    shown = capsys.readouterr()
    assert codes == [2, 1]
    assert "token" in shown.err
    assert "invalid characters" in shown.out
    assert "cret" not in shown.err + shown.out


# check, step by step


def jwt(**claims: Any) -> str:
    """A token that says this of itself."""
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


GOOD = {"iss": "https://issuer.example", "aud": "hub", "exp": time.time() + 3600, "scope": "fhircast/*.*"}


async def checked(hub: FakeHub, token: str | None = None, **options: Any) -> dict[str, Step]:
    """The steps of a check at a fake hub, by name."""
    given: dict[str, Any] = {"http": hub.http("check"), "connect": hub.connector("check"), **options}
    steps = [step async for step in check(hub.url, hub.topic, token or jwt(**GOOD), "check", "Patient-open", **given)]
    return {step.name: step for step in steps}


async def test_check_passes_at_a_hub_of_stu2_and_leaves_nothing_behind() -> None:
    async with FakeHub("STU2") as hub:
        steps = await checked(hub)
        assert [step.good for step in steps.values()] == [True] * 6
        assert hub.subscribed("check") == ()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(404), "is http://hub.invalid/hub the hub.url?"),
        (Answer(200, "<html>"), "not a JSON object"),
        (Answer(200, "{}"), "websocketSupport"),
    ],
)
async def test_discovery_that_fails(answer: Answer, said: str) -> None:
    async with FakeHub() as hub:
        hub.answer_next("configuration", answer)
        steps = await checked(hub)
    assert steps["discovery"].good is False
    assert said in steps["discovery"].text
    assert steps["echo"].good, "the other steps do not need it"


@pytest.mark.parametrize(
    ("token", "good", "said"),
    [
        ("opaque", None, "opaque"),
        (jwt(**GOOD | {"exp": 1}), False, "expired"),
        (jwt(iss="x"), False, "no exp"),
        (jwt(**GOOD | {"scope": "openid"}), False, "no fhircast/ scope"),
        (jwt(**GOOD | {"scope": 7}), False, "no fhircast/ scope"),
        (jwt(**GOOD | {"scope": None, "scp": ["fhircast/Patient-open.read"]}), True, "Patient-open.read"),
        ("e30.W10.c2ln", False, "not a JSON object"),
    ],
)
async def test_a_token_that_says_too_little(token: str, good: bool | None, said: str) -> None:
    async with FakeHub() as hub:
        step = (await checked(hub, token))["token"]
    assert (step.good, said in step.text) == (good, True)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([Answer(401, "no")], "HTTP 401: the hub does not take the token"),
        ([Answer(403, "another user's")], "another user's"),
        ([Answer(400), Answer(400, "hub.topic?")], "hub.topic?"),
        ([Answer(502, "<html>")], "the hub has a problem"),
        ([Answer(202, "accepted")], "not a JSON object"),
        ([Answer(202, '{"hub.channel.endpoint": "https://x/"}')], "no hub.channel.endpoint"),
    ],
)
async def test_a_subscription_that_fails_ends_the_check(answers: list[Answer], said: str) -> None:
    async with FakeHub() as hub:
        hub.answer_next("subscribe", *answers)
        steps = await checked(hub)
    assert list(steps)[-1] == "subscribe"
    assert (steps["subscribe"].good, said in steps["subscribe"].text) == (False, True)


async def test_a_hub_that_cannot_be_reached() -> None:
    async with FakeHub() as hub:
        hub.client("check")
        hub.cut()
        steps = await checked(hub)
    assert "ConnectError" in steps["discovery"].text
    assert list(steps)[-1] == "subscribe"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (ConnectionRefusedError(111, "wss://hub/secret"), "nothing listens at"),
        (ValueError("wss://hub/secret"), "ValueError"),
    ],
)
async def test_a_socket_that_does_not_open_and_never_shows_its_endpoint(failure: Exception, said: str) -> None:
    async def connect(endpoint: str) -> Any:
        raise failure

    async with FakeHub() as hub:
        steps = await checked(hub, connect=connect)
        assert hub.subscribed("check") == (), "it unsubscribed"
    assert (steps["socket"].good, said in steps["socket"].text) == (False, True)
    assert "secret" not in steps["socket"].text
    assert list(steps)[-1] == "socket"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda socket: HangsUp(socket, frames=0), "closed the socket (code 1011)"),
        (lambda socket: HangsUp(socket, frames=0, said=(1008, "too\nmany")), "closed the socket (code 1008): too many"),
        (lambda socket: Through(socket, "no JSON"), "not JSON"),
        (lambda socket: Through(socket, "[]"), "not a JSON object"),
        (lambda socket: Through(socket, '{"id": "1"}'), "no confirmation"),
        (lambda socket: Through(socket, also=False), "nothing came"),
    ],
)
async def test_a_confirmation_that_does_not_come(
    change: Callable[[Socket], Socket], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhircast_client.check.PATIENCE", 0.2)
    async with FakeHub() as hub:
        steps = await checked(hub, connect=Sockets(hub.connector("check"), change))
    assert (steps["confirmation"].good, said in steps["confirmation"].text) == (False, True)
    assert list(steps)[-1] == "confirmation"


async def test_an_event_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhircast_client.check.PATIENCE", 0.2)
    async with FakeHub() as hub:
        hub.lose_next(1)
        step = (await checked(hub))["echo"]
    assert (step.good, "nothing came" in step.text) == (False, True)


async def test_a_token_that_may_not_do_it_says_nothing_of_the_hub() -> None:
    async with FakeHub() as hub:
        hub.answer_next("publish", Answer(403))
        assert (await checked(hub))["echo"].good is None
        hub.answer_next("publish", Answer(500, "the store is away"))
        assert "the store is away" in (await checked(hub))["echo"].text


@pytest.mark.req("CLT-17")
@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("Patient-open.v1.2", "Patient-open"),
        ("DiagnosticReport-opened", "DiagnosticReport-open"),
        ("patient-opne", "Patient-open"),
        ("switch-patient-chart", "Patient-open"),
        ("close-imaging-study", "ImagingStudy-close"),
        ("logout-user", "UserLogout"),
        ("Synchronisation_error", ""),
        ("org.example.my-own", ""),
    ],
)
def test_the_name_that_was_meant(name: str, better: str) -> None:
    """The most similar one of the catalogue, or today's name of what had another in 2018; or none."""
    assert never_matches(name)
    assert meant(name) == better
    assert (f"did you mean {better}?" in shown(name)) == (better != "")


@pytest.mark.req("CLT-17")
@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True) | st.sampled_from([*CATALOGUE, *NAMES_OF_2018])
)
def test_the_client_knows_the_same_names_as_the_hub(name: str) -> None:
    """Whatever may be subscribed to."""
    assert never_matches(name) == hubs_never_matches(name)


@pytest.mark.req("CLT-17")
@pytest.mark.parametrize("answer", ["not JSON", "{}", "[1]", '[{"neverMatch": 7}]', '[{"neverMatch": [7]}]', "null"])
async def test_a_hub_that_says_something_else_of_participants_is_not_asked_again(answer: str) -> None:
    """Most hubs have no such list: then nothing is said of it."""

    def answered(request: httpx.Request) -> httpx.Response:
        assert request.url.raw_path == b"/sessions/a%2Ftopic/participants"
        return httpx.Response(200, text=answer)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answered)) as http:
        hub = _Hub(http, open_channel, "https://hub.invalid/api/hub?x", "a/topic", None, "check", "Patient-open")
        assert await hub.others() == ""


@pytest.mark.req("SUB-24")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"message": "the store is away"}', "The hub says: the store is away"),
        ("the store\n is away\n", "The hub says: the store is away"),
        ('{"message": 7}', "The hub says: nothing"),
        ("", "The hub says: nothing"),
    ],
)
async def test_the_hubs_words_are_shown_without_the_json_around_them(body: str, said: str) -> None:
    """Of the check's own event, which goes out as JSON."""
    async with FakeHub() as hub:
        hub.answer_next("publish", Answer(503, body))
        assert (await checked(hub))["echo"].text.endswith(said)


async def test_a_hub_that_takes_only_the_names_of_the_catalogue_can_be_checked() -> None:
    async with FakeHub() as hub:
        hub.answer_next("subscribe", Answer(400, "unknown event"))
        steps = await checked(hub)
    assert steps["confirmation"].good
    assert steps["echo"].good is None


async def test_events_that_are_not_granted_are_named() -> None:
    async with FakeHub() as hub:
        less = '{"hub.mode": "subscribe", "hub.events": "org.fhircast.check", "hub.lease_seconds": 60}'
        sockets = Sockets(hub.connector("check"), lambda socket: Through(socket, less, also=False))
        assert "not granted: Patient-open" in (await checked(hub, connect=sockets))["confirmation"].text


async def test_what_others_sent_cannot_move_the_cursor_or_stop_the_listener() -> None:
    async with FakeHub() as hub:
        odd = {**patient("p1"), "name": [{"family": "\x1b[2Jx", "given": 7}], "issue": 7}
        assert "\x1b" not in event_line(await hub.publish("Patient-open", odd))
        assert "7" in event_line(await hub.publish("Patient-open", {**patient("p1"), "name": [{"given": [7]}]}))


@pytest.mark.req("CLT-31")
@pytest.mark.parametrize("command", ["fhircast", "fhircast-hub"])
def test_the_version_of_a_command(command: str) -> None:
    done = subprocess.run([Path(sys.executable).parent / command, "--version"], capture_output=True, text=True)
    package = {"fhircast": "fhircast-client"}.get(command, command)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{command} {version(package)}\n", "")


@pytest.mark.req("CLT-31")
@pytest.mark.parametrize(
    "arguments",
    [
        ["open", "FILE"],
        ["close", "FILE"],
        ["context"],
        ["context", "--json"],
        ["check"],
        ["check", "--json"],
        ["--help"],
    ],
    ids=" ".join,
)
async def test_nobody_reads_what_a_command_prints(terminal: Terminal, arguments: list[str]) -> None:
    """As `fhircast … | head` does, once head has seen enough."""
    file = terminal.file(NYGARD)
    reading, writing = os.pipe()
    os.close(reading)
    command = (sys.executable, "-m", "fhircast_client.cli", *(file if each == "FILE" else each for each in arguments))
    settings = {"PATH": os.environ["PATH"], **terminal.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env=settings, stdout=writing, stderr=asyncio.subprocess.PIPE
        )
    finally:
        os.close(writing)
    async with asyncio.timeout(PATIENCE):
        _, said = await process.communicate()
    assert said.decode() == ""
    assert process.returncode == 0


@pytest.mark.req("CLT-31")
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("fhircast open nofile.json 2>&1 | true; exit ${PIPESTATUS[0]}", 2),
        ("FHIRCAST_TOKEN=wrong fhircast context 2>&1 | true; exit ${PIPESTATUS[0]}", 1),
        ("FHIRCAST_TOKEN=wrong fhircast check | true; exit ${PIPESTATUS[0]}", 1),
        ("fhircast context >&-", 0),
        ("fhircast --version >&-", 0),
        ("fhircast nothing 2>&-", 2),
        ("fhircast listen 2>&1 | head -1 >/dev/null; exit ${PIPESTATUS[0]}", 0),
        ("timeout 3 fhircast listen 2>&- >/dev/null; exit $?", 124),  # nobody reads the status, and the events go on
    ],
)
async def test_a_command_keeps_its_exit_code_whoever_reads(terminal: Terminal, command: str, code: int) -> None:
    """A script must not read success where the pipe was closed first."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", command, env={"PATH": path, **terminal.environ}, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        if "head" in command:  # a second line, for which nobody is there
            code_of_open, _, _ = await terminal.run("open", terminal.file(NYGARD))
            assert code_of_open == 0
            while shell.returncode is None:
                await terminal.run("open", terminal.file({**NYGARD, "active": True}))
                await terminal.run("close", terminal.file(NYGARD))
        _, said = await shell.communicate()
    assert "Traceback" not in said.decode()
    assert "Exception ignored" not in said.decode()
    assert shell.returncode == code


@pytest.mark.req("CLT-31")
@pytest.mark.parametrize("command", ["open FILE", "context --json", "check", "listen", "--help", "--version"])
async def test_a_full_disk_is_a_sentence_and_exit_code_1(terminal: Terminal, command: str) -> None:
    file = terminal.file(NYGARD)
    assert (await terminal.run("open", file))[0] == 0, "something to listen to"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_shell(
        f"exec fhircast {command.replace('FILE', file)} >/dev/full",
        env={"PATH": path, **terminal.environ},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    lines = [each for each in said.decode().splitlines() if not each.startswith("-- ")]
    assert lines == ["fhircast: stdout cannot be written: No space left on device"]
    assert process.returncode == 1


_ASCII = [
    {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.req("CLT-31")
@pytest.mark.parametrize("environ", _ASCII, ids=["by the environment", "by the locale"])
async def test_a_terminal_in_ascii_shows_every_name(terminal: Terminal, environ: dict[str, str]) -> None:
    """And what is JSON stays JSON."""
    file = terminal.file({**NYGARD, "name": [{"family": "Nygård \N{FACE WITH TEARS OF JOY}"}]})
    opened = await terminal.start("open", file, **environ)
    assert b"Nyg\\xe5rd \\U0001f602" in (await opened.communicate())[0]
    asked = await terminal.start("context", "--json", **environ)
    printed = json.loads((await asked.communicate())[0].decode("ascii"))
    assert printed["event"]["context"][0]["resource"]["name"] == [{"family": "Nygård \N{FACE WITH TEARS OF JOY}"}]


async def test_listen_says_once_that_the_hub_is_away(terminal: Terminal) -> None:
    process = await terminal.start("listen", "--hub", f"http://127.0.0.1:{free_port()}/api/hub")
    first = await line(process.stderr)
    assert "nothing listens" in first
    await asyncio.sleep(1)  # it is tried again
    process.send_signal(signal.SIGINT)
    _, rest = await process.communicate()
    assert (process.returncode, rest) == (0, b"")
