"""`python -m demo.webhook`, as a process beside a real hub; and what it does not let itself be told."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import httpx
import pytest

from demo.webhook.subscriber import Subscriber, make_app
from tests.running import TOPIC, event, running_hub, until
from tests.webhook.callback_server import LOOPBACK, active, quiet

ROOT = Path(__file__).resolve().parents[2]
CHALLENGE = {"hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "Patient-open", "hub.challenge": "a-challenge"}


@pytest.mark.req("WHK-2", "WHK-4", "WHK-5")
async def test_the_example_follows_a_session_and_leaves_it() -> None:
    """Subscribed, told, signed; a line for each; and at Ctrl-C unsubscribed."""
    async with running_hub(webhook_allowed_networks=LOOPBACK) as hub:
        command = (sys.executable, "-m", "demo.webhook", "--hub", hub.url, "--topic", TOPIC)
        path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
        environ = os.environ | {
            "TOKEN": hub.token(),
            "PYTHONPATH": path,
            "HTTP_PROXY": "socks5://x",
            "NO_PROXY": "[::1]",
        }
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environ, stdout=PIPE)
        assert process.stdout
        async with asyncio.timeout(20):
            try:
                line = (await process.stdout.readline()).decode()
                assert line.startswith(
                    "subscribed to Patient-open,Patient-close,ImagingStudy-open,ImagingStudy-close for "
                )
                await until(lambda: len(active(hub)) == 1)
                async with hub.follow(await hub.subscribe("SyncError")) as follower:
                    await hub.publish(event("Patient-open", "p1", event_id="e1"))
                    await hub.publish(event("ImagingStudy-open", "s1", event_id="e2"))
                    lines = [(await process.stdout.readline()).decode() for _ in range(2)]
                    assert lines == ["Patient-open Patient/p1 (e1)\n", "ImagingStudy-open ImagingStudy/s1 (e2)\n"]
                    await quiet(hub)
                    assert await follower.silent()
            finally:
                process.send_signal(signal.SIGINT)
                await process.communicate()
        assert process.returncode == 0
        assert not active(hub)


@pytest.mark.req("WHK-2")
async def test_the_example_answers_only_for_what_it_asked_for() -> None:
    """Once, and neither for another topic, nor for more events, nor before or after it asked."""
    subscriber = Subscriber("http://hub.invalid", "token", "http://me.invalid/callback", say=lambda _: None)
    transport = httpx.ASGITransport(make_app(subscriber))
    async with httpx.AsyncClient(transport=transport, base_url="http://me.invalid") as hub:

        async def asked(**other: str) -> httpx.Response:
            changed = {f"hub.{name}": value for name, value in other.items()}
            return await hub.get("/callback", params=CHALLENGE | changed)

        assert (await asked()).status_code == 404
        assert (await asked(topic="")).status_code == 404
        with pytest.raises(httpx.ConnectError):
            await subscriber.subscribe(TOPIC, "Patient-open,Patient-close")
        for other in (
            {"topic": "another"},
            {"events": "Patient-open,UserLogout"},
            {"mode": "unsubscribe"},
            {"events": ""},
        ):
            assert (await asked(**other)).status_code == 404, other
        answer = await asked(events="patient-OPEN")
        assert (answer.status_code, answer.text) == (200, "a-challenge")
        assert (await asked()).status_code == 404


@pytest.mark.req("WHK-4")
async def test_the_example_believes_no_unsigned_post() -> None:
    """403 for none, for a wrong one, and for one of other bytes; what is signed is printed and acknowledged."""
    said: list[str] = []
    subscriber = Subscriber("http://hub.invalid", "token", "http://me.invalid/callback", say=said.append)
    transport = httpx.ASGITransport(make_app(subscriber))
    body = json.dumps(event("Patient-open", "p1", event_id="e1")).encode()
    good = "sha256=" + hmac.new(subscriber._secret.encode(), body, hashlib.sha256).hexdigest()
    async with httpx.AsyncClient(transport=transport, base_url="http://me.invalid") as hub:
        for signature, sent in [("", body), (good, body + b" "), (good[:-1], body), ("sha256=" + "0" * 64, body)]:
            answer = await hub.post("/callback", content=sent, headers={"X-Hub-Signature": signature})
            assert answer.status_code == 403
        assert (await hub.post("/callback", content=body)).status_code == 403
        assert said == []
        assert (await hub.post("/callback", content=body, headers={"X-Hub-Signature": good})).status_code == 200
        assert said == ["Patient-open Patient/p1 (e1)"]
