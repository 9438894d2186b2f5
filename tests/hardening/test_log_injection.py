"""Texts of others in the log."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.process.hub_process import IssuerThread, Visitor, hub_process, issuer_thread
from tests.running import event

FORGED = '\n{"timestamp":"2026-01-01T00:00:00Z","level":"info","event":"forged"}\n\x1b[2Jforged\r\u2028forged'


@pytest.mark.req("SEC-1", "OPS-2")
@pytest.mark.parametrize("format_", ["json", "console"])
def test_log_injection(tmp_path: Path, format_: str) -> None:
    """No path, method, header, topic, name or frame makes a line of its own, or any of a line."""
    settings = {"log_format": format_, "log_level": "debug", "audit": (tmp_path / "trail").as_uri()}
    with issuer_thread() as issuer, hub_process(tmp_path, issuers=issuer.settings, **settings) as hub:
        asyncio.run(tell(Visitor(hub, issuer.idp), issuer))
        assert hub.stop() == 0
        told = hub.stdout
    assert "forged" not in told
    assert "\x1b" not in told
    if format_ == "json":
        assert {"request", "starting"} <= {json.loads(line)["event"] for line in told.splitlines()}
    for line in (tmp_path / "trail").read_text().splitlines():
        assert json.loads(line)["resourceType"] == "AuditEvent"


async def tell(visitor: Visitor, issuer: IssuerThread) -> None:
    """All of it, wherever a text can be."""
    async with visitor:
        forged = quote(FORGED, safe="")
        as_json = {"Content-Type": "application/json"}
        for path in (f"/{forged}", f"/api/hub/{forged}", f"/api/hub/ws/{forged}", f"/sessions/{forged}/participants"):
            await visitor.client.get(f"{visitor.origin}{path}?{forged}", headers=visitor.headers())
        for name in ("hub.topic", "hub.events", "subscriber.name", "hub.mode", "hub.channel.endpoint"):
            await visitor.form(**{"hub__events": "Patient-open", name.replace(".", "__", 1): FORGED})
        for sent in (event("Patient-open", topic=FORGED), event(FORGED), event("Patient-open", event_id=FORGED)):
            await visitor.publish(sent)
        for token in (visitor.token(FORGED), visitor.token(client_id=FORGED), visitor.token(headers={"kid": FORGED})):
            await visitor.publish(event("Patient-open", topic="another"), token)
        endpoint = await visitor.subscribe(subscriber__name="forged name")
        async with visitor.follow(endpoint) as follower:
            for frame in (FORGED, json.dumps({"id": FORGED, "status": FORGED})):
                await follower.connection.send(frame)
            await (await follower.connection.ping())
        for header in ("User-Agent", "Referer", "X-Request-Id", "X-Forwarded-For", "Origin"):
            await visitor.client.get(visitor.url, headers=as_json | {header: "forged"})
        try:
            await visitor.client.request("FORGED\x1b", visitor.url)
        except (httpx.HTTPError, ValueError):
            pass
