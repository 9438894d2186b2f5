"""Subscriptions, waiting posts and secrets of webhooks outlive the process. The settings' key opens secrets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.webhook import deliver
from fhircast_hub.webhook.sealing import Sealer, signature
from tests.auth.issuer_server import IssuerServer
from tests.running import Clock, RunningHub, event, running_hub, until
from tests.tokens import Idp
from tests.webhook.callback_server import (
    HANG,
    LOOPBACK,
    OK,
    Answer,
    CallbackServer,
    active,
    ask,
    quiet,
    subscribe,
    unsubscribe,
)

KEY = "0123456789abcdef0123456789abcdef"
SECRET = "correct-horse-battery-staple"

Again = Callable[..., AbstractAsyncContextManager[RunningHub]]


@pytest.fixture
async def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Again]:
    """Runs a hub on a file, and another, and another, for one issuer; each stops without waiting for callbacks."""
    monkeypatch.setattr(deliver, "STOP_SECONDS", 0.0)
    clock, idp = Clock(), Idp()

    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[RunningHub]:
        values = {"store": f"sqlite:///{tmp_path / 'hub.db'}", "webhook_allowed_networks": LOOPBACK, "secret_key": KEY}
        given = {name: value for name, value in (values | settings).items() if value is not None}
        async with running_hub(clock=clock, idp=idp, issuer=issuer, **given) as hub:
            yield hub

    async with IssuerServer() as issuer:
        yield start


def opens(*numbers: int) -> list[str]:
    return [f"Patient-open p{number}" for number in numbers]


async def publish(hub: RunningHub, *numbers: int) -> None:
    for number in numbers:
        assert (await hub.publish(event("Patient-open", f"p{number}"))).status_code == 202


@pytest.mark.req("WHK-4")
async def test_a_webhook_survives_a_restart(again: Again) -> None:
    """The callback is posted new events, signed with its secret, and is not asked again."""
    async with CallbackServer() as server:
        async with again() as hub:
            await subscribe(hub, server, hub__secret=SECRET)
        async with again() as hub:
            await publish(hub, 1)
            (post,) = await server.posted(1)
            assert post.headers["x-hub-signature"] == signature(SECRET.encode(), post.body)
            assert (await unsubscribe(hub, server.url())).status_code == 202
        assert len(server.gets()) == 1


@pytest.mark.req("WHK-4", "WHK-8", "EVT-1")
async def test_what_was_not_answered_is_posted_after_a_restart(again: Again) -> None:
    """All that was accepted, in order, signed; and what comes then behind it."""
    async with CallbackServer() as server:
        async with again() as hub:
            await subscribe(hub, server, hub__secret=SECRET)
            await publish(hub, 1)
            await server.posted(1)
            await quiet(hub)
            server.say("POST", "/callback", HANG)
            await publish(hub, 2, 3, 4)
            await server.posted(2)
        server.say("POST", "/callback", OK)
        before = len(server.posts())
        async with again() as hub:
            await publish(hub, 5)
            posts = (await server.posted(before + 4))[before:]
            await quiet(hub)
        assert [post.label for post in posts] == opens(2, 3, 4, 5)
        for post in posts:
            assert post.headers["x-hub-signature"] == signature(SECRET.encode(), post.body)
        async with again() as hub:
            await quiet(hub)
        assert len(server.posts()) == before + 4


@pytest.mark.req("WHK-4", "WHK-8")
async def test_what_comes_after_one_restart_survives_the_next(again: Again) -> None:
    """Nothing that waits takes the place of another."""
    async with CallbackServer() as server:
        async with again() as hub:
            await subscribe(hub, server)
            server.say("POST", "/callback", HANG)
            await publish(hub, 1)
            await server.posted(1)
        for number in (2, 3):
            before = len(server.posts())
            async with again() as hub:
                await publish(hub, number)
                await server.posted(before + 1)
        server.say("POST", "/callback", OK)
        before = len(server.posts())
        async with again():
            await server.posted(before + 3)
        assert [post.label for post in server.posts()[before:]] == opens(1, 2, 3)


@pytest.mark.req("WHK-6", "WHK-8")
async def test_what_waits_is_posted_when_the_callback_is_up_again(again: Again) -> None:
    """Both were down; the hub comes first, and tries again until the callback is there."""
    async with CallbackServer() as server:
        async with again() as hub:
            await subscribe(hub, server)
            server.say("POST", "/callback", HANG)
            await publish(hub, 1, 2)
            await server.posted(1)
        server.say("POST", "/callback", Answer(503), OK)
        before = len(server.posts())
        async with again():
            await server.posted(before + 3)
        assert [post.label for post in server.posts()[before:]] == opens(1, 1, 2)


@pytest.mark.req("WHK-2")
async def test_who_was_being_asked_is_asked_again_after_a_restart(again: Again) -> None:
    """A new challenge is sent. An answer to the old one does not count."""
    async with CallbackServer() as server:
        server.say("GET", "/callback", HANG)
        async with again() as hub:
            await ask(hub, server.url("/callback?a=b"), hub__secret=SECRET)
            await server.asked()
        server.say("GET", "/callback", Answer(body=None))
        async with again() as hub:
            _, asked = await server.asked(2)
            await until(lambda: len(active(hub)) == 1)
            await publish(hub, 1)
            (post,) = await server.posted(1)
            assert post.headers["x-hub-signature"] == signature(SECRET.encode(), post.body)
        assert asked.target.startswith("/callback?a=b&hub.mode=subscribe&")
        assert asked.query["hub.challenge"] != server.gets()[0].query["hub.challenge"]


@pytest.mark.req("WHK-11", "LEA-4")
async def test_a_lease_that_ended_meanwhile_is_denied(again: Again) -> None:
    """Waiting posts are not posted any more."""
    async with CallbackServer() as server:
        async with again() as hub:
            await subscribe(hub, server, hub__lease_seconds="60")
            server.say("POST", "/callback", HANG)
            await publish(hub, 1)
            await server.posted(1)
            clock = hub.clock
        clock.now += 61
        before = len(server.posts())
        async with again() as hub:
            await server.asked(mode="denied")
            await quiet(hub)
            assert hub.hub.service.usage.subscriptions == 0
        assert len(server.posts()) == before


@pytest.mark.req("WHK-5")
async def test_what_was_unsubscribed_stays_so(again: Again) -> None:
    """Nothing of it is posted after a restart."""
    async with CallbackServer() as server:
        async with again() as hub:
            await subscribe(hub, server)
            server.say("POST", "/callback", HANG)
            await publish(hub, 1)
            await server.posted(1)
            await unsubscribe(hub, server.url())
        async with again() as hub:
            await publish(hub, 2)
            await quiet(hub)
        assert server.news() == opens(1)


@pytest.mark.req("WHK-12")
async def test_a_renewal_amid_which_the_hub_ended_is_completed(again: Again) -> None:
    """The old one works on, the new one is asked again and takes over."""
    async with CallbackServer() as server:
        async with again() as hub:
            await subscribe(hub, server, events="Patient-open")
            server.say("GET", "/callback", HANG)
            await ask(hub, server.url(), "Encounter-open")
            await server.asked(2)
        gate = asyncio.Event()
        server.say("GET", "/callback", Answer(body=None, gate=gate))
        async with again() as hub:
            await server.asked(3)
            await publish(hub, 1)
            await server.posted(1)
            gate.set()
            await until(lambda: hub.hub.service.usage.subscriptions == 1)
            await publish(hub, 2)
            await hub.publish(event("Encounter-open", "e1"))
            await server.posted(2)
        assert server.news() == ["Patient-open p1", "Encounter-open e1"]


# --- secrets ---


@pytest.mark.req("WHK-4", "SEC-1")
@pytest.mark.parametrize("key", [KEY, None])
async def test_secrets_are_sealed_at_rest(
    key: str | None, again: Again, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the secret nor the key is in any file of the store, nor in the log, while the hub runs and afterwards."""

    def stored() -> bytes:
        files = [file.read_bytes() for file in tmp_path.iterdir()]
        assert sum(map(len, files)) > 1000
        return b"".join(files)

    async with CallbackServer() as server:
        async with again(secret_key=key) as hub:
            await subscribe(hub, server, hub__secret=SECRET)
            server.say("POST", "/callback", HANG)
            await publish(hub, 1)
            await server.posted(1)
            running_files = stored()
        said = "".join(capfd.readouterr())
    for text in (running_files, stored(), said.encode()):
        assert SECRET.encode() not in text
        assert KEY.encode() not in text
        assert SECRET.encode().hex().encode() not in text
    assert server.url().encode() in running_files, "the right files were looked at"


@pytest.mark.req("WHK-4", "WHK-6")
@pytest.mark.parametrize("then", [None, "another-key-another-key-another-key"])
async def test_with_another_key_a_secret_is_lost_and_that_is_said(then: str | None, again: Again) -> None:
    """At the next event: a SyncError to the others, a denial to the callback, and nothing is posted unsigned."""
    async with CallbackServer() as server:
        async with again() as hub:
            await subscribe(hub, server, "/a", hub__secret=SECRET, subscriber__name="Worklist")
            await subscribe(hub, server, "/b", subscriber__name="Without")
        async with again(secret_key=then) as hub:
            async with hub.follow(await hub.subscribe("SyncError")) as follower:
                await publish(hub, 1, 2)
                (item,) = (await follower.next())["event"]["context"]
                issue = item["resource"]["issue"][0]
                assert issue["diagnostics"].startswith("Worklist was unsubscribed: its hub.secret was lost")
                (denied,) = await server.asked(path="/a", mode="denied")
                assert "hub.secret" in denied.query["hub.reason"]
                await server.posted(2, "/b")
                await quiet(hub)
                assert await follower.silent()
            await subscribe(hub, server, "/a", hub__secret=SECRET)
        assert server.posts("/a") == [] or {each.label for each in server.posts("/a")} == set(opens(2))


@pytest.mark.req("WHK-4")
@pytest.mark.parametrize(
    ("settings", "warned"),
    [({"secret_key": None}, True), ({}, False), ({"secret_key": None, "store": "memory:"}, False)],
)
async def test_a_hub_without_a_key_says_so(
    settings: dict[str, Any], warned: bool, again: Again, capfd: pytest.CaptureFixture[str]
) -> None:
    """At its start; not where nothing survives anyway."""
    async with again(**settings):
        pass
    assert ("FHIRCAST_SECRET_KEY" in "".join(capfd.readouterr())) is warned


@pytest.mark.req("WHK-4")
def test_a_sealed_secret_opens_with_its_key_only() -> None:
    """An empty secret is not sealed. The same secret sealed twice gives two texts."""
    one, other, lost = Sealer(KEY), Sealer(KEY + "x"), Sealer(None)
    sealed = one.seal(SECRET)
    assert one.open(sealed) == Sealer(KEY).open(sealed) == SECRET.encode()
    assert other.open(sealed) is lost.open(sealed) is Sealer(None).open(lost.seal(SECRET)) is None
    assert one.seal(None) == one.seal("") == b""
    assert one.open(b"") == b""
    assert one.seal(SECRET) != sealed
    assert one.open(sealed[:-2] + b"xx") is None
    assert one.open(b"no token") is None
