"""What was closed is gone from the store's files within a minute, as a whole hub does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.commands import EndSession
from tests.running import TOPIC, RunningHub, event, running_hub, until

REALM = {"realm": "hospital", "user_claim": "sub"}
KEY = SessionKey("hospital", TOPIC)
MARK = "Grubenhagen-" * 40


def files_with(folder: Path, mark: str) -> set[str]:
    """The names of the files that have the mark."""
    return {file.name for file in folder.iterdir() if mark.encode() in file.read_bytes()}


async def open_and_share(hub: RunningHub) -> None:
    """A patient with a marked name, and an observation that is marked too."""
    named = {"key": "basic", "resource": {"resourceType": "Basic", "id": "b", "code": {"text": MARK}}}
    assert (await hub.publish(event("Patient-open", "p1", also=[named]))).status_code == 202
    version = (await hub.context()).json()["context.versionId"]
    resource = {"resourceType": "Observation", "id": "o1", "status": "final", "note": [{"text": MARK}]}
    entry = {"request": {"method": "PUT"}, "resource": resource}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    update: dict[str, Any] = {
        "timestamp": "2026-11-22T10:00:01.000Z",
        "id": "update",
        "event": {
            "hub.topic": TOPIC,
            "hub.event": "Patient-update",
            "context.versionId": version,
            "context": [
                {"key": "patient", "reference": {"reference": "Patient/p1"}},
                {"key": "updates", "resource": bundle},
            ],
        },
    }
    assert (await hub.publish(update)).status_code == 202


@pytest.mark.req("OPS-7", "OPS-14")
@pytest.mark.parametrize("how", ["closed", "ended"])
async def test_nothing_of_the_patient_is_left_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """With a subscriber that is connected, and heard all: database, log and index are searched."""
    monkeypatch.setattr("fhircast_hub.storage.sqlite.SYNC_SECONDS", 0.02)
    async with running_hub(store=f"sqlite:///{tmp_path / 'hub.db'}", own=REALM) as hub:
        endpoint = await hub.subscribe("Patient-open,Patient-close,Patient-update")
        async with hub.follow(endpoint) as follower:
            await open_and_share(hub)
            await until(lambda: files_with(tmp_path, MARK) == {"hub.db"})
            if how == "closed":
                await hub.publish(event("Patient-close", "p1"))
                assert await follower.names(3) == ["Patient-open", "Patient-update", "Patient-close"]
            else:
                await hub.hub.service.submit(KEY, EndSession("the session was ended"))
            hub.clock.now += 55
            await hub.hub.service.tick()
            await until(lambda: not files_with(tmp_path, MARK))
            await until(lambda: not files_with(tmp_path, "patient/p1"))
