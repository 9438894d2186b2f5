"""Editors: clients that share resources in one report, each update on the version that its editor has read."""

from __future__ import annotations

import asyncio
import json

import httpx

from tests.http.content_world import put, update
from tests.nodes.clients import ATTEMPTS, REPEATED, Nodes, Ways
from tests.nodes.history import now
from tests.running import event

EVENTS = "DiagnosticReport-open,DiagnosticReport-update,SyncError"
REPORT = "r1"
_JSON = {"Content-Type": "application/json"}


async def open_report(nodes: Nodes, topic: str) -> None:
    """Open the report, before there is any trouble."""
    body = json.dumps(event("DiagnosticReport-open", REPORT, topic=topic)).encode()
    begin = now()
    answer = await nodes.ask("POST", nodes.url(0), content=body, headers=_JSON)
    assert answer is not None, "no answer to the first event"
    nodes.history.write(
        "post", topic=topic, event=f"open {REPORT}", node=0, begin=begin, end=now(), status=answer.status_code
    )


async def edit(nodes: Nodes, topic: str, name: str, ways: Ways, stopping: asyncio.Event) -> None:
    """Read the version, and make an update on it, until it is time to stop."""
    number = 0
    while not stopping.is_set():
        number += 1
        node, begin = nodes.any(), now()
        answer = await nodes.ask("GET", nodes.url(node, f"/{topic}"))
        if answer and answer.status_code == httpx.codes.OK:
            version = answer.json()["context.versionId"]
            nodes.history.write("version", topic=topic, node=node, begin=begin, end=now(), version=version)
            await _update(nodes, topic, f"{name}-{number}", version)
        await asyncio.sleep(nodes.chance.expovariate(1 / ways.pause))


async def _update(nodes: Nodes, topic: str, name: str, version: str) -> None:
    """Post an update, and repeat it at any node while there is no word of its success or failure."""
    posted = update(version, put(f"o{sum(map(ord, name)) % 20}", note=[{"text": name}]), event_id=name, of=REPORT)
    posted["event"]["hub.topic"] = topic
    body = json.dumps(posted).encode()
    first = now()
    for _ in range(nodes.chance.choice(ATTEMPTS)):
        node, begin = nodes.any(), now()
        if begin > first + REPEATED:
            return
        answer = await nodes.ask("POST", nodes.url(node), content=body, headers=_JSON)
        status = answer.status_code if answer else 0
        nodes.history.write(
            "update", topic=topic, event=name, prior=version, node=node, begin=begin, end=now(), status=status
        )
        if status and status < httpx.codes.INTERNAL_SERVER_ERROR:
            return
        await asyncio.sleep(nodes.chance.uniform(0.1, 0.5))
