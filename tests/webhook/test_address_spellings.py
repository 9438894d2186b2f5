"""No spelling of a forbidden address is accepted as a callback."""

from __future__ import annotations

import contextlib

import pytest

from fhircast_hub.webhook.address_guard import ForbiddenAddress
from tests.running import running_hub
from tests.webhook.address_world import Names, client
from tests.webhook.callback_server import CallbackServer, ask, hub_and_callbacks, subscribe

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
    """Other spellings are accepted like names that cannot be resolved now, and lead nowhere."""
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


@pytest.mark.req("SEC-5", "SEC-9")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]"])
async def test_a_network_that_is_allowed_is_so_in_any_spelling(host: str) -> None:
    """The address counts; the Host header is the URL's."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, hub__callback=f"http://{host}:{server.port}/callback")
        assert server.requests[0].headers["host"] == f"{host}:{server.port}"


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
