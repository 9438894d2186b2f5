"""Acknowledgements, silence, and lost connections on the wire, and what others are told of them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fhircast_hub.core.state.session import Subscription
from tests.running import Clock, Follower, RunningHub, event, running_hub, until
from tests.tokens import Idp

MASK = b"\x5a\x01\xff\x80"


class Error(NamedTuple):
    """What a SyncError says: id and name of the event, and whom it is about."""

    id: str
    name: str
    who: str


async def error(monitor: Follower) -> Error:
    """The next message, which is a SyncError."""
    told = (await monitor.next())["event"]
    assert told["hub.event"] == "SyncError"
    id_, name, who, _ = (each["code"] for each in told["context"][0]["resource"]["issue"][0]["details"]["coding"])
    return Error(id_, name, who)


@asynccontextmanager
async def watched_hub(**settings: Any) -> AsyncIterator[tuple[RunningHub, Follower]]:
    """A hub, and somebody who is told of SyncErrors only."""
    async with running_hub(**settings) as hub, hub.follow(await hub.subscribe("SyncError")) as monitor:
        yield hub, monitor


@asynccontextmanager
async def viewer(hub: RunningHub, name: str = "Viewer", events: str = "Patient-open") -> AsyncIterator[Follower]:
    """A subscriber of this name."""
    async with hub.follow(await hub.subscribe(events, subscriber__name=name)) as follower:
        yield follower


def subscriptions(hub: RunningHub) -> dict[str, Subscription]:
    """What the hub knows of each subscription, by name."""
    owned = hub.hub.service.usage._subscriptions.values()
    return {subscription.name: subscription for each in owned for subscription in each.values()}


async def gone(hub: RunningHub, name: str = "Viewer") -> float:
    """Until the hub has noted that this one has no socket; by when it must be back (0: it is not waited for)."""
    await until(lambda: not subscriptions(hub)[name].connection)
    return subscriptions(hub)[name].reconnect_deadline


async def passes(hub: RunningHub, seconds: float) -> None:
    """Time passes, and the hub does what was due by then."""
    hub.clock.now += seconds
    hub.hub.ack_timer.check()
    await asyncio.gather(*hub.hub.service._tasks)
    await hub.hub.service.tick()


async def answered(hub: RunningHub, follower: Follower, said: object) -> None:
    """A client says this, and the hub has heard it."""
    await follower.connection.send(said if isinstance(said, (str, bytes)) else json.dumps(said))
    await asyncio.wait_for(await follower.connection.ping(), 5)
    await asyncio.gather(*hub.hub.service._tasks)


async def refused(endpoint: str) -> bool:
    """Whether the handshake is refused with 404."""
    try:
        async with connect(endpoint, proxy=None):
            return False
    except InvalidStatus as refusal:
        return refusal.response.status_code == 404


def masked(payload: bytes, *, first: int = 0x81, size: int = 0, mask: bytes = MASK) -> bytes:
    """A client's frame, its length in this many bytes behind the usual one."""
    length = (
        bytes((0x80 | len(payload),))
        if not size
        else bytes((0xFE if size == 2 else 0xFF,)) + len(payload).to_bytes(size)
    )
    return bytes((first,)) + length + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


@pytest.mark.req("SYN-1", "SYN-2", "SYN-3", "SYN-15")
async def test_answers_of_every_shape() -> None:
    """What clients send is heard; of the refusals all but the refuser are told, once each, and the numbers are right."""
    shapes = [(json.dumps(status), refuses) for status, refuses in (
        (200, False), ("200", False), ("200 OK", False), (202, False), (None, False), (True, False), ([409], False),
        (409, True), ("409", True), ("409 Conflict", True), (500, True), (400.0, True), (99, False), (600, False), (4090, False),
    )]  # fmt: skip
    async with watched_hub() as (hub, monitor), viewer(hub, events="Patient-open,SyncError") as follower:
        expected = []
        for number, (status, refuses) in enumerate(shapes):
            await hub.publish(event("Patient-open", f"p{number}"))
            id_ = (await follower.next())["id"]
            await answered(hub, follower, f'{{"id": "{id_}", "status": {status}}}')
            expected += [Error(id_, "Patient-open", "Viewer")] if refuses else []
        await hub.publish(event("Patient-open", "last"))
        for said in ({"id": "Patient-open-last"}, {"id": "Patient-open-last", "timestamp": "2026-11-22T10:00:00Z"}):
            await answered(hub, follower, said)
        assert [await error(monitor) for _ in expected] == expected
        assert await monitor.silent()
        assert [await follower.names(1), await follower.silent()] == [["Patient-open"], True]
        metrics = hub.hub.metrics
        assert (metrics.acknowledgements, metrics.refusals, metrics.frames_ignored) == (17, 5, 0)


@pytest.mark.req("SYN-1")
async def test_the_specifications_answer_is_heard() -> None:
    """To the specification's event."""
    async with watched_hub() as (hub, _), viewer(hub) as follower:
        await hub.publish(event("Patient-open", event_id="q9v3jubddqt63n1"))
        await follower.next()
        await answered(hub, follower, '{\n  "id": "q9v3jubddqt63n1",\n  "status": "200"\n}\n')
        assert subscriptions(hub)["Viewer"].acknowledges


@pytest.mark.req("SYN-15")
async def test_an_answer_in_any_framing() -> None:
    """With every form of length and any mask, in pieces with a ping in between, and cut into packets anywhere."""
    async with watched_hub() as (hub, monitor), viewer(hub) as follower:
        write = follower.connection.transport.write

        def says(number: int, padding: int = 0) -> bytes:
            return json.dumps({"id": f"Patient-open-p{number}", "status": 409}).encode() + b" " * padding

        whole, numbers = says(5), count()
        writes = [
            [masked(says(0))],
            [masked(says(1), mask=bytes(4))],
            [masked(says(2, 200), size=2)],
            [masked(says(3, 4000), size=2)],
            [masked(says(4), size=8)],
            [masked(whole[:9], first=1), masked(b"hi", first=0x89), masked(whole[9:20], first=0), masked(whole[20:], first=0x80)],
            [masked(says(6, 200), size=2)[:5], masked(says(6, 200), size=2)[5:]],
            [masked(b"odd") + masked(says(7)) + masked(b"\x00", first=0x82) + masked(says(8)), b""],
        ]  # fmt: skip
        for number in range(9):
            await hub.publish(event("Patient-open", f"p{number}"))
            await follower.next()
        for pieces in writes:
            for piece in pieces:
                write(piece)
                await asyncio.wait_for(await monitor.connection.ping(), 5)  # the next one comes by itself
        for _ in range(9):
            assert (await error(monitor)).id == f"Patient-open-p{next(numbers)}"
        assert await monitor.silent()
        assert (hub.hub.metrics.acknowledgements, hub.hub.metrics.frames_ignored) == (9, 2)


@pytest.mark.req("SYN-15")
async def test_odd_frames_are_counted_and_not_logged() -> None:
    """Whoever sends them is kept, and is told on."""
    odd = [
        *("", "not json", "[]", "{}", '{"status":409}', '{"id":1,"status":409}', '{"id":"unknown","status":409}'),
        *('{"hub.channel.endpoint":"wss://x"}', "x" * 60_000, '{"id":"unknown","status":409}' + " " * 5000),
        *(b"\x00\xff", b'{"id":"Patient-open-1","status":409}'),
    ]
    async with watched_hub() as (hub, monitor):
        with capture_logs() as lines:
            async with viewer(hub) as follower:
                await hub.publish(event("Patient-open"))
                await follower.next()
                before = len(lines)
                for said in odd:
                    await answered(hub, follower, said)
                await follower.connection.send(iter(["in ", "three ", "pieces"]))
                await follower.connection.send(iter([b'{"id":"Patient-open-1",', b'"status":409}']))
                await follower.connection.ping()
                await answered(hub, follower, "")
                assert hub.hub.metrics.frames_ignored == len(odd) + 3
                assert len(lines) == before
                await hub.publish(event("Patient-open", "p2"))
                assert (await follower.next())["id"] == "Patient-open-p2"
            await gone(hub)
        assert [line["event"] for line in lines][before:] == ["request", "socket closed"]
        assert hub.hub.metrics.acknowledgements == 0
        assert await monitor.silent()


@pytest.mark.req("SYN-4", "SYN-6")
async def test_silence_is_reported() -> None:
    """Of who has acknowledged before, after ACK_TIMEOUT; who never did is left alone."""
    async with watched_hub() as (hub, monitor), viewer(hub) as follower, viewer(hub, "Mute") as mute:
        for number in range(2):
            await hub.publish(event("Patient-open", f"p{number}"))
            await asyncio.gather(follower.next(), mute.next())
            if not number:
                await answered(hub, follower, {"id": "Patient-open-p0", "status": "200"})
        await passes(hub, 9.9)
        assert await monitor.silent()
        await passes(hub, 0.1)
        assert await error(monitor) == Error("Patient-open-p1", "Patient-open", "Viewer")
        await passes(hub, 99)
        assert await monitor.silent()
        assert hub.hub.metrics.unanswered == 1


@pytest.mark.req("SYN-4")
async def test_the_hub_itself_notices_silence() -> None:
    """By its own timer, with no other event and nobody asking; also what was sent while it waited."""
    async with (
        watched_hub(ack_timeout=1, ack_policy="strict", ack_strikes=9) as (hub, monitor),
        viewer(hub) as follower,
    ):
        for number in range(2):
            await hub.publish(event("Patient-open", f"p{number}"))
            await follower.next()
            hub.clock.now += 1.05
            assert (await error(monitor)).id == f"Patient-open-p{number}"


@pytest.mark.req("SYN-5")
async def test_strikes_end_a_subscription() -> None:
    """Reported each time, then denied, closed, and the endpoint gone: not a lost connection besides."""
    async with watched_hub(ack_policy="strict", ack_strikes=2) as (hub, monitor):
        endpoint = await hub.subscribe("Patient-open", subscriber__name="Viewer")
        async with hub.follow(endpoint) as follower:
            for number in range(2):
                await hub.publish(event("Patient-open", f"p{number}"))
                await follower.next()
                await passes(hub, 11)
                assert await error(monitor) == Error(f"Patient-open-p{number}", "Patient-open", "Viewer")
            denied = await follower.next()
            assert denied["hub.mode"] == "denied"
            assert denied["hub.reason"]
            assert await follower.closed() == 1000
        assert await refused(endpoint)
        await passes(hub, 99)
        assert await monitor.silent()


@pytest.mark.req("SYN-6")
async def test_without_a_policy_nobody_is_timed() -> None:
    """Refusals are told all the same."""
    async with watched_hub(ack_policy="off") as (hub, monitor), viewer(hub) as follower:
        for number, status in enumerate((200, 409)):
            await hub.publish(event("Patient-open", f"p{number}"))
            await follower.next()
            await answered(hub, follower, {"id": f"Patient-open-p{number}", "status": status})
        await hub.publish(event("Patient-open", "p3"))
        await passes(hub, 99)
        assert (await error(monitor)).id == "Patient-open-p1"
        assert await monitor.silent()


@pytest.mark.req("DER-3", "SYN-1")
async def test_a_derived_open_that_was_refused_is_sent_again() -> None:
    """By its own id, which nobody has posted; the report names the one that was."""
    also = [{"key": "patient", "resource": {"resourceType": "Patient", "id": "p1"}}]
    async with watched_hub() as (hub, monitor), viewer(hub) as follower:
        for number in range(3):
            await hub.publish(event("ImagingStudy-open", f"s{number}", also=also))
            if number < 2:
                derived = await follower.next()
                status = 200 if number else "409 Conflict"
                await answered(hub, follower, {"id": derived["id"], "status": status})
        assert await follower.silent()
        assert await error(monitor) == Error("ImagingStudy-open-s0", "ImagingStudy-open", "Viewer")


# Lost


@pytest.mark.req("SYN-7")
async def test_a_connection_that_is_cut_is_reported() -> None:
    """After RECONNECT_GRACE, as nobody's event."""
    async with watched_hub() as (hub, monitor):
        async with viewer(hub) as follower:
            follower.connection.transport.abort()
        assert await gone(hub) == hub.clock.now + 3
        await passes(hub, 2.9)
        assert await monitor.silent()
        await passes(hub, 0.2)
        told = await error(monitor)
        assert (told.name, told.who) == ("syncerror", "Viewer")
        await passes(hub, 99)
        assert await monitor.silent()


@pytest.mark.req("SYN-7")
async def test_the_hub_itself_notices_who_does_not_come_back() -> None:
    """By its own timer."""
    async with watched_hub(reconnect_grace=1) as (hub, monitor):
        async with viewer(hub) as follower:
            follower.connection.transport.abort()
        await gone(hub)
        hub.clock.now += 1
        assert (await error(monitor)).name == "syncerror"


@pytest.mark.req("SYN-7", "SUB-12")
async def test_who_is_back_in_time_is_not_reported() -> None:
    """On the same endpoint, again and again."""
    async with watched_hub() as (hub, monitor):
        endpoint = await hub.subscribe(subscriber__name="Viewer")
        for _ in range(3):
            async with hub.follow(endpoint) as follower:
                follower.connection.transport.abort()
            await gone(hub)
            await passes(hub, 2)
        async with hub.follow(endpoint):
            await passes(hub, 99)
            assert await monitor.silent()


@pytest.mark.req("SYN-7", "SYN-8")
@pytest.mark.parametrize(("code", "lost"), [(1000, False), (1001, False), (1011, True), (3001, True), (None, True)])
async def test_the_peers_code_says_whether_it_left(code: int | None, lost: bool) -> None:
    """1000 and 1001 are leaving; anything else, and a close without a code, is not."""
    async with watched_hub() as (hub, monitor):
        async with viewer(hub) as follower:
            if code is None:
                follower.connection.transport.write(masked(b"", first=0x88))
                await follower.connection.wait_closed()
            else:
                await follower.connection.close(code)
        assert bool(await gone(hub)) is lost
        await passes(hub, 4)
        if lost:
            assert (await error(monitor)).who == "Viewer"
        assert await monitor.silent()


@pytest.mark.req("SYN-7", "SYN-15")
@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([masked(b"x" * 65_537, size=8)], 1009),
        ([masked(b"x" * 60_000, size=2, first=1), masked(b"x" * 60_000, size=2, first=0x80)], 1009),
        ([masked(b"x", first=0x83)], 1002),
        ([masked(b"x", first=1), masked(b"y")], 1002),
    ],
)
async def test_who_breaks_the_protocol_is_lost(frames: list[bytes], code: int) -> None:
    """Over 64 KiB, in one frame or in several, or no frame at all."""
    async with watched_hub() as (hub, monitor):
        async with viewer(hub) as follower:
            for frame in frames:
                follower.connection.transport.write(frame)
            assert await follower.closed() == code
        assert await gone(hub)
        await passes(hub, 4)
        assert (await error(monitor)).who == "Viewer"


@pytest.mark.req("SYN-14", "SYN-7", "SYN-4")
async def test_a_slow_reader_is_lost() -> None:
    """It is closed with 1013 and reported when it does not come back; what it was never handed is not asked for."""
    padding = [{"key": "extension", "data": "x" * 200_000}]
    settings: dict[str, Any] = {"queue_bytes": 300_000, "queue_messages": 20, "ack_policy": "strict", "ack_strikes": 99}
    async with watched_hub(**settings) as (hub, monitor):
        endpoint = await hub.subscribe("Patient-open", subscriber__name="Viewer")
        async with connect(endpoint, proxy=None, max_queue=1, compression=None) as slow:
            slow.transport.pause_reading()
            for number in range(80):
                await hub.publish(event("Patient-open", f"p{number}", also=padding))
                if hub.hub.metrics.slow_readers_closed:
                    break
            assert hub.hub.metrics.slow_readers_closed == 1
            slow.transport.resume_reading()
            with suppress(ConnectionClosed):
                async with asyncio.timeout(5):
                    while True:
                        await slow.recv()
            assert slow.close_code == 1013
        assert await gone(hub)
        await passes(hub, 4)
        told = await error(monitor)
        assert (told.name, told.who) == ("syncerror", "Viewer")
        await passes(hub, 99)
        assert await monitor.silent()


@pytest.mark.req("SYN-4", "SYN-14")
async def test_what_waits_for_a_slow_reader_is_not_timed() -> None:
    """But from when the socket took it."""
    padding = [{"key": "extension", "data": "x" * 200_000}]
    async with watched_hub(queue_bytes=10_000_000, ack_policy="strict") as (hub, monitor):
        endpoint = await hub.subscribe("Patient-open", subscriber__name="Viewer")
        async with connect(endpoint, proxy=None, max_queue=1, compression=None) as slow:
            slow.transport.pause_reading()
            for number in range(80):
                await hub.publish(event("Patient-open", f"p{number}", also=padding))
                slow.transport.write(masked(f'{{"id": "Patient-open-p{number}"}}'.encode()))
                if hub.hub.registry.queued()[0]:
                    break
            await until(lambda: hub.hub.metrics.acknowledgements == number + 1)
            await hub.publish(event("Patient-open", "waits"))
            await passes(hub, 99)
            assert await monitor.silent()
            slow.transport.resume_reading()
            async with asyncio.timeout(5):
                while json.loads(await slow.recv()).get("id") != "Patient-open-waits":
                    pass
            await passes(hub, 9)
            assert await monitor.silent()
            await passes(hub, 1)
            assert (await error(monitor)).id == "Patient-open-waits"


@pytest.mark.req("SYN-14", "SYN-7", "SYN-8")
async def test_what_a_peer_answers_to_a_close_is_not_why() -> None:
    """The hub closed first, with 1013; that the peer says 1000 to that makes no leaving of it."""
    padding = [{"key": "extension", "data": "x" * 200_000}]
    async with watched_hub(queue_bytes=300_000) as (hub, _):
        endpoint = await hub.subscribe("Patient-open", subscriber__name="Viewer")
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(
            f"GET {endpoint.partition(str(hub.port))[2]} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        with closing(writer):
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            for number in range(80):
                await hub.publish(event("Patient-open", f"p{number}", also=padding))
                if hub.hub.metrics.slow_readers_closed:
                    break
            tail = b""
            async with asyncio.timeout(5):
                while (1013).to_bytes(2) + b"too slow" not in tail:
                    tail = tail[-20:] + await reader.read(1 << 16)
            writer.write(masked((1000).to_bytes(2), first=0x88))
            assert await gone(hub)


@pytest.mark.req("SYN-7", "SYN-13")
async def test_who_does_not_answer_pings_is_lost() -> None:
    """The connection is given up, and reported as any that was cut."""
    async with watched_hub() as (hub, monitor):
        hub.hub.sockets.ping_seconds = 0.05
        async with viewer(hub) as follower:
            follower.connection.transport.pause_reading()
            await gone(hub)
            follower.connection.transport.abort()
        await passes(hub, 4)
        assert (await error(monitor)).who == "Viewer"


@pytest.mark.req("SUB-11", "SYN-7")
async def test_who_is_taken_over_is_not_lost() -> None:
    """The newcomer's answers count, the old one's do not any more; and nobody is missed."""
    async with watched_hub() as (hub, monitor):
        endpoint = await hub.subscribe(subscriber__name="Viewer")
        async with hub.follow(endpoint) as old:
            await hub.publish(event("Patient-open"))
            await old.next()
            await answered(hub, old, {"id": "Patient-open-1", "status": 200})
            async with hub.follow(endpoint) as new:
                assert await old.closed() == 1008
                await new.next()
                await answered(hub, new, {"id": "Patient-open-1", "status": 409})
                await passes(hub, 99)
                assert (await error(monitor)).id == "Patient-open-1"
                assert await monitor.silent()


# The end of a process, and the next


@pytest.mark.req("OPS-3")
async def test_a_stop_is_no_storm() -> None:
    """Everybody is closed with 1001, and hears nothing of the others."""
    async with running_hub(ack_policy="strict") as hub:
        sockets = [
            await connect(await hub.subscribe("SyncError,Patient-open", subscriber__name=f"v{number}"), proxy=None)
            for number in range(6)
        ]
        await hub.publish(event("Patient-open"))
    for socket in sockets:
        heard = [json.loads(message) async for message in socket]
        assert [message.get("hub.mode") or message["event"]["hub.event"] for message in heard] == [
            "subscribe",
            "Patient-open",
        ]
        assert socket.close_code == 1001
    timer = hub.hub.ack_timer._timer
    assert timer is not None
    assert timer.cancelled()


@pytest.mark.req("OPS-3")
async def test_after_its_stop_a_hub_reports_nothing() -> None:
    """Neither silence nor loss."""
    async with watched_hub(ack_timeout=1, ack_policy="strict") as (hub, monitor), viewer(hub):
        await hub.publish(event("Patient-open"))
        hub.clock.now += 2
        hub.hub.ack_timer.stop()
        assert await monitor.silent()
        timer = hub.hub.ack_timer._timer
        assert timer is not None
        assert timer.cancelled()
        await hub.publish(event("Patient-open", "p2"))
        assert hub.hub.ack_timer._timer is timer


class Places:
    """Two hubs, one after the other, on the same file."""

    def __init__(self, path: Path) -> None:
        self.clock, self.idp = Clock(), Idp()
        self._path = path

    def hub(self, file: str = "hub.db", **settings: Any) -> Any:
        store = f"sqlite:///{self._path / file}"
        return running_hub(store=store, clock=self.clock, idp=self.idp, own={"realm": "hospital"}, **settings)


@pytest.mark.req("SUB-23")
@pytest.mark.parametrize("end", ["crash", "stop"])
@pytest.mark.parametrize("pause", [1, 100])
async def test_after_a_restart_everybody_has_thirty_seconds(tmp_path: Path, end: str, pause: float) -> None:
    """However the last process ended and however long none ran: who is back by then is not lost, who is not is reported."""
    places, moved = Places(tmp_path), tmp_path / "moved"
    async with places.hub() as hub:
        endpoints = {
            name: await hub.subscribe("SyncError", subscriber__name=name)
            for name in ("Monitor", "Back", "Gone", "Left", "Lost")
        }
        sockets = {name: await connect(endpoint, proxy=None) for name, endpoint in endpoints.items()}
        await until(lambda: all(each.connection for each in subscriptions(hub).values()))
        await sockets["Left"].close()
        sockets["Lost"].transport.abort()
        await gone(hub, "Left")
        await gone(hub, "Lost")
        if end == "crash":
            shutil.copytree(tmp_path, moved)
    if end == "stop":
        shutil.copytree(tmp_path, moved)
    places.clock.now += pause
    async with places.hub("moved/hub.db") as again:
        here = {
            name: f"ws://127.0.0.1:{again.port}/api/hub/ws/{of.rpartition('/')[2]}" for name, of in endpoints.items()
        }
        async with again.follow(here["Monitor"]) as monitor:
            await passes(again, 29)
            assert await monitor.silent()
            async with again.follow(here["Back"]):
                await passes(again, 2)
                assert sorted([(await error(monitor)).who for _ in range(2)]) == ["Gone", "Lost"]
                await passes(again, 999)
                assert await monitor.silent()


@pytest.mark.req("SYN-6", "SUB-23")
async def test_after_a_restart_who_acknowledged_is_missed(tmp_path: Path) -> None:
    """The file knows that it does, and how many times it did not."""
    places = Places(tmp_path)
    async with places.hub(ack_strikes=2) as hub:
        endpoints = [await hub.subscribe("SyncError"), await hub.subscribe("Patient-open", subscriber__name="Viewer")]
        async with hub.follow(endpoints[0]) as monitor, hub.follow(endpoints[1]) as follower:
            for number in range(2):
                await hub.publish(event("Patient-open", f"p{number}"))
                await follower.next()
                if not number:
                    await answered(hub, follower, {"id": "Patient-open-p0", "status": 200})
            await passes(hub, 11)
            assert (await error(monitor)).who == "Viewer"
    async with places.hub(ack_strikes=2) as again:
        moved = [endpoint.replace(str(hub.port), str(again.port)) for endpoint in endpoints]
        async with again.follow(moved[0]) as monitor, again.follow(moved[1]) as follower:
            await follower.next()
            await passes(again, 11)
            assert (await error(monitor)).id == "Patient-open-p1"
            assert (await follower.next())["hub.mode"] == "denied"


# Done when


def size(hub: RunningHub) -> list[int]:
    """How much is remembered of subscriptions and their sockets, anywhere."""
    tracker, usage = hub.hub.ack_timer._tracker, hub.hub.service.usage
    waiting = sum(len(sent) for topic in tracker._topics.values() for sent in topic.sent.values())
    counts = usage.subscriptions, usage.topics, len(usage._sessions), len(hub.hub.registry)
    return [
        *counts,
        len(tracker._topics),
        len(tracker._peers),
        len(tracker._latest),
        waiting,
        len(tracker._waiting),
    ]


@pytest.mark.req("SUB-23", "SYN-7")
async def test_who_reconnects_every_second_leaves_nothing_behind() -> None:
    """OHIF's way, subscribing anew under its name, and Medplum's, to the same endpoint: no ghosts, no SyncErrors, no growth."""
    async with watched_hub(ack_timeout=5) as (hub, monitor):
        medplum, sizes = await hub.subscribe(subscriber__name="Medplum"), list[list[int]]()
        for second in range(60):
            ohif = await hub.subscribe(subscriber__name="OHIF")
            async with hub.follow(ohif) as one, hub.follow(medplum) as other:
                if second:
                    await asyncio.gather(one.next(), other.next())
                await hub.publish(event("Patient-open", f"p{second}"))
                await asyncio.gather(one.next(), other.next())
                await answered(hub, other, {"id": f"Patient-open-p{second}", "status": "200"})
                sizes.append(size(hub))
                for follower in (one, other):
                    follower.connection.transport.abort()
            await gone(hub, "OHIF")
            await gone(hub, "Medplum")
            await passes(hub, 1)
        assert sizes[20:] == [sizes[20]] * 40
        assert sizes[-1][:7] == [3, 1, 3, 3, 1, 3, 3]
        assert await monitor.silent()
        await passes(hub, 2)
        assert sorted([(await error(monitor)).who for _ in range(2)]) == ["Medplum", "OHIF"]
    await until(lambda: not len(hub.hub.registry))
    hub.hub.ack_timer._tracker.timed_out(hub.clock.now + 99)
    assert size(hub)[3:] == [0] * 6
