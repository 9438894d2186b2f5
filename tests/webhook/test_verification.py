"""The hub asks a callback to verify its subscription, and posts nothing before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhircast_hub.webhook import verify
from tests.running import TOPIC, event, until
from tests.webhook.callback_server import (
    DRIP,
    ECHO,
    HANG,
    PATIENT,
    RESET,
    Answer,
    ask,
    hub_and_callbacks,
    quiet,
    subscribe,
    unsubscribe,
)

#: Queries of callbacks, each of which is to come back byte for byte; and how what the hub adds is joined to it.
QUERIES = {
    "": "?",
    "?": "",
    "?a=b": "&",
    "?a=b&": "",
    "?a": "&",
    "?q=one+two%20three%2B&Q=%c3%A4&&=": "&",
    "?hub.mode=mine&url=https://x.example/%3Fa=b": "&",
    ";v=1": "?",
    ";v=1?x;y=(2)": "&",
    "/a//b/../%2e?x": "&",
    "?q=what?": "&",
}


@pytest.fixture
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callbacks have little time for their answer, and are asked again at once."""
    monkeypatch.setattr(verify, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(verify, "VERIFY_SECONDS", 0.2)


# --- what is asked ---


@pytest.mark.req("WHK-2", "SUB-1")
async def test_the_callback_is_asked_with_all_it_needs_to_know() -> None:
    """202 with {}; then a GET with mode, topic, granted events, lease and a challenge, and the subscription is active."""
    async with hub_and_callbacks() as (hub, server):
        topic = "a topic & more=ü"
        token = hub.token(scope="fhircast/Patient-open.* fhircast/Encounter-open.read")
        more = {"hub__topic": topic, "hub__lease_seconds": "1234"}
        answer = await ask(hub, server.url(), "patient-OPEN,Encounter-open,Patient-close", token, **more)
        assert (answer.status_code, answer.json()) == (202, {})
        (asked,) = await server.asked()
        challenge = asked.query["hub.challenge"]
        assert asked.query == {
            "hub.mode": "subscribe",
            "hub.topic": topic,
            "hub.events": "patient-OPEN,Encounter-open",
            "hub.challenge": challenge,
            "hub.lease_seconds": "1234",
        }
        assert asked.headers["host"] == f"127.0.0.1:{server.port}"
        await quiet(hub)
        await hub.publish(event("Patient-open", "p1", topic=topic), token)
        await server.posted(1)
        assert server.news() == ["Patient-open p1"]


@pytest.mark.req("WHK-2")
async def test_a_challenge_is_random() -> None:
    """At least 128 bits of it, new for each subscription, and nothing that a URL would have to escape."""
    async with hub_and_callbacks() as (hub, server):
        for path in ("/a", "/b"):
            await subscribe(hub, server, path)
        one, other = (server.gets(path)[0].query["hub.challenge"] for path in ("/a", "/b"))
        assert one != other
        assert len(one) >= 22
        assert f"hub.challenge={one}" in server.gets("/a")[0].target


@pytest.mark.req("WHK-2", "WHK-4")
@pytest.mark.parametrize("query", QUERIES)
async def test_a_callbacks_own_query_stays_byte_for_byte(query: str) -> None:
    """A verification adds the hub's parameters behind the callback's query. Posts keep the query unchanged."""
    async with hub_and_callbacks() as (hub, server):
        path = ("/callback" + query).partition("?")[0]
        await subscribe(hub, server, "/callback" + query)
        await hub.publish(event("Patient-open"))
        (post,) = await server.posted(1, path)
        assert post.target == "/callback" + query
        own, mark, added = server.requests[0].target.partition(QUERIES[query] + "hub.mode=subscribe&hub.topic=")
        assert (own, mark) == ("/callback" + query, QUERIES[query] + "hub.mode=subscribe&hub.topic=")
        assert added.startswith(TOPIC + "&hub.events=")


@pytest.mark.req("WHK-2")
async def test_a_callback_without_a_path_is_asked_at_the_root() -> None:
    """`http://host:port` and `http://host:port?query` are URLs."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, "")
        await subscribe(hub, server, "?a=b")
        await hub.publish(event("Patient-open"))
        assert {post.target for post in await server.posted(2, "/")} == {"/", "/?a=b"}


@pytest.mark.req("WHK-2", "SUB-4", "WHK-16")
@pytest.mark.parametrize("type_", ["webhook", "rest-hook", "websub", " webhook ", None, ""])
async def test_the_channel_has_several_names(type_: str | None) -> None:
    """Without a channel type, hub.callback shows that a webhook is meant."""
    async with hub_and_callbacks() as (hub, server):
        named: dict[str, Any] = {"hub__channel.type": type_}
        await subscribe(hub, server, **named)
        assert (await ask(hub, server.url("/b"), **{"hub__channel.type": "carrier-pigeon"})).status_code == 400


@pytest.mark.req("WHK-2", "LEA-2")
async def test_the_lease_that_is_told_is_the_one_that_is_granted() -> None:
    """Up to the maximum and the token's end."""
    async with hub_and_callbacks(default_lease=100, max_lease=500) as (hub, server):
        await subscribe(hub, server, "/a", hub__lease_seconds="9999")
        await subscribe(hub, server, "/b", token=hub.token(exp=int(hub.clock.now) + 90))
        leases = [server.gets(path)[0].query["hub.lease_seconds"] for path in ("/a", "/b")]
        assert leases == ["500", "90"]


# --- what is answered ---


@pytest.mark.req("WHK-2")
@pytest.mark.parametrize("status", [200, 201, 202, 206, 299])
async def test_any_2xx_with_the_challenge_activates(status: int) -> None:
    """The body is the challenge, in whatever encoding of HTTP, and with a line end behind it if need be."""
    async with hub_and_callbacks() as (hub, server):
        server.say("GET", "/callback", Answer(status, None))
        await subscribe(hub, server)
        await hub.publish(event("Patient-open"))
        assert len(await server.posted(1)) == 1


NOT_WANTED = {
    "another body": [Answer(body=b"yes")],
    "no body": [Answer(body=b"")],
    "204": [Answer(204)],
    "404 with the challenge": [Answer(404, None)],
    "410": [Answer(410, None)],
    "a redirect with the challenge": [Answer(302, None, ("Location: /elsewhere",))],
    "a permanent redirect": [Answer(308, None, ("Location: /elsewhere",))],
    "500 with the challenge": [Answer(500, None)],
    "101": [Answer(raw=b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")],
    "no HTTP": [Answer(raw=b"\x16\x03\x01 no HTTP at all\r\n\r\n\0\0")],
    "an odd status": [Answer(raw=b"HTTP/1.1 2oo OK\r\n\r\n")],
    "half an answer": [Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")],
    "an odd length": [Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n")],
    "an odd chunk": [Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")],
    "a header without an end": [Answer(raw=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000)],
    "10 MB": [Answer(body=b"x" * 10_000_000)],
    "a body without an end": [Answer(endless=True)],
    "a reset": [RESET],
    "nothing": [HANG],
    "a few bytes at a time": [DRIP],
}


@pytest.mark.req("WHK-3")
@pytest.mark.parametrize("how", NOT_WANTED)
@pytest.mark.usefixtures("in_haste")
async def test_anything_else_does_not_activate(how: str) -> None:
    """The subscription is gone, nothing is posted, no redirect is followed, and all is as if it had never been."""
    async with hub_and_callbacks() as (hub, server):
        server.say("GET", "/callback", *NOT_WANTED[how])
        assert (await ask(hub, server.url())).status_code == 202
        await until(lambda: not hub.hub.service.usage.subscriptions)
        await hub.publish(event("Patient-open"))
        await quiet(hub)
        assert {(each.method, each.path) for each in server.requests} == {("GET", "/callback")}
        assert (await unsubscribe(hub, server.url())).status_code == 404


@pytest.mark.req("WHK-3")
@pytest.mark.usefixtures("in_haste")
async def test_another_subscriptions_challenge_does_not_activate() -> None:
    """Each is good for what it was sent with."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, "/a")
        challenge = server.gets("/a")[0].query["hub.challenge"]
        server.say("GET", "/b", Answer(body=challenge.encode()))
        await ask(hub, server.url("/b"))
        await until(lambda: hub.hub.service.usage.subscriptions == 1)


@pytest.mark.req("WHK-3")
@pytest.mark.usefixtures("in_haste")
@pytest.mark.parametrize("body", [b"%sx", b"x%s", b"%s" + b" " * 5000 + b"x", b"hub.challenge=%s"])
async def test_the_challenge_and_more_does_not_activate(body: bytes) -> None:
    """A callback that echoes any request has not confirmed."""
    async with hub_and_callbacks() as (hub, server):
        server.say("GET", "/callback", Answer(body=None, echo=body))
        await ask(hub, server.url())
        await until(lambda: not hub.hub.service.usage.subscriptions)


@pytest.mark.req("WHK-2", "WHK-17")
@pytest.mark.usefixtures("in_haste")
@pytest.mark.parametrize("first", [Answer(500), Answer(503, None), RESET, HANG])
async def test_a_callback_that_fails_is_asked_again(first: Answer) -> None:
    """A starting callback may fail once. The second time it confirms."""
    async with hub_and_callbacks() as (hub, server):
        server.say("GET", "/callback", first, ECHO)
        await subscribe(hub, server)
        one, two = server.gets()
        assert one.target == two.target


@pytest.mark.req("WHK-3", "WHK-17")
@pytest.mark.usefixtures("in_haste")
@pytest.mark.parametrize(("answer", "times"), [(Answer(404), 1), (Answer(302), 1), (Answer(500), 3), (RESET, 3)])
async def test_a_callback_is_asked_a_few_times_at_most(answer: Answer, times: int) -> None:
    """A refusal is asked once. A server error or no answer is asked again."""
    async with hub_and_callbacks() as (hub, server):
        server.say("GET", "/callback", answer)
        await ask(hub, server.url())
        await until(lambda: not hub.hub.service.usage.subscriptions)
        await quiet(hub)
        assert len(server.requests) == times


# --- what waits, and what does not ---


@pytest.mark.req("WHK-2", "WHK-7")
async def test_the_202_waits_for_nobody() -> None:
    """The 202 comes before the callback's answer, and the hub goes on with other work."""
    async with hub_and_callbacks() as (hub, server):
        gate = asyncio.Event()
        server.say("GET", "/callback", Answer(body=None, gate=gate))
        assert (await ask(hub, server.url())).status_code == 202
        await server.asked()
        async with hub.follow(await hub.subscribe()) as follower:
            await hub.publish(event("Patient-open"))
            assert await follower.names(1) == ["Patient-open"]
        gate.set()
        await server.posted(1)


@pytest.mark.req("WHK-2", "WHK-9", "CTX-1", "CTX-5")
async def test_nothing_is_posted_before_and_what_is_current_then_is_posted_after() -> None:
    """A context opened and closed during verification is not sent. Open contexts are sent once, oldest first."""
    async with hub_and_callbacks() as (hub, server):
        gate = asyncio.Event()
        server.say("GET", "/callback", Answer(body=None, gate=gate))
        await hub.publish(event("Encounter-open", "e1"))
        await hub.publish(event("Patient-open", "p0"))
        await ask(hub, server.url(), f"{PATIENT},ImagingStudy-open")
        await server.asked()
        await hub.publish(event("ImagingStudy-open", "s1"))
        await hub.publish(event("Patient-open", "p1"))
        await hub.publish(event("Patient-close", "p0"))
        assert server.posts() == []
        gate.set()
        await server.posted(2)
        await hub.publish(event("Patient-close", "p1"))
        await server.posted(3)
        assert server.news() == ["ImagingStudy-open s1", "Patient-open p1", "Patient-close p1"]


@pytest.mark.req("WHK-5")
@pytest.mark.usefixtures("in_haste")
async def test_unsubscribed_before_it_has_answered() -> None:
    """The late confirmation does not count, and nothing is posted."""
    async with hub_and_callbacks() as (hub, server):
        gate = asyncio.Event()
        server.say("GET", "/callback", Answer(body=None, gate=gate))
        await ask(hub, server.url())
        await server.asked()
        assert (await unsubscribe(hub, server.url())).status_code == 202
        gate.set()
        await quiet(hub)
        await hub.publish(event("Patient-open"))
        await quiet(hub)
        assert server.posts() == []


@pytest.mark.req("SUB-14")
async def test_who_never_answers_within_the_connect_timeout_is_gone() -> None:
    """A confirmation after CONNECT_TIMEOUT does not count."""
    async with hub_and_callbacks(connect_timeout=5) as (hub, server):
        gate = asyncio.Event()
        server.say("GET", "/callback", Answer(body=None, gate=gate))
        await ask(hub, server.url())
        await server.asked()
        hub.clock.now += 6
        await hub.hub.service.tick()
        assert hub.hub.service.usage.subscriptions == 0
        gate.set()
        await quiet(hub)
        await hub.publish(event("Patient-open"))
        assert server.posts() == []
        assert server.gets(mode="denied") == []
