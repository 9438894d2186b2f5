"""The commands listen, open, close and context, as processes at a real hub."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from fhircast_client.cli import main
from fhircast_client.printing import event_line
from fhircast_client.testing import FakeHub
from tests.clients.cli_world import NYGARD, PATIENCE, Terminal, line
from tests.clients.fakes import patient
from tests.clients.places import DevHub
from tests.ports import free_port


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


@pytest.mark.req("GET-4")
async def test_context_shows_the_current_one(terminal: Terminal) -> None:
    """After the close of the newest, the first is open still, and the hub does not tell."""
    nothing = (0, "no current context (others may be open)\n")
    assert (await terminal.run("context"))[:2] == nothing
    assert json.loads((await terminal.run("context", "--json"))[1]) is None
    study = {"resourceType": "ImagingStudy", "id": "s1", "description": "CT of the chest"}
    await terminal.run("open", terminal.file(study), terminal.file(NYGARD))
    shown = (await terminal.run("context"))[1]
    assert all(part in shown for part in ("ImagingStudy/s1", "CT of the chest", "Nygård, Ingrid", "version"))
    whole = json.loads((await terminal.run("context", "--json"))[1])
    assert [item["resource"]["id"] for item in whole["event"]["context"]] == ["s1", "p1"]
    newer = terminal.file(study | {"id": "s2"})
    for verb in ("open", "close"):
        assert (await terminal.run(verb, newer, terminal.file(NYGARD)))[0] == 0
    assert (await terminal.run("context"))[:2] == nothing


@pytest.mark.req("CLT-65")
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
    first, rest = done.stdout.split("\n", 1)
    assert (done.returncode, first, done.stderr) == (0, f"{command} {version(package)}", "")
    assert (rest == "") is (command == "fhircast"), (
        "the hub also names what it runs on (tests/process/test_versions.py)"
    )


@pytest.mark.req("CLT-31", "CLT-63")
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


@pytest.mark.req("CLT-31", "CLT-63")
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


@pytest.mark.req("CLT-31", "CLT-63")
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


@pytest.mark.req("CLT-31", "CLT-64")
@pytest.mark.parametrize("environ", _ASCII, ids=["by the environment", "by the locale"])
async def test_a_terminal_in_ascii_shows_every_name(terminal: Terminal, environ: dict[str, str]) -> None:
    """And what is JSON stays JSON."""
    file = terminal.file({**NYGARD, "name": [{"family": "Nygård \N{FACE WITH TEARS OF JOY}"}]})
    opened = await terminal.start("open", file, **environ)
    assert b"Nyg\\xe5rd \\U0001f602" in (await opened.communicate())[0]
    asked = await terminal.start("context", "--json", **environ)
    printed = json.loads((await asked.communicate())[0].decode("ascii"))
    assert printed["event"]["context"][0]["resource"]["name"] == [{"family": "Nygård \N{FACE WITH TEARS OF JOY}"}]


@pytest.mark.req("CLT-65")
async def test_listen_says_once_that_the_hub_is_away(terminal: Terminal) -> None:
    process = await terminal.start("listen", "--hub", f"http://127.0.0.1:{free_port()}/api/hub")
    first = await line(process.stderr)
    assert "nothing listens" in first
    await asyncio.sleep(1)  # it is tried again
    process.send_signal(signal.SIGINT)
    _, rest = await process.communicate()
    assert (process.returncode, rest) == (0, b"")
