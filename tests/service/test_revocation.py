"""Revoked tokens end the subscriptions that were made with them, over the wire (AUT-14)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fhircast_hub.auth import introspection
from fhircast_hub.core.access.principal import Principal, SessionKey
from fhircast_hub.core.access.scopes import Scopes
from fhircast_hub.core.errors import Unauthenticated, Unavailable
from fhircast_hub.core.limits import OPAQUE_TOKEN_GRACE
from fhircast_hub.service import revocation
from fhircast_hub.service.revocation import Revocation
from fhircast_hub.service.usage import LocalUsage
from tests.auth.introspection_server import INTROSPECT, IntrospectionServer
from tests.auth.issuer_server import Answer, IssuerServer
from tests.running import TOPIC, Clock, RunningHub, event, running_hub, until
from tests.tokens import Idp


class World:
    """A hub, and the issuer of its opaque tokens."""

    def __init__(self, hub: RunningHub, server: IntrospectionServer) -> None:
        self.hub, self.server = hub, server
        self.revocation = hub.hub._revocation

    def knows(self, token: str, **claims: Any) -> str:
        """Let the issuer explain this token."""
        return knows(self.server, token, self.hub.clock, **claims)

    def revoke(self, token: str) -> None:
        """The issuer calls it inactive from now on."""
        del self.server.tokens[token]

    async def check(self) -> None:
        """Half a minute passes, and the hub asks."""
        self.hub.clock.now += introspection.CACHE_SECONDS
        await self.revocation.check()

    @property
    def live(self) -> int:
        """How many subscriptions there are."""
        return self.hub.hub.service.usage.subscriptions


def knows(server: IntrospectionServer, token: str, clock: Clock, **claims: Any) -> str:
    good = {"aud": "hub", "sub": "user-1", "client_id": "app", "scope": "fhircast/*.*", "exp": int(clock()) + 9000}
    server.tokens[token] = good | claims
    return token


def stored(folder: Path) -> bytes:
    """All that the hub has written."""
    return b"".join(path.read_bytes() for path in folder.iterdir())


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[World]:
    """A hub whose issuer explains opaque tokens."""
    async with IntrospectionServer() as server:
        own = {
            "introspection_endpoint": server.url + INTROSPECT,
            "introspection_client_id": "the-hub",
            "introspection_client_secret": "a-secret",
            **options.pop("own", {}),
        }
        async with running_hub(own=own, **options) as hub:
            yield World(hub, server)


@pytest.mark.req("AUT-14")
async def test_every_verb_takes_an_opaque_token() -> None:
    """Subscribe, publish and read, as the user whom the issuer names, beside signed tokens of the same user."""
    async with running() as world:
        hub, token = world.hub, world.knows("opaque-1")
        async with hub.follow(await hub.subscribe(token=token)) as follower:
            assert (await hub.publish(event("Patient-open"), hub.token())).status_code == 202
            assert await follower.names(1) == ["Patient-open"]
            assert (await hub.context(token)).json()["context.type"] == "Patient"
            assert (await hub.context(world.knows("opaque-2", sub="user-2"))).status_code == 403
        answer = await hub.context("opaque-unknown")
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')
        assert "opaque-unknown" not in answer.text
        assert world.server.asked_by[0] == "Basic the-hub:a-secret"


@pytest.mark.req("AUT-14")
async def test_a_revoked_token_ends_its_subscriptions() -> None:
    """The subscription gets a denial with the reason and a clean close. Its endpoint is dead, and others stay."""
    async with running() as world:
        hub, token, other = world.hub, world.knows("opaque-1"), world.knows("opaque-2")
        endpoint = await hub.subscribe(token=token)
        absent = await hub.subscribe(token=token)
        async with hub.follow(endpoint) as follower, hub.follow(await hub.subscribe(token=other)) as still:
            world.revoke(token)
            await world.revocation.check()
            assert await follower.silent()  # the answer of a moment ago counts
            await world.check()
            denied = await follower.next()
            assert (denied["hub.mode"], denied["hub.reason"]) == ("denied", "the token was revoked")
            assert denied["hub.topic"] == TOPIC
            assert await follower.closed() == 1000
            assert await still.silent()
            for dead in (endpoint, absent):
                with pytest.raises(InvalidStatus):
                    await connect(dead, proxy=None)
            assert (await hub.context(token)).status_code == 401
            assert world.live == 1


@pytest.mark.req("AUT-14")
async def test_it_is_noticed_within_a_minute_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The looks and the time for which an answer counts are together less than a minute; nobody needs to ask."""
    assert revocation.POLL_SECONDS + introspection.CACHE_SECONDS + introspection.ANSWER_SECONDS < 60
    monkeypatch.setattr(revocation, "POLL_SECONDS", 0.01)
    async with running() as world:
        token = world.knows("opaque-1")
        async with world.hub.follow(await world.hub.subscribe(token=token)) as follower:
            world.revoke(token)
            world.hub.clock.now += introspection.CACHE_SECONDS
            assert (await follower.next())["hub.mode"] == "denied"


@pytest.mark.req("AUT-14", "AUT-16")
async def test_an_issuer_that_does_not_answer_ends_nothing() -> None:
    """While the issuer does not answer, subscriptions stay. Its next answer counts."""
    async with running() as world:
        token = world.knows("opaque-1")
        async with world.hub.follow(await world.hub.subscribe(token=token)) as follower:
            world.revoke(token)
            world.server.instead = Answer(500)
            for _ in range(5):
                await world.check()
            await world.server.stop()
            await world.check()
            assert await follower.silent()
            answer = await world.hub.context(token)
            assert answer.status_code == 503
            assert 0 < int(answer.headers["Retry-After"]) <= 30
            assert (await world.hub.context()).status_code == 200
            world.server.instead = None
            await world.server.start()
            await world.check()
            assert (await follower.next())["hub.mode"] == "denied"


@pytest.mark.req("AUT-14", "LEA-3")
async def test_a_subscription_depends_on_the_token_it_was_renewed_with() -> None:
    """The first may be revoked then; the second may not."""
    async with running() as world:
        hub, first, second = world.hub, world.knows("opaque-1"), world.knows("opaque-2")
        endpoint = await hub.subscribe(token=first)
        async with hub.follow(endpoint) as follower:
            await hub.subscribe(token=second, **{"hub.channel.endpoint": endpoint})
            assert (await follower.next())["hub.mode"] == "subscribe"
            world.revoke(first)
            await world.check()
            assert await follower.silent()
            world.revoke(second)
            await world.check()
            assert (await follower.next())["hub.mode"] == "denied"


@pytest.mark.req("AUT-14", "LEA-3")
async def test_a_subscription_that_was_renewed_with_a_signed_token_depends_on_none() -> None:
    """The issuer's later answers about the opaque token do not matter."""
    async with running() as world:
        hub, token = world.hub, world.knows("opaque-1")
        endpoint = await hub.subscribe(token=token)
        async with hub.follow(endpoint) as follower:
            await hub.subscribe(**{"hub.channel.endpoint": endpoint})
            assert (await follower.next())["hub.mode"] == "subscribe"
            world.revoke(token)
            await world.check()
            assert await follower.silent()


@pytest.mark.req("AUT-14")
async def test_signed_tokens_are_not_watched() -> None:
    """Nor is the token of an ended subscription: raw tokens are kept no longer than needed."""
    async with running() as world:
        hub = world.hub
        async with hub.follow(await hub.subscribe()):
            assert world.revocation._tokens == {}
            endpoint = await hub.subscribe(token=world.knows("opaque-1"))
            assert len(world.revocation._tokens) == 1
            await hub.form(hub__mode="unsubscribe", **{"hub.channel.endpoint": endpoint})
            await world.check()
            assert world.revocation._tokens == {}
            assert world.server.asked[INTROSPECT] == 1


@pytest.mark.req("AUT-14", "LEA-2")
async def test_a_subscription_does_not_outlive_an_opaque_token() -> None:
    """The lease ends with the issuer's exp, whatever lease was asked for."""
    async with running() as world:
        hub = world.hub
        token = world.knows("opaque-1", exp=int(hub.clock.now) + 40)
        async with hub.follow(await hub.subscribe(token=token, hub__lease_seconds="7200")) as follower:
            hub.clock.now += 40
            await hub.hub.service.tick()
            denied = await follower.next()
            assert (denied["hub.mode"], denied["hub.reason"]) == ("denied", "the lease has ended")


@pytest.mark.req("AUT-14", "SUB-23", "SEC-1", "AUT-34")
async def test_a_restart_forgets_raw_tokens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Raw tokens are in neither the store nor a log. Without them subscriptions end in a minute unless renewed."""
    caplog.set_level(logging.DEBUG)
    clock, idp = Clock(), Idp()
    options: dict[str, Any] = {
        "clock": clock,
        "idp": idp,
        "store": f"sqlite:///{tmp_path}/hub.db",
        "own": {"realm": "hospital", "user_claim": "sub"},
        "public_url": "http://127.0.0.1:1/api/hub",  # the endpoints' origin, which is another after the restart
    }
    async with IssuerServer() as issuer:
        options["issuer"] = issuer
        logs = await restarted(options, tmp_path, clock)
    assert "sesame" not in repr(logs) + caplog.text


async def restarted(options: dict[str, Any], tmp_path: Path, clock: Clock) -> list[Any]:
    """A hub that gets opaque tokens, and the next one on its file. Returns their logs."""
    with capture_logs() as logs:
        async with running(**options) as world:
            hub, token = world.hub, world.knows("sesame-1")
            endpoints = [(await hub.subscribe(token=token)) for _ in range(2)]
            signed = await hub.subscribe()
            for each in (*endpoints, signed):
                async with hub.follow(each.replace(":1/", f":{hub.port}/")):
                    pass
            await world.check()
        assert b"sesame" not in stored(tmp_path)
        async with running(**options) as world:
            hub, token = world.hub, world.knows("sesame-1")
            assert world.live == 3
            assert world.revocation._tokens == {}
            await hub.subscribe(token=token, **{"hub.channel.endpoint": endpoints[0]})
            async with hub.follow(endpoints[1].replace(":1/", f":{hub.port}/")) as follower:
                clock.now += OPAQUE_TOKEN_GRACE - 1
                await hub.hub.service.tick()
                assert await follower.silent()
                clock.now += 1
                await hub.hub.service.tick()
                assert (await follower.next())["hub.mode"] == "denied"
            assert OPAQUE_TOKEN_GRACE <= 60
            assert world.live == 2
            world.revoke(token)
            await world.check()
            assert world.live == 1
    return list(logs)


# By itself


class Judge:
    """A verifier that gives each token the result that the test sets."""

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.away: set[str] = set()
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.most = self.now = 0

    def recall(self, token: str) -> Principal | None:
        return None

    async def verify(self, token: str) -> Principal:
        self.asked.append(token)
        self.now += 1
        self.most = max(self.most, self.now)
        await self.gate.wait()
        self.now -= 1
        if token in self.away:
            raise Unavailable("away")
        if token in self.bad:
            raise Unauthenticated("bad")
        return Principal("a-realm", "ann", "app", Scopes(), 9e9)


@asynccontextmanager
async def watching(count: int) -> AsyncIterator[tuple[RunningHub, Judge, Revocation, list[str]]]:
    """A hub with so many subscriptions, each by a token of its own that a judge judges."""
    async with running_hub() as hub:
        judge = Judge()
        watched = Revocation(hub.hub.service, judge)
        for _ in range(count):
            await hub.subscribe()
        usage = hub.hub.service.usage
        subscription_ids = list(opaque(hub))
        for number, subscription_id in enumerate(subscription_ids):
            key = usage.find(subscription_id)
            assert key is not None
            watched.watch(subscription_id, key, f"token-{number}")
        yield hub, judge, watched, subscription_ids
        await watched.stop()


def opaque(hub: RunningHub) -> set[str]:
    usage = hub.hub.service.usage
    assert isinstance(usage, LocalUsage)
    return set(usage._sessions)


async def test_many_tokens_are_asked_about_together() -> None:
    """One check does not take many times as long, and the issuer is not flooded."""
    async with watching(20) as (_, judge, watched, _):
        judge.gate.clear()
        look = asyncio.create_task(watched.check())
        await until(lambda: judge.now == revocation.AT_ONCE)
        judge.gate.set()
        await look
        assert sorted(judge.asked) == sorted(f"token-{number}" for number in range(20))
        assert judge.most == revocation.AT_ONCE


async def test_a_token_that_was_replaced_while_it_was_asked_about_ends_nothing() -> None:
    """The answer is about the old token."""
    async with watching(1) as (hub, judge, watched, (subscription_id,)):
        judge.bad.add("token-0")
        judge.gate.clear()
        look = asyncio.create_task(watched.check())
        await until(lambda: judge.now == 1)
        watched.watch(subscription_id, SessionKey(hub.idp.issuer, TOPIC), "another")
        judge.gate.set()
        await look
        assert opaque(hub) == {subscription_id}
        await watched.check()
        assert judge.asked == ["token-0", "another"]


async def test_a_store_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The subscription ends at the next look; what else was to end has ended."""
    async with watching(2) as (_, judge, watched, subscription_ids):
        judge.bad |= {"token-0", "token-1"}
        submitted: list[str] = []

        async def fails(key: SessionKey, command: Any) -> None:
            submitted.append(command.subscription_id)
            if len(submitted) == 1:
                raise Unavailable("the store is down")

        monkeypatch.setattr(watched._service, "submit", fails)
        await watched.check()
        assert submitted == subscription_ids
        await watched.check()
        assert submitted == [*subscription_ids, subscription_ids[0]]


async def test_a_look_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is logged, and the hub checks again."""
    monkeypatch.setattr(revocation, "POLL_SECONDS", 0.001)
    looks = 0

    async def fails() -> None:
        nonlocal looks
        looks += 1
        raise OSError

    async with watching(0) as (hub, _, watched, _):
        monkeypatch.setattr(watched, "check", fails)
        with capture_logs() as logs:
            watched.watch("subscription_id", SessionKey(hub.idp.issuer, TOPIC), "sesame")
            await until(lambda: looks > 1)
        assert logs[0]["event"] == "revocation failed"
        assert "sesame" not in repr(logs)
