"""Each test's own world: a clock that it sets, an HTTP client, an issuer that really listens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Protocol

import httpx
import pytest

from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwt import JwtVerifier
from tests.auth.issuer_server import IssuerServer
from tests.running import NO_TLS
from tests.tokens import Idp


class FakeClock:
    """Seconds since the epoch that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class MakeVerifier(Protocol):
    """Builds a verifier that is closed with the test."""

    def __call__(self, *issuers: Issuer, **options: Any) -> JwtVerifier: ...


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def server() -> AsyncIterator[IssuerServer]:
    async with IssuerServer() as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        yield client


@pytest.fixture
def idp(server: IssuerServer) -> Idp:
    """An issuer whose key the server publishes."""
    idp = Idp(server.url)
    server.publish_keys(idp.jwks())
    return idp


@pytest.fixture
def issuer(idp: Idp) -> Issuer:
    return Issuer(idp.issuer, idp.audience)


@pytest.fixture
async def make_verifier(client: httpx.AsyncClient, clock: FakeClock) -> AsyncIterator[MakeVerifier]:
    async with AsyncExitStack() as stack:

        def make(*issuers: Issuer, **options: Any) -> JwtVerifier:
            verifier = JwtVerifier(issuers, client, clock, **options)
            stack.push_async_callback(verifier.aclose)
            return verifier

        yield make


@pytest.fixture
def verifier(make_verifier: MakeVerifier, issuer: Issuer) -> JwtVerifier:
    return make_verifier(issuer)
