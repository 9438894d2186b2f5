"""The spans of a request."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from fhircast_hub.service.ports import Stale
from fhircast_hub.telemetry.traces import MOST_STEPS
from tests.running import TOPIC, Clock, event, opened, running_hub, until
from tests.telemetry.traces_world import (
    SAMPLED,
    TRACE,
    Exported,
    attributes,
    children,
    following,
    moody,
)
from tests.webhook.callback_server import OK, Answer, hub_and_callbacks, subscribe


@pytest.mark.req("OPS-27")
@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("store", ["memory", "sqlite", "postgresql"])
async def test_the_spans_of_an_event(
    exported: Exported, tmp_path: Path, store: str, request: pytest.FixtureRequest
) -> None:
    urls: dict[str, Callable[[], Any]] = {
        "memory": lambda: "memory:",
        "sqlite": lambda: f"sqlite:///{tmp_path}/hub.db",
        "postgresql": lambda: request.getfixturevalue("database"),
    }
    clock = Clock(time.time())  # PostgreSQL's is the machine's
    async with running_hub(clock=clock, store=urls[store]()) as hub:
        endpoints = [await hub.subscribe(subscriber__name=name) for name in ("a", "b")]
        async with hub.follow(endpoints[0]) as first, hub.follow(endpoints[1]) as second:
            answer = await hub.publish(event("Patient-open", "p1"))
            assert (await first.names(1), await second.names(1)) == (["Patient-open"], ["Patient-open"])
        spans = exported.of(hub)
        topic = hub.hub._log_hash(TOPIC)
    [publish] = [span for span in spans if span.name == "publish"]
    assert (publish.kind, publish.parent, publish.status.status_code) == (SpanKind.SERVER, None, StatusCode.UNSET)
    assert attributes(publish) == {
        "http.request.method": "POST",
        "http.response.status_code": 202,
        "http.route": "publish",
        "fhircast.request_id": answer.headers["X-Request-Id"],
        "fhircast.topic": topic,
        "fhircast.event": "Patient-open",
    }
    steps = children(publish, spans)
    assert [(span.name, attributes(span)) for span in steps] == [
        ("decide", {}),
        ("commit", {"fhircast.store": store}),
        ("write", {"fhircast.subscribers": 2}),
    ]
    times = [moment for span in steps for moment in (span.start_time or 0, span.end_time or 0)]
    assert times == sorted(times)
    assert (publish.start_time or math.inf) <= times[0] <= times[-1] <= (publish.end_time or 0)
    assert abs(times[0] / 1e9 - time.time()) < 60
    assert {span.kind for span in steps} == {SpanKind.INTERNAL}
    assert len({span.context.trace_id for span in [publish, *steps] if span.context}) == 1


@pytest.mark.req("OPS-27")
async def test_each_event_of_a_transaction_has_its_own_write(exported: Exported, tmp_path: Path) -> None:
    """Commits of one turn share a transaction. Each span counts the subscribers of its own event."""
    async with running_hub(store=f"sqlite:///{tmp_path}/hub.db") as hub:
        counts = {f"topic-{number}": number for number in range(1, 4)}
        endpoints = [
            await hub.subscribe(hub__topic=topic, subscriber__name=str(number))
            for topic, count in counts.items()
            for number in range(count)
        ]
        async with following(hub, endpoints):
            events = [event("Patient-open", "p1", topic=topic) for topic in counts]
            await asyncio.gather(*(hub.publish(each) for each in events))
        spans = exported.of(hub)
        hashes = {hub.hub._log_hash(topic): count for topic, count in counts.items()}
    writes = {
        attributes(span)["fhircast.topic"]: attributes(children(span, spans)[-1])["fhircast.subscribers"]
        for span in spans
        if span.name == "publish"
    }
    assert writes == hashes


@pytest.mark.req("OPS-27")
@pytest.mark.usefixtures("both_ways")
async def test_other_requests_are_named_by_their_route(exported: Exported) -> None:
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        await hub.form(hub__mode="unsubscribe", hub__channel__endpoint=endpoint)
        await hub.context()
        await hub.client.get(f"{hub.url}/.well-known/fhircast-configuration")
        await hub.client.get(f"{hub.origin}/Quastenflosser")
        await hub.client.request("BREW", hub.url, headers=hub.headers())
        spans = [span for span in exported.of(hub) if span.kind is SpanKind.SERVER]
    named = [(span.name, attributes(span)["http.request.method"]) for span in spans]
    routes = ["subscribe", "unsubscribe", "context", "discovery", "other"]
    assert [name for name, _ in named[:5]] == routes
    assert all(attributes(span)["http.route"] == span.name for span in spans)
    assert all("Quastenflosser" not in span.to_json() and "BREW" not in span.to_json() for span in spans)


@pytest.mark.req("OPS-27")
@pytest.mark.usefixtures("both_ways")
async def test_a_refusal_is_no_error_of_the_hub(exported: Exported) -> None:
    """An event's name outside of the catalogue is "other", and a refusal is told without the client's text."""
    async with running_hub() as hub:
        opened = event("Quastenflosser-open", "p1")
        assert (await hub.publish(opened, hub.token(scope="fhircast/Patient-open.write"))).status_code == 403
        [span] = exported.of(hub, "publish")
    assert span.status.status_code is StatusCode.UNSET
    told = attributes(span)
    assert (told["fhircast.event"], told["fhircast.reason"], told["http.response.status_code"]) == (
        "other",
        "this token's scopes do not allow writing …",
        403,
    )
    assert "error.type" not in told


@pytest.mark.req("OPS-27")
@pytest.mark.usefixtures("both_ways")
async def test_a_failure_of_the_hub_is_an_error(exported: Exported) -> None:
    """By its type: no message, and no stack."""
    async with running_hub() as hub:
        await hub.subscribe()
        moody(hub).down = True
        assert (await hub.publish(event("Patient-open", "p1"))).status_code == 503
        spans = exported.of(hub)
    [publish] = [span for span in spans if span.name == "publish"]
    assert (publish.status.status_code, publish.status.description) == (StatusCode.ERROR, None)
    assert attributes(publish)["error.type"] == "503"
    assert [(span.name, attributes(span)) for span in children(publish, spans)] == [
        ("decide", {}),
        ("commit", {"fhircast.store": "memory", "error.type": "Unavailable"}),
    ]
    assert not any(span.events for span in spans)


@pytest.mark.req("OPS-27")
async def test_each_attempt_is_a_step(exported: Exported) -> None:
    """While others change the session, the hub decides again. After MOST_STEPS nothing more is noted."""

    def stale() -> None:
        raise Stale

    async with running_hub() as hub:
        await hub.subscribe()
        store = moody(hub)
        store.moods = [stale]
        await hub.publish(event("Patient-open", "p1"))
        spans = exported.of(hub)
        steps = children(next(span for span in spans if span.name == "publish"), spans)
        exported.memory.clear()
        store.moods = [stale] * MOST_STEPS
        await hub.publish(event("Patient-open", "p2"))
        many = exported.of(hub)
    assert [(span.name, attributes(span).get("error.type")) for span in steps[:3]] == [
        ("decide", None),
        ("commit", "Stale"),
        ("decide", None),
    ]
    assert len(many) == 1 + MOST_STEPS


@pytest.mark.req("OPS-27")
async def test_a_handshake_has_spans(exported: Exported) -> None:
    """The context is replayed by the commit that makes the socket the subscription's connection."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        await hub.publish(event("Patient-open", "p1"))
        exported.memory.clear()
        async with hub.follow(endpoint) as follower:
            assert await follower.names(1) == ["Patient-open"]
        with pytest.raises(InvalidHandshake):
            await connect(f"{endpoint}x", proxy=None, additional_headers={"traceparent": SAMPLED})
        spans = exported.of(hub)
        topic = hub.hub._log_hash(TOPIC)
    accepted, refused = [span for span in spans if span.name == "socket"]
    assert attributes(accepted)["http.response.status_code"] == 101
    assert attributes(accepted)["fhircast.topic"] == topic
    assert [span.name for span in children(accepted, spans)] == ["decide", "commit", "write"]
    assert (attributes(refused)["http.response.status_code"], children(refused, spans)) == (404, [])
    assert refused.context
    assert refused.context.trace_id == int(TRACE, 16)


@pytest.mark.req("OPS-27")
async def test_what_has_no_request_has_no_span(exported: Exported) -> None:
    """The end of a socket is a command of the hub's own. A request whose client is gone has no answer."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        async with hub.follow(endpoint):
            exported.of(hub)
            exported.memory.clear()
            store = moody(hub)
        await until(lambda: store.commits == 1)
        async with opened(hub) as (_, writer):
            head = (
                f"POST /api/hub HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {hub.token()}\r\nContent-Length: 99\r\n"
            )
            writer.write(f"{head}Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n{{".encode())
            await until(lambda: bool(hub.hub._traces and hub.hub._traces._recordings))
        await until(lambda: bool(hub.hub._traces and not hub.hub._traces._recordings))
        assert exported.of(hub) == []


@pytest.mark.req("OPS-27")
@pytest.mark.parametrize(("status", "is_error"), [(200, False), (410, True), (500, True)])
async def test_a_callback_is_a_span_without_its_url(exported: Exported, status: int, is_error: bool) -> None:
    """The question whether the callback wants its subscription, and each post."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        server.say("POST", "/callback", Answer(status), OK)
        await hub.publish(event("Patient-open", "p1"))
        await server.posted(1)
        await until(lambda: len(exported.of(hub, "callback")) > 1)
        question, post = exported.of(hub, "callback")[:2]
        assert str(server.port) not in question.to_json() + post.to_json()
        assert "traceparent" not in server.requests[-1].headers
    assert attributes(question) == {"http.request.method": "GET", "http.response.status_code": 200}
    more = {"error.type": str(status)} if is_error else {}
    assert attributes(post) == {"http.request.method": "POST", "http.response.status_code": status} | more
    assert (post.kind, post.parent) == (SpanKind.CLIENT, None)
    assert post.status.status_code is (StatusCode.ERROR if is_error else StatusCode.UNSET)
