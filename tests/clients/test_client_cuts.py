"""A network that is cut for a second, for half a minute, and past the lease, in virtual time: the client ends in step with the
session, or says that it is not."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from fhircast_client import Event, FHIRcastClient, Refuse, Status, testing
from fhircast_client.socket import Connect
from fhircast_client.testing import FakeHub
from tests.clients import virtual_time
from tests.clients.fakes import Heard, patient, study

#: Seconds: of the cuts, of the lease that the longest outlives, and until the client must have come back.
CUTS = {"a second": 1, "half a minute": 30, "past the lease": 150}
LEASE, BACK = 60, 120
#: Seconds between two heartbeats, where the hub has some.
HEARTBEAT = 10
SEEDS = range(15)


class Follower:
    """A client that follows patients, and each moment at which it said that it was in step and was not."""

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub
        self.client: FHIRcastClient = hub.client("viewer", lease_seconds=LEASE)
        self.lies: list[tuple[str | None, list[str | None]]] = []
        self.client.on("Patient-open", Heard())
        self.client.on("Patient-close", Heard())
        self.client.on_status(self._told)

    @property
    def shown(self) -> str | None:
        """What it shows."""
        return self.client.context.anchor if self.client.context else None

    @property
    def right(self) -> list[str | None]:
        """What it may show: what is current at the hub; where nothing is, also what the hub tells those who join, which is the
        newest that is open still."""
        return [self.hub.current] if self.hub.current else [None, *self.hub.opened[-1:]]

    def _told(self, status: Status) -> None:
        if status.in_sync and self.shown not in self.right:
            self.lies.append((self.shown, self.right))


async def beat(hub: FakeHub) -> None:
    """The heart of a hub."""
    while True:
        await asyncio.sleep(HEARTBEAT)
        hub.heartbeat(HEARTBEAT)


async def go_on(hub: FakeHub, seconds: float, chance: random.Random) -> None:
    """What others open and close within these seconds."""
    moments = sorted(chance.uniform(0, seconds) for _ in range(chance.randrange(4)))
    for before, moment in zip([0.0, *moments], [*moments, seconds], strict=True):
        await asyncio.sleep(moment - before)
        if moment != seconds:
            verb = chance.choice(("open", "open", "close"))
            await hub.publish(f"Patient-{verb}", patient(f"p{chance.randrange(3)}"))


@pytest.mark.req("CLT-9", "CLT-10", "CLT-13")
@pytest.mark.parametrize("silently", [False, True])
@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_ends_in_step_with_what_is_open(cut: str, silently: bool) -> None:
    async def play(seed: int) -> None:
        chance = random.Random(seed)
        async with FakeHub() as hub:
            heart, viewer = asyncio.create_task(beat(hub)), Follower(hub)
            async with viewer.client:
                await hub.publish("Patient-open", patient("p0"))
                await asyncio.sleep(HEARTBEAT + chance.uniform(0.1, LEASE))
                assert (viewer.client.status.in_sync, viewer.shown) == (True, "Patient/p0")
                hub.cut(silently=silently)
                await go_on(hub, CUTS[cut], chance)
                if CUTS[cut] > 3 * HEARTBEAT or not silently:
                    assert not viewer.client.status.in_sync
                    assert viewer.client.status.why
                hub.restore()
                await asyncio.sleep(BACK)
                assert viewer.client.status == Status("connected", True, "")
                assert viewer.shown in viewer.right
                assert viewer.lies == []
            heart.cancel()

    for seed in SEEDS:
        random.seed(seed)  # the client's own jitter
        virtual_time.run(_named(play(seed), seed))


@pytest.mark.req("CLT-9", "CLT-10", "CLT-13")
@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_from_a_hub_that_tells_nothing_ends_in_a_status_that_says_so(cut: str) -> None:
    async def play(seed: int) -> None:
        chance = random.Random(seed)
        async with FakeHub("STU2") as hub:
            viewer = Follower(hub)
            async with viewer.client:
                await hub.publish("patient-open", patient("p0"))
                await asyncio.sleep(chance.uniform(0.1, LEASE))
                hub.cut()
                await go_on(hub, CUTS[cut], chance)
                hub.restore()
                await asyncio.sleep(BACK)
                status = viewer.client.status
                assert (status.connection, status.in_sync) == ("connected", False)
                assert "does not tell" in status.why
                await hub.publish("patient-open", patient("p4"))
                await asyncio.sleep(1)
                assert (viewer.client.status.in_sync, viewer.shown) == (True, "Patient/p4")

    for seed in SEEDS:
        random.seed(seed)
        virtual_time.run(_named(play(seed), seed))


@pytest.fixture
def _logout_ends_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake hub has this setting."""
    rules = testing._rules
    monkeypatch.setattr(
        testing, "_rules", lambda *given, **more: replace(rules(*given, **more), logout_ends_session=True)
    )


async def _shows_a_study_of_a_patient(hub: FakeHub, heard: Heard) -> FHIRcastClient:
    """A client that follows patients and studies, and shows one of each."""
    viewer: FHIRcastClient = hub.client("viewer")
    for name in ("Patient-open", "ImagingStudy-open"):
        viewer.on(name, lambda _: None)
    for name in ("Patient-close", "ImagingStudy-close"):
        viewer.on(name, heard)
    await viewer.start()
    await hub.publish("Patient-open", patient("p1"))
    await hub.publish("ImagingStudy-open", study("s1"), patient("p1"))
    await asyncio.sleep(1)
    assert list(viewer.contexts) == hub.opened == ["Patient/p1", "ImagingStudy/s1"]
    return viewer


@pytest.mark.req("CLT-5", "CLT-9", "GET-1", "CLT-40")
@pytest.mark.usefixtures("_logout_ends_session")
def test_where_the_hub_ended_the_session_all_that_is_open_here_is_closed() -> None:
    async def play() -> None:
        async with FakeHub() as hub:
            heard = Heard()
            viewer = await _shows_a_study_of_a_patient(hub, heard)
            await hub.publish("UserLogout")
            await asyncio.sleep(BACK)
            assert heard.anchors == ["ImagingStudy/s1", "Patient/p1"]
            assert (viewer.context, viewer.contexts, viewer.status) == (None, {}, Status("connected", True, ""))
            await viewer.stop()

    virtual_time.run(play())


@pytest.mark.req("CLT-5", "CLT-9", "CLT-39")
@pytest.mark.usefixtures("_logout_ends_session")
def test_what_a_slow_handler_shows_at_last_is_closed_where_the_hub_has_nothing_open() -> None:
    """The hub is asked once the handlers have ended: of what they were called with its answer would say nothing."""

    async def play() -> None:
        async with FakeHub() as hub:
            shown, heard = asyncio.Event(), Heard()
            viewer: FHIRcastClient = hub.client("viewer")
            viewer.on("Patient-open", Heard(lambda _: shown.wait()))
            viewer.on("Patient-close", heard)
            await viewer.start()
            await hub.publish("Patient-open", patient("p1"))
            await hub.publish("UserLogout")
            await asyncio.sleep(BACK)
            assert not viewer.status.in_sync
            shown.set()
            await asyncio.sleep(BACK)
            assert heard.anchors == ["Patient/p1"]
            assert (viewer.context, viewer.contexts, viewer.status) == (None, {}, Status("connected", True, ""))
            await viewer.stop()

    virtual_time.run(play())


@pytest.mark.req("CLT-5", "CLT-9", "GET-4", "CLT-40")
def test_where_nothing_is_current_what_else_is_open_stays_open_here() -> None:
    """What the hub says when it is asked is the same, whether something else is open at the hub or not."""

    async def play() -> None:
        async with FakeHub() as hub:
            hub.replays, heard = False, Heard()
            viewer = await _shows_a_study_of_a_patient(hub, heard)
            hub.cut()
            await hub.publish("ImagingStudy-close", study("s1"))
            hub.restore()
            await asyncio.sleep(BACK)
            assert (hub.current, hub.opened) == ("", ["Patient/p1"])
            assert heard.anchors == ["ImagingStudy/s1"]
            assert (viewer.context, list(viewer.contexts)) == (None, ["Patient/p1"])
            assert viewer.status == Status("connected", True, "")
            await viewer.stop()

    virtual_time.run(play())


@pytest.mark.req("CLT-9")
def test_a_hub_that_is_away_is_asked_ever_more_seldom_and_not_by_all_at_once() -> None:
    async def play() -> None:
        moments: dict[str, list[float]] = {}
        loop = asyncio.get_running_loop()

        def noted(name: str, connect: Connect) -> Connect:
            async def attempt(endpoint: str) -> Any:
                moments.setdefault(name, []).append(loop.time())
                return await connect(endpoint)

            return attempt

        async with FakeHub() as hub:
            names = [f"viewer {number}" for number in range(20)]
            clients = [hub.client(name, connect=noted(name, hub.connector(name))) for name in names]
            for client in clients:
                await client.start()
            moments.clear()
            cut_at = loop.time()
            hub.cut()
            await asyncio.sleep(600)
            for client in clients:
                await client.stop()
        assert all(len(attempts) <= 50 for attempts in moments.values())
        first = sorted(attempts[0] - cut_at for attempts in moments.values())
        assert 0.25 <= first[0] < first[-1] <= 0.5
        assert len({round(moment, 3) for moment in first}) > 10
        waits = [after - before for attempts in moments.values() for before, after in pairwise(attempts)]
        assert 29 < max(waits) <= 30.1

    random.seed(1)
    virtual_time.run(play())


async def _named(play: Any, seed: int) -> None:
    """Says which seed it was."""
    try:
        await play
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.req("CLT-13", "CLT-47")
def test_who_does_not_see_that_others_follow_again_believes_it_when_nobody_says_otherwise() -> None:
    """A chart that knows only patients is told that a viewer refuses a study, for as long as it does, and half a minute more."""

    async def play() -> None:
        refuses = True

        def show(_: Event) -> None:
            if refuses:
                raise Refuse("unknown here")

        async with FakeHub() as hub:
            ehr, viewer, chart = hub.client("ehr"), hub.client("viewer"), hub.client("chart")
            viewer.on("ImagingStudy-open", show)
            chart.on("Patient-open", lambda _: None)
            async with ehr, viewer, chart:
                await ehr.open(study("s1"), patient("p1"))
                await asyncio.sleep(120)
                assert [client.status.behind for client in (ehr, chart)] == [("viewer",)] * 2
                refuses = False
                await asyncio.sleep(10 + 25 + 5)
                assert [client.status.in_sync for client in (ehr, chart)] == [True] * 2

    virtual_time.run(play())


@pytest.mark.req("CLT-12", "CLT-14", "CLT-48")
def test_the_others_see_who_catches_up_when_the_open_is_sent_again() -> None:
    """No event of FHIRcast says that sync is restored: others assume so when an event comes that nobody refuses (4.2.1)."""

    async def play() -> None:
        refuses = True

        def show(_: Event) -> None:
            if refuses:
                raise Refuse("unsaved notes")

        async with FakeHub() as hub:
            ehr, viewer, chart = hub.client("ehr"), hub.client("viewer"), hub.client("chart")
            viewer.on("Patient-open", lambda _: None)
            chart.on("Patient-open", show)
            async with ehr, viewer, chart:
                await ehr.open(patient("p1"))
                await asyncio.sleep(5)
                refuses = False
                assert await chart.catch_up()
                assert chart.status.in_sync
                assert [client.status.behind for client in (ehr, viewer)] == [("chart",)] * 2
                await asyncio.sleep(10 + 12 + 1)
                assert [client.status.in_sync for client in (ehr, viewer)] == [True] * 2
                assert [one.refused_event for one in hub._hub.subscriptions("chart")] == [""]

    virtual_time.run(play())
