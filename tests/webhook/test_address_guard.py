"""The address guard: no callback leads into the hospital's own network, however its address is written or found."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpcore
import pytest

from fhircast_hub.webhook import address_guard, resolver
from fhircast_hub.webhook.address_guard import ForbiddenAddress, Guard, GuardedBackend
from fhircast_hub.webhook.client import Client
from tests.certificates import make_certificate
from tests.running import event, running_hub, until
from tests.webhook.callback_server import LOOPBACK, Answer, CallbackServer, ask, hub_and_callbacks, quiet, subscribe

#: Spellings of hosts that nobody may be posted to.
SPELLINGS = [
    *("127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1"),
    *("017700000001", "0x7F.0x0.0x0.0x1", "0177.0x0.1", "127.0.0.01", "00000177.0.0.1"),
    *("0.0.0.0", "0", "0x0", "00", "0.0"),
    *(
        "10.0.0.1",
        "10.1",
        "167772161",
        "0xa000001",
        "012.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "0xc0a80101",
        "192.168.257",
    ),
    *("169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "0xa9.254.0251.254"),
    *("100.64.0.1", "100.100.100.200", "168.63.129.16", "198.18.0.1", "192.0.2.1", "203.0.113.7"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "4294967295", "0xffffffff"),
    *("[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::0.0.0.1]"),
    *("[::ffff:127.0.0.1]", "[::FFFF:7F00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::ffff:0.0.0.0]", "[::ffff:a9fe:a9fe]"),
    *("[::127.0.0.1]", "[::7f00:1]", "[::ffff:0:127.0.0.1]", "[::10.0.0.1]"),
    *(
        "[64:ff9b::127.0.0.1]",
        "[64:FF9B::7f00:1]",
        "[64:ff9b::10.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::7f00:1]",
    ),
    *("[2002:7f00:1::]", "[2002:a00:1::1]", "[2002:a9fe:a9fe::]", "[2001:0:7f00:1::]", "[2001:0:0:0:0:0:80ff:fffe]"),
    *("[fe80::1]", "[FE80::1]", "[fe80::1%lo]", "[fe80::1%1]", "[febf::1]"),
    *("[fc00::1]", "[fd00:ec2::254]", "[FD12:3456::1]", "[ff02::1]", "[ff0e::1]", "[2001:db8::1]", "[100::1]"),
]
#: Spellings that some resolvers understand, and others do not.
ODD = [
    "127.0.0.1.",
    "127.1.",
    "[fe80::1%25lo]",
    "%31%32%37.0.0.1",
    "127.0.0.1%00.example",
    "1%2e1",
    "0x7f.0.0.1.",
    "0000::1",
]
ODD += [
    "127.0.0.256",
    "0x100000000",
    "127..1",
    ".127.0.0.1",
    "127.0.0.1..",
    "localhost%2f",
    "-",
    "_",
    "a" * 70 + ".example",
]
#: Names whose addresses a test decides.
NAMES = ["localhost", "LOCALHOST", "LocalHost", "localhost.", "localhost.localdomain", "app.localhost", "ip6-localhost"]
NAMES += ["metadata.google.internal", "METADATA.google.internal.", "hospital.example", "127.0.0.1.nip.example"]

Found = list[tuple[Any, Any, int, str, tuple[Any, ...]]]


class Names:
    """A resolver of the test's own. Names have addresses, the last for ever; what is an address stays what it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **addresses: list[list[str]]) -> None:
        self.addresses = addresses
        self.asked: list[str] = []
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._resolve)

    def _resolve(self, host: Any, port: Any, *options: int, **more: int) -> Found:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.addresses or socket.AI_NUMERICHOST in options:
            return list(self._real(host, port, *options, **more))
        self.asked.append(name)
        answers = self.addresses[name]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if not answer:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port)))
            for address in answer
        ]


@contextlib.asynccontextmanager
async def client(
    networks: Iterable[str] = (), *, allow_insecure: bool = False, forbidden: Iterable[str] = ()
) -> AsyncIterator[Client]:
    """What posts to callbacks, without a hub."""
    allowed, none = ([ipaddress.ip_network(network) for network in given] for given in (networks, forbidden))
    made = Client(Guard(allowed, allow_insecure=allow_insecure, forbidden=none), http2=False)
    try:
        yield made
    finally:
        await made.aclose()


# --- spellings ---


@pytest.mark.req("SEC-5", "WHK-10")
async def test_no_spelling_of_a_forbidden_address_is_taken() -> None:
    """400 by https and by http; the reason says what is expected and repeats no address."""
    assert len(SPELLINGS) > 40
    async with running_hub() as hub:
        for host in SPELLINGS:
            for callback in (f"https://{host}/x", f"http://{host}:8080/"):
                answer = await ask(hub, callback)
                assert answer.status_code == 400, callback
                assert answer.text.startswith("hub.callback must be a public https URL"), callback
                assert host not in answer.text
        assert hub.hub.service.usage.subscriptions == 0


@pytest.mark.req("SEC-5")
async def test_no_spelling_of_a_forbidden_address_is_connected_to() -> None:
    """Should one get that far."""
    async with client(allow_insecure=True) as posting:
        for host in SPELLINGS:
            for scheme in ("http", "https"):
                with pytest.raises(ForbiddenAddress, match="neither public"):
                    await posting.request("POST", f"{scheme}://{host}/", 2.0)


@pytest.mark.req("SEC-5", "WHK-10")
async def test_what_only_some_resolvers_understand_is_refused_or_not_connected_to() -> None:
    """What this one does not understand is taken, as any name that cannot be resolved now, and leads nowhere."""
    async with CallbackServer() as server, running_hub() as hub, client(["192.0.2.1"]) as posting:
        for host in ODD:
            assert (await ask(hub, f"https://{host}/x")).status_code in (202, 400), host
            with contextlib.suppress(ForbiddenAddress):
                assert (await posting.request("GET", f"http://{host}:{server.port}/x", 2.0)).status == 0, host
        assert server._connections == 0


@pytest.mark.req("SEC-5", "WHK-10")
@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "fe80::1%2", "fd00::1", "::ffff:7f00:1"]
)
async def test_no_name_of_a_forbidden_address_is_taken(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is written, and whatever else it resolves to."""
    async with running_hub() as hub:
        for name in NAMES:
            for answer in (
                [address],
                ["8.8.8.8", address],
                [address, "8.8.8.8"],
                ["2606:4700::1111", "8.8.8.8", address],
            ):
                with monkeypatch.context() as patched:
                    names = Names(patched, **{name.lower(): [answer], name: [answer]})
                    refused = await ask(hub, f"https://{name}/x")
                    assert refused.status_code == 400, (name, answer)
                    assert len(names.asked) == 1


@pytest.mark.req("SEC-5")
@pytest.mark.parametrize("host", ["127.0.0.2", "127.2", "[::1]", "[::ffff:127.0.0.2]", "10.0.0.1"])
async def test_a_network_that_is_allowed_allows_no_other(host: str) -> None:
    """Only exactly those networks are open."""
    async with running_hub(webhook_allowed_networks=["127.0.0.1/32", "::2/128"]) as hub:
        assert (await ask(hub, f"http://{host}:9/")).status_code == 400
        assert (await ask(hub, "http://127.0.0.1:9/")).status_code == 202


@pytest.mark.req("SEC-5")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]"])
async def test_a_network_that_is_allowed_is_so_in_any_spelling(host: str) -> None:
    """The address counts; the Host header is the URL's."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, hub__callback=f"http://{host}:{server.port}/callback")
        assert server.requests[0].headers["host"] == f"{host}:{server.port}"


# --- names ---


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


@pytest.mark.req("WHK-10")
@pytest.mark.parametrize("answers", [[[]], [[], ["127.0.0.1"]]], ids=["for ever", "at first"])
async def test_a_name_that_cannot_be_resolved_is_taken_and_checked_later(
    answers: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """202: it may be a bad moment; where it then leads to a forbidden address, nobody is asked."""
    monkeypatch.setattr("fhircast_hub.webhook.verify.FIRST_PAUSE", 0.001)
    async with CallbackServer() as server, running_hub() as hub:
        monkeypatch.setattr(address_guard, "SECURE_PORTS", (443, server.port))
        Names(monkeypatch, **{"app.example": answers})
        assert (await ask(hub, f"https://app.example:{server.port}/callback")).status_code == 202
        await until(lambda: not hub.hub.service.usage.subscriptions)
        assert server._connections == 0


@pytest.mark.req("WHK-10", "WHK-7")
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
            each.cancel()  # who does not wait any more frees no place
        await asyncio.wait(waiting[:6])
        # Who ends the hub waits for none of them.
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == "resolver")
        assert sorted(asked) == [f"{each}.slow.example" for each in range(4)]
    assert await waiting[-1] == ["8.8.8.8"]
    refused = await asyncio.gather(*waiting[6:-1], return_exceptions=True)
    assert {type(each) for each in refused} == {OSError}
    assert resolving._pending == {}


@contextlib.contextmanager
def silent_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names under slow.example whose servers say nothing until the end; those that they were asked for."""
    real, gate, asked = socket.getaddrinfo, threading.Event(), list[str]()

    def slow(host: Any, port: Any, *options: int, **more: int) -> Any:
        if str(host).endswith("slow.example") and socket.AI_NUMERICHOST not in options:
            asked.append(host)
            assert gate.wait(20)
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return real(host, port, *options, **more)

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", slow)
        try:
            yield asked
        finally:
            gate.set()


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


# --- schemes, redirects, proxies ---


@pytest.mark.req("WHK-10", "SEC-5")
@pytest.mark.parametrize(("insecure", "status"), [(False, 400), (True, 202)])
async def test_http_to_a_public_address_is_refused(
    insecure: bool, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless ALLOW_INSECURE; which opens no private network."""
    async with running_hub(allow_insecure=insecure) as hub:
        Names(monkeypatch, **{"app.example": [["8.8.8.8"], []], "inside.example": [["10.0.0.1"]]})
        answer = await ask(hub, "http://app.example/")
        assert answer.status_code == status
        assert insecure or "http" in answer.text
        assert (await ask(hub, "http://inside.example/")).status_code == 400
        assert (await ask(hub, "https://inside.example/")).status_code == 400


@pytest.mark.req("WHK-10", "SEC-5")
async def test_a_public_address_at_another_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 that names the port; also where the name cannot be resolved now, for no network is allowed."""
    async with running_hub() as hub:
        addresses: dict[str, list[list[str]]] = {"app.example": [["8.8.8.8"]], "later.example": [[]]}
        Names(monkeypatch, **addresses)
        for name in ("app.example", "later.example", "8.8.8.8"):
            for port in (22, 80, 444, 8080, 9200):
                refused = await ask(hub, f"https://{name}:{port}/")
                assert refused.status_code == 400, (name, port)
                assert f"its port must be 443 or 8443, not {port}, outside FHIRCAST_WEBHOOK" in refused.text


@pytest.mark.req("WHK-10", "SEC-5")
@pytest.mark.parametrize("networks", [(), ("192.0.2.0/24",)], ids=["none allowed", "another allowed"])
@pytest.mark.parametrize("insecure", [False, True])
async def test_public_addresses_are_asked_at_the_ports_of_their_scheme(
    insecure: bool, networks: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """443 and 8443 by https; 80 and 8080 by http, with ALLOW_INSECURE alone."""
    Names(monkeypatch, **{"app.example": [["8.8.8.8"]]})
    guarding = Guard([ipaddress.ip_network(network) for network in networks], allow_insecure=insecure)
    open_: dict[bool, list[int]] = {True: [], False: []}
    for secure, ports in open_.items():
        for port in (1, 22, 80, 443, 444, 8080, 8443, 65535):
            with contextlib.suppress(ForbiddenAddress):
                assert await guarding.addresses("app.example", port, secure=secure) == ["8.8.8.8"]
                ports.append(port)
    assert open_ == {True: [443, 8443], False: [80, 8080] if insecure else []}


@pytest.mark.req("WHK-10", "SEC-5")
async def test_other_ports_are_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should one get that far; a network that is allowed is so at any port, though others are not."""
    async with CallbackServer() as server, client(["127.0.0.1"]) as posting:
        Names(monkeypatch, **{"app.example": [["8.8.8.8"]]})
        with pytest.raises(ForbiddenAddress, match="not 25"):
            await posting.request("POST", "https://app.example:25/", 2.0)
        assert (await posting.request("POST", server.url(), 2.0)).status == 200


# --- networks that are forbidden ---


@pytest.mark.req("WHK-10", "SEC-5")
@pytest.mark.parametrize("network", ["8.8.0.0/16", "::ffff:8.8.0.0/112", "64:ff9b::808:0/112"])
async def test_a_forbidden_network_is_so_in_any_spelling(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hospital's inside may have public addresses: 400, naming the setting, by whichever version of IP."""
    async with running_hub(webhook_forbidden_networks=[network]) as hub:
        Names(monkeypatch, **{"app.example": [["1.1.1.1", "8.8.8.8"]]})
        for host in ("8.8.8.8", "8.8.2056", "0x08080808", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]", "app.example"):
            refused = await ask(hub, f"https://{host}/")
            assert refused.status_code == 400, host
            assert "FHIRCAST_WEBHOOK_FORBIDDEN_NETWORKS" in refused.text
            assert "8.8" not in refused.text


@pytest.mark.req("SEC-5")
async def test_a_forbidden_network_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should one get that far: the name had another address before."""
    async with client(forbidden=["8.8.0.0/16"]) as posting:
        Names(monkeypatch, **{"app.example": [["8.8.8.8"]]})
        with pytest.raises(ForbiddenAddress, match="FORBIDDEN_NETWORKS"):
            await posting.request("POST", "https://app.example/", 2.0)


@pytest.mark.req("SEC-5", "WHK-10")
@pytest.mark.parametrize(
    ("allowed", "forbidden", "status"),
    [
        (["127.0.0.0/8"], ["127.0.0.1/32"], 0),
        (["127.0.0.1/32"], ["127.0.0.0/8"], 200),
        (["127.0.0.0/8"], ["127.0.0.0/8"], 0),
        (["127.0.0.0/8"], ["::ffff:127.0.0.1/128"], 0),
        (["::ffff:127.0.0.1/128"], ["127.0.0.0/8"], 200),
        (["127.0.0.0/8"], ["128.0.0.0/8", "::/0"], 200),
    ],
)
async def test_of_two_networks_the_narrower_counts(allowed: list[str], forbidden: list[str], status: int) -> None:
    """Of two that are the same, the forbidden one."""
    async with CallbackServer() as server, client(allowed, forbidden=forbidden) as posting:
        try:
            answer = (await posting.request("POST", server.url(), 2.0)).status
        except ForbiddenAddress:
            answer = 0
        assert (answer, server._connections) == (status, bool(status))


@pytest.mark.req("WHK-7", "WHK-8")
async def test_connections_that_are_kept_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the callbacks that were asked last; who subscribes ever new ones leaves the hub its files."""
    monkeypatch.setattr("fhircast_hub.webhook.client.KEPT_CALLBACKS", 2)
    async with CallbackServer() as server, client(LOOPBACK) as posting:
        for path in ("/1", "/2", "/3", "/4", "/5", "/5"):
            assert (await posting.request("POST", server.url(path), 5.0)).status == 200
        assert [callback for _, callback in posting._pools] == [server.url(path) for path in ("/4", "/5")]
        assert server._connections == 5


@pytest.mark.req("SEC-5")
async def test_http_to_a_public_address_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should one get that far."""
    async with client() as posting:
        Names(monkeypatch, **{"app.example": [["8.8.8.8"]]})
        with pytest.raises(ForbiddenAddress):
            await posting.request("POST", "http://app.example/", 2.0)


@pytest.mark.req("SEC-5")
async def test_no_file_is_a_callback() -> None:
    """Not that httpcore would ask."""
    backend = GuardedBackend(Guard([], allow_insecure=False), secure=False)
    with pytest.raises(ForbiddenAddress):
        await backend.connect_unix_socket("/run/some.sock")


@pytest.mark.req("SEC-5", "WHK-3")
async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect to wherever it likes."""
    async with CallbackServer() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with hub_and_callbacks() as (hub, server):
            await subscribe(hub, server)
            await hub.publish(event("Patient-open"))
            await server.posted(1)
        assert proxy._connections == 0


# --- TLS ---


@contextlib.asynccontextmanager
async def tls_server(certificate: Path, key: Path) -> AsyncIterator[tuple[int, list[str | None], list[bytes]]]:
    """A server with TLS that answers 200: its port, the names it was asked for, and the heads of the requests."""
    asked: list[str | None] = []
    heads: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda _, name, __: asked.append(name)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], asked, heads


@pytest.mark.req("SEC-5")
@pytest.mark.parametrize(
    ("certified", "trusted", "status"),
    [("app.example", True, 200), ("other.example", True, 0), ("app.example", False, 0)],
    ids=["its own", "another's", "nobody's"],
)
async def test_tls_and_host_keep_the_name_of_the_url(
    certified: str, trusted: bool, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connected to an address, the server is asked for the name, and must prove that it is that; else nothing is posted."""
    certificate, key = make_certificate(tmp_path, certified)
    async with tls_server(certificate, key) as (port, asked, heads), client(LOOPBACK) as posting:
        Names(monkeypatch, **{"app.example": [["127.0.0.1"]]})
        if trusted:  # as the certificates of a hospital's own authority are
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        answer = await posting.request("POST", f"https://APP.example:{port}/callback", 5.0, b"{}")
        assert answer.status == status
        assert asked == ["app.example"]
        assert posting._tls_context() is posting._tls_context()
        assert [f"Host: app.example:{port}\r\n".encode() in head for head in heads] == [True] * bool(status)


@pytest.mark.req("SEC-5")
async def test_an_ipv6_address_is_in_brackets_in_the_host_header() -> None:
    """RFC 3986 section 3.2.2; else servers answer 400."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "::1", 0) as server, client(["::1/128"]) as posting:
        port = server.sockets[0].getsockname()[1]
        assert (await posting.request("GET", f"http://[::1]:{port}/", 5.0)).status == 200
    assert f"Host: [::1]:{port}\r\n".encode() in heads[0]


@pytest.mark.req("WHK-14")
@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        (["8.8.8.8", "8.8.2056", "0x08080808", "010.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808"], "8.8.8.8"),
        (["2001:4860::1", "2001:4860:0:0::0001"], "2001:4860::1"),
        (["app.example", "APP.Example", "app.example."], "app.example"),
        (["a" * 70 + ".example"], "a" * 70 + ".example"),
    ],
)
def test_a_host_has_one_name_however_it_is_spelled(spellings: list[str], name: str) -> None:
    """Else one host could be asked many questions at once."""
    assert {resolver.one_name(spelling) for spelling in spellings} == {name}
