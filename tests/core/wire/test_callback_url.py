"""Callbacks: which URLs can be one, what is put behind them, and which addresses may be posted to."""

from __future__ import annotations

import ipaddress
from urllib.parse import parse_qsl, urlsplit

import pytest

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.wire.callback_url import check_callback, is_allowed, is_public, with_query

#: Addresses that nobody may be sent to, by what they are.
FORBIDDEN = {
    "this host": ["0.0.0.0", "0.0.0.1", "0.255.255.255", "::"],
    "loopback": ["127.0.0.1", "127.0.0.2", "127.255.255.255", "::1"],
    "private": ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255"],
    "carrier": ["100.64.0.1", "100.127.255.255"],
    "link-local": ["169.254.0.1", "169.254.255.255", "fe80::1", "febf:ffff::1"],
    "metadata": [
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "fd00:ec2::254",
    ],
    "unique-local": ["fc00::1", "fd00::1", "fdff:ffff:ffff:ffff::1"],
    "site-local": ["fec0::1", "feff::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1", "ff05::2"],
    "reserved": ["240.0.0.1", "255.255.255.254", "255.255.255.255", "192.0.0.1", "100::1", "4000::1", "::2"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "IPv4-mapped": [
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:a9fe:a9fe",
        "::ffff:224.0.0.1",
        "::ffff:168.63.129.16",
    ],
    "IPv4-compatible": ["::127.0.0.1", "::10.0.0.1", "::8.8.8.8"],
    "IPv4-translated": ["::ffff:0:127.0.0.1", "::ffff:0:10.0.0.1"],
    "NAT64": ["64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::168.63.129.16"],
    "local NAT64": ["64:ff9b:1::127.0.0.1", "64:ff9b:1::1", "64:ff9b:1:7f00:0:100:808:808", "64:ff9b:1:a00:0:100::"],
    "6to4": ["2002:7f00:1::1", "2002:a00:1::1", "2002:a9fe:a9fe::", "2002:808:808::1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:80ff:fffe", "2001::1"],
}
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "11.0.0.1",
    "192.169.0.1",
]
PUBLIC += ["2606:4700::1111", "2a00:1450:4001:80b::200e", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]

NETWORKS = tuple(map(ipaddress.ip_network, ("10.1.0.0/16", "fd00:1::/64")))


@pytest.mark.req("SEC-5", "SEC-9")
@pytest.mark.parametrize("kind", FORBIDDEN)
def test_no_address_of_ones_own_network_is_public(kind: str) -> None:
    """Whatever it is, and whichever version of IP it is dressed in."""
    for address in FORBIDDEN[kind]:
        assert not is_public(ipaddress.ip_address(address)), address
        assert not is_allowed(ipaddress.ip_address(address), NETWORKS), address


@pytest.mark.req("SEC-5")
@pytest.mark.parametrize("address", PUBLIC)
def test_the_public_internet_is_public(address: str) -> None:
    """Right up to the edges of what is not."""
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.req("SEC-5", "SEC-9")
@pytest.mark.parametrize("address", ["10.1.0.1", "10.1.255.255", "fd00:1::1", "::ffff:10.1.0.1", "64:ff9b::10.1.2.3"])
def test_a_network_of_the_settings_is_allowed(address: str) -> None:
    """In either version of IP."""
    assert is_allowed(ipaddress.ip_address(address), NETWORKS)
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.req("SEC-5")
@pytest.mark.parametrize(
    "address", ["10.2.0.1", "10.0.255.255", "fd00:1:0:1::1", "::ffff:10.2.0.1", "8.8.8.8", "127.0.0.1"]
)
def test_another_network_is_not_allowed(address: str) -> None:
    """Only what is written there."""
    assert not is_allowed(ipaddress.ip_address(address), NETWORKS)
    assert not is_allowed(ipaddress.ip_address(address), ())


@pytest.mark.req("WHK-10")
@pytest.mark.parametrize(
    "url",
    [
        "https://app.example/callback",
        "HTTPS://APP.EXAMPLE/",
        "http://app.example",
        "https://app.example:8443/a;b=c/d?e=f&g=%20+&?/",
        "https://[2001:db8::1]:8443/",
        "https://app.example?x",
        "https://a_b.example/",
        "https://xn--mnchen-3ya.example/",
        "https://app.example/?redirect=https://u:p@other.example/",
        "https://app.example/@x",
    ],
)
def test_an_absolute_url_can_be_a_callback(url: str) -> None:
    """And stays as it is."""
    assert check_callback(url) == url


@pytest.mark.req("WHK-10")
@pytest.mark.parametrize(
    ("url", "why"),
    [
        *(
            (url, "absolute")
            for url in ("", "x", "/x", "//app.example/", "app.example", "ftp://app.example/", "https:/x")
        ),
        *((url, "absolute") for url in ("https://", "https:///x", "https://:1/", "https://?x", "file:///etc/passwd")),
        *((f"https://app.example:{port}/", "absolute") for port in ("0", "65536", "-1", "x", "\uff11")),
        *(
            (f"https://app.example/{odd}", "absolute")
            for odd in (" ", "ä", "\\", '"', "<", ">", "^", "`", "{", "|", "}")
        ),
        *((f"https://a{odd}b.example/", "absolute") for odd in ("\\", "ä", "。", "\u200b", "①")),
        *((f"https://app.example/x#{part}", "fragment") for part in ("", "part", "?x")),
        *((url, "absolute") for url in ("https://[::1/", "https://::1]/", "https://[x]/", "https://[127.0.0.1]/")),
        *(
            (f"https://{who}@app.example/", "credentials")
            for who in ("", "u", "u:p", ":", "app.example:443", "u%40v:p")
        ),
        ("https://app.example/" + "x" * 2029, "2048"),
    ],
)
def test_anything_else_cannot(url: str, why: str) -> None:
    """BadRequest says why, and repeats nothing of it."""
    with pytest.raises(BadRequest, match=r"^hub\.callback: ") as refused:
        check_callback(url)
    assert why in str(refused.value)
    assert "app.example" not in str(refused.value)


@pytest.mark.req("WHK-10")
def test_2048_characters_are_not_too_long() -> None:
    """One more is."""
    check_callback("https://app.example/" + "x" * 2028)


@pytest.mark.req("WHK-2")
@pytest.mark.parametrize(
    ("callback", "joined"),
    [
        ("https://a", "?"),
        ("https://a/", "?"),
        ("https://a/?", ""),
        ("https://a/?b", "&"),
        ("https://a/?b=c+d%20e%2b&", ""),
        ("https://a?b=", "&"),
        ("https://a/?b?", "&"),
        ("https://a/;c?b", "&"),
    ],
)
def test_parameters_come_behind_the_callbacks_own(callback: str, joined: str) -> None:
    """Whose bytes stay; and what is added can be read back, whatever is in it."""
    parameters = {"hub.mode": "denied", "hub.topic": "a b&c=d?#%ü+/", "hub.events": "x,y"}
    url = with_query(callback, parameters)
    assert url.startswith(callback + joined + "hub.mode=denied&hub.topic=")
    assert dict(parse_qsl(urlsplit(url).query)).items() >= parameters.items()
    assert url.isascii()
    assert check_callback(url) == url
