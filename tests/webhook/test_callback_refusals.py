"""The hub refuses a bad callback with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.running import running_hub
from tests.webhook.callback_server import (
    ask,
    hub_and_callbacks,
    quiet,
    subscribe,
)

BAD_CALLBACKS: list[tuple[str, str]] = [
    ("", "absolute"),
    ("/callback", "absolute"),
    ("callback.example/x", "absolute"),
    ("ftp://127.0.0.1/x", "absolute"),
    ("javascript:alert(1)", "absolute"),
    ("http:127.0.0.1/x", "absolute"),
    ("http:///x", "absolute"),
    ("https://", "absolute"),
    ("https://:443/", "absolute"),
    ("http://127.0.0.1:0/", "absolute"),
    ("http://127.0.0.1:65536/", "absolute"),
    ("http://127.0.0.1:x/", "absolute"),
    ("http://[::1/", "absolute"),
    ("http://127.0.0.1/a b", "absolute"),
    ("http://127.0.0.1/ä", "absolute"),
    ("http://127.0.0.1\\@8.8.8.8/", "absolute"),
    ("http://127.0.0.1/x#part", "fragment"),
    ("http://127.0.0.1/x#", "fragment"),
    ("http://user@127.0.0.1/", "credentials"),
    ("http://user:secret-word@127.0.0.1/", "credentials"),
    ("http://127.0.0.1/" + "x" * 2048, "2048 characters"),
]


@pytest.mark.req("WHK-10")
async def test_a_bad_callback_is_refused_with_its_reason() -> None:
    """400 in one line names hub.callback and the reason, without the value. Nobody is asked, nothing is left."""
    async with hub_and_callbacks() as (hub, server):
        for callback, reason in BAD_CALLBACKS:
            for mode in ("subscribe", "unsubscribe"):
                answer = await ask(hub, callback, hub__mode=mode)
                assert answer.status_code == 400, callback
                assert answer.text.startswith("hub.callback "), callback
                assert reason in answer.text
                assert "secret-word" not in answer.text
                assert len(answer.text.splitlines()) == 1
        assert (await ask(hub, server.url(), hub__callback=None)).status_code == 400
        assert hub.hub.service.usage.subscriptions == 0
        assert server.requests == []


@pytest.mark.req("WHK-10")
async def test_a_callback_of_2048_characters_is_taken() -> None:
    """And asked at all of them."""
    async with hub_and_callbacks() as (hub, server):
        target = "/callback?" + "x" * (2048 - len(server.url("/callback?")))
        await subscribe(hub, server, target)
        assert server.gets()[0].target.startswith(target + "&hub.mode=")


@pytest.mark.req("WHK-4")
@pytest.mark.parametrize(
    ("secret", "status"),
    [("x" * 199, 202), ("x" * 200, 400), ("ä" * 99 + "x", 202), ("ä" * 100, 400)],
    ids=["199 bytes", "200 bytes", "199 bytes in 100 characters", "200 bytes in 100 characters"],
)
async def test_a_secret_is_under_200_bytes(secret: str, status: int) -> None:
    """Bytes and not characters; the refusal names it and does not repeat it."""
    async with hub_and_callbacks() as (hub, server):
        answer = await ask(hub, server.url(), hub__secret=secret)
        assert answer.status_code == status
        if status == 400:
            assert "hub.secret" in answer.text
            assert "xx" not in answer.text
            assert "ä" not in answer.text


@pytest.mark.req("WHK-10", "SUB-5", "AUT-3")
async def test_all_else_is_refused_as_for_a_socket() -> None:
    """Token, scope, owner, lease, events: the channel makes no difference, and the callback is not asked."""
    async with hub_and_callbacks() as (hub, server):
        await hub.subscribe(token=hub.token("user-2"), hub__topic="theirs")
        refusals: list[tuple[int, dict[str, Any]]] = [
            (401, {"token": "no.token.atall"}),
            (403, {"token": hub.token(scope="fhircast/Patient-open.write")}),
            (403, {"hub__topic": "theirs"}),
            (400, {"hub__lease_seconds": "0"}),
            (400, {"events": ","}),
            (400, {"hub__topic": " "}),
            (400, {"hub__mode": "publish"}),
        ]
        for status, how in refusals:
            assert (await ask(hub, server.url(), **how)).status_code == status, how
        await quiet(hub)
        assert server.requests == []


@pytest.mark.req("WHK-1", "CFG-1")
@pytest.mark.parametrize("on", [True, False])
async def test_what_is_declared_is_what_is_served(on: bool) -> None:
    """webhookSupport equals FHIRCAST_WEBHOOKS. Without webhooks, 400 says so, but an old subscription may be ended."""
    async with running_hub(webhooks=on, webhook_allowed_networks=["127.0.0.0/8"]) as hub:
        declared = (await hub.client.get(hub.url + "/.well-known/fhircast-configuration")).json()
        assert declared["webhookSupport"] is on
        answer = await ask(hub, "http://127.0.0.1:9/")
        if not on:
            assert answer.status_code == 400
            assert "serves no webhooks" in answer.text
            assert (await ask(hub, "http://127.0.0.1:9/", hub__mode="unsubscribe")).status_code == 404
            return
        await hub.form(
            **{"hub__channel.type": "webhook", "hub__callback": "http://127.0.0.1:9/", "hub__mode": "unsubscribe"}
        )
        assert hub.hub.service.usage.subscriptions == 0
