"""A hub without a server: it has the rules and limits of one that is served, and says nothing on its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from fhircast_hub import local
from fhircast_hub.core.limits import Rules
from fhircast_hub.http.posting import post
from fhircast_hub.local import LocalHub
from fhircast_hub.service.usage import MAX_USER_BYTES
from fhircast_hub.settings.settings import Settings

URL, ADDRESS = "http://hub.invalid/hub", ("127.0.0.1", 0)
EVENT = b"""{"timestamp": "2026-01-31T09:30:00Z", "id": "1", "event": {"hub.topic": "topic", "hub.event": "UserLogout",
 "context": []}}"""


def local_hub() -> LocalHub:
    """A hub at whose clock it is soon after the event."""
    return LocalHub(URL, "topic", lambda: 1769851801.0, Rules(), lambda effects: effects)


@pytest.mark.req("CLT-27", "CLT-56")
def test_it_has_the_defaults_of_a_hub_that_is_served() -> None:
    settings = Settings()
    assert settings.rules() == Rules()
    assert settings.ack_policy == local.ACK_POLICY.value
    assert (settings.ping_seconds, settings.max_body_bytes) == (local.PING_SECONDS, local.MAX_BODY)
    assert (settings.queue_bytes, settings.queue_messages) == (local.QUEUE_BYTES, local.QUEUE_MESSAGES)
    limits = settings.max_subscriptions_per_user, settings.max_topics_per_user
    assert limits == (local.MAX_SUBSCRIPTIONS, local.MAX_TOPICS)
    assert settings.max_bytes_per_user == MAX_USER_BYTES


@pytest.mark.req("CLT-27")
async def test_it_takes_events_of_its_topic_alone_and_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    hub = local_hub()
    assert await post(hub.api("ehr"), "/hub", EVENT, ADDRESS) == (202, "{}")
    status, said = await post(hub.api("ehr"), "/hub", EVENT.replace(b'"topic"', b'"other"'), ADDRESS)
    assert (status, "topic" in said) == (403, True)
    assert [hub.session and hub.session.topic] == ["topic"]
    await hub.stop()
    assert hub.session is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.req("CLT-27")
async def test_nothing_runs_on_when_it_has_stopped() -> None:
    hub = local_hub()
    form: Any = b'{"hub.mode": "subscribe", "hub.channel.type": "websocket", "hub.topic": "topic", "hub.events": "x"}'
    status, _ = await post(hub.api("ehr"), "/hub", form, ADDRESS)
    (subscription,) = hub.subscriptions("ehr")
    assert (status, subscription.events) == (202, ("x",))
    hub.end(subscription, "enough")
    await hub.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert hub.subscriptions() == []


@pytest.mark.req("CLT-27")
def test_it_brings_no_web_framework() -> None:
    """What is imported in every test run of an application is little."""
    heavy = "{'starlette', 'pydantic', 'uvicorn', 'cryptography', 'typer'}"
    code = f"import sys, fhircast_hub.local; print({heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
