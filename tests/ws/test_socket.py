"""One socket's life on the wire: handshake, confirmation, frames, pings, take-over, coming back, and the end."""

from __future__ import annotations

import asyncio
import re
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fhircast_hub.budgets.accounts import Account
from fhircast_hub.budgets.table import FRAMES_A_TURN, HANDSHAKES, QUEUED
from fhircast_hub.ws import outbox
from fhircast_hub.ws.socket import HubSocket
from tests.running import TOPIC, Follower, RunningHub, event, running_hub, until


async def refused(endpoint: str) -> int:
    """The status with which the handshake is refused."""
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(endpoint, proxy=None):
            pass
    return refusal.value.response.status_code


@pytest.mark.req("SUB-3")
async def test_the_confirmation_is_the_first_frame() -> None:
    """The first frame has exactly the four members, what was granted, and the lease in whole seconds remaining."""
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
    """Confirmation, the close that was missed, then the current context."""
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
    """The timer is armed by the subscription: nobody else has to ask."""
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
    """A renewal answers with the same endpoint, confirms on the socket, and tells what its new names add."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe("Patient-close")
        await hub.publish(event("Patient-open", "p1"))
        async with hub.follow(endpoint) as follower:
            answer = await hub.form(hub__events="Patient-open", **{"hub__channel.endpoint": endpoint})
            assert answer.json() == {"hub.channel.endpoint": endpoint}
            assert (await follower.next())["hub.events"] == "Patient-open"
            assert (await follower.next())["id"] == "Patient-open-p1"


@pytest.mark.req("SYN-15", "SYN-28")
@pytest.mark.parametrize(
    "frame",
    [
        "",
        "not json",
        '{"id":"unknown","status":200}',
        '{"hub.channel.endpoint":"wss://x"}',
        b"\x00\xff",
        "x" * 60_000,
        "y" * 200,
    ],
)
async def test_odd_frames_are_ignored_and_their_sender_kept(frame: Any) -> None:
    """Whatever a client says short of 64 KiB, it goes on being told."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        await follower.connection.send(frame)
        await follower.connection.send(iter(["in ", "three ", "pieces"]))
        await hub.publish(event("Patient-open"))
        assert await follower.names(1) == ["Patient-open"]


async def test_frames_that_come_byte_by_byte() -> None:
    """Frame boundaries and packets have nothing to do with each other."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        path = endpoint.partition(str(hub.port))[2]
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        masked = (
            b"\x81\x85\x00\x00\x00\x00hello"
            + b"\x81\xfe\x00\x80\x00\x00\x00\x00"
            + b"x" * 128
            + b"\x89\x82\x00\x00\x00\x00hi"
        )
        for byte in masked:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert b"\x8a\x02hi" in await asyncio.wait_for(reader.readuntil(b"\x8a\x02hi"), 5)
        writer.close()


@pytest.mark.req("SYN-15", "SYN-29")
async def test_a_frame_over_64_kib_closes_with_1009() -> None:
    """An acknowledgement takes a hundred bytes; whoever sends more is refused before it is all here."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        await follower.connection.send("x" * 70_000)
        assert await follower.closed() == 1009


@pytest.mark.parametrize("first", [b"\x01", b"\xf1", b"\x83"])
async def test_a_broken_frame_closes_with_1002(first: bytes) -> None:
    """Reserved bits, reserved opcodes and unmasked frames are protocol errors."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        follower.connection.transport.write(first + b"\x05hello")
        assert await follower.closed() == 1002


@pytest.mark.req("SYN-14")
async def test_a_slow_reader_is_cut_off_and_delays_nobody() -> None:
    """Who does not read gets 1013 or is cut once its queue is full; a prompt reader beside it gets every event meanwhile."""
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
                if hub.hub.metrics.slow_readers_closed:
                    break
            assert hub.hub.metrics.slow_readers_closed == 1
            slow.transport.abort()


@pytest.mark.req("SYN-13", "SYN-34")
async def test_a_peer_that_does_not_answer_pings_is_cut_off() -> None:
    """A socket whose peer is gone without a word is noticed by its pings."""
    async with running_hub() as hub:
        hub.hub.sockets.ping_seconds = 0.05
        async with hub.follow(await hub.subscribe()) as follower:
            follower.connection.transport.pause_reading()
            await until(lambda: not len(hub.hub.registry))
            follower.connection.transport.abort()
        assert hub.hub.metrics.pings_unanswered == 1


@pytest.mark.req("SYN-13", "SYN-34")
async def test_a_peer_that_answers_pings_stays() -> None:
    """Three pings later the socket is still there."""
    async with running_hub() as hub:
        hub.hub.sockets.ping_seconds = 0.05
        endpoint = await hub.subscribe()
        async with hub.follow(endpoint) as follower:
            (connection,) = hub.hub.registry._connections.values()
            await until(lambda: connection._pings._number >= 3)  # type: ignore[attr-defined]
            await hub.publish(event("Patient-open"))
            assert await follower.names(1) == ["Patient-open"]


@pytest.mark.req("SUB-23")
async def test_a_subscription_whose_socket_went_keeps_its_endpoint() -> None:
    """Whoever lost its socket is sent nothing, and may come back until the lease ends."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        async with hub.follow(endpoint) as follower:
            follower.connection.transport.abort()
        await until(lambda: not len(hub.hub.registry))
        await hub.publish(event("Patient-open", "p1"))
        async with hub.follow(endpoint) as follower:
            assert (await follower.next())["id"] == "Patient-open-p1"


async def test_compression_is_not_negotiated() -> None:
    """A client that offers permessage-deflate is not given it: what is written to all sockets is written once."""
    async with running_hub() as hub, connect(await hub.subscribe(), proxy=None, compression="deflate") as connection:
        assert connection.response is not None
        assert "Sec-WebSocket-Extensions" not in connection.response.headers


async def test_an_event_of_a_megabyte_is_delivered_whole() -> None:
    """Frames of all three lengths arrive as they were sent."""
    async with running_hub() as hub, hub.follow(await hub.subscribe("Patient-open"), max_size=2**21) as follower:
        for size in (1, 200, 70_000, 900_000):
            message = event(
                "Patient-open", "p", also=[{"key": "extension", "data": "ø" * (size // 2)}], event_id=str(size)
            )
            assert (await hub.publish(message)).status_code == 202
            assert (await follower.next())["event"]["context"] == message["event"]["context"]


async def test_a_large_frame_in_two_pieces_leaves_the_next_one_whole() -> None:
    """65,530 bytes are within 64 KiB, however they come; the ping behind them is answered."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        frame = b"\x82\xff" + (65_530).to_bytes(8) + bytes(4) + bytes(65_530)
        follower.connection.transport.write(frame[:30_000])
        await asyncio.sleep(0.05)  # another packet
        follower.connection.transport.write(frame[30_000:])
        await asyncio.wait_for(await follower.connection.ping(), 5)


async def test_a_flood_of_pings_ends_its_socket_only() -> None:
    """Forty thousand pings in one write would keep everybody else waiting."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as other:
        async with hub.follow(await hub.subscribe()) as follower:
            follower.connection.transport.write(b"\x89\x80\x00\x00\x00\x00" * 40_000)
            assert await follower.closed() == 1008
        await hub.publish(event("Patient-open"))
        assert await other.names(1) == ["Patient-open"]


class Stuck:
    """A transport whose peer reads when the test says so."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.held_back = 0
        self.aborted = False

    def get_extra_info(self, name: str) -> None: ...

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return self.held_back

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


@asynccontextmanager
async def stuck_socket(**settings: Any) -> AsyncIterator[tuple[RunningHub, HubSocket, Stuck]]:
    """A subscriber's socket over such a transport, its handshake answered."""
    async with running_hub(**settings) as hub:
        for number in range(3):
            await hub.publish(event(f"{'ABC'[number]}-open", "1", also=[{"key": "extension", "data": "x" * 1000}]))
        endpoint = await hub.subscribe("A-open,B-open,C-open,Patient-open")
        transport, socket = Stuck(), HubSocket(hub.hub.sockets, set())
        socket.connection_made(transport)  # type: ignore[arg-type]
        path = endpoint.partition(str(hub.port))[2]
        socket.data_received(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        socket.pause_writing()  # from its first byte on, the peer does not read
        await until(lambda: bool(transport.written))
        yield hub, socket, transport
        socket.connection_lost(None)


@pytest.mark.req("SYN-14")
async def test_a_replay_longer_than_the_queue_is_no_slow_reader() -> None:
    """What a joiner is told at once is as long as it is; only what comes on top of it is bounded."""
    async with stuck_socket(queue_bytes=1500, queue_messages=2) as (hub, socket, _):
        assert socket.queued[0] == 4
        await hub.publish(event("Patient-open"))
        assert socket.queued[0] == 5
        for number in range(3):
            await hub.publish(event("Patient-open", f"p{number}"))
        assert socket.queued == (0, 0)
        assert hub.hub.metrics.slow_readers_closed == 1


@pytest.mark.req("SYN-13")
async def test_a_ping_that_could_not_be_sent_is_not_missed() -> None:
    """A peer that reads slowly is not cut off for a ping it never got; one that reads nothing at all is."""
    async with stuck_socket() as (hub, socket, transport):
        transport.held_back = 1000
        socket._send_ping()
        transport.held_back = 900
        socket._send_ping()
        aborted = [transport.aborted]
        socket._send_ping()
        aborted.append(transport.aborted)
        assert aborted == [False, True]
        assert hub.hub.metrics.pings_unanswered == 1


async def test_a_socket_that_is_taken_over_keeps_nothing() -> None:
    """What waited for it is told to the newcomer, and must not stay in memory until its peer is given up."""
    async with stuck_socket() as (_, socket, _):
        assert socket.queued[0] == 4
        socket.close(1008, "taken over")
        assert socket.queued == (0, 0)


@pytest.mark.req("SYN-15")
async def test_a_message_in_empty_frames_without_end_takes_no_memory() -> None:
    """Slow enough they are no flood, and the message that they make is as long as it was."""
    async with stuck_socket() as (hub, socket, transport):
        socket.data_received(b"\x01\x80\x00\x00\x00\x00")
        tracemalloc.start()
        for second in range(400):
            socket._allowance.others.use(-1000, second)  # a long time passes
            socket.data_received(b"\x00\x80\x00\x00\x00\x00" * 10)
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        socket.data_received(b"\x80\x80\x00\x00\x00\x00")
        assert (transport.aborted, hub.hub.metrics.frames_ignored) == (False, 1)
        assert grown < 30_000


@pytest.mark.req("SYN-17")
async def test_as_many_acknowledgements_as_events_are_no_flood() -> None:
    """A client that was busy answers everything in one write, late or not; other sockets are read in between."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        for number in range(100):
            await hub.publish(event("Patient-open", event_id=str(number)))
            await follower.next()
        hub.clock.now += 60  # nobody waits for these any more
        hub.hub.ack_timer.check()
        frame = b"\x81\xfe\x01\x2c" + bytes(4) + b"x" * 300
        follower.connection.transport.write(frame * 101)
        await asyncio.wait_for(await follower.connection.ping(), 5)
        assert hub.hub.metrics.frames_ignored == 101


@pytest.mark.req("SYN-17")
async def test_acknowledging_more_than_was_sent_ends_the_socket() -> None:
    """One event can be acknowledged once; a repeated acknowledgement is a frame like any other."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        await hub.publish(event("Patient-open"))
        await follower.next()
        text = b'{"id":"Patient-open-1","status":200}'
        follower.connection.transport.write((b"\x81" + bytes((0x80 | len(text),)) + bytes(4) + text) * 1000)
        assert await follower.closed() == 1008
        assert hub.hub.metrics.acknowledgements < 100


@pytest.mark.req("SYN-17", "SYN-30")
async def test_long_frames_weigh_more() -> None:
    """Frames of 64 KiB that acknowledge nothing are few a second."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        follower.connection.transport.write((b"\x81\xfe\xff\xff" + bytes(4) + b"x" * 65535) * 20)
        assert await follower.closed() == 1008
        assert hub.hub.metrics.frames_ignored < 8


@pytest.mark.req("SYN-17")
async def test_frames_of_one_read_are_shared_out_over_turns() -> None:
    """A read with many frames is left after a few of them, and read on in the next turn."""
    async with stuck_socket() as (hub, socket, _):
        socket._allowance.credit = 100
        socket.data_received(b"\x81\x82\x00\x00\x00\x00{}" * 100)
        heard = [hub.hub.metrics.frames_ignored]
        await asyncio.sleep(0)
        heard.append(hub.hub.metrics.frames_ignored)
        await until(lambda: hub.hub.metrics.frames_ignored == 100)
        assert heard[0] == FRAMES_A_TURN.most < heard[1] < 100


@pytest.mark.req("SYN-17", "SYN-33")
async def test_a_text_that_is_no_utf8_closes_with_1007() -> None:
    """In whatever framing; an acknowledgement in it counts before."""
    text = b'{"id":"Patient-open-1","status":200,"reason":"\xff"}'
    whole = b"\x81" + bytes((0x80 | len(text),)) + bytes(4) + text
    parts = b"\x01\x8a" + bytes(4) + text[:10] + b"\x80" + bytes((0x80 | (len(text) - 10),)) + bytes(4) + text[10:]
    async with running_hub() as hub:
        for count, frames in enumerate((whole, parts), 1):
            async with hub.follow(await hub.subscribe()) as follower:
                await hub.publish(event("Patient-open"))
                follower.connection.transport.write(frames)
                assert await follower.closed() == 1007
                assert hub.hub.metrics.acknowledgements == count


@pytest.mark.req("SUB-11", "SYN-32")
async def test_handshakes_have_a_limit() -> None:
    """Of one endpoint; the answer says when to come again."""
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


@pytest.mark.req("SYN-14")
async def test_all_sockets_of_a_user_share_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each within its own queue, together too much: the one that goes beyond it is closed."""
    monkeypatch.setattr(outbox, "QUEUED", QUEUED._replace(most=10_000))
    account = Account(lambda: 0.0)
    boxes = [outbox.Outbox((256, 1 << 20)) for _ in range(3)]
    for box in boxes:
        box.opened(account)
        box.put(bytes(2000), None)
        box.put(bytes(1500), None)
    assert [box.over for box in boxes] == [True, True, True]
    boxes[0].clear()
    assert account.queued == 7000
    assert not boxes[1].over
    boxes[1].take()
    assert account.queued == 5000
