"""What an operator sees of the hub as a whole: sockets, queues, issuers, rates, budgets, workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from fhircast_hub.auth.issuer_health import About
from fhircast_hub.console.paced import Paced
from fhircast_hub.core.access.principal import SessionKey
from tests.console.console_world import operated
from tests.running import until
from tests.webhook.callback_server import CallbackServer, subscribe


@pytest.mark.req("CSL-4")
async def test_numbers_of_the_hub() -> None:
    """Sockets, sessions, bytes, and requests by their kind."""
    async with operated() as console:
        hub = console.hub
        async with hub.follow(await hub.subscribe()):
            await console.open()
            hub.clock.now += 60
            found = (await console.state())["hub"]
        assert found["startedAt"] == hub.clock.now - 60
        assert (found["sockets"], found["sessions"], found["subscriptions"]) == (1, 1, 1)
        assert 0 < found["bytes"] < found["maxBytes"]
        assert (found["eventsReceived"], found["eventsSent"]) == (1, 2)
        assert found["requests"] == {"subscribe": 1, "publish": 1}
        assert (found["node"], found["worker"], found["url"]) == ("", None, hub.url)


@pytest.mark.req("CSL-13")
async def test_a_worker_says_which_one_it_is() -> None:
    """Its numbers are its own."""
    async with operated() as console:
        console.console.state.worker = (2, 4)
        assert (await console.state())["hub"]["worker"] == {"number": 2, "total": 4}


@pytest.mark.req("CSL-4", "OPS-18")
async def test_issuers_with_the_age_of_their_keys_and_the_last_failure() -> None:
    async with operated() as console:
        health = console.hub.hub._verifier.health()[0]
        await until(lambda: health.keys_at is not None)
        (before,) = (await console.state())["issuers"]["issuers"]
        assert (before["issuer"], before["keys"], before["failedAt"]) == (health.issuer, 1, None)
        assert before["keysAt"] == console.hub.clock.now
        console.hub.clock.now += 5
        health.failed(About.KEYS, "answered 502")
        (after,) = (await console.state())["issuers"]["issuers"]
        assert (after["failure"], after["failedAt"]) == ("answered 502", console.hub.clock.now)
        assert (after["requests"], after["failures"]) == (before["requests"] + 1, 1)
        assert after["keysMissing"] is False


@pytest.mark.req("CSL-4", "CSL-18")
async def test_rates_and_budgets_in_use() -> None:
    """Who is near a limit is a hash, the same as in the list of sessions."""
    async with operated(rate_limit_token=10) as console:
        await console.open()
        before = (await console.state())["budgets"]
        assert (before["tokensNear"], before["users"]) == (0, [])
        console.hub.hub.accounts.of_user(console.hub.idp.issuer, "user:user-1").queued = 60 << 20
        console.hub.hub.accounts.of_user("another realm", "user:user-1").queued = 60 << 20
        for _ in range(3):
            await console.state()
        after = (await console.state())["budgets"]
        assert after["tokensNear"] == 1
        assert (after["perToken"], after["perAddress"], after["addressesNear"]) == (10, 6000, 0)
        theirs, user = after["users"]
        assert (user["user"], user["used"]["queued"]) == (console.user_hash("user-1"), 0.94)
        assert theirs["user"] not in (user["user"], console.user_hash("user-1", "another realm"))
        (largest,) = after["largest"]
        assert (largest["user"], largest["sessions"]) == (console.user_hash("user-1"), 1)
        own = console.hub.idp.issuer
        assert [each["realm"] for each in (theirs, user, largest)] == ["another realm", own, own]
        assert [each["isFound"] for each in (theirs, user, largest)] == [False, True, True]
        assert console.hash("user:user-1") not in json.dumps(after)


@pytest.mark.req("CSL-18")
async def test_the_sessions_of_a_large_user_are_found() -> None:
    """Also where no list has shown the user before, as after a restart."""
    async with operated() as console:
        await console.open()
        (largest,) = (await console.state())["budgets"]["largest"]
        console.console.sessions._users.clear()
        (found,) = (await console.state(search=largest["user"]))["sessions"]["rows"]
        assert found["hash"] == console.hash()


@pytest.mark.req("CSL-3")
async def test_what_waits_for_a_participant() -> None:
    """Of a socket on this node, and of a callback; of a socket that is not there: unknown."""
    async with operated(webhook_allowed_networks=["127.0.0.0/8"]) as console, CallbackServer() as callback:
        hub = console.hub
        await hub.subscribe(**{"subscriber.name": "Absent"})
        await subscribe(hub, callback, subscriber__name="Hook")
        async with hub.follow(await hub.subscribe(**{"subscriber.name": "Chart"})):
            found = {each["name"]: each["waiting"] for each in (await console.session())["participants"]}
        nothing = {"messages": 0, "bytes": 0}
        assert found == {"Absent": None, "Hook": nothing, "Chart": nothing}


class Found:
    """Counts how often a number is looked for. Each look takes `seconds` by its own clock."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.now, self.looks, self.seconds = 100.0, 0, seconds

    async def __call__(self) -> int:
        self.looks += 1
        self.now += self.seconds
        await asyncio.sleep(0)
        return self.looks


def paced(find: Found | Callable[[], Awaitable[int]], clock: Found) -> Paced[int]:
    return Paced(find, 1.0, lambda: clock.now)


@pytest.mark.req("CSL-4")
async def test_a_number_that_costs_much_is_looked_for_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most a fiftieth of the time. All that ask meanwhile share one look."""
    monkeypatch.setattr("fhircast_hub.console.paced.REST", 50.0)
    cheap, dear = Found(), Found(0.2)
    for find, pause in ((cheap, 1.0), (dear, 10.0)):
        number = paced(find, find)
        assert set(await asyncio.gather(number.get(), number.get())) == {1}
        find.now += pause - 0.01
        assert await number.get() == 1
        find.now += 0.02
        assert await number.get() == 2


@pytest.mark.req("CSL-4")
async def test_a_look_that_fails_is_not_repeated_at_once() -> None:
    """Nor reported by asyncio where nobody waits for it any more."""
    clock = Found()

    async def fail() -> int:
        clock.looks += 1
        raise OSError("away")

    number = paced(fail, clock)
    for _ in range(3):
        with pytest.raises(OSError, match="away"):
            await number.get()
    assert clock.looks == 1


@pytest.mark.req("CSL-2")
async def test_a_found_session_is_remembered_for_its_realm_only() -> None:
    async with operated() as console:
        await console.open()
        await console.session()
        realm = console.hub.idp.issuer
        reader = await console.hub.hub._verifier.verify(console.reader)
        key = SessionKey(realm, (await console.session())["topic"])
        assert await console.console.sessions.find(reader, console.hash()) == key
        assert console.console.sessions._topics == {(realm, console.hash()): key.topic}
