"""The stream: only what changed, until the token or the hub ends."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from fhircast_hub.console import paced
from fhircast_hub.console.paced import Late
from fhircast_hub.console.streams import OF_ALL, OF_OPERATOR, Place, Streams
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import TooMany
from fhircast_hub.http.request import Message
from fhircast_hub.service.session_list import LocalSessions
from tests.console.console_world import READ, Operated, operated
from tests.core.world import token
from tests.counted import connections_of
from tests.running import to_the_end, until


async def counts() -> None:
    """A token that counts."""


def never_cut() -> None:
    """For readers that are not cut."""
    raise AssertionError


@pytest.mark.req("CSL-8")
async def test_a_stream_sends_all_parts_and_then_those_that_changed() -> None:
    async with operated() as console, console.stream() as stream:
        assert [await stream.next() for _ in range(6)] == ["time", "hub", "issuers", "nodes", "budgets", "sessions"]
        await console.open()
        found = await stream.until("sessions", lambda part: part["total"])
        assert found["rows"][0]["hash"] == console.hash()
        assert stream.text.count("event: issuers") == stream.text.count("event: nodes") == 1


@pytest.mark.req("CSL-8")
async def test_a_stream_ends_when_its_token_expires() -> None:
    """By the hub's clock, with a word for the page."""
    async with operated() as console:
        short = console.hub.token("reader", READ, exp=int(console.hub.clock.now) + 60)
        async with console.stream(short) as stream:
            await stream.until("sessions", lambda part: True)
            console.hub.clock.now += 200
            assert (await stream.until("end", lambda part: True))["reason"] == "token"
            with pytest.raises(EOFError):
                await stream.next()
        await until(lambda: len(console.console.streams) == 0)


@pytest.mark.req("CSL-8", "OPS-3")
async def test_a_stream_ends_when_the_hub_stops() -> None:
    """At once: the server does not wait for it until its grace is over."""
    async with operated() as console, console.stream() as stream:
        await stream.until("sessions", lambda part: True)
        console.hub.hub.begin_stop()
        assert (await stream.until("end", lambda part: True))["reason"] == "stop"


@pytest.mark.req("CSL-8", "OPS-3")
async def test_the_server_tells_streams_that_it_stops() -> None:
    """Without that, it would wait for them until its grace is over, and then cut them."""
    async with operated() as console:
        reader, writer = await asyncio.open_connection("127.0.0.1", console.hub.port)
        head = f"GET /console/stream HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {console.reader}\r\n\r\n"
        writer.write(head.encode())
        await reader.readuntil(b"event: sessions")
    assert b'event: end\ndata: {"reason":"stop"}' in await to_the_end(reader)
    writer.close()


@pytest.mark.req("CSL-8")
async def test_a_client_that_leaves_gives_its_place_back() -> None:
    async with operated() as console:
        async with console.stream() as stream:
            await stream.next()
            assert len(console.console.streams) == 1
        await until(lambda: len(console.console.streams) == 0)


def of_realm(realm: str, name: str) -> Principal:
    """An operator of a realm."""
    return msgspec.structs.replace(token(name), realm=realm)


@pytest.mark.req("CSL-8")
async def test_beyond_the_limit_a_stream_takes_the_place_of_the_operators_oldest() -> None:
    """A page that was closed, and whose stream the hub still holds, keeps nobody out. Streams of others stay."""
    streams = Streams()
    with ExitStack() as stack:
        other = stack.enter_context(streams.place(token("other")))
        own = [stack.enter_context(streams.place(token("operator"))) for _ in range(OF_OPERATOR + 1)]
        assert [place.taken.is_set() for place in own] == [True] + [False] * OF_OPERATOR
        assert not other.taken.is_set()
        assert len(streams) == 1 + OF_OPERATOR
    assert len(streams) == 0


@pytest.mark.req("CSL-8")
async def test_each_realm_has_a_share_of_all_streams() -> None:
    """When all places are taken, a realm with fewer gets one of the realm with the most. Else: 429 with Retry-After."""
    streams = Streams()
    with ExitStack() as stack:
        big = [stack.enter_context(streams.place(of_realm("big", f"{number}"))) for number in range(OF_ALL)]
        with pytest.raises(TooMany) as refused, streams.place(of_realm("big", "one more")):
            pass
        assert refused.value.retry_after
        for number in range(OF_ALL // 2):
            stack.enter_context(streams.place(of_realm("small", f"{number}")))
        assert [place.taken.is_set() for place in big] == [True] * (OF_ALL // 2) + [False] * (OF_ALL // 2)
        for realm in ("big", "small"):
            with pytest.raises(TooMany), streams.place(of_realm(realm, "one more")):
                pass
        assert len(streams) == OF_ALL


@pytest.mark.req("CSL-8")
async def test_a_stream_whose_place_is_taken_ends_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhircast_hub.console.streams.OF_OPERATOR", 1)
    async with operated() as console, console.stream() as old:
        await old.next()
        async with console.stream() as new:
            assert (await old.until("end", lambda part: True))["reason"] == "taken"
            await new.until("sessions", lambda part: True)


@pytest.mark.req("CSL-8")
async def test_the_hub_says_so_when_too_many_streams_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhircast_hub.console.streams.OF_ALL", 1)
    async with operated() as console, console.stream() as stream:
        await stream.next()
        answer = await console.get("/stream", console.operator)
        assert (answer.status_code, "Retry-After" in answer.headers) == (429, True)


@pytest.mark.req("CSL-8")
async def test_a_look_that_takes_long_does_not_look_like_a_dead_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments are written meanwhile. The stream's end does not wait for the look."""
    monkeypatch.setattr("fhircast_hub.console.streams.ALIVE", 0.01)
    streams, sent, place = Streams(), list[bytes](), Place(token("operator"))

    async def look() -> Mapping[str, Mapping[str, Any]]:
        await asyncio.Event().wait()
        return {}

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message["body"])

    running = asyncio.create_task(streams.run(receive, send, look, look, place, never_cut))
    await until(lambda: len(sent) > 2)
    place.taken.set()
    await running
    assert set(sent[:-1]) == {b":\n\n"}
    assert b'"taken"' in sent[-1]


@pytest.mark.req("CSL-8")
async def test_parts_of_the_store_are_looked_for_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is away, one patience passes, not one for each part. What needs no store is there."""
    monkeypatch.setattr(paced, "PATIENCE", 0.3)
    looked, late = list[int](), list[Late]()

    class Counted(Late):
        def __init__(self) -> None:
            super().__init__()
            late.append(self)

    async def away(*_: object) -> Any:
        looked.append(len(late))
        await asyncio.Event().wait()

    async with operated() as console:
        await console.open()
        await console.state()
        for owner, name in ((LocalSessions, "newest"), (LocalSessions, "nodes"), (LocalSessions, "largest")):
            monkeypatch.setattr(owner, name, away)
        monkeypatch.setattr(console.console.sessions.service, "session", away)
        monkeypatch.setattr(paced, "Late", Counted)
        parts = await console.state(session=console.hash(), search="x")
        assert looked == [0] * len(looked), "a part was looked for after another one had been late"
        assert len(looked) >= 3
        assert (
            parts["sessions"]["unavailable"] == parts["session"]["unavailable"] == "the answer takes longer than usual"
        )
        assert parts["hub"]["eventsReceived"] == 1


@pytest.mark.req("CSL-8")
async def test_nothing_queues_for_a_slow_reader_and_nobody_waits_for_one() -> None:
    """While the reader is behind, the state is not even looked at. Then the newest comes, and what was between does not."""
    streams, reads, free = Streams(), asyncio.Event(), asyncio.Event()
    looks, sent = [0, 0], []

    def look(number: int) -> Any:
        async def count() -> Mapping[str, Mapping[str, Any]]:
            looks[number] += 1
            return {"part": {"n": looks[number]}}

        return count

    async def receive() -> Message:
        await free.wait()
        return {"type": "http.disconnect"}

    async def slow(message: Message) -> None:
        await reads.wait()
        sent.append(message["body"])

    async def fast(message: Message) -> None:
        pass

    slow_one = asyncio.create_task(streams.run(receive, slow, look(0), counts, Place(token()), never_cut))
    fast_one = asyncio.create_task(streams.run(receive, fast, look(1), counts, Place(token()), never_cut))
    await until(lambda: looks[1] > 5)
    assert looks[0] == 1
    reads.set()
    await until(lambda: len(sent) >= 2)
    assert sent[:2] == [b'event: part\ndata: {"n":%d}\n\n' % number for number in (1, 2)]
    free.set()
    await asyncio.gather(slow_one, fast_one)


@pytest.mark.req("CSL-8")
async def test_a_part_that_did_not_change_is_not_encoded_and_others_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many streams there are."""
    encoded: list[Any] = []

    def encode(part: Any) -> bytes:
        encoded.append(part)
        return json.dumps(part).encode()

    monkeypatch.setattr("fhircast_hub.console.streams._encode", encode)
    streams = Streams()
    hub, equal, other = ({"n": number} for number in (1, 1, 2))
    sent: list[dict[str, Any]] = [{}, {}]
    for part, words in ((hub, b'event: hub\ndata: {"n": 1}\n\n'), (hub, b":\n\n"), (equal, b":\n\n")):
        assert [streams._changes({"hub": part}, each) for each in sent] == [words] * 2
    assert b'{"n": 2}' in streams._changes({"hub": other}, sent[0])
    assert encoded == [hub, equal, other]
    for number in range(100):
        streams._changes({"hub": {"n": number}}, sent[0])
    assert len(streams._encoded._held) == 64


@pytest.mark.req("CSL-8")
async def test_a_fault_ends_the_stream_as_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log says where; the page is told to connect again."""
    async with operated() as console, console.stream() as stream:
        await stream.until("sessions", lambda part: True)

        async def fail(realm: str) -> Any:
            raise RuntimeError(realm)

        with capture_logs() as logs:
            monkeypatch.setattr(console.console.state, "parts", fail)
            assert (await stream.until("end", lambda part: True))["reason"] == "failure"
            with pytest.raises(EOFError):
                await stream.next()
            await until(lambda: len(console.console.streams) == 0)
        failed = [line for line in logs if line["log_level"] == "error"]
        assert [(line["event"], type(line["exc_info"])) for line in failed] == [("console failed", RuntimeError)]


@pytest.mark.req("CSL-8")
async def test_a_revoked_issuer_ends_its_streams() -> None:
    """The token is verified at each look, not only at the first."""
    async with operated() as console, console.stream() as stream:
        await stream.until("sessions", lambda part: True)
        console.hub.hub._verifier.reload([])
        assert (await stream.until("end", lambda part: True))["reason"] == "token"


@pytest.mark.req("CSL-19")
@pytest.mark.parametrize("end", ["taken", "stop", "revoked"])
async def test_a_reader_by_the_byte_is_cut_when_its_stream_ends(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """Else it would keep what was not sent for as long as it likes. The hub's log has nothing of that but the request."""
    monkeypatch.setattr("fhircast_hub.console.streams.OF_OPERATOR", 1)
    async with operated(max_topics_per_user=1000) as console:
        for number in range(150):
            await console.open(topic=f"{number:04}".ljust(1024, "\N{SKULL}"))
        host = "127.0.0.1"
        with socket.socket() as slow, capture_logs() as lines:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, (host, console.hub.port))
            head = f"GET /console/stream HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {console.reader}\r\n\r\n"
            await until(lambda: any(each.client == slow.getsockname() for each in connections_of(console.hub)))
            for each in connections_of(console.hub):  # else the kernel would take all
                each.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            await loop.sock_sendall(slow, head.encode())
            assert await loop.sock_recv(slow, 1) == b"H"
            await until(lambda: len(console.console.streams) == 1)
            await until(lambda: waits(console))
            if end == "stop":
                console.hub.hub.begin_stop()
            elif end == "revoked":
                console.hub.hub._verifier.reload([])
            else:
                async with console.stream() as new:
                    await new.until("sessions", lambda part: True)
            await until(lambda: console.hub.hub.metrics.connections_cut.value == 1)
            requests = 2 if end == "taken" else 1
            await until(lambda: len([line for line in lines if line["event"] == "request"]) == requests)
        assert {line["event"] for line in lines} == {"request"}


def waits(console: Operated) -> bool:
    """Whether some connection of the hub waits for its reader."""
    return any(each.flow.write_paused for each in connections_of(console.hub))
