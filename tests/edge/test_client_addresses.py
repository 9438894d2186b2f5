"""Where a request comes from, by what is said of it and by whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from fhircast_hub.edge.client_addresses import ClientAddresses, address_key

PROXY, INNER, CLIENT = "10.0.0.1", "10.0.0.2", "198.51.100.7"


@pytest.mark.req("AUD-3", "RAT-1", "AUD-5")
@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (CLIENT, [], CLIENT),
        (CLIENT, ["203.0.113.1"], CLIENT),
        (PROXY, [], PROXY),
        (PROXY, [CLIENT], CLIENT),
        (PROXY, [f"203.0.113.1, {CLIENT}"], CLIENT),
        (PROXY, ["203.0.113.1", CLIENT], CLIENT),
        (PROXY, [f"{CLIENT},{INNER}"], CLIENT),
        (PROXY, [f"{CLIENT}:5050, {INNER}:80"], CLIENT),
        (PROXY, [INNER], INNER),
        (PROXY, [f" {CLIENT}\t"], CLIENT),
        (PROXY, ["2001:0DB8::7"], "2001:db8::7"),
        (PROXY, ["[2001:db8::7]:5050"], "2001:db8::7"),
        (PROXY, ["[2001:db8::7]"], "2001:db8::7"),
        (PROXY, [f"::ffff:{CLIENT}"], CLIENT),
        (f"::ffff:{PROXY}", [CLIENT], CLIENT),
        *(
            (PROXY, [junk], PROXY)
            for junk in ("", ",", "unknown", "_hidden", "10.0.0.999", "[", "[]:1", "\xff", "a" * 9999)
        ),
        (PROXY, [f"{CLIENT}, unknown"], PROXY),
        (PROXY, [f"unknown, {INNER}"], INNER),
        ("", [CLIENT], ""),
    ],
)
def test_who_asks(peer: str, forwarded: list[str], address: str) -> None:
    """The last that a trusted proxy names; what is no address, and what stands before it, nobody said."""
    assert ClientAddresses(["10.0.0.0/8"]).of(peer, forwarded) == address


@pytest.mark.req("RAT-1")
@given(st.text(), st.lists(st.text(alphabet="0123456789.:,[] a%"), max_size=3))
def test_whatever_is_said_is_no_error(peer: str, forwarded: list[str]) -> None:
    """Also where everybody is trusted."""
    ClientAddresses(["0.0.0.0/0", "::/0"]).of(peer, forwarded)
    assert ClientAddresses([]).of(peer, forwarded) == peer


@pytest.mark.req("RAT-1", "RAT-3")
def test_a_missing_setting_is_told_once() -> None:
    """A proxy that is not trusted is probably one that was forgotten; nobody is warned of those that are, or say nothing."""
    addresses = ClientAddresses([PROXY])
    with capture_logs() as logs:
        addresses.of(PROXY, [CLIENT])
        addresses.of(CLIENT, [])
        assert logs == []
        for _ in range(3):
            addresses.of(INNER, [CLIENT])
    [line] = logs
    assert (line["log_level"], line["host"]) == ("warning", INNER)
    assert "FHIRCAST_TRUSTED_PROXIES" in line["reason"]
    assert len(line["reason"]) <= 200  # or the log cuts it


@pytest.mark.req("AUD-3", "RAT-1", "AUD-5")
def test_one_place() -> None:
    """A client of IPv6 chooses among the addresses of its network."""
    assert address_key("2001:db8:0:1::1") == address_key("2001:db8:0:1:ffff::2") != address_key("2001:db8:0:2::1")
    assert address_key("::ffff:198.51.100.7") == address_key("198.51.100.7") != address_key("198.51.100.8")
    assert address_key("fe80::1%eth0") == address_key("fe80::2")
