"""`python -m demo`, as whoever clones the repository first runs it: what it shows, how it fails, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "tests" / "spec"
DEMO = (sys.executable, "-m", "demo")


@contextmanager
def started(*args: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """The demo as a process, in a session of its own, so that none of its children can hide."""
    plain = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    process = subprocess.Popen(
        [*DEMO, *args],
        cwd=ROOT,
        env=plain | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            left = [pid for pid in session_of(process.pid) if pid != process.pid]
            ended = process.poll() is not None
            for pid in left if ended else [process.pid, *left]:
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


def run(*args: str, **environ: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the demo."""
    with started(*args, **environ) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """What it prints up to the line with `wanted`, that line too."""
    assert process.stdout
    read = ""
    for line in process.stdout:
        read += line
        if wanted in line:
            return read
    raise AssertionError(f"no {wanted!r} in {read!r}")


def told(out: str, name: str) -> list[str]:
    """The events that an application prints."""
    return re.findall(rf"^{name} +([A-Z]\w+-(?:open|close))", out, re.MULTILINE)


def test_everyone_is_in_step() -> None:
    code, out, err = run(NO_COLOR="1", FORCE_COLOR="1")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    patient, study, encounter = ([f"{what}-open", f"{what}-close"] for what in ("Patient", "ImagingStudy", "Encounter"))
    opens = [patient[0], study[0], encounter[0]]
    alone = [study[0], study[1], patient[1]]
    assert told(out, "ehr") == [*opens, encounter[1], study[1], patient[1], *alone]
    assert told(out, "viewer") == study * 2
    assert told(out, "chart") == patient * 2
    assert told(out, "reporting") == [*opens, encounter[1], study[1], patient[1], patient[0], *alone]
    assert re.fullmatch(r"demo: 9 events, 3 followers, everyone in step in \d+\.\d s", out.splitlines()[-1])


def test_it_says_what_an_event_means_and_why_one_did_not_come() -> None:
    _, out, _ = run()
    lines = [re.sub(" +", " ", line) for line in out.splitlines()]
    wanted = [
        "auth 200 OK the hub asks for /dev/.well-known/smart-configuration",
        "auth 200 OK the hub asks for /dev/jwks",
        "viewer 403 Forbidden may not open a patient for others: its token allows "
        "fhircast/ImagingStudy-open.read fhircast/ImagingStudy-close.read",
        "chart Patient-open now shows Smith, John Jr. M.D., MRN 4438001",
        "viewer ImagingStudy-open opens study accession GH339884",
        "chart was not told of the patient of ImagingStudy-open: it shows that one already",
        "viewer was not told of Encounter-open: it did not subscribe to it",
        "reporting Encounter-open the report is about encounter r2r22345",
        "chart Patient-open now shows Smith, John Jr. M.D., MRN 4438001, as the hub derives it",
    ]
    rest = iter(lines)
    assert [line for line in wanted if line not in rest] == []


@pytest.mark.parametrize("message", sorted((ROOT / "demo" / "messages").iterdir()), ids=lambda path: path.stem)
def test_the_messages_are_the_specifications(message: Path) -> None:
    assert message.read_bytes() == (SPEC / message.name).read_bytes()


def test_a_setting_that_the_hub_refuses() -> None:
    assert run(FHIRCAST_PING_SECONDS="soon") == (
        1,
        "",
        "demo: the hub did not start: FHIRCAST_PING_SECONDS: got 'soon', expected a whole number from 1 to 2147483647\n",
    )


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = run("--port", str(port))
    assert (code, out) == (1, "")
    assert err.startswith(
        f"demo: the hub did not start: FHIRCAST_HOST, FHIRCAST_PORT: cannot listen on 127.0.0.1 {port}:"
    )
    assert err.count("\n") == 1


def test_a_hub_that_leaves_somebody_behind() -> None:
    """Without derived opens the chart does not learn of the second study's patient: the demo sees it, and shows the log."""
    code, out, err = run(FHIRCAST_DERIVE_OPENS="false")
    assert (code, "everyone in step" in out) == (1, False)
    *log, last = err.splitlines()
    assert re.fullmatch(r"demo: chart: expected Patient-open of [0-9a-f-]+, got nothing within 5 s", last)
    assert log
    assert all(line.startswith("hub.log  {") for line in log)


def test_interrupted_it_stops_the_hub() -> None:
    with started() as process:
        read_until(process, "hub ")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "demo: interrupted\n")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_keep_serves_until_it_is_stopped(stop: signal.Signals) -> None:
    """The variables that it prints are all that a request needs, and the followers take in what is pasted."""
    with started("--keep", FORCE_COLOR="1") as process:
        out = read_until(process, "hub.events=")
        assert "everyone in step" in out
        given = dict(re.findall(r"\b(HUB|TOPIC|TOKEN)=(\S+)", out))
        headers = {"Authorization": f"Bearer {given['TOKEN']}", "Content-Type": "application/json"}
        with httpx.Client(trust_env=False, headers=headers) as client:
            pasted = (SPEC / "ImagingStudy-open.json").read_bytes()
            assert client.post(given["HUB"], content=pasted).status_code == 202
            context = client.get(f"{given['HUB']}/{given['TOPIC']}").json()
        assert context["context.type"] == "ImagingStudy"
        assert "\x1b[36mviewer   \x1b[0m  ImagingStudy-open" in read_until(process, "viewer")
        process.send_signal(stop)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("demo: stopped\n")
