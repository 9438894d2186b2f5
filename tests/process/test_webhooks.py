"""What webhooks wait for when the hub is killed comes when it is back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.process.hub_process import IssuerThread, Visitor, hub_process
from tests.running import event
from tests.webhook.callback_server import LOOPBACK, Answer, CallbackServer

SETTINGS = {"webhook_allowed_networks": LOOPBACK, "secret_key": "k" * 32}


@pytest.mark.req("WHK-4", "WHK-8")
async def test_what_was_accepted_before_kill_9_is_posted_after_it(tmp_path: Path, issuer: IssuerThread) -> None:
    """In order, signed as before, to a callback that hung until then; the subscription needs no word of it."""
    async with CallbackServer() as server:
        with hub_process(tmp_path, issuers=issuer.settings, **SETTINGS) as first:
            async with Visitor(first, issuer.idp) as visitor:
                more = {"hub__channel.type": "webhook", "hub__callback": server.url(), "hub__secret": "a-secret"}
                answer = await visitor.form(hub__events="Patient-open,Patient-close", **more)
                assert (answer.status_code, answer.json()) == (202, {})
                await visitor.publish(event("Patient-open", "p0"))
                await server.posted(1)
                server.say("POST", "/callback", Answer(hangs=True))
                for name in ("Patient-close", "Patient-open"):
                    assert (await visitor.publish(event(name, "p0", event_id=f"second {name}"))).status_code == 202
                await server.posted(2)
            first.send(signal.SIGKILL)
            first.ended()
        server.say("POST", "/callback", Answer())
        with hub_process(tmp_path, port=first.port, issuers=issuer.settings, **SETTINGS):
            requests = await server.posted(4)
        assert server.news()[2:] == ["Patient-close p0", "Patient-open p0"]
        assert all("x-hub-signature" in request.headers for request in requests)
