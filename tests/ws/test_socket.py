"""A connection is accepted for a live endpoint, taken over, and ended with its subscription."""

from __future__ import annotations

import asyncio
import re

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fhircast_hub.budgets.table import HANDSHAKES
from fhircast_hub.ws.socket import HubSocket
from tests.counted import alive, counted
from tests.running import TOPIC, Follower, event, running_hub, until


async def refused(endpoint: str) -> int:
    """The status with which the handshake is refused."""
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(endpoint, proxy=None):
            pass
    return refusal.value.response.status_code


@pytest.mark.req("SUB-3")
async def test_the_confirmation_is_the_first_frame() -> None:
    """The first frame has exactly four members: the grant, and the remaining lease in whole seconds."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe("patient-OPEN, Patient-close,", hub__lease_seconds="120")
        hub.clock.now += 10.25
        async with connect(endpoint, proxy=None) as connection:
            assert await Follower(connection).next() == {
                "hub.mode": "subscribe",
                "hub.topic": TOPIC,
                "hub.events": "patient-OPEN,Patient-close",
                "hub.lease_seconds": 109,
            }


@pytest.mark.req("SUB-1", "SUB-2")
async def test_the_endpoint_is_random_and_tells_nothing() -> None:
    """Scheme and host come from the public URL, the last segment is random, and the topic is nowhere in it."""
    async with running_hub() as hub:
        answer = await hub.client.post(
            hub.url,
            data={
                "hub.channel.type": "websocket",
                "hub.mode": "subscribe",
                "hub.topic": "secret-topic",
                "hub.events": "Patient-open",
            },
            headers=hub.headers(
                Host="evil.example", **{"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
            ),
        )
        endpoints = {answer.json()["hub.channel.endpoint"], await hub.subscribe(), await hub.subscribe()}
        assert len(endpoints) == 3
        for endpoint in endpoints:
            found = re.fullmatch(rf"ws://127\.0\.0\.1:{hub.port}/api/hub/ws/([A-Za-z0-9_-]+)", endpoint)
            assert found
            assert len(found[1]) * 6 >= 128
            assert "secret" not in endpoint


@pytest.mark.req("SUB-11")
@pytest.mark.parametrize("path", ["ws/made-up", "ws/", "ws", "", "ws/a/b", "ws/" + "x" * 5000, "ws/%ff%00"])
async def test_a_made_up_endpoint_is_refused_in_the_handshake(path: str) -> None:
    """An unknown path gets 404 instead of 101."""
    async with running_hub() as hub:
        assert await refused(f"ws://127.0.0.1:{hub.port}/api/hub/{path}") == 404


@pytest.mark.req("SUB-11", "UNS-6")
async def test_an_ended_endpoint_is_refused() -> None:
    """After unsubscribing: a denial, close 1000, and the endpoint is dead for good."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        async with hub.follow(endpoint) as follower:
            answer = await hub.form(hub__mode="unsubscribe", **{"hub__channel.endpoint": endpoint})
            assert (answer.status_code, answer.json()) == (202, {"hub.channel.endpoint": endpoint})
            denial = await follower.next()
            assert denial["hub.mode"] == "denied"
            assert denial["hub.topic"] == TOPIC
            assert denial["hub.events"] == "Patient-open,Patient-close"
            assert await follower.closed() == 1000
        assert await refused(endpoint) == 404


@pytest.mark.req("SUB-11", "SUB-33")
async def test_a_second_socket_takes_over() -> None:
    """The first socket is closed with 1008; an event before goes to the first, one after to the second, each once."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        async with hub.follow(endpoint) as first:
            await hub.publish(event("Patient-open", "p1"))
            assert await first.names(1) == ["Patient-open"]
            async with hub.follow(endpoint) as second:
                assert (await second.next())["id"] == "Patient-open-p1"  # the current context
                assert await first.closed() == 1008
                await hub.publish(event("Patient-close", "p1"))
                assert await second.names(1) == ["Patient-close"]
                assert await second.silent()


@pytest.mark.req("SUB-11")
async def test_a_query_string_on_the_endpoint_is_ignored() -> None:
    """Some browsers' clients append one."""
    async with running_hub() as hub, hub.follow(await hub.subscribe() + "?access_token=x") as follower:
        await hub.publish(event("Patient-open"))
        assert await follower.names(1) == ["Patient-open"]


@pytest.mark.req("SUB-12")
async def test_coming_back_to_the_same_endpoint() -> None:
    """The confirmation, the missed close, then the current context."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        async with hub.follow(endpoint) as follower:
            await hub.publish(event("Patient-open", "p1"))
            await follower.next()
        hub.clock.now += 5
        await hub.publish(event("Patient-close", "p1"))
        await hub.publish(event("Patient-open", "p2"))
        async with hub.follow(endpoint) as follower:
            assert [(await follower.next())["id"] for _ in range(2)] == ["Patient-close-p1", "Patient-open-p2"]
            assert await follower.silent()


@pytest.mark.req("CTX-5", "EVT-14")
async def test_no_gap_and_no_double_between_replay_and_live() -> None:
    """Joiners in the midst of a stream of opens see a gapless run of it that begins with the current one."""
    async with running_hub() as hub:
        joined: list[list[str]] = []

        async def join() -> None:
            async with hub.follow(await hub.subscribe("Patient-open")) as follower:
                seen = [(await follower.next())["id"]]
                while seen[-1] != "last":
                    seen.append((await follower.next())["id"])
                joined.append(seen)

        await hub.publish(event("Patient-open", "p0", event_id="0"))
        joiners = []
        for number in range(1, 60):
            if number % 10 == 0:
                joiners.append(asyncio.create_task(join()))
            await hub.publish(event("Patient-open", f"p{number}", event_id=str(number)))
        await until(lambda: len(hub.hub.registry) == len(joiners))
        await hub.publish(event("Patient-open", "p-last", event_id="last"))
        await asyncio.gather(*joiners)
        order = [str(number) for number in range(60)] + ["last"]
        assert len(joined) == 5
        for seen in joined:
            assert seen == order[order.index(seen[0]) :]


@pytest.mark.req("LEA-4")
async def test_the_lease_ends() -> None:
    """At its end: a denial with a reason, close 1000, and the endpoint is dead."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe(hub__lease_seconds="30")
        async with hub.follow(endpoint) as follower:
            hub.clock.now += 31
            await hub.hub.service.tick()
            denial = await follower.next()
            assert denial["hub.mode"] == "denied"
            assert denial["hub.reason"]
            assert await follower.closed() == 1000
        assert await refused(endpoint) == 404


@pytest.mark.req("LEA-4")
async def test_the_hub_itself_notices_the_end_of_a_lease() -> None:
    """The subscription sets the timer. No other request is needed."""
    async with running_hub() as hub, hub.follow(await hub.subscribe(hub__lease_seconds="1")) as follower:
        hub.clock.now += 2
        assert (await follower.next())["hub.mode"] == "denied"


@pytest.mark.req("SUB-14")
async def test_an_endpoint_that_nobody_connects_to_is_gone() -> None:
    """After CONNECT_TIMEOUT the handshake is refused."""
    async with running_hub(connect_timeout=60) as hub:
        endpoint = await hub.subscribe()
        hub.clock.now += 61
        await hub.hub.service.tick()
        assert await refused(endpoint) == 404


@pytest.mark.req("SUB-20", "SUB-31")
async def test_renewal_keeps_the_socket() -> None:
    """A renewal returns the same endpoint, confirms on the socket, and sends opens of its new names."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe("Patient-close")
        await hub.publish(event("Patient-open", "p1"))
        async with hub.follow(endpoint) as follower:
            answer = await hub.form(hub__events="Patient-open", **{"hub__channel.endpoint": endpoint})
            assert answer.json() == {"hub.channel.endpoint": endpoint}
            assert (await follower.next())["hub.events"] == "Patient-open"
            assert (await follower.next())["id"] == "Patient-open-p1"


@pytest.mark.req("SYN-14")
async def test_a_slow_reader_is_cut_off_and_delays_nobody() -> None:
    """A socket that does not read gets 1013, or is cut. A prompt reader gets every event."""
    async with running_hub(queue_bytes=100_000, queue_messages=20) as hub:
        slow_endpoint = await hub.subscribe("Patient-open")
        async with (
            hub.follow(await hub.subscribe("Patient-open")) as prompt,
            connect(slow_endpoint, proxy=None, max_queue=1) as slow,
        ):
            slow.transport.pause_reading()
            padding = [{"key": "extension", "data": "x" * 200_000}]
            for number in range(80):
                await hub.publish(event("Patient-open", f"p{number}", also=padding))
                assert (await prompt.next())["id"] == f"Patient-open-p{number}"
                if counted(hub.hub.metrics.slow_readers_closed):
                    break
            assert counted(hub.hub.metrics.slow_readers_closed) == 1
            slow.transport.abort()


@pytest.mark.req("SUB-23")
async def test_a_subscription_whose_socket_went_keeps_its_endpoint() -> None:
    """A lost subscriber is sent nothing, and may return until the lease ends."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        async with hub.follow(endpoint) as follower:
            follower.connection.transport.abort()
        await until(lambda: not len(hub.hub.registry))
        await hub.publish(event("Patient-open", "p1"))
        async with hub.follow(endpoint) as follower:
            assert (await follower.next())["id"] == "Patient-open-p1"


@pytest.mark.req("SUB-11", "SYN-32")
async def test_handshakes_have_a_limit() -> None:
    """The limit is of one endpoint. The answer has a time to wait."""
    async with running_hub() as hub:
        endpoint, other = await hub.subscribe(), await hub.subscribe()
        for _ in range(int(HANDSHAKES.most)):
            async with hub.follow(endpoint):
                pass
        with pytest.raises(InvalidStatus) as refusal:
            async with connect(endpoint, proxy=None):
                pass
        answer = refusal.value.response
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        async with hub.follow(other):
            pass
        hub.clock.now += 1
        async with hub.follow(endpoint):
            pass


async def test_an_idle_socket_is_small() -> None:
    """No dictionary of attributes, and nothing of the handshake. A hub may have ten thousand sockets."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()):
        (socket,) = (each for each in alive(HubSocket) if each._services is hub.hub.sockets)
        assert not hasattr(socket, "__dict__")
        await until(lambda: socket._task is None)
        assert socket._headers == ()
