"""What the hub remembers, counts and logs about each issuer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog

from fhircast_hub.auth.discovery import fault_of
from fhircast_hub.auth.introspection import AT_ONCE
from fhircast_hub.auth.issuer_health import About, IssuerHealth
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwks import KeySet
from fhircast_hub.auth.verifier import Verifier
from fhircast_hub.core.errors import Unavailable
from fhircast_hub.telemetry.metrics import Metrics
from tests.auth.conftest import FakeClock
from tests.auth.introspection_server import IntrospectionServer
from tests.auth.introspection_world import World, unavailable
from tests.auth.issuer_server import JWKS, Answer, IssuerServer
from tests.auth.jwks_world import find
from tests.running import until
from tests.tokens import Idp


@pytest.fixture
async def introspection(client: httpx.AsyncClient, clock: FakeClock) -> AsyncIterator[World]:
    """An issuer that explains opaque tokens, and a hub that asks."""
    async with IntrospectionServer() as server:
        world = World(server, client, clock)
        yield world
        await world.verifier.aclose()


def about_issuers(metrics: Metrics) -> dict[str, float]:
    """The numbers of issuers at /metrics, by name and `about`."""
    sample = r'^fhircast_issuer_(\w+?)(?:_total)?\{(?:about="(\w+)",)?issuer="[^"]+"\} (\S+)$'
    found = re.findall(sample, metrics.render().decode(), re.MULTILINE)
    return {f"{name} {about}".strip(): float(value) for name, about, value in found}


def lines(captured: Any) -> list[dict[str, Any]]:
    """The log's lines, without their level."""
    return [{name: value for name, value in line.items() if name != "log_level"} for line in captured]


@pytest.mark.req("OPS-18")
def test_the_log_warns_once_a_minute_of_each_kind(clock: FakeClock) -> None:
    """A clock that was set back warns anew. The end of the trouble is said once."""
    health = IssuerHealth("https://idp.example/a", clock)
    with structlog.testing.capture_logs() as captured:
        for seconds in (0, 30, 29.5, 0.5, -3600):
            clock.now += seconds
            health.failed(About.TOKENS, f"answered {401}")
        health.failed(About.KEYS, "answered 404")
        health.succeeded(About.TOKENS)
        health.succeeded(About.TOKENS)
    warned = {"event": "introspection failed", "issuer": "https://idp.example/a", "reason": "answered 401"}
    keys = {"event": "issuer keys not fetched", "issuer": "https://idp.example/a", "reason": "answered 404"}
    again = {"event": "issuer answers again", "issuer": "https://idp.example/a", "reason": "introspection"}
    assert lines(captured) == [warned, warned, warned, keys, again]
    assert (health.failure, health.failed_at) == ("answered 404", clock.now)


@pytest.mark.req("OPS-18")
def test_an_issuer_that_fails_now_and_then_is_told_once_a_minute(clock: FakeClock) -> None:
    """A stranger may send tokens of which every second one makes the issuer fail."""
    health = IssuerHealth("https://idp.example/a", clock)
    with structlog.testing.capture_logs() as captured:
        for _ in range(50):
            health.failed(About.TOKENS, "answered 400")
            health.succeeded(About.TOKENS)
    assert [line["event"] for line in captured] == ["introspection failed", "issuer answers again"]


@pytest.mark.req("OPS-18")
async def test_a_crowd_of_made_up_tokens_is_no_failure_of_the_issuer(
    introspection: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for a place to ask. Only a question that was asked can fail."""
    monkeypatch.setattr("fhircast_hub.auth.introspection.ANSWER_SECONDS", 0.05)
    introspection.server.open.clear()
    with structlog.testing.capture_logs() as captured:
        await asyncio.gather(*(unavailable(introspection.verifier, f"made-up-{each}") for each in range(100)))
    introspection.server.open.set()
    (health,) = introspection.verifier.health()
    assert AT_ONCE <= health._failures[About.TOKENS].value < 50
    assert len(captured) == 1


@pytest.mark.req("OPS-18", "SEC-1")
async def test_keys_that_cannot_be_fetched_are_told_with_the_whole_issuer(
    server: IssuerServer, client: httpx.AsyncClient, clock: FakeClock, idp: Idp
) -> None:
    """Two issuers of one host differ by their paths. Nothing of the answer is quoted."""
    issuer = Issuer(f"{server.url}/realms/a", "hub", jwks_uri=server.url + JWKS)
    keys = KeySet(issuer, client, clock)
    server.publish(JWKS, {"keys": "secret"})
    with structlog.testing.capture_logs() as captured, pytest.raises(Unavailable):
        await find(keys, "key-1")
    await keys.aclose()
    expected = {"event": "issuer keys not fetched", "issuer": issuer.issuer, "reason": "answered no JWK Set"}
    assert lines(captured) == [expected]


@pytest.mark.req("OPS-18")
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "answered 401; the credentials are wrong or missing; check introspection_client_id and its secret"),
        (404, "answered 404; nothing is there; check the path of introspection_endpoint"),
        (500, "answered 500"),
    ],
)
async def test_a_broken_introspection_is_told(introspection: World, status: int, reason: str) -> None:
    """Wrong credentials and a wrong path look alike to applications. The log tells them apart."""
    introspection.server.instead = Answer(status)
    with structlog.testing.capture_logs() as captured:
        await unavailable(introspection.verifier)
        await unavailable(introspection.verifier, "another-token")
    issuer = introspection.server.url
    assert lines(captured) == [{"event": "introspection failed", "issuer": issuer, "reason": reason}]


@pytest.mark.req("OPS-18")
async def test_a_dead_introspection_is_told(introspection: World) -> None:
    await introspection.server.stop()
    with structlog.testing.capture_logs() as captured:
        await unavailable(introspection.verifier)
    assert [line["reason"] for line in captured] == ["not reached (ConnectError)"]
    assert fault_of(TimeoutError()) == "did not answer in time"


@pytest.mark.req("OPS-18")
async def test_requests_failures_and_the_age_of_keys_are_counted(
    server: IssuerServer, client: httpx.AsyncClient, clock: FakeClock, idp: Idp
) -> None:
    """The age is absent before the first fetch: a number would say that keys are there."""
    metrics = Metrics()
    verifier = Verifier([Issuer(idp.issuer, idp.audience)], client, clock, metrics=metrics)
    nothing = {
        f"{what} {about}": 0 for what in ("requests", "failures") for about in ("keys", "introspection", "login")
    }
    assert about_issuers(metrics) == nothing | {"keys": 0}
    assert verifier.without_keys() == [idp.issuer]
    verifier.start()
    await until(lambda: not verifier.without_keys())
    clock.now += 100
    assert about_issuers(metrics) == nothing | {"requests keys": 1, "keys": 1, "keys_age_seconds": 100}
    await verifier.aclose()


@pytest.mark.req("OPS-18")
async def test_the_keys_of_an_issuer_of_opaque_tokens_are_not_missed(
    introspection: World, client: httpx.AsyncClient, clock: FakeClock
) -> None:
    """Such an issuer may publish no keys. With a jwks_uri it does."""
    server = introspection.server
    endpoint = f"{server.url}/introspect"
    opaque = Verifier([Issuer(server.url, "hub", introspection_endpoint=endpoint)], client, clock)
    both = Issuer(server.url, "hub", introspection_endpoint=endpoint, jwks_uri=server.url + JWKS)
    opaque.start()
    keyed = Verifier([both], client, clock)
    assert (opaque.without_keys(), keyed.without_keys()) == ([], [server.url])
    keyed.start()
    await until(lambda: keyed.without_keys() == [])
    assert server.asked == {JWKS: 1}
    await keyed.aclose()
