"""Shared content is the same in each store, and survives a restart."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.session import Session
from tests.http.content_world import delete, put, shared, update, version
from tests.running import TOPIC, Clock, RunningHub, event, running_hub
from tests.tokens import Idp

EVENTS = "DiagnosticReport-open,DiagnosticReport-update,DiagnosticReport-select,DiagnosticReport-close"
STORES = pytest.mark.parametrize("stored", [False, True], ids=["memory", "sqlite"])
#: How many clients update at once.
AT_ONCE = 5
#: An issuer whose realm is the same in each process, though its port is not.
REALM = {"realm": "hospital", "user_claim": "sub"}


class Together:
    """A store's load that lets the next `left` callers, AT_ONCE of them, go on only when all have what they asked for."""

    def __init__(self, load: Callable[[SessionKey], Awaitable[tuple[Session | None, int]]]) -> None:
        self.load, self.left, self.barrier = load, 0, asyncio.Barrier(AT_ONCE)

    async def __call__(self, key: SessionKey) -> tuple[Session | None, int]:
        loaded = await self.load(key)
        if self.left:
            self.left -= 1
            await self.barrier.wait()
        return loaded


def store_at(folder: Path, stored: bool) -> str:
    return f"sqlite:///{folder / 'hub.db'}" if stored else "memory:"


@STORES
@pytest.mark.req("CON-16", "CON-18", "CON-4")
async def test_what_get_shows_can_be_withdrawn_as_it_stands_there(stored: bool, tmp_path: Path) -> None:
    """By the fullUrl of its entry, also from a hub that was started anew, and also where it is a copy of the report."""
    settings: dict[str, Any] = {"clock": Clock(), "idp": Idp(), "store": store_at(tmp_path, stored), "own": REALM}

    async def withdraw(hub: RunningHub) -> None:
        for number, entry in enumerate((await hub.context()).json()["context"][-1]["resource"]["entry"]):
            request = {"method": "DELETE", "url": f"{hub.url}/{TOPIC}/fhir"}
            gone = {"fullUrl": entry["fullUrl"], "request": request}
            answer = await hub.publish(update(await version(hub), gone, event_id=f"gone-{number}"))
            assert answer.status_code == 202, answer.text
        assert await shared(hub) == []

    async with running_hub(**settings) as hub:
        await hub.publish(event("DiagnosticReport-open", "r1"))
        report = {"resourceType": "DiagnosticReport", "id": "r1", "status": "final"}
        entries = put("o1") | {"fullUrl": "urn:uuid:1"}, put("r1") | {"fullUrl": "urn:uuid:2", "resource": report}
        assert (await hub.publish(update(await version(hub), *entries))).status_code == 202
        other = {"fullUrl": "urn:uuid:1", "request": {"method": "DELETE", "url": "DiagnosticReport/r1"}}
        refused = await hub.publish(update(await version(hub), other, event_id="two"))
        assert refused.status_code == 400
        assert "entry[0]: fullUrl and request.url must name the same resource" in refused.text
        if not stored:
            await withdraw(hub)
    if stored:
        async with running_hub(**settings) as again:
            await withdraw(again)


@STORES
@pytest.mark.req("CON-8", "CON-3")
async def test_of_simultaneous_updates_on_one_version_exactly_one_wins(
    stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though each is decided before any is written: one 202, and 409 for the others, who are told the version it made."""
    async with running_hub(store=store_at(tmp_path, stored)) as hub:
        await hub.publish(event("DiagnosticReport-open", "r1"))
        together = Together(hub.hub.service._store.load)
        monkeypatch.setattr(hub.hub.service._store, "load", together)
        async with hub.follow(await hub.subscribe("DiagnosticReport-update")) as follower:
            for turn in range(3):
                current = await version(hub)
                ids = [f"{turn}-{number}" for number in range(AT_ONCE)]
                together.left = AT_ONCE
                answers = await asyncio.gather(*(hub.publish(update(current, put(id_), event_id=id_)) for id_ in ids))
                assert sorted(answer.status_code for answer in answers) == [202] + [409] * (AT_ONCE - 1)
                told = await follower.next()
                assert told["event"]["context.priorVersionId"] == current
                made = told["event"]["context.versionId"]
                assert all(made in answer.text for answer in answers if answer.status_code == 409)
                assert [answer.status_code for answer in answers].index(202) == ids.index(told["id"])
                assert await version(hub) == made
                assert len(await shared(hub)) == turn + 1
            assert await follower.silent()


@STORES
@pytest.mark.req("EVT-17", "EVT-32")
async def test_a_repeated_update_is_answered_as_the_first_time(stored: bool, tmp_path: Path) -> None:
    """202, also to whoever repeats it while the first is on its way; applied and sent once."""
    store = store_at(tmp_path, stored)
    async with running_hub(store=store) as hub, hub.follow(await hub.subscribe("DiagnosticReport-update")) as follower:
        await hub.publish(event("DiagnosticReport-open", "r1"))
        posted = update(await version(hub), put("o1"))
        answers = await asyncio.gather(*(hub.publish(posted) for _ in range(4)))
        assert {answer.status_code for answer in answers} == {202}
        made = (await follower.next())["event"]["context.versionId"]
        assert (await hub.publish(posted)).status_code == 202
        assert await follower.silent()
        assert (await version(hub), await shared(hub)) == (made, ["o1"])


@pytest.mark.req("CON-4", "CON-9", "CON-10", "EVT-17", "CON-16")
async def test_content_survives_a_restart(tmp_path: Path) -> None:
    """Resources in their order, versions, also of what is not current, and which updates were repeats; what was closed is gone."""
    settings: dict[str, Any] = {"clock": Clock(), "idp": Idp(), "store": store_at(tmp_path, True), "own": REALM}
    async with running_hub(**settings) as hub:
        await hub.publish(event("DiagnosticReport-open", "r0"))
        await hub.publish(update(await version(hub), put("gone"), event_id="0", of="r0"))
        await hub.publish(event("DiagnosticReport-close", "r0"))
        await hub.publish(event("DiagnosticReport-open", "r1"))
        ids = [f"o{number}" for number in (9, 10, 1, 5, 3)]
        repeated = update(await version(hub), *map(put, ids), event_id="1")
        await hub.publish(repeated)
        await hub.publish(update(await version(hub), delete("o5"), put("o10", value=2), put("last"), event_id="2"))
        before, first = (await hub.context()).content, await version(hub)
        await hub.publish(event("DiagnosticReport-open", "r2"))
        await hub.publish(update(await version(hub), put("other"), event_id="3", of="r2"))
    async with running_hub(**settings) as again:
        assert await shared(again) == ["other"]
        async with again.follow(await again.subscribe("DiagnosticReport-update")) as follower:
            assert (await again.publish(repeated)).status_code == 202
            assert await follower.silent()
            await again.publish(event("DiagnosticReport-close", "r2"))
            assert (await again.publish(event("DiagnosticReport-open", "r1", event_id="again"))).status_code == 202
            opened = await version(again)
            assert (await again.context()).content == before.replace(first.encode(), opened.encode())
            assert await shared(again) == ["o9", "o10", "o1", "o3", "last"]
            assert (await again.publish(update(opened, put("new"), event_id="4"))).status_code == 202
            assert await shared(again) == ["o9", "o10", "o1", "o3", "last", "new"]
            await again.publish(event("DiagnosticReport-open", "r0", event_id="r0-again"))
            assert await shared(again) == []


@pytest.mark.req("CON-3", "CTX-1")
async def test_a_version_survives_a_restart(tmp_path: Path) -> None:
    """Who read it before may update on it after; a joiner is told it."""
    settings: dict[str, Any] = {"clock": Clock(), "idp": Idp(), "store": store_at(tmp_path, True), "own": REALM}
    async with running_hub(**settings) as hub:
        await hub.publish(event("DiagnosticReport-open", "r1"))
        opened = await version(hub)
        await hub.publish(update(opened, put("o1")))
        current = await version(hub)
    events = "DiagnosticReport-open,DiagnosticReport-update"
    async with running_hub(**settings) as again, again.follow(await again.subscribe(events)) as follower:
        assert (await follower.next())["event"]["context.versionId"] == current != opened
        assert (await again.publish(update(opened, put("o2"), event_id="2"))).status_code == 409
        assert (await again.publish(update(current, put("o2"), event_id="2"))).status_code == 202
        assert (await follower.next())["event"]["context.priorVersionId"] == current


@STORES
@pytest.mark.req("SUB-12")
async def test_missed_updates_are_told_at_reconnection(stored: bool, tmp_path: Path) -> None:
    """In order, before the open at the version that is current; with a store, in a new process too."""
    clock = Clock()
    settings: dict[str, Any] = {"clock": clock, "idp": Idp(), "store": store_at(tmp_path, stored), "own": REALM}
    async with running_hub(**settings) as hub:
        async with hub.follow(endpoint := await hub.subscribe(EVENTS)):
            await hub.publish(event("DiagnosticReport-open", "r1"))
        clock.now += 1
        versions = [await version(hub)]
        for number in range(3):
            await hub.publish(update(versions[-1], put(f"o{number}"), event_id=str(number)))
            versions.append(await version(hub))
        if not stored:
            await check_missed(hub, endpoint, versions)
    if stored:
        async with running_hub(**settings) as again:
            await check_missed(again, endpoint.replace(f":{hub.port}/", f":{again.port}/"), versions)


async def check_missed(hub: RunningHub, endpoint: str, versions: list[str]) -> None:
    """The follower at this endpoint is told what led from each of these versions to the next, and then the open."""
    async with hub.follow(endpoint) as follower:
        for prior, current in itertools.pairwise(versions):
            told = (await follower.next())["event"]
            assert (told["context.priorVersionId"], told["context.versionId"]) == (prior, current)
        opened = (await follower.next())["event"]
        assert (opened["hub.event"], opened["context.versionId"]) == ("DiagnosticReport-open", versions[-1])
        assert await follower.silent()
