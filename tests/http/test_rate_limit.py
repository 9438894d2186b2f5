"""Rate limits: of one token, of one address, and of nobody where a setting says so."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhircast_hub.budgets import leaky_bucket
from fhircast_hub.dev import environment
from fhircast_hub.http.rate_limit import per_minute
from tests.http.wire import ask
from tests.running import TOPIC, RunningHub, event, running_hub

CONFIGURATION = "/.well-known/fhircast-configuration"


async def statuses(hub: RunningHub, count: int, url: str = "", **headers: str) -> list[int]:
    """What so many requests, by default for the context, are answered with."""
    url = url or f"{hub.url}/{TOPIC}"
    return [(await hub.client.get(url, headers=headers)).status_code for _ in range(count)]


@pytest.mark.req("RAT-1", "OPS-4")
def test_a_dev_hub_limits_nobody() -> None:
    """Unless its environment says otherwise: tests of applications are faster than clinicians."""
    limits = ("FHIRCAST_RATE_LIMIT_TOKEN", "FHIRCAST_RATE_LIMIT_ADDRESS")
    ours, _ = environment({}, None)
    assert [ours[name] for name in limits] == ["0", "0"]
    theirs, _ = environment(dict.fromkeys(limits, "7"), None)
    assert [theirs[name] for name in limits] == ["7", "7"]


# --- buckets ---


@pytest.mark.req("RAT-1")
def test_a_minutes_worth_at_once_and_then_as_many_as_the_rate_says() -> None:
    """Sixty a minute: sixty, then one a second; what was saved up is a minute's at most."""
    buckets = per_minute(60)
    assert [buckets.take(b"a", 0.0) for _ in range(60)] == [0.0] * 60
    assert buckets.take(b"a", 0.0) == pytest.approx(1.0)
    assert buckets.take(b"a", 0.75) == pytest.approx(0.25)
    assert buckets.take(b"a", 1.0) == 0.0
    assert buckets.take(b"a", 1.0) > 0
    assert [buckets.take(b"a", 9999.0) > 0 for _ in range(61)] == [False] * 60 + [True]
    assert buckets.take(b"b", 0.0) == 0.0


@pytest.mark.req("RAT-1")
@given(st.integers(1, 100), st.lists(st.floats(0, 100), max_size=200))
def test_never_more_than_the_rate_allows(rate: int, pauses: list[float]) -> None:
    """In any stretch from the start: a minute's worth and what the time has added, whoever asks when."""
    buckets, now, taken = per_minute(rate), 0.0, 0
    for pause in pauses:
        now += pause
        taken += not buckets.take(b"a", now)
        assert taken <= rate + now * rate / 60 + 1e-6


@pytest.mark.req("RAT-1")
@given(st.integers(1, 100), st.integers(1, 50))
def test_who_waits_as_long_as_told_is_served(rate: int, refused: int) -> None:
    """The time that Retry-After says is right, and asking too early does not make it longer."""
    buckets = per_minute(rate)
    for _ in range(rate + refused - 1):
        buckets.take(b"a", 0.0)
    wait = buckets.take(b"a", 0.0)
    assert 0 < wait <= 60 / rate + 1e-6
    assert buckets.take(b"a", wait + 1e-6) == 0.0


@pytest.mark.req("RAT-1")
def test_a_clock_that_is_set_back_takes_nothing_away() -> None:
    """Nor does it give anything."""
    buckets = per_minute(2)
    assert [buckets.take(b"a", at) > 0 for at in (100.0, 50.0, 50.0, 79.0, 80.0)] == [False, False, True, True, False]


@pytest.mark.req("RAT-1")
def test_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a flood of names the newest are held, and who asks all the while is not let off."""
    monkeypatch.setattr(leaky_bucket, "MAX_HELD", 100)
    buckets = per_minute(1)
    assert buckets.take(b"busy", 0.0) == 0.0
    for number in range(1000):
        assert buckets.take(b"%d" % number, 0.0) == 0.0
        assert buckets.take(b"busy", 0.0) > 0
    assert len(buckets._held) == 100
    assert buckets.take(b"999", 0.0) > 0


# --- over HTTP ---


@pytest.mark.req("RAT-1")
async def test_everybody_is_limited_by_default() -> None:
    """600 requests a minute of one token are taken, and ten times as many of one address."""
    async with running_hub() as hub:
        assert await statuses(hub, 601, **hub.headers()) == [200] * 600 + [429]
        assert await statuses(hub, 1, **hub.headers(hub.token(jti="other"))) == [200]
        assert hub.hub.rates.per_address == 6000


@pytest.mark.req("RAT-1")
async def test_nobody_is_limited_where_a_setting_says_so() -> None:
    """Not by token and not by address."""
    async with running_hub(rate_limit_token=0, rate_limit_address=0) as hub:
        assert await statuses(hub, 2, **hub.headers()) == [200, 200]
        assert (hub.hub.rates._tokens, hub.hub.rates._addresses) == (None, None)


@pytest.mark.req("RAT-1", "AUT-11", "RAT-2")
async def test_a_system_client_acts_for_everybody() -> None:
    """Its token has no limit once it is known; its address has."""
    async with running_hub(rate_limit_token=3, rate_limit_address=10, own={"system_clients": ["engine"]}) as hub:
        headers = hub.headers(hub.token("engine", client_id="engine"))
        assert set(await statuses(hub, 10, **headers)) == {409}
        assert await statuses(hub, 1, **headers) == [429]


@pytest.mark.req("RAT-1")
async def test_a_token_has_its_limit() -> None:
    """The next gets 429 with Retry-After in whole seconds; another token of the same user is another."""
    async with running_hub(rate_limit_token=20) as hub:
        one, other = hub.headers(), hub.headers(hub.token(jti="other"))
        assert await statuses(hub, 21, **one) == [200] * 20 + [429]
        hub.clock.now += 0.5
        refused = await hub.client.get(f"{hub.url}/{TOPIC}", headers=one)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3")
        assert refused.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert refused.text.count("\n") == 1
        assert await statuses(hub, 1, **other) == [200]
        hub.clock.now += 2.5
        assert await statuses(hub, 2, **one) == [200, 429]


@pytest.mark.req("RAT-1")
async def test_every_verb_counts() -> None:
    """Subscribing, publishing, reading, the session API and refusals are one account; nothing of the last is done."""
    async with running_hub(rate_limit_token=4) as hub:
        token = hub.token()
        await hub.form(token, hub__events="Patient-open")
        assert (await hub.publish(b"{}", token)).status_code == 400
        await hub.context(token)
        await hub.client.post(f"{hub.origin}/sessions", headers=hub.headers(token), json={})
        assert (await hub.publish(event("Patient-open"), token)).status_code == 429
        assert (await hub.context(hub.token(jti="other"))).json()["context"] == []


@pytest.mark.req("RAT-1")
async def test_one_token_is_one_however_it_is_written() -> None:
    """Case of the scheme, spaces, and spellings of a signature that decode alike do not make another of it."""
    async with running_hub(rate_limit_token=10) as hub:
        token = hub.token()
        for authorization in (
            *(f"bearer {token}", f"BEARER {token}", f"Bearer   {token}", f"Bearer \t{token}"),
            *(f"Bearer {token}{tail}" for tail in ("=", "==", "!", "!!", "-", "~")),
        ):
            await statuses(hub, 1, Authorization=authorization)
        assert await statuses(hub, 1, **hub.headers(token)) == [429]


@pytest.mark.req("RAT-1")
async def test_a_jwt_is_one_whatever_its_header_begins_with() -> None:
    """Behind the brace of a header there may be white space."""
    async with running_hub(rate_limit_token=1) as hub:
        for header in ('{ "alg":"ES256"}', '{\n"alg":"ES256"}', '{\r\n "alg":"ES256"}', '{"alg":"ES256"}'):
            signed = f"{base64.urlsafe_b64encode(header.encode()).decode().rstrip('=')}.e30"
            for signature, status in {"AAAA": 401, "AAAB": 429}.items():
                assert await statuses(hub, 1, Authorization=f"Bearer {signed}.{signature}") == [status]


@pytest.mark.req("RAT-1")
async def test_an_opaque_token_is_one_by_all_of_it() -> None:
    """Two that begin alike are two."""
    async with running_hub(rate_limit_token=1) as hub:
        for token in ("v1.aaaa", "v1.bbbb", "v1.a.bbbb", "v1.a.cccc"):
            assert await statuses(hub, 2, Authorization=f"Bearer {token}") == [401, 429]


@pytest.mark.req("RAT-1")
async def test_no_token_is_held() -> None:
    """Only digests are."""
    async with running_hub(rate_limit_token=1) as hub:
        await statuses(hub, 2, **hub.headers())
        buckets = hub.hub.rates._tokens
        assert buckets is not None
        (name,) = buckets._held
        assert isinstance(name, bytes)
        assert len(name) == 16


@pytest.mark.req("RAT-1", "RAT-2")
async def test_an_address_has_its_limit() -> None:
    """With whatever tokens, or none; who only looks at discovery is counted too."""
    async with running_hub(rate_limit_address=5) as hub:
        assert await statuses(hub, 2, **hub.headers()) == [200, 200]
        assert await statuses(hub, 2, **hub.headers(hub.token("user-2"))) == [200, 200]
        assert await statuses(hub, 1, hub.url + CONFIGURATION) == [200]
        assert await statuses(hub, 1, **hub.headers(hub.token("user-3"))) == [429]
        hub.clock.now += 12
        assert await statuses(hub, 2) == [401, 429]


@pytest.mark.req("RAT-1", "OPS-1")
async def test_who_watches_the_hub_is_not_limited() -> None:
    """Health and metrics answer, also to an address that has used up its requests."""
    async with running_hub(rate_limit_address=1) as hub:
        assert await statuses(hub, 2) == [401, 429]
        for path in ("/health/live", "/health/ready", "/metrics"):
            assert await statuses(hub, 10, hub.origin + path) == [200] * 10
        assert await statuses(hub, 1) == [429]


@pytest.mark.req("RAT-1")
@pytest.mark.parametrize("trusted", [[], ["192.0.2.0/24"]])
async def test_nobody_says_themselves_where_they_come_from(trusted: list[str]) -> None:
    """X-Forwarded-For of anyone but a configured proxy does not count."""
    async with running_hub(rate_limit_address=3, trusted_proxies=trusted) as hub:
        found = [(await statuses(hub, 1, **{"X-Forwarded-For": f"198.51.100.{each}"}))[0] for each in range(4)]
        assert found == [401, 401, 401, 429]


@pytest.mark.req("RAT-1")
@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.0.0.0/8"])
async def test_a_trusted_proxy_says_who_asks(trusted: str) -> None:
    """Each of its clients is counted alone; what a client put there before the proxy's own entry does not count."""
    async with running_hub(rate_limit_address=2, trusted_proxies=[trusted]) as hub:
        for address in ("198.51.100.1", "198.51.100.2", "2001:db8:1::1"):
            assert await statuses(hub, 3, **{"X-Forwarded-For": address}) == [401, 401, 429]
        assert await statuses(hub, 1, **{"X-Forwarded-For": "203.0.113.9, 198.51.100.1"}) == [429]
        assert await statuses(hub, 1, **{"X-Forwarded-For": "198.51.100.1, 203.0.113.9"}) == [401]


@pytest.mark.req("RAT-1")
async def test_a_network_of_ipv6_is_one_address() -> None:
    """Its 2^64 addresses are one client's to choose from; an IPv4 address that is written as IPv6 is itself."""
    async with running_hub(rate_limit_address=2, trusted_proxies=["127.0.0.1"]) as hub:
        for addresses in (
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:0db8::1:0:0:0:3"),
            ("::ffff:198.51.100.7", "198.51.100.7", "::ffff:c633:6407"),
        ):
            found = [(await statuses(hub, 1, **{"X-Forwarded-For": address}))[0] for address in addresses]
            assert found == [401, 401, 429]
        assert await statuses(hub, 1, **{"X-Forwarded-For": "2001:db8:0:2::1"}) == [401]
        assert await statuses(hub, 1, **{"X-Forwarded-For": "::ffff:198.51.100.8"}) == [401]


@pytest.mark.req("RAT-1")
async def test_a_large_body_is_not_read_for_a_429() -> None:
    """The answer comes before the body does."""
    async with running_hub(rate_limit_token=1) as hub:
        await statuses(hub, 1, **hub.headers())
        headers = hub.headers(**{"Content-Type": "application/json", "Content-Length": "1000000"})
        answer = await ask(hub, "POST", "/api/hub", headers)
        assert answer.status == 429


@pytest.mark.req("RAT-1", "OPS-2")
async def test_a_429_is_a_line_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """With its reason, and where JSON is preferred the answer is JSON."""
    async with running_hub(rate_limit_token=1) as hub:
        await statuses(hub, 1, **hub.headers())
        answer = await hub.client.get(hub.url, headers=hub.headers(Accept="application/json"))
        assert json.loads(answer.content).keys() == {"message"}
    assert "reason='too many requests'" in capsys.readouterr().out


@pytest.mark.req("RAT-1")
async def test_limits_hold_among_requests_at_once() -> None:
    """A hundred connections share what one token may."""
    async with running_hub(rate_limit_token=10) as hub:
        headers = hub.headers()
        asked: list[Any] = [ask(hub, "GET", f"/api/hub/{TOPIC}", headers) for _ in range(100)]
        answers = await asyncio.gather(*asked)
        assert sum(answer.status == 200 for answer in answers) == 10
