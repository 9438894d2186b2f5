"""The hub connects to the address that was checked."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from typing import Any

import httpcore
import pytest

from fhircast_hub.webhook import address_guard, resolver
from fhircast_hub.webhook.address_guard import Guard, GuardedBackend
from tests.running import event, running_hub, until
from tests.webhook.address_world import Names, client, silent_names
from tests.webhook.callback_server import LOOPBACK, Answer, CallbackServer, ask, hub_and_callbacks, quiet, subscribe


@pytest.mark.req("SEC-5")
async def test_a_name_that_changes_its_address_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public when it is checked, private when it is connected to: nobody is asked, and the subscription is gone."""
    async with CallbackServer() as server, running_hub() as hub:
        monkeypatch.setattr(address_guard, "SECURE_PORTS", (443, server.port))
        names = Names(monkeypatch, **{"rebinding.example": [["8.8.8.8"], ["127.0.0.1"]]})
        assert (await ask(hub, f"https://rebinding.example:{server.port}/callback")).status_code == 202
        await until(lambda: not hub.hub.service.usage.subscriptions)
        assert names.asked == ["rebinding.example"] * 2
        assert server._connections == 0


@pytest.mark.req("SEC-5")
async def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each connection the name is resolved once."""
    async with CallbackServer() as server, client(["127.0.0.1/32"]) as posting:
        names = Names(monkeypatch, **{"app.example": [["127.0.0.1"], ["127.0.0.2"]]})
        answer = await posting.request("POST", f"http://app.example:{server.port}/callback", 5.0)
        assert answer.status == 200
        assert names.asked == ["app.example"]
        assert server.requests[0].headers["host"] == f"app.example:{server.port}"


@pytest.mark.req("SEC-5", "WHK-6")
async def test_a_name_that_leads_elsewhere_after_the_verification_is_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every connection is checked anew; what cannot be posted is a SyncError like any silence."""
    async with hub_and_callbacks(webhook_allowed_networks=["127.0.0.1/32"], ack_timeout=1) as (hub, server):
        names = Names(monkeypatch, **{"app.example": [["127.0.0.1"]]})
        raw = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        server.say("POST", "/callback", Answer(raw=raw))
        await subscribe(hub, server, hub__callback=f"http://app.example:{server.port}/callback")
        await hub.publish(event("Patient-open", "p1"))
        await server.posted(1)
        await quiet(hub)
        names.addresses["app.example"] = [["127.0.0.2"]]
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            await hub.publish(event("Patient-open", "p2"))
            assert await follower.names(1) == ["SyncError"]
        assert server.news() == ["Patient-open p1"]


@pytest.mark.req("WHK-10", "WHK-22")
@pytest.mark.parametrize("answers", [[[]], [[], ["127.0.0.1"]]], ids=["for ever", "at first"])
async def test_a_name_that_cannot_be_resolved_is_taken_and_checked_later(
    answers: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """202: a name may fail for a moment. If it later leads to a forbidden address, nobody is asked."""
    monkeypatch.setattr("fhircast_hub.webhook.verify.FIRST_PAUSE", 0.001)
    async with CallbackServer() as server, running_hub() as hub:
        monkeypatch.setattr(address_guard, "SECURE_PORTS", (443, server.port))
        Names(monkeypatch, **{"app.example": answers})
        assert (await ask(hub, f"https://app.example:{server.port}/callback")).status_code == 202
        await until(lambda: not hub.hub.service.usage.subscriptions)
        assert server._connections == 0


@pytest.mark.req("WHK-10", "WHK-7", "WHK-22")
async def test_a_name_that_takes_long_to_resolve_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """202 after a second, while others go on."""
    monkeypatch.setattr(resolver, "AT_ONCE", 4)
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, hub__callback=f"http://localhost:{server.port}/1")
        with silent_names(monkeypatch):
            waiting = asyncio.create_task(ask(hub, "https://1.slow.example/"))
            await subscribe(hub, server)
            assert not waiting.done()
            assert (await waiting).status_code == 202
            # However many names are silent at once, those that were found before are found.
            await asyncio.gather(*(ask(hub, f"https://{each}.slow.example/") for each in range(8)))
            await subscribe(hub, server, "/2", hub__callback=f"http://localhost:{server.port}/2")


@pytest.mark.req("WHK-7")
async def test_silent_names_are_asked_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each on one thread, however many wait for it; the others wait, but for those whose names were found before."""
    monkeypatch.setattr(resolver, "AT_ONCE", 20)  # of which one user has four
    resolving = resolver.Resolver()
    Names(monkeypatch, **{"app.example": [["8.8.8.8"]], "new.example": [["8.8.8.8"]]})
    assert await resolving.addresses("app.example", 443) == ["8.8.8.8"]
    with silent_names(monkeypatch) as asked:
        waiting = [asyncio.create_task(resolving.addresses(f"{each % 6}.slow.example", 443)) for each in range(12)]
        waiting.append(asyncio.create_task(resolving.addresses("new.example", 443)))
        await asyncio.sleep(0)
        assert await resolving.addresses("app.example", 443) == ["8.8.8.8"]
        assert await resolving.addresses("127.1", 443) == ["127.0.0.1"]
        for each in waiting[:6]:
            each.cancel()  # a cancelled wait frees no place
        await asyncio.wait(waiting[:6])
        # The stop of the hub waits for no name.
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == "resolver")
        assert sorted(asked) == [f"{each}.slow.example" for each in range(4)]
    assert await waiting[-1] == ["8.8.8.8"]
    refused = await asyncio.gather(*waiting[6:-1], return_exceptions=True)
    assert {type(each) for each in refused} == {OSError}
    assert resolving._pending == {}


@pytest.mark.req("SEC-5")
@pytest.mark.parametrize("order", [["127.0.0.9", "127.0.0.1"], ["127.0.0.1", "127.0.0.9"]], ids=["last", "first"])
async def test_of_several_addresses_the_next_is_tried(order: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens at the first: all of them were checked."""
    async with CallbackServer() as server, client(LOOPBACK) as posting:
        Names(monkeypatch, **{"app.example": [order]})
        answer = await posting.request("POST", f"http://app.example:{server.port}/callback", 5.0)
        assert answer.status == 200


class _Silent(httpcore.AsyncNetworkBackend):
    """Nobody answers at any address but one."""

    def __init__(self, real: httpcore.AsyncNetworkBackend, but: str) -> None:
        self._real, self._but = real, but

    async def connect_tcp(self, host: str, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        if host != self._but:
            raise httpcore.ConnectTimeout
        return await self._real.connect_tcp(host, *args, **options)


@pytest.mark.req("SEC-5", "WHK-7")
async def test_of_several_addresses_the_next_is_tried_where_the_first_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host whose IPv6 leads nowhere is common."""
    async with CallbackServer() as server:
        Names(monkeypatch, **{"app.example": [["127.0.0.9", "127.0.0.1"]]})
        backend = GuardedBackend(Guard([ipaddress.ip_network("127.0.0.0/8")], allow_insecure=False), secure=False)
        monkeypatch.setattr(backend, "_backend", _Silent(backend._backend, "127.0.0.1"))
        stream = await backend.connect_tcp("app.example", server.port, 1.0)
        await stream.aclose()
