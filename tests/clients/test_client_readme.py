"""clients/python/README.md: its examples run as they stand there, against a real hub, with an application around them."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import sys
import textwrap
import uuid
from pathlib import Path
from typing import Any

import pytest

from fhircast_client import Event, FHIRcastClient
from fhircast_client.cli import _parser
from tests.clients.fakes import Heard, patient, until
from tests.clients.places import DevHub, RealPlace

README = (Path(__file__).parents[2] / "clients" / "python" / "README.md").read_text(encoding="utf-8")
#: Seconds until a program must have done what is expected.
PATIENCE = 30


def example(section: str, number: int = 0) -> str:
    """The Python of a section: its first example, or another one."""
    text = README.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return text.split("```python\n")[number + 1].partition("```\n")[0]


async def program(hub: DevHub, topic: str, before: str, code: str, after: str = "") -> asyncio.subprocess.Process:
    """Run an example, between what the reader's application has before and after it."""
    url = f"http://127.0.0.1:{hub.process.port}/api/hub"
    before = f"topic, get_token = {topic!r}, lambda: {hub.token!r}\n" + textwrap.dedent(before)
    source = before + code.replace("https://hub.example.org/api/hub", url) + textwrap.dedent(after)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, "-u", "-c", source, stdout=pipe, stderr=pipe)


async def test_the_first_program(hub: DevHub, tmp_path: Path) -> None:
    """With the environment that `fhircast-hub dev` prints, and the commands that the section has."""
    section = README.partition("\n## Try\n")[2].partition("\n## ")[0]
    commands = next(part for part in section.split("```sh\n") if part.startswith("echo")).partition("```")[0]
    (tmp_path / "follow.py").write_text(example("Try"), encoding="utf-8")
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FHIRCAST_HUB": f"http://127.0.0.1:{hub.process.port}/api/hub",
        "FHIRCAST_TOPIC": str(uuid.uuid4()),
        "FHIRCAST_TOKEN": hub.token,
    }
    pipe = asyncio.subprocess.PIPE
    options: dict[str, Any] = {"cwd": tmp_path, "env": environ, "stdout": pipe, "stderr": pipe}
    program = await asyncio.create_subprocess_exec(sys.executable, "-u", "follow.py", **options)
    assert program.stdout
    async with asyncio.timeout(PATIENCE):
        first = await program.stdout.readline()
        other = await asyncio.create_subprocess_shell(commands, **options)
        assert (await other.communicate())[1] == b""
        said = [first, await program.stdout.readline(), await program.stdout.readline()]
        assert [line.decode().strip() for line in said] == ["in sync", "shows Patient/p1", "shows nobody"]
        program.send_signal(signal.SIGINT)
        out, err = await program.communicate()
    assert (program.returncode, out, err) == (0, b"Stopped\n", b"")


@pytest.mark.req("CLT-2", "CLT-13", "CLT-14")
async def test_the_example_that_follows(hub: DevHub) -> None:
    async with RealPlace(hub) as place:
        ehr = await place.client("ehr")
        async with ehr:
            before = """
                import types
                editor = types.SimpleNamespace(has_unsaved_notes=False)
                async def show_patient(patient): print("shows", patient["id"]); editor.has_unsaved_notes = True
                def show_nothing(): print("shows nothing"); editor.has_unsaved_notes = False
                def show_banner(text): print("banner", text)
            """
            process = await program(hub, place.topic, before, example("Follow"))
            assert process.stdout
            seen: list[str] = []

            async def read(stream: asyncio.StreamReader) -> None:
                while line := await stream.readline():
                    seen.append(line.decode().strip())

            reading = asyncio.create_task(read(process.stdout))
            await until(lambda: "banner" in seen, lambda: seen)
            await ehr.open(patient("p1"))
            await until(lambda: "shows p1" in seen, lambda: seen)
            await ehr.open(patient("p2"))
            await until(lambda: any("unsaved notes" in line for line in seen), lambda: seen)
            await until(lambda: ehr.status.behind == ("Chart",), lambda: ehr.status)
            await ehr.close(patient("p1"))
            await until(lambda: "shows nothing" in seen, lambda: seen)
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(reading, PATIENCE)
            await process.communicate()
            assert "shows p2" not in seen
            assert seen[-1] == "banner Stopped"


def changes(event: Event) -> str:
    """What an update changes."""
    updates = event.resource("updates")
    assert updates
    return ", ".join(
        f"{entry['request']['method']} {entry['resource']['id'] if 'resource' in entry else entry['fullUrl']}"
        for entry in updates["entry"]
    )


@pytest.mark.req("CLT-7", "CLT-8")
async def test_the_example_that_drives(hub: DevHub) -> None:
    async with RealPlace(hub) as place:
        heard: list[str] = []
        viewer: FHIRcastClient = await place.client("viewer")
        for verb in ("open", "select", "close"):
            viewer.on(f"DiagnosticReport-{verb}", lambda event: heard.append(event.name.partition("-")[2]))

        viewer.on("DiagnosticReport-update", lambda event: heard.append(changes(event)))
        before = """
            import asyncio
            def render(content): raise AssertionError("nobody else shares")
            def merge(content): return [{"resourceType": "Observation", "id": f"o{len(content) + 1}"}]
        """
        after = """
            report, patient, measurement = (
                {"resourceType": type_, "id": id_}
                for type_, id_ in (("DiagnosticReport", "r1"), ("Patient", "p1"), ("Observation", "o1"))
            )
            asyncio.run(dictate(report, patient, measurement))
        """
        async with viewer:
            process = await program(hub, place.topic, before, example("Drive"), after)
            _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
            assert (process.returncode, err.decode()) == (0, "")
            await until(lambda: "close" in heard, lambda: heard)
            assert heard == ["open", "PUT o1", "PUT o2", "select", "DELETE Observation/o1", "close"]


@pytest.mark.req("CLT-29")
async def test_the_example_of_a_portal_that_publishes_from_its_threads(hub: DevHub) -> None:
    async with RealPlace(hub) as place:
        viewer, heard = await place.client("viewer"), Heard()
        viewer.on("Patient-open", heard)
        after = """
            patients = [{"resourceType": "Patient", "id": f"p{number}"} for number in range(4)]
            def view(patients):
                for patient in patients: open_patient(patient)
            threads = [threading.Thread(target=view, args=(patients[i::2],)) for i in range(2)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        """
        async with viewer:
            process = await program(hub, place.topic, "", example("From code that is not async"), after)
            _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
            assert (process.returncode, err.decode()) == (0, "")
            await until(lambda: len(heard.events) == 4, lambda: heard.anchors)


@pytest.mark.req("CLT-29")
async def test_the_example_of_an_application_that_follows_in_a_thread(hub: DevHub) -> None:
    async with RealPlace(hub) as place:
        before = """
            patient = {"resourceType": "Patient", "id": "p2"}
            def show_patient(patient): print("shows", patient["id"], flush=True)
        """
        after = """
            assert client.status.why == "Stopped", client.status
        """
        async with await place.client("ehr") as ehr:
            await ehr.open(patient("p1"))
            code = example("From code that is not async", 1)
            process = await program(hub, place.topic, before, code, after)
            out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert (process.returncode, err.decode(), out.decode().split()) == (0, "", ["shows", "p1"])


@pytest.mark.req("CLT-27")
async def test_the_example_that_tests() -> None:
    class Chart:
        def __init__(self, client: FHIRcastClient) -> None:
            self.notes = ""
            client.on("Patient-open", self.show)

        def write(self, text: str) -> None:
            self.notes += text

        def show(self, event: Any) -> None:
            from fhircast_client import Refuse

            if self.notes:
                raise Refuse("unsaved notes")

    space: dict[str, Any] = {"Chart": Chart}
    exec(compile(example("Test your application"), "README.md", "exec"), space)
    await space["test_unsaved_notes_are_kept"]()


def test_the_commands_are_commands() -> None:
    commands = [line.partition("#")[0] for line in README.splitlines() if line.startswith("fhircast ")]
    assert len(commands) >= 7
    for command in commands:
        words = [word.strip('"') for word in command.split()[1:]]
        assert _parser().parse_args(words).command == words[0]


def test_the_options_are_the_options() -> None:
    table = README.partition("\n## Options\n")[2].partition("\n## ")[0]
    written = [
        name for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    parameters = inspect.signature(FHIRcastClient).parameters.values()
    assert sorted(written) == sorted(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
