"""A callback is posted each granted event, signed and in order."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json

import pytest

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.commands import Command, PostFinished
from fhircast_hub.service.service import Service
from tests.running import event, until
from tests.webhook.callback_server import (
    OK,
    PATIENT,
    RESET,
    Answer,
    active,
    hub_and_callbacks,
    quiet,
    subscribe,
)
from tests.webhook.deliver_world import opens, publish, sync_error

SYNC = f"{PATIENT},SyncError"


# --- what is posted ---


@pytest.mark.req("WHK-4")
async def test_a_post_is_what_a_socket_is_sent() -> None:
    """The same bytes, as JSON, whatever characters are in them; and no signature where no secret was given."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        async with hub.follow(await hub.subscribe()) as follower:
            published = event("Patient-open", "p1")
            published["event"]["context"][0]["resource"]["name"] = [{"text": 'Żółw ☃ 𝄞 " </script> \u2028'}]
            await hub.publish(published)
            frame = await follower.connection.recv(decode=False)
        (post,) = await server.posted(1)
        assert post.body == frame
        assert "☃ 𝄞".encode() in post.body
        assert post.headers["content-type"] == "application/json"
        assert post.headers["host"] == f"127.0.0.1:{server.port}"
        assert "x-hub-signature" not in post.headers
        assert "authorization" not in post.headers


@pytest.mark.req("WHK-4")
@pytest.mark.parametrize("secret", ["a-secret", "x" * 199, "ключ & ☃", "="])
async def test_a_post_is_signed_with_the_secret(secret: str) -> None:
    """X-Hub-Signature is the HMAC-SHA256 of the raw body, in hexadecimal, with the secret's bytes in UTF-8 for a key."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, hub__secret=secret)
        await publish(hub, 2)
        for post in await server.posted(2):
            mac = hmac.new(secret.encode(), post.body, hashlib.sha256).hexdigest()
            assert post.headers["x-hub-signature"] == f"sha256={mac}"


@pytest.mark.req("WHK-4")
async def test_each_subscription_has_its_own_secret() -> None:
    """Two callbacks are signed for by different keys, a third by none."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, "/a", hub__secret="one")
        await subscribe(hub, server, "/b", hub__secret="two")
        await subscribe(hub, server, "/c", hub__secret="")
        await publish(hub, 1)
        (a,), (b,), (c,) = [await server.posted(1, path) for path in ("/a", "/b", "/c")]
        assert a.body == b.body == c.body
        assert a.headers["x-hub-signature"] != b.headers["x-hub-signature"]
        assert "x-hub-signature" not in c.headers


@pytest.mark.req("WHK-4", "AUT-4", "DER-7")
async def test_only_what_was_granted_is_posted() -> None:
    """An event without a subscription is not posted. A derived event with one is."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, events="Patient-open,UserLogout")
        await hub.publish(event("Encounter-open", "e1"))
        patient = {"key": "patient", "resource": {"resourceType": "Patient", "id": "p7"}}
        await hub.publish(event("ImagingStudy-open", "s1", also=[patient]))
        await hub.publish(event("UserLogout", "x"))
        await server.posted(3)
        await quiet(hub)
        assert server.news() == ["Patient-open p1", "Patient-open p7", "UserLogout x"]


@pytest.mark.req("WHK-8")
async def test_one_callback_has_one_order() -> None:
    """One post after the other, in the order of the events, each when the one before was answered."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        gate = asyncio.Event()
        server.say("POST", "/callback", Answer(gate=gate), OK)
        await publish(hub, 30)
        await server.posted(1)
        assert server.news() == opens(1)
        gate.set()
        await server.posted(30)
        assert server.news() == opens(30)


@pytest.mark.req("WHK-8")
async def test_a_retry_keeps_the_order(waits: list[float]) -> None:
    """Later events wait until the one before is delivered or given up."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        server.say("POST", "/callback", Answer(500), Answer(503), OK, Answer(502), OK)
        await publish(hub, 3)
        await server.posted(6)
        first, second, third = opens(3)
        assert server.news() == [first, first, first, second, second, third]


@pytest.mark.req("WHK-8")
async def test_a_post_waits_until_the_answer_to_the_one_before_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a restart could begin an answered post anew, after a later one."""
    stored, store = asyncio.Event(), Service._submit_until_stored

    async def hold(service: Service, key: SessionKey, command: Command) -> None:
        if isinstance(command, PostFinished):
            await stored.wait()
        await store(service, key, command)

    monkeypatch.setattr(Service, "_submit_until_stored", hold)
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        await publish(hub, 2)
        await server.posted(1)
        await until(lambda: len(hub.hub.service._tasks) == 1)  # the hub does nothing but wait for the store
        assert server.news() == opens(1)
        assert hub.hub._webhooks.queued() == 2
        stored.set()
        await server.posted(2)
        assert server.news() == opens(2)


@pytest.mark.req("WHK-8")
async def test_one_connection_serves_them_all() -> None:
    """The connection of the verification is used for posts too. Several callbacks of a server share it."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        for number in range(1, 11):
            await publish(hub, 1, number)
            await quiet(hub)
        assert len(server.posts()) == 10
        assert {each.connection for each in server.requests} == {1}


@pytest.mark.req("WHK-8")
async def test_a_callback_that_closes_its_connections_loses_nothing() -> None:
    """Each post then has one of its own."""
    async with hub_and_callbacks() as (hub, server):
        raw = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        server.say("POST", "/callback", Answer(raw=raw))
        await subscribe(hub, server)
        await publish(hub, 5)
        await server.posted(5)
        assert server.news() == opens(5)


@pytest.mark.req("WHK-8")
async def test_a_connection_that_was_closed_meanwhile_loses_nothing(waits: list[float]) -> None:
    """A kept connection that the callback ends in the moment of the next post: it is posted again."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        server.say("POST", "/callback", OK, RESET, OK)
        await publish(hub, 2)
        await server.posted(3)
        assert server.news() == ["Patient-open p1", "Patient-open p2", "Patient-open p2"]


# --- together with sockets ---


@pytest.mark.req("SYN-1", "SYN-9", "WHK-4")
async def test_a_callback_is_told_of_sync_errors() -> None:
    """A socket refuses, a callback that asked for SyncErrors is posted one; and the other way round."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, events=SYNC, subscriber__name="Worklist")
        async with hub.follow(await hub.subscribe(SYNC, subscriber__name="Viewer")) as follower:
            await publish(hub, 1)
            told = await follower.next()
            await follower.connection.send(json.dumps({"id": told["id"], "status": 409}))
            _, post = await server.posted(2)
            issue = json.loads(post.body)["event"]["context"][0]["resource"]["issue"][0]
            assert issue["diagnostics"].startswith("Viewer refused to follow Patient-open")
            server.say("POST", "/callback", Answer(409))
            await publish(hub, 1, 2)
            assert (await follower.next())["event"]["hub.event"] == "Patient-open"
            assert (await sync_error(follower))[0].startswith("Worklist refused")


@pytest.mark.req("SYN-10", "SYN-11")
async def test_nobody_is_told_of_a_refused_sync_error() -> None:
    """A failed post of a SyncError is no missed acknowledgement: only reportable events end a subscription."""
    async with hub_and_callbacks(ack_timeout=1, ack_strikes=1) as (hub, server):
        await subscribe(hub, server, events="SyncError", subscriber__name="Worklist")
        server.say("POST", "/callback", Answer(500))
        async with hub.follow(await hub.subscribe(SYNC)) as follower:
            await hub.publish(event("SyncError", "x"))
            assert await follower.names(1) == ["SyncError"]
            await server.posted(1)
            await quiet(hub)
            assert await follower.silent()
        assert active(hub)


@pytest.mark.req("SYN-13")
async def test_heartbeats_are_posted_to_who_wants_them() -> None:
    """As to sockets."""
    async with hub_and_callbacks(heartbeat_seconds=30) as (hub, server):
        await subscribe(hub, server, events="heartbeat,Patient-open")
        hub.clock.now += 31
        await hub.hub.service.tick()
        (post,) = await server.posted(1)
        assert json.loads(post.body)["event"]["hub.event"] == "heartbeat"
