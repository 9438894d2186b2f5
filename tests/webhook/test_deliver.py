"""What is posted to callbacks: to whom, in which order, how often; and what follows from what they answer."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Any

import httpcore
import pytest

from fhircast_hub.webhook import deliver, verify
from fhircast_hub.webhook.backoff import jittered
from fhircast_hub.webhook.client import _retry_after
from fhircast_hub.webhook.sealing import signature
from tests.running import TOPIC, Follower, RunningHub, event, until
from tests.webhook.callback_server import (
    DRIP,
    ECHO,
    HANG,
    OK,
    PATIENT,
    RESET,
    Answer,
    active,
    ask,
    hub_and_callbacks,
    quiet,
    subscribe,
    unsubscribe,
)

SYNC = f"{PATIENT},SyncError"


def opens(count: int, first: int = 1) -> list[str]:
    """What so many opens are called in short."""
    return [f"Patient-open p{number}" for number in range(first, first + count)]


async def publish(hub: RunningHub, count: int, first: int = 1) -> None:
    """So many opens, one after the other."""
    for number in range(first, first + count):
        assert (await hub.publish(event("Patient-open", f"p{number}"))).status_code == 202


async def sync_error(follower: Follower) -> tuple[str, list[str]]:
    """The next message, a SyncError: its text, and its codes."""
    message = await follower.next()
    assert message["event"]["hub.event"] == "SyncError"
    (item,) = message["event"]["context"]
    (issue,) = item["resource"]["issue"]
    return issue["diagnostics"], [coding["code"] for coding in issue["details"]["coding"]][:3]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Between two attempts is no time; how long it would have been, before it was made uneven."""
    waited: list[float] = []

    def no_pause(seconds: float) -> float:
        waited.append(seconds)
        return 0.001

    for module in (deliver, verify):
        monkeypatch.setattr(module, "jittered", no_pause)
    return waited


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
    """An event that was not asked for is not, and what is derived is."""
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
    """What comes later waits until the one before is delivered or given up."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        server.say("POST", "/callback", Answer(500), Answer(503), OK, Answer(502), OK)
        await publish(hub, 3)
        await server.posted(6)
        first, second, third = opens(3)
        assert server.news() == [first, first, first, second, second, third]


@pytest.mark.req("WHK-8")
async def test_one_connection_serves_them_all() -> None:
    """What was verified on a connection is posted on it too, and several callbacks of a server share it."""
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


# --- what is answered ---


@pytest.mark.req("WHK-6", "SYN-1")
@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_acknowledges(status: int) -> None:
    """It is posted once, and nobody is told of an error."""
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
    """A SyncError to the others at once, naming who refused what with which status; no retry, and the next event is posted."""
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
    """It is posted again to the same place and not followed."""
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
    """With the same body; and when that works nobody is told of it."""
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


@pytest.mark.req("WHK-6")
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


@pytest.mark.req("WHK-6", "SYN-5")
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
    """Whoever acknowledges, or refuses, is responsive: strikes are counted in a row."""
    async with hub_and_callbacks(ack_timeout=1, ack_strikes=2) as (hub, server):
        await subscribe(hub, server)
        for answer in (Answer(500), between, Answer(500), OK):
            server.say("POST", "/callback", answer)
            await hub.publish(event("Patient-open", str(len(server.requests))))
            await quiet(hub)
        assert active(hub)


# --- slow callbacks ---


@pytest.mark.req("WHK-7", "WHK-8")
async def test_a_hanging_callback_delays_nobody() -> None:
    """Sockets, other callbacks of the same server, and new subscriptions go on as ever."""
    async with hub_and_callbacks() as (hub, server):
        for path in ("/slow", "/fast"):
            await subscribe(hub, server, path)
        server.say("POST", "/slow", HANG)
        async with hub.follow(await hub.subscribe()) as follower:
            await publish(hub, 20)
            assert await follower.names(20) == ["Patient-open"] * 20
            await server.posted(20, "/fast")
        await subscribe(hub, server, "/new")
        assert server.news("/fast") == opens(20)
        assert server.news("/slow") == opens(1)


@pytest.mark.req("WHK-7")
async def test_many_hanging_callbacks_delay_nobody() -> None:
    """Sixty of them, in one topic."""
    async with hub_and_callbacks() as (hub, server):
        for number in range(60):
            server.say("POST", f"/slow{number}", HANG)
            await ask(hub, server.url(f"/slow{number}"))
        await subscribe(hub, server, "/fast")
        await until(lambda: len(active(hub)) == 61)
        await publish(hub, 3)
        await server.posted(3, "/fast")
        assert server.news("/fast") == opens(3)


@pytest.mark.req("WHK-7")
async def test_who_only_asks_to_be_asked_delays_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscriber whose callbacks hang when they are asked, or told that it is over, has places for that, and no other."""
    monkeypatch.setattr(deliver, "POSTS_AT_ONCE", 2)
    monkeypatch.setattr(verify, "AT_ONCE", 2)
    async with hub_and_callbacks(max_subscriptions_per_topic=8) as (hub, server):
        await subscribe(hub, server)
        for number in range(4):
            server.say("GET", f"/over{number}", ECHO, HANG)
            await subscribe(hub, server, f"/over{number}", hub__lease_seconds="1", hub__topic="another")
        hub.clock.now += 1
        await hub.hub.service.tick()
        for number in range(4):
            server.say("GET", f"/hangs{number}", HANG)
            await ask(hub, server.url(f"/hangs{number}"), hub__topic="another")
        await until(lambda: len(server.requests) == 1 + 4 + 1)
        await publish(hub, 3)
        await server.posted(3)


@pytest.mark.req("WHK-7", "SUB-22")
async def test_who_subscribes_without_end_has_no_more_questions_than_subscriptions() -> None:
    """The question to the callback of a subscription that went ends with it."""
    async with hub_and_callbacks(max_subscriptions_per_topic=3) as (hub, server):
        for number in range(12):
            server.say("GET", f"/hangs{number}", HANG)
            await ask(hub, server.url(f"/hangs{number}"))
        await until(lambda: server.gets("/hangs9") != [] and len(hub.hub._webhooks._tasks) == 3)
        assert hub.hub._webhooks._verifying.keys() == {
            subscription_id
            for session in hub.hub.service._store.sessions()
            for subscription_id in session.subscriptions
        }
        await unsubscribe(hub, server.url("/hangs9"))
        await until(lambda: len(hub.hub._webhooks._tasks) == 2 and server.gets("/hangs10") != [])


@pytest.mark.req("WHK-7", "WHK-11")
async def test_denials_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than so many that hang, the rest are not told."""
    monkeypatch.setattr(deliver, "MAX_DENIALS", 12)  # of which one user has two
    async with hub_and_callbacks() as (hub, server):
        for number in range(4):
            server.say("GET", f"/over{number}", ECHO, HANG)
            await subscribe(hub, server, f"/over{number}", hub__lease_seconds="1")
        hub.clock.now += 1
        await hub.hub.service.tick()
        await until(lambda: len(server.requests) == 4 + 1)
        assert len(hub.hub._webhooks._tasks) == 2


@pytest.mark.req("WHK-7", "SYN-14")
@pytest.mark.parametrize("bound", [{"queue_messages": 3}, {"queue_bytes": 1000}])
async def test_a_queue_over_its_bound_ends_the_subscription(bound: dict[str, int]) -> None:
    """A SyncError and a denial; what waited is not posted any more, and others are posted all."""
    async with hub_and_callbacks(**bound) as (hub, server):
        await subscribe(hub, server, "/slow", subscriber__name="Worklist")
        await subscribe(hub, server, "/fast")
        gate = asyncio.Event()
        server.say("POST", "/slow", Answer(gate=gate), OK)
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            for number in range(1, 7):
                await publish(hub, 1, number)
                await server.posted(number, "/fast")
            text, _ = await sync_error(follower)
            assert text.startswith("Worklist was unsubscribed: ")
            assert await follower.silent()
        (denied,) = await server.asked(path="/slow", mode="denied")
        assert "too much" in denied.query["hub.reason"]
        gate.set()
        await quiet(hub)
        assert server.news("/slow") == opens(1)
        assert server.news("/fast") == opens(6)


@pytest.mark.req("WHK-7", "OPS-1")
async def test_what_waits_is_counted() -> None:
    """Posts that wait, those answered, and those of them that failed."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        gate = asyncio.Event()
        server.say("POST", "/callback", Answer(gate=gate), Answer(409), OK)
        await publish(hub, 3)
        await server.posted(1)
        assert "fhircast_queue_posts 3.0" in (await hub.client.get(hub.origin + "/metrics")).text
        gate.set()
        await quiet(hub)
        metrics = (await hub.client.get(hub.origin + "/metrics")).text
        assert "fhircast_queue_posts 0.0" in metrics
        assert "fhircast_posts_total 3.0" in metrics
        assert "fhircast_posts_failed_total 1.0" in metrics


# --- the end ---


@pytest.mark.req("WHK-5", "UNS-6")
async def test_unsubscribed_is_told_nothing_more() -> None:
    """202 without any verification or denial; later events are not posted, and a second time it is unknown."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        await publish(hub, 1)
        await server.posted(1)
        answer = await unsubscribe(hub, server.url())
        assert (answer.status_code, answer.json()) == (202, {})
        await publish(hub, 1, 2)
        await quiet(hub)
        assert len(server.requests) == 2
        assert (await unsubscribe(hub, server.url())).status_code == 404


@pytest.mark.req("WHK-5")
async def test_unsubscribing_ends_retries_and_the_queue(waits: list[float]) -> None:
    """What was under way is let go, what waits is not posted; nobody is told of an error."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        gate = asyncio.Event()
        server.say("POST", "/callback", Answer(500, gate=gate))
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            await publish(hub, 3)
            await server.posted(1)
            assert (await unsubscribe(hub, server.url())).status_code == 202
            gate.set()
            await quiet(hub)
            assert await follower.silent()
        assert server.news() == opens(1)


@pytest.mark.req("WHK-5", "WHK-8")
@pytest.mark.parametrize("late", [OK, Answer(409), Answer(500)], ids=["200", "409", "500"])
async def test_unsubscribing_from_one_topic_leaves_the_other(late: Answer) -> None:
    """A callback of two topics has one queue: what was under way for the one takes nothing of the other with it."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        await subscribe(hub, server, hub__topic="other")
        gate = asyncio.Event()
        server.say("POST", "/callback", late._replace(gate=gate), OK)
        await publish(hub, 2)
        await server.posted(1)
        for number in (3, 4):
            await hub.publish(event("Patient-open", f"p{number}", topic="other"))
        assert (await unsubscribe(hub, server.url())).status_code == 202
        gate.set()
        await server.posted(3)
        await quiet(hub)
        assert server.news() == [*opens(1), *opens(2, 3)]


@pytest.mark.req("WHK-5", "WHK-12")
async def test_unsubscribing_ends_also_what_waited_since_before_a_renewal() -> None:
    """Posts that the new subscription took over from the old one are its own: they end with it."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        gate = asyncio.Event()
        server.say("POST", "/callback", Answer(gate=gate), OK)
        await publish(hub, 3)
        await server.posted(1)
        await subscribe(hub, server)
        assert (await unsubscribe(hub, server.url())).status_code == 202
        gate.set()
        await quiet(hub)
        assert server.news() == opens(1)


@pytest.mark.req("WHK-5", "WHK-12")
async def test_unsubscribing_ends_also_a_renewal_that_is_not_verified_yet() -> None:
    """After the 202 nothing is posted, whatever the callback was still being asked."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        gate = asyncio.Event()
        server.say("GET", "/callback", Answer(body=None, gate=gate))
        await ask(hub, server.url())
        await server.asked(2)
        assert (await unsubscribe(hub, server.url())).status_code == 202
        gate.set()
        await quiet(hub)
        await publish(hub, 1)
        await quiet(hub)
        assert server.posts() == []


@pytest.mark.req("WHK-5", "UNS-3")
async def test_another_users_callback_cannot_be_unsubscribed() -> None:
    """404, the same as for one that is unknown or of another topic; it goes on being told."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        other = hub.token("user-2")
        foreign = await unsubscribe(hub, server.url(), other)
        unknown = await unsubscribe(hub, server.url("/unknown"))
        elsewhere = await unsubscribe(hub, server.url(), topic="elsewhere")
        assert foreign.status_code == unknown.status_code == elsewhere.status_code == 404
        assert foreign.text == unknown.text
        assert server.url() not in foreign.text
        await publish(hub, 1)
        await server.posted(1)


@pytest.mark.req("WHK-11", "LEA-4")
async def test_at_its_end_the_lease_is_denied() -> None:
    """GET with hub.mode=denied, topic, events and reason; no SyncError; and nothing after it."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, "/callback?a=b+c", hub__lease_seconds="60")
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            hub.clock.now += 61
            await hub.hub.service.tick()
            (denied,) = await server.asked(mode="denied")
            assert denied.target.startswith("/callback?a=b+c&hub.mode=denied&hub.topic=")
            assert denied.query["hub.events"] == PATIENT
            assert "lease" in denied.query["hub.reason"]
            await publish(hub, 1)
            await quiet(hub)
            assert await follower.silent()
        assert [each.method for each in server.requests] == ["GET", "GET"]
        assert (await unsubscribe(hub, server.url("/callback?a=b+c"))).status_code == 404


@pytest.mark.req("SES-5", "WHK-11")
async def test_a_logout_that_ends_the_session_is_posted_before_it_ends() -> None:
    """Behind what waited; then nothing is posted any more, and the callback is told that it is over."""
    async with hub_and_callbacks(logout_ends_session=True) as (hub, server):
        gate = asyncio.Event()
        await subscribe(hub, server, events="Patient-open,UserLogout")
        server.say("POST", "/callback", Answer(gate=gate), OK)
        await publish(hub, 1)
        await server.posted(1)
        assert (await hub.publish(event("UserLogout", "x"))).status_code == 202
        await publish(hub, 1, first=2)
        (denied,) = await server.asked(mode="denied")
        assert denied.query["hub.reason"] == "the user has logged out"
        gate.set()
        await quiet(hub)
        assert server.news() == ["Patient-open p1", "UserLogout x"]


@pytest.mark.req("WHK-11")
async def test_at_the_leases_end_nothing_is_tried_again() -> None:
    """Posts that wait, or failed and would be posted again, are over with it."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, hub__lease_seconds="60")
        gate = asyncio.Event()
        server.say("POST", "/callback", Answer(500, gate=gate))
        await publish(hub, 3)
        await server.posted(1)
        hub.clock.now += 61
        await hub.hub.service.tick()
        await server.asked(mode="denied")
        gate.set()
        await quiet(hub)
        assert server.news() == opens(1)


@pytest.mark.req("WHK-11")
@pytest.mark.parametrize("answer", [Answer(404), Answer(302), OK], ids=["404", "302", "200"])
async def test_a_denial_is_said_once(answer: Answer) -> None:
    """Whatever is answered."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, hub__lease_seconds="60")
        server.say("GET", "/callback", answer)
        hub.clock.now += 61
        await hub.hub.service.tick()
        await quiet(hub)
        assert len(server.gets(mode="denied")) == 1


# --- subscribing again ---


@pytest.mark.req("WHK-12")
async def test_the_old_subscription_works_until_the_new_one_is_verified() -> None:
    """Until then as it was granted; from then on as the new one was, each event once, signed by the new secret."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, events="Patient-open", hub__secret="old")
        gate = asyncio.Event()
        server.say("GET", "/callback", Answer(body=None, gate=gate))
        await ask(hub, server.url(), "Patient-open,Encounter-open", hub__secret="new", hub__lease_seconds="500")
        await server.asked(2)
        await publish(hub, 1)
        await hub.publish(event("Encounter-open", "e1"))
        (post,) = await server.posted(1)
        assert post.headers["x-hub-signature"] == signature(b"old", post.body)
        gate.set()
        await server.posted(3)  # and what is current
        await publish(hub, 1, 2)
        *_, post = await server.posted(4)
        assert post.headers["x-hub-signature"] == signature(b"new", post.body)
        await quiet(hub)
        assert server.news().count("Patient-open p2") == 1
        assert server.gets(mode="denied") == []
        assert hub.hub.service.usage.subscriptions == 1


@pytest.mark.req("WHK-12", "WHK-11")
async def test_the_new_lease_counts() -> None:
    """The end of the old one passes without a denial."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, hub__lease_seconds="60")
        await subscribe(hub, server, hub__lease_seconds="600")
        hub.clock.now += 61
        await hub.hub.service.tick()
        await publish(hub, 1)
        await server.posted(1)
        assert server.gets(mode="denied") == []


@pytest.mark.req("WHK-12", "WHK-3")
async def test_a_renewal_that_is_not_verified_changes_nothing() -> None:
    """The callback says no to the new one: the old one stays as it is."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, events="Patient-open")
        server.say("GET", "/callback", Answer(404))
        await ask(hub, server.url(), "Encounter-open")
        await server.asked(2)
        await until(lambda: hub.hub.service.usage.subscriptions == 1)
        await publish(hub, 1)
        await server.posted(1)


@pytest.mark.req("WHK-12")
async def test_of_two_that_are_being_verified_the_newer_counts() -> None:
    """Whoever changes his mind before he is asked gets what he asked for last, in whichever order he answers."""
    async with hub_and_callbacks() as (hub, server):
        gate = asyncio.Event()
        server.say("GET", "/callback", Answer(body=None, gate=gate))
        await ask(hub, server.url(), "Patient-open")
        await server.asked(1)
        await ask(hub, server.url(), "Encounter-open")
        await server.asked(2)
        gate.set()
        await quiet(hub)
        await publish(hub, 1)
        await hub.publish(event("Encounter-open", "e1"))
        await quiet(hub)
        assert server.news() == ["Encounter-open e1"]


@pytest.mark.req("WHK-12")
@pytest.mark.parametrize("limit", ["max_subscriptions_per_topic", "max_subscriptions_per_user"])
async def test_at_the_limit_a_callback_can_renew_itself(limit: str) -> None:
    """It takes its own place: there is no other way to renew a webhook."""
    async with hub_and_callbacks(**{limit: 1}) as (hub, server):
        await subscribe(hub, server)
        assert (await ask(hub, server.url())).status_code == 202


@pytest.mark.req("WHK-12")
async def test_other_callbacks_topics_and_users_live_beside() -> None:
    """Only the same callback of the same user in the same topic is replaced."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        await subscribe(hub, server, "/callback?2")
        await subscribe(hub, server, hub__topic="elsewhere")
        await subscribe(hub, server, hub__topic="theirs", token=hub.token("user-2"))
        assert len(active(hub)) == 4
        await publish(hub, 1)
        await server.posted(2)
        await quiet(hub)
        assert len(server.posts()) == 2


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
    """Nor is it a strike when a callback cannot take one: what does not matter ends no subscription."""
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
