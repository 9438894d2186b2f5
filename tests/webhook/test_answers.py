"""An answer acknowledges or refuses an event, and a failed post is tried again."""

from __future__ import annotations

import asyncio
from typing import Any

import httpcore
import pytest

from fhircast_hub.webhook.backoff import jittered
from fhircast_hub.webhook.client import _retry_after
from tests.running import TOPIC, event, until
from tests.webhook.callback_server import (
    DRIP,
    HANG,
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


# --- what is answered ---


@pytest.mark.req("WHK-6", "SYN-1")
@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_acknowledges(status: int) -> None:
    """The event is posted once, and no error is reported."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        server.say("POST", "/callback", Answer(status))
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            await publish(hub, 2)
            await server.posted(2)
            await quiet(hub)
            assert await follower.silent()
        assert server.news() == opens(2)


@pytest.mark.req("WHK-6", "SYN-1", "SYN-2")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 409, 410, 422, 429, 451, 499])
async def test_a_4xx_is_a_refusal(status: int) -> None:
    """The others get one SyncError with refuser, event and status. No retry comes, and the next event is posted."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, events=SYNC, subscriber__name="Worklist")
        server.say("POST", "/callback", Answer(status, b"sorry"), OK)
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            await publish(hub, 1)
            text, codes = await sync_error(follower)
            assert text == f"Worklist refused to follow Patient-open (status {status})"
            assert codes == ["Patient-open-p1", "Patient-open", "Worklist"]
            await publish(hub, 1, 2)
            await server.posted(2)
            await quiet(hub)
            assert await follower.silent()
        assert server.news() == opens(2)


@pytest.mark.req("WHK-6")
@pytest.mark.parametrize(
    "answer",
    [Answer(301, headers=("Location: /elsewhere",)), Answer(307, headers=("Location: /elsewhere",)), Answer(304)],
    ids=["301", "307", "304"],
)
async def test_a_redirect_is_a_failure(answer: Answer, waits: list[float]) -> None:
    """The event is posted again to the same place. The redirect is not followed."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        server.say("POST", "/callback", answer, OK)
        await publish(hub, 1)
        await server.posted(2)
        await quiet(hub)
        assert {each.path for each in server.requests} == {"/callback"}


FAILURES = {
    "500": Answer(500),
    "503": Answer(503),
    "a reset": RESET,
    "no HTTP": Answer(raw=b"what?\r\n\r\n"),
    "half an answer": Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Le"),
    "headers without an end": Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000),
    "101": Answer(raw=b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "an odd Retry-After": Answer(503, headers=("Retry-After: ²",)),
    "a date as Retry-After": Answer(503, headers=("Retry-After: Fri, 31 Dec 1999 23:59:59 GMT",)),
    "an endless Retry-After": Answer(503, headers=("Retry-After: inf",)),
    "a negative Retry-After": Answer(503, headers=("Retry-After: -1",)),
    "429 with Retry-After": Answer(429, headers=("Retry-After: 0",)),
}


@pytest.mark.req("WHK-6")
@pytest.mark.parametrize("how", FAILURES)
async def test_a_failure_is_tried_again(how: str, waits: list[float]) -> None:
    """The body is the same. A success is not reported."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        server.say("POST", "/callback", FAILURES[how], FAILURES[how], OK)
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            await publish(hub, 1)
            posts = await server.posted(3)
            await quiet(hub)
            assert await follower.silent()
        assert len({post.body for post in posts}) == 1


@pytest.mark.req("WHK-6")
async def test_attempts_are_further_and_further_apart(waits: list[float]) -> None:
    """Twice as long each time, up to some seconds."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        server.say("POST", "/callback", *[Answer(500)] * 7, OK)
        await publish(hub, 1)
        await server.posted(8)
        assert waits[:7] == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


@pytest.mark.req("WHK-6")
def test_attempts_are_uneven() -> None:
    """By half of the wait at most: callbacks of one server do not come back together, nor at once."""
    waits = {jittered(4.0) for _ in range(100)}
    assert len(waits) > 90
    assert 2.0 <= min(waits) < 2.5
    assert 5.5 < max(waits) <= 6.0


@pytest.mark.req("WHK-6", "SYN-1")
@pytest.mark.parametrize("status", [500, 503, 302])
async def test_a_failure_that_lasts_is_a_sync_error(status: int) -> None:
    """Some attempts within ACK_TIMEOUT, then a SyncError naming the status, and then the next event."""
    async with hub_and_callbacks(ack_timeout=1) as (hub, server):
        await subscribe(hub, server, subscriber__name="Worklist")
        server.say("POST", "/callback", Answer(status))
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            await publish(hub, 1)
            text, codes = await sync_error(follower)
            assert text == f"Worklist could not follow Patient-open (status {status}): it was not delivered"
            assert codes == ["Patient-open-p1", "Patient-open", "Worklist"]
            assert len(server.posts()) > 1
            server.say("POST", "/callback", OK)
            await publish(hub, 1, 2)
            await quiet(hub)
            assert await follower.silent()
        assert server.news()[-1] == "Patient-open p2"


@pytest.mark.req("WHK-6", "SYN-4")
@pytest.mark.parametrize("how", ["hangs", "resets", "never ends", "drips"])
async def test_no_answer_is_a_sync_error(how: str) -> None:
    """After ACK_TIMEOUT, whatever the callback does instead of answering."""
    async with hub_and_callbacks(ack_timeout=1) as (hub, server):
        await subscribe(hub, server, subscriber__name="Worklist")
        answers = {"hangs": HANG, "resets": RESET, "never ends": Answer(raw=b"HTTP/1.1 200 OK\r\n"), "drips": DRIP}
        server.say("POST", "/callback", answers[how])
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            await publish(hub, 1)
            text, _ = await sync_error(follower)
            assert text == "Worklist did not acknowledge Patient-open within 1 seconds"
            assert await follower.silent()


@pytest.mark.req("WHK-6", "WHK-18")
async def test_who_did_not_answer_in_time_is_asked_again() -> None:
    """Within ACK_TIMEOUT there is time for a second attempt, and nobody is told when that works."""
    async with hub_and_callbacks(ack_timeout=3) as (hub, server):
        await subscribe(hub, server)
        server.say("POST", "/callback", HANG, OK)
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            await publish(hub, 1)
            await server.posted(2)
            await quiet(hub)
            assert await follower.silent()


@pytest.mark.req("WHK-6")
@pytest.mark.parametrize("status", [503, 429])
async def test_a_retry_after_that_is_too_long_is_not_waited_for(status: int) -> None:
    """Beyond ACK_TIMEOUT: the SyncError comes at once, and nothing is posted before the time that was asked for."""
    async with hub_and_callbacks(ack_timeout=5) as (hub, server):
        await subscribe(hub, server)
        server.say("POST", "/callback", Answer(status, headers=("Retry-After: 60",)))
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            await publish(hub, 1)
            text, _ = await sync_error(follower)
            assert f"status {status}" in text
        assert len(server.posts()) == 1


@pytest.mark.req("WHK-6")
@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 2e11),
        *((each, None) for each in ("", "-1", "1.5", "999999999", "soon", "Fri, 99 Dec 9999 23:59:59 GMT", "\u00b2")),
    ],
)
def test_what_a_retry_after_says(said: str, seconds: float | None) -> None:
    """Seconds, or a date; anything else is as if nothing had been said."""
    answer = httpcore.Response(503, headers=[("Retry-After", said.encode("latin-1"))])
    assert _retry_after(answer) == (seconds if seconds is None else pytest.approx(seconds, rel=0.5))


@pytest.mark.req("WHK-6")
async def test_a_retry_after_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longer of what the hub would wait, and what it was asked to."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float, result: Any = None) -> Any:
        slept.append(seconds)
        return await sleep(0, result)

    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        server.say("POST", "/callback", Answer(503, headers=("Retry-After: 7",)), OK)
        with monkeypatch.context() as patched:
            patched.setattr("fhircast_hub.webhook.deliver.asyncio.sleep", noted)
            await publish(hub, 1)
            await server.posted(2)
        assert 7.0 in slept


@pytest.mark.req("WHK-4", "WHK-7")
@pytest.mark.parametrize(
    "answer", [Answer(body=b"x" * 10_000_000), Answer(endless=True)], ids=["10 MB", "without an end"]
)
async def test_a_large_answer_is_not_read(answer: Answer) -> None:
    """The status counts, the rest is cut off, and the next post is delivered."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        server.say("POST", "/callback", answer, answer, OK)
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            await publish(hub, 3)
            await server.posted(3)
            await until(lambda: server.cut == 2)
            await quiet(hub)
            assert await follower.silent()
        assert server.news() == opens(3)


# --- unresponsive callbacks ---


@pytest.mark.req("WHK-6", "SYN-5", "WHK-19")
async def test_strikes_end_the_subscription_with_a_denial() -> None:
    """After ACK_STRIKES events in a row: the SyncError says so, the callback is told by GET, and nothing more is posted."""
    async with hub_and_callbacks(ack_timeout=1, ack_strikes=2) as (hub, server):
        await subscribe(hub, server, "/callback?own", subscriber__name="Worklist")
        server.say("POST", "/callback", Answer(500))
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            await publish(hub, 3)
            texts = [(await sync_error(follower))[0] for _ in range(2)]
            assert "unsubscribed" not in texts[0]
            assert texts[1].endswith("and was unsubscribed")
            (denied,) = await server.asked(mode="denied")
            assert denied.target.startswith("/callback?own&hub.mode=denied&")
            told = denied.query
            assert "2 events" in told.pop("hub.reason")
            assert told == {"own": "", "hub.mode": "denied", "hub.topic": TOPIC, "hub.events": PATIENT}
            await quiet(hub)
            assert await follower.silent()
        before = len(server.requests)
        await publish(hub, 1, 4)
        await quiet(hub)
        assert len(server.requests) == before
        assert not active(hub)


@pytest.mark.req("SYN-5")
@pytest.mark.parametrize("between", [OK, Answer(409)], ids=["200", "409"])
async def test_an_answer_between_ends_the_row(between: Answer) -> None:
    """An acknowledgement or a refusal shows that the callback responds. Only missed ones in a row count."""
    async with hub_and_callbacks(ack_timeout=1, ack_strikes=2) as (hub, server):
        await subscribe(hub, server)
        for answer in (Answer(500), between, Answer(500), OK):
            server.say("POST", "/callback", answer)
            await hub.publish(event("Patient-open", str(len(server.requests))))
            await quiet(hub)
        assert active(hub)
