"""What is there after kill -9 and a restart on the same SQLite file."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.process.hub_process import HubProcess, IssuerThread, Visitor, hub_process
from tests.running import Follower, event

EVENTS = "Patient-open,Patient-close,ImagingStudy-open,ImagingStudy-close"


class Before(NamedTuple):
    """What clients knew when the hub was killed; each topic is one test's own."""

    endpoints: dict[str, str]
    context: dict[str, Any]
    lease: int
    last: int


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory, issuer: IssuerThread) -> Iterator[tuple[HubProcess, Before]]:
    """A hub that was killed amid its work, and runs again."""
    folder = tmp_path_factory.mktemp("restart")
    with hub_process(folder, issuers=issuer.settings) as first:
        before = asyncio.run(_work(first, issuer))
    assert first.process.returncode == -signal.SIGKILL
    with hub_process(folder, port=first.port, issuers=issuer.settings) as second:
        yield second, before


async def _work(hub: HubProcess, issuer: IssuerThread) -> Before:
    async with Visitor(hub, issuer.idp) as visitor:
        endpoints = {
            topic: await visitor.subscribe(EVENTS, hub__topic=topic, hub__lease_seconds="3000")
            for topic in ("kept", "renewed", "ended", "closed", "closed at the end", "repeated")
        }
        for topic in endpoints:
            await visitor.publish(event("Patient-open", "p1", topic=topic))
        await visitor.publish(event("ImagingStudy-open", "s1", topic="kept"))
        await visitor.publish(event("Patient-open", "p2", topic="repeated"))
        context = (await visitor.context(topic="kept")).json()
        for topic in ("kept", "closed", "repeated"):
            async with visitor.follow(endpoints[topic]) as follower:
                await follower.next()
        await visitor.publish(event("Patient-close", "p1", topic="closed"))
        connection = await connect(endpoints["closed at the end"], proxy=None)
        lease = (await Follower(connection).next())["hub.lease_seconds"]
        last = await _stream(hub, visitor)
        connection.transport.abort()
        with suppress(ConnectionClosed):
            await connection.recv()
    return Before(endpoints, context, lease, last)


async def _stream(hub: HubProcess, visitor: Visitor) -> int:
    """Opens as fast as they go, and the kill amid them; the number of the last that was accepted."""
    accepted = 0
    with suppress(httpx.TransportError):
        for number in range(1, 100_000):
            answer = await visitor.publish(event("Patient-open", f"n{number}", topic="stream"))
            assert answer.status_code == 202
            accepted = number
            if number == 20:
                closing = event("Patient-close", "p1", topic="closed at the end")
                assert (await visitor.publish(closing)).status_code == 202
                asyncio.get_running_loop().call_later(0.1, hub.send, signal.SIGKILL)
    return accepted


Restarted = tuple[HubProcess, Before]


@pytest.mark.req("SUB-12", "GET-2", "CON-1")
async def test_the_context_is_what_it_was(restarted: Restarted, issuer: IssuerThread) -> None:
    """The current context, with the same versionId."""
    hub, before = restarted
    async with Visitor(hub, issuer.idp) as visitor:
        assert (await visitor.context(topic="kept")).json() == before.context
    assert before.context["context.type"] == "ImagingStudy"


@pytest.mark.req("EVT-1", "GET-6")
async def test_what_was_accepted_last_is_there(restarted: Restarted, issuer: IssuerThread) -> None:
    """Of a stream of opens that the kill cut off: the last that was answered with 202, or the one whose answer was lost."""
    hub, before = restarted
    assert before.last >= 20
    async with Visitor(hub, issuer.idp) as visitor:
        current = (await visitor.context(topic="stream")).json()["context"][0]["resource"]["id"]
    assert current in (f"n{before.last}", f"n{before.last + 1}")


@pytest.mark.req("SUB-12", "SUB-23", "LEA-1", "CTX-1")
async def test_the_client_comes_back_to_its_endpoint(restarted: Restarted, issuer: IssuerThread) -> None:
    """It is confirmed, with what is left of its lease, is told the current contexts, and follows again."""
    hub, before = restarted
    async with (
        Visitor(hub, issuer.idp) as visitor,
        connect(before.endpoints["kept"], proxy=None) as connection,
    ):
        follower = Follower(connection)
        confirmed = await follower.next()
        assert (confirmed["hub.topic"], confirmed["hub.events"]) == ("kept", EVENTS)
        assert before.lease - 600 <= confirmed["hub.lease_seconds"] <= before.lease  # a slow machine takes its time
        told = [await follower.next(), await follower.next()]
        assert [message["id"] for message in told] == ["Patient-open-p1", "ImagingStudy-open-s1"]
        assert told[1]["event"]["context.versionId"] == before.context["context.versionId"]
        await visitor.publish(event("ImagingStudy-close", "s1", topic="kept"))
        assert await follower.names(1) == ["ImagingStudy-close"]


@pytest.mark.req("SUB-12")
@pytest.mark.parametrize("topic", ["closed", "closed at the end"])
async def test_a_close_is_told_to_who_may_have_missed_it(
    restarted: Restarted, issuer: IssuerThread, topic: str
) -> None:
    """One while the client had no socket, and one just before the kill, to a client whose socket died with the hub."""
    hub, before = restarted
    async with Visitor(hub, issuer.idp) as visitor, visitor.follow(before.endpoints[topic]) as follower:
        assert (await follower.next())["id"] == "Patient-close-p1"
        assert await follower.silent()


@pytest.mark.req("SUB-20", "LEA-3")
async def test_a_renewal_after_the_restart(restarted: Restarted, issuer: IssuerThread) -> None:
    """With and without a socket: the same endpoint, the new events, a new confirmation."""
    hub, before = restarted
    endpoint = before.endpoints["renewed"]
    renewal = {"hub__topic": "renewed", "hub__channel.endpoint": endpoint}
    async with Visitor(hub, issuer.idp) as visitor:
        assert await visitor.subscribe("Patient-close", **renewal) == endpoint
        async with visitor.follow(endpoint) as follower:
            assert await visitor.subscribe("Patient-open", **renewal) == endpoint
            assert (await follower.next())["hub.events"] == "Patient-open"
            assert (await follower.next())["id"] == "Patient-open-p1"


@pytest.mark.req("UNS-6")
async def test_unsubscribing_after_the_restart(restarted: Restarted, issuer: IssuerThread) -> None:
    """The endpoint, known by its digest only, can be ended."""
    hub, before = restarted
    endpoint = before.endpoints["ended"]
    async with Visitor(hub, issuer.idp) as visitor:
        asked = {"hub__topic": "ended", "hub__mode": "unsubscribe", "hub__channel.endpoint": endpoint}
        assert (await visitor.form(**asked)).json() == {"hub.channel.endpoint": endpoint}
        assert (await visitor.form(**asked)).status_code == 404


@pytest.mark.req("EVT-17", "EVT-31")
async def test_a_repeat_is_recognized_after_the_restart(restarted: Restarted, issuer: IssuerThread) -> None:
    """The newest open is told again with its versionId; the one before it is answered with 202 and changes nothing."""
    hub, before = restarted
    async with (
        Visitor(hub, issuer.idp) as visitor,
        visitor.follow(before.endpoints["repeated"]) as follower,
    ):
        newest = await follower.next()
        assert newest["id"] == "Patient-open-p2"
        assert (await visitor.publish(event("Patient-open", "p1", topic="repeated"))).status_code == 202
        assert await follower.silent()
        assert (await visitor.publish(event("Patient-open", "p2", topic="repeated"))).status_code == 202
        assert await follower.next() == newest
        context = (await visitor.context(topic="repeated")).json()
        assert context["context.versionId"] == newest["event"]["context.versionId"]


@pytest.mark.req("AUT-9", "SUB-12")
async def test_a_session_still_has_its_owner(restarted: Restarted, issuer: IssuerThread) -> None:
    """Another user is refused as before."""
    hub, _ = restarted
    async with Visitor(hub, issuer.idp) as visitor:
        assert (await visitor.context(visitor.token("user-2"), topic="kept")).status_code == 403
