"""Tries an installed fhircast-hub: its commands, and a hub for development that answers, gives a token and takes an event."""

from __future__ import annotations

import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import fhircast_hub

#: Seconds for a command, or for the hub to answer.
PATIENCE = 60
PROGRAM = Path(sys.executable).with_name("fhircast-hub")
#: The hub writes the file with its key there, and `token` looks there.
ENVIRONMENT = os.environ | {"XDG_RUNTIME_DIR": str(Path.cwd())}
EVENT = {"hub.topic": "demo", "hub.event": "Patient-open"}
PATIENT = {"key": "patient", "resource": {"resourceType": "Patient", "id": "p1"}}


def printed(*words: str, **settings: str) -> str:
    """What `fhircast-hub` prints."""
    env = ENVIRONMENT | settings
    return subprocess.run(
        (PROGRAM, *words), check=True, env=env, stdout=subprocess.PIPE, text=True, timeout=PATIENCE
    ).stdout


def ask(port: int, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
    """The status and the body of the hub's answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request(method, path, json.dumps(body) if body else None, headers | {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def port_of(log: Path) -> int:
    """The port that the hub prints at its start."""
    deadline = time.monotonic() + PATIENCE
    while (match := re.search(r"fhircast-hub token --port (\d+)", log.read_text())) is None:
        assert time.monotonic() < deadline, f"the hub must start within {PATIENCE} s, and printed {log.read_text()!r}"
        time.sleep(0.05)
    return int(match[1])


def wait_until_alive(port: int) -> None:
    """Until /health/live answers with 200."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            status, _ = ask(port, "GET", "/health/live")
        except ConnectionError:
            status = 0
        if status == 200:
            return
        assert time.monotonic() < deadline, f"/health/live must answer with 200, not {status}"
        time.sleep(0.05)


def try_hub(port: int) -> None:
    """Without a token nothing is told; with one, a patient is opened, and is the current context."""
    wait_until_alive(port)
    assert ask(port, "GET", "/api/hub/demo")[0] == 401
    token = {"Authorization": f"Bearer {printed('token', '--port', str(port)).strip()}"}
    now = datetime.datetime.now(datetime.UTC).isoformat()
    event = {"timestamp": now, "id": "smoke", "event": EVENT | {"context": [PATIENT]}}
    assert ask(port, "POST", "/api/hub", event, **token)[0] == 202
    status, context = ask(port, "GET", "/api/hub/demo", **token)
    assert (status, json.loads(context)["context"][0]["resource"]["id"]) == (200, "p1"), context


def main(version: str) -> None:
    folder = Path(fhircast_hub.__path__[0])
    assert folder.is_relative_to(sys.prefix), f"the module must be the installed one, not {folder}"
    assert (folder / "py.typed").is_file(), "the marker of types must be there"
    assert printed("--version").splitlines()[0] == f"fhircast-hub {version}", printed("--version")
    url = "https://hub.hospital.example/api/hub"
    issuers = json.dumps([{"issuer": "https://ehr.hospital.example/oauth2", "audience": url}])
    assert url in printed("check-config", FHIRCAST_PUBLIC_URL=url, FHIRCAST_ISSUERS=issuers)
    log = Path("hub.log")
    with log.open("wb") as file:
        command = (PROGRAM, "dev", "--port", "0")
        hub = subprocess.Popen(command, env=ENVIRONMENT, stdout=file, stderr=subprocess.STDOUT)
    try:
        try_hub(port_of(log))
        hub.send_signal(signal.SIGTERM)
        assert hub.wait(PATIENCE) == 0, log.read_text()
    finally:
        hub.kill()
        hub.wait()


main(sys.argv[1])
