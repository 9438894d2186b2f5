"""A request that is still under way when the hub must end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.counted import connections_of
from tests.http.wire import request, wire
from tests.running import RunningHub, event, running_hub, until

REASON = "the hub stops; repeat the request"


def cancel(hub: RunningHub) -> bool:
    """Cancel the tasks of requests, as uvicorn does when its patience is over. Returns whether there were any."""
    tasks = {task for each in connections_of(hub) for task in each.tasks}
    for task in tasks:
        task.cancel()
    return bool(tasks)


@pytest.mark.req("OPS-41", "OPS-17", "AUD-1")
async def test_it_is_answered_and_counted_with_503(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whether its event was accepted is unknown: the client repeats it. Log line and audit entry tell the same."""
    trail = tmp_path / "trail.jsonl"
    async with running_hub(audit=f"file://{trail}") as hub, wire(hub) as connection:
        assert (await hub.publish(event("Patient-open", "p0"))).status_code == 202

        async def never(*_: Any) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(hub.hub.service, "submit", never)
        body = json.dumps(event("Patient-open", "p1")).encode()
        with capture_logs() as lines:
            await connection.send(
                request("POST", "/api/hub", hub.headers() | {"Content-Type": "application/json"}, body)
            )
            await until(lambda: cancel(hub))
            reply = await connection.reply()
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert json.loads(reply.body) == {"message": REASON}
        (line,) = lines
        assert [line[name] for name in ("status", "reason", "route")] == [503, REASON, "publish"]
        assert line["request_id"] == reply.headers["x-request-id"]
        metrics = (await hub.client.get(f"{hub.origin}/metrics")).text
        assert 'fhircast_requests_total{route="publish",status="503"} 1.0' in metrics
        assert 'status="500"' not in metrics
    assert json.loads(trail.read_text().splitlines()[-1])["outcomeDesc"] == REASON
