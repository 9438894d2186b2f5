"""Fairness: no host is asked by many at once, and no user's callbacks delay another's."""

from __future__ import annotations

import asyncio

import pytest

from fhircast_hub.webhook import deliver, new_callbacks, resolver, verify
from fhircast_hub.webhook.new_callbacks import SECONDS_EACH
from tests.running import event, running_hub, until
from tests.webhook.address_world import client, silent_names
from tests.webhook.callback_server import (
    LOOPBACK,
    Answer,
    CallbackServer,
    active,
    ask,
    hub_and_callbacks,
    quiet,
    subscribe,
)

ANN, EVE = ("realm", "user:ann"), ("realm", "user:eve")


# --- new callbacks ---


@pytest.mark.req("WHK-13")
async def test_a_user_brings_so_many_new_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """More: 429 with Retry-After, in words, and nobody is asked. Other users may bring theirs."""
    monkeypatch.setattr(new_callbacks, "BURST", 2)
    monkeypatch.setattr(verify, "BURST", 2)
    async with hub_and_callbacks() as (hub, server):
        gate = asyncio.Event()
        for path in ("/1", "/2", "/3"):
            server.say("GET", path, Answer(body=None, gate=gate))
        assert [(await ask(hub, server.url(path))).status_code for path in ("/1", "/2")] == [202, 202]
        refused = await ask(hub, server.url("/3"))
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= SECONDS_EACH
        assert refused.text.startswith("hub.callback is new, and a user may bring at most 2 new callbacks at once")
        other = await ask(hub, server.url("/4"), token=hub.token("user-2"), hub__topic="theirs")
        assert other.status_code == 202
        assert "fhircast_callbacks_refused_total 1.0" in (await hub.client.get(hub.origin + "/metrics")).text
        assert hub.hub.service.usage.subscriptions == 3
        gate.set()
        await until(lambda: len(active(hub)) == 3)
        assert server.gets("/3") == []


@pytest.mark.req("WHK-13", "WHK-12", "WHK-23")
async def test_who_has_agreed_is_not_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal, another topic, another callback of a server that has verified one: none of them counts."""
    monkeypatch.setattr(new_callbacks, "BURST", 1)
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        for _ in range(2):
            await subscribe(hub, server)
        await subscribe(hub, server, hub__topic="another")
        await subscribe(hub, server, "/another?one")
        # But it agreed for this application alone, and at this port.
        other = hub.token(client_id="other")
        assert (await ask(hub, server.url(), token=other)).status_code == 429
        assert (await ask(hub, f"http://127.0.0.1:{server.port - 1}/")).status_code == 429


@pytest.mark.req("WHK-13", "WHK-10", "WHK-23")
async def test_a_refused_callback_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that get 400 do not use up the limit."""
    monkeypatch.setattr(new_callbacks, "BURST", 1)
    async with hub_and_callbacks() as (hub, server):
        for _ in range(3):
            assert (await ask(hub, "https://10.0.0.1/")).status_code == 400
        assert (await ask(hub, server.url())).status_code == 202
        await quiet(hub)


@pytest.mark.req("WHK-13", "WHK-10")
async def test_who_may_bring_no_more_has_no_more_names_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor has who came in the same moment as the last that was taken."""
    monkeypatch.setattr(new_callbacks, "BURST", 1)
    monkeypatch.setattr(verify, "RESOLVE_SECONDS", 0.1)
    async with running_hub() as hub:
        with silent_names(monkeypatch) as asked:
            answers = await asyncio.gather(*(ask(hub, f"https://{each}.slow.example/") for each in range(3)))
            assert sorted(answer.status_code for answer in answers) == [202, 429, 429]
            before = len(asked)
            assert (await ask(hub, "https://9.slow.example/")).status_code == 429
            assert len(asked) == before


# --- questions ---


@pytest.mark.req("WHK-14")
async def test_a_host_is_asked_one_at_a_time() -> None:
    """The limit counts all users, ports and spellings of a host. Another host is asked meanwhile."""
    async with hub_and_callbacks() as (hub, server), CallbackServer() as port, CallbackServer("127.0.0.2") as other:
        gate = asyncio.Event()
        server.say("GET", "/callback", Answer(body=None, gate=gate))
        await ask(hub, server.url())
        await server.asked()
        await ask(hub, f"http://127.1:{port.port}/a")
        await ask(hub, port.url("/b"), token=hub.token("user-2"), hub__topic="theirs")
        await subscribe(hub, other, hub__callback=f"http://127.0.0.2:{other.port}/callback")
        assert port.requests == []
        assert "fhircast_callback_questions 3.0" in (await hub.client.get(hub.origin + "/metrics")).text
        gate.set()
        await until(lambda: len(active(hub)) == 4)
        assert {request.path for request in port.requests} == {"/a", "/b"}
        await quiet(hub)
        assert len(hub.hub._webhooks._verifier._locks) == 0


@pytest.mark.req("WHK-14")
async def test_a_retry_waits_for_its_turn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry lets other questions of the same host pass first."""
    monkeypatch.setattr(verify, "FIRST_PAUSE", 0.01)
    async with hub_and_callbacks() as (hub, server):
        gate, other = asyncio.Event(), asyncio.Event()
        server.say("GET", "/fails", Answer(500, gate=gate), Answer(body=None))
        server.say("GET", "/other", Answer(body=None, gate=other))
        await ask(hub, server.url("/fails"))
        await server.asked(path="/fails")
        await ask(hub, server.url("/other"))
        gate.set()
        await server.asked(path="/other")
        await asyncio.sleep(0.05)  # the retry would have come
        assert len(server.gets("/fails")) == 1
        other.set()
        await until(lambda: len(active(hub)) == 2)


@pytest.mark.req("WHK-14")
async def test_users_of_a_host_take_turns() -> None:
    """A user with many questions is asked for once, and then the next user in the queue."""
    async with hub_and_callbacks() as (hub, server):
        gate = asyncio.Event()
        server.say("GET", "/1", Answer(body=None, gate=gate))
        for path in ("/1", "/2", "/3"):
            await ask(hub, server.url(path))
        await ask(hub, server.url("/theirs"), token=hub.token("user-2"), hub__topic="theirs")
        await server.asked(path="/1")
        gate.set()
        await until(lambda: len(active(hub)) == 4)
        assert [request.path for request in server.requests] == ["/1", "/theirs", "/2", "/3"]


@pytest.mark.req("WHK-14", "WHK-15")
async def test_who_waits_for_a_host_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions to a host that hangs take one place of their user's."""
    monkeypatch.setattr(verify, "AT_ONCE", 9)  # of which one user has two
    async with hub_and_callbacks() as (hub, server), CallbackServer("127.0.0.2") as other:
        gate = asyncio.Event()
        for number in range(5):
            server.say("GET", f"/{number}", Answer(body=None, gate=gate))
            await ask(hub, server.url(f"/{number}"))
        await subscribe(hub, other, hub__callback=f"http://127.0.0.2:{other.port}/callback")
        assert len(server.requests) == 1
        gate.set()
        await until(lambda: len(active(hub)) == 6)


@pytest.mark.req("WHK-14", "WHK-11", "WHK-24")
async def test_a_denial_that_waits_too_long_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that hangs leaves the hub no heap of them."""
    monkeypatch.setattr(verify, "DENIAL_SECONDS", 0.1)
    async with hub_and_callbacks() as (hub, server):
        gate = asyncio.Event()
        for path in ("/1", "/2"):
            server.say("GET", path, Answer(body=None), Answer(gate=gate))
            await subscribe(hub, server, path, hub__lease_seconds="60")
        hub.clock.now += 61
        await hub.hub.service.tick()
        await quiet(hub)
        gate.set()
        assert len(server.gets("/1", "denied") + server.gets("/2", "denied")) <= 1
        assert hub.hub._webhooks._denials._held == {}


# --- shares ---


@pytest.mark.req("WHK-15", "WHK-7")
async def test_two_users_hanging_callbacks_delay_no_third(monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold their shares of the places, and no more."""
    monkeypatch.setattr(deliver, "POSTS_AT_ONCE", 4)
    async with hub_and_callbacks() as (hub, server):
        gate = asyncio.Event()
        for user in ("user-2", "user-3"):
            for path in (f"/{user}/1", f"/{user}/2"):
                server.say("POST", path, Answer(gate=gate))
                await subscribe(hub, server, path, token=hub.token(user), hub__topic=user)
            await hub.publish(event("Patient-open", topic=user), hub.token(user))
        await subscribe(hub, server)
        await hub.publish(event("Patient-open", "p1"))
        await server.posted(1)
        gate.set()
        await quiet(hub)
        assert len(server.requests) == 2 * 5


@pytest.mark.req("WHK-15", "WHK-8", "WHK-26")
async def test_a_callback_of_two_users_has_a_queue_for_each() -> None:
    """An event that waits for one user's slot delays no other user's, though one server receives both."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, token=hub.token("user-2"), hub__topic="theirs")
        await subscribe(hub, server)
        gate = asyncio.Event()
        server.say("POST", "/callback", Answer(gate=gate), Answer())
        await hub.publish(event("Patient-open", "p1", topic="theirs"), hub.token("user-2"))
        await server.posted(1)
        await hub.publish(event("Patient-open", "p2"))
        await server.posted(2)
        gate.set()
        await quiet(hub)


@pytest.mark.req("WHK-15", "WHK-10")
async def test_ones_silent_names_leave_threads_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that nobody asked for before is found, however many of another user's are not."""
    monkeypatch.setattr(resolver, "AT_ONCE", 2)
    resolving = resolver.Resolver()
    with silent_names(monkeypatch):
        waiting = [asyncio.create_task(resolving.addresses(f"{n}.slow.example", 443, EVE)) for n in range(4)]
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            assert await resolving.addresses("localhost", 443, ANN)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert resolving._unknown_slots._held == {}


@pytest.mark.req("WHK-15", "WHK-25")
async def test_who_keeps_many_connections_loses_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of others stay, though they are older."""
    monkeypatch.setattr("fhircast_hub.webhook.client.KEPT_CALLBACKS", 3)
    async with CallbackServer() as server, client(LOOPBACK) as posting:
        assert (await posting.request("POST", server.url("/ann"), 5.0, user=ANN)).status == 200
        for number in range(6):
            assert (await posting.request("POST", server.url(f"/{number}"), 5.0, user=EVE)).status == 200
        assert (await posting.request("POST", server.url("/ann"), 5.0, user=ANN)).status == 200
        assert len(posting._pools) <= 4
        assert [request.connection for request in server.requests if request.path == "/ann"] == [1, 1]
