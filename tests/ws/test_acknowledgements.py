"""The hub reads acknowledgements in any framing, and reports refusals and silence."""

from __future__ import annotations

import asyncio
import json
from itertools import count

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.counted import counted
from tests.running import event
from tests.ws.acknowledgements_world import (
    Error,
    answered,
    error,
    gone,
    masked,
    passes,
    subscriptions,
    viewer,
    watched_hub,
)


async def refused(endpoint: str) -> bool:
    """Whether the handshake is refused with 404."""
    try:
        async with connect(endpoint, proxy=None):
            return False
    except InvalidStatus as refusal:
        return refusal.response.status_code == 404


@pytest.mark.req("SYN-1", "SYN-2", "SYN-3", "SYN-15")
async def test_answers_of_every_shape() -> None:
    """Acknowledgements are read. Refusals are reported once to all but the refuser, and the metrics are right."""
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
        assert [*map(counted, (metrics.acknowledgements, metrics.refusals, metrics.frames_ignored))] == [17, 5, 0]


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
                await asyncio.wait_for(await monitor.connection.ping(), 5)  # the next message comes by itself
        for _ in range(9):
            assert (await error(monitor)).id == f"Patient-open-p{next(numbers)}"
        assert await monitor.silent()
        assert (counted(hub.hub.metrics.acknowledgements), counted(hub.hub.metrics.frames_ignored)) == (9, 2)


@pytest.mark.req("SYN-15", "SYN-28")
async def test_odd_frames_are_counted_and_not_logged() -> None:
    """A client that sends them stays connected, and receives events."""
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
                assert counted(hub.hub.metrics.frames_ignored) == len(odd) + 3
                assert len(lines) == before
                await hub.publish(event("Patient-open", "p2"))
                assert (await follower.next())["id"] == "Patient-open-p2"
            await gone(hub)
        assert [line["event"] for line in lines][before:] == ["request", "socket closed"]
        assert counted(hub.hub.metrics.acknowledgements) == 0
        assert await monitor.silent()


@pytest.mark.req("SYN-4", "SYN-6")
async def test_silence_is_reported() -> None:
    """After ACK_TIMEOUT, if the subscriber has acknowledged before. Others are not reported."""
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
        assert counted(hub.hub.metrics.unanswered) == 1


@pytest.mark.req("SYN-4")
async def test_the_hub_itself_notices_silence() -> None:
    """The hub's timer reports without another event or request, also frames sent while it waited."""
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
    """Each is reported. Then come denial, close and a dead endpoint, but no report of a lost connection."""
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


@pytest.mark.req("DER-3", "SYN-1", "DER-16", "SYN-21")
async def test_a_derived_open_that_was_refused_is_sent_again() -> None:
    """The SyncError's own id is nobody's event. The report names the posted event."""
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
