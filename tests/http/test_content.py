"""Content sharing on the wire: updates of several clients, what GET shows of them, and what a new process still knows."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.session import Session
from tests.running import TOPIC, Clock, RunningHub, event, running_hub, spec
from tests.tokens import Idp

EVENTS = "DiagnosticReport-open,DiagnosticReport-update,DiagnosticReport-select,DiagnosticReport-close"
STORES = pytest.mark.parametrize("stored", [False, True], ids=["memory", "sqlite"])
#: How many clients update at once.
AT_ONCE = 5
#: An issuer whose realm is the same in each process, though its port is not.
REALM = {"realm": "hospital", "user_claim": "sub"}


def put(id_: str, **members: Any) -> dict[str, Any]:
    """An entry that shares an Observation."""
    return {"request": {"method": "PUT"}, "resource": {"resourceType": "Observation", "id": id_, **members}}


def delete(id_: str) -> dict[str, Any]:
    """An entry that takes it back."""
    return {"fullUrl": f"Observation/{id_}", "request": {"method": "DELETE"}}


def update(version: str | None, *entries: object, event_id: str = "update", of: str = "r1") -> dict[str, Any]:
    """An update of a report, made on this version."""
    bundle = {"resourceType": "Bundle", "id": "a-bundle", "type": "transaction", "entry": entries}
    posted = event("DiagnosticReport-update", event_id=event_id)
    reference = {"key": "report", "reference": {"reference": f"DiagnosticReport/{of}"}}
    posted["event"]["context"] = [reference, {"key": "updates", "resource": bundle}]
    return posted | {"event": posted["event"] | ({} if version is None else {"context.versionId": version})}


def select(*ids: str) -> dict[str, Any]:
    """A select of Observations in the report r1."""
    posted = event("DiagnosticReport-select", event_id=f"select-{len(ids)}")
    posted["event"]["context"] = [
        {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}},
        *({"key": "select", "reference": {"reference": f"Observation/{id_}"}} for id_ in ids),
    ]
    return posted


async def version(hub: RunningHub) -> str:
    """The current version."""
    read: str = (await hub.context()).json()["context.versionId"]
    return read


async def shared(hub: RunningHub) -> list[str]:
    """The ids of what GET says is shared."""
    content = (await hub.context()).json()["context"][-1]
    assert content["key"] == "content"
    return [entry["resource"]["id"] for entry in content["resource"].get("entry", [])]


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


@pytest.mark.req("CON-1", "CON-2", "CON-4", "CON-5", "CON-6", "CON-9", "CON-12")
async def test_a_report_is_shared_from_open_to_close() -> None:
    """The specification's example: opened, updated, selected in, updated with a DELETE, closed; all is told, and GET shows it."""
    opened = spec("DiagnosticReport-open")
    request, broadcast = spec("DiagnosticReport-update.request"), spec("DiagnosticReport-update.broadcast")
    async with running_hub() as hub, hub.follow(await hub.subscribe(EVENTS)) as follower:
        assert (await hub.publish(opened)).status_code == 202
        first = (await follower.next())["event"]["context.versionId"]
        empty = {"key": "content", "resource": {"resourceType": "Bundle", "id": first, "type": "collection"}}
        assert (await hub.context()).json()["context"] == [*opened["event"]["context"], empty]

        request["event"]["context.versionId"] = first
        assert (await hub.publish(request)).status_code == 202
        told = await follower.next()
        second = told["event"]["context.versionId"]
        broadcast["event"] |= {"context.versionId": second, "context.priorVersionId": first}
        assert told == broadcast
        answer = (await hub.context()).json()
        assert (answer["context.type"], answer["context.versionId"]) == ("DiagnosticReport", second)
        put_ = [{"resource": entry["resource"]} for entry in request["event"]["context"][2]["resource"]["entry"]]
        content = {"resourceType": "Bundle", "id": second, "type": "collection", "entry": put_}
        assert answer["context"] == [*opened["event"]["context"], {"key": "content", "resource": content}]

        assert (await hub.publish(spec("DiagnosticReport-select"))).status_code == 202
        assert await follower.next() == spec("DiagnosticReport-select")

        removal = spec("DiagnosticReport-update.delete")
        removal["event"]["context.versionId"] = second
        assert (await hub.publish(removal)).status_code == 202
        assert (await follower.next())["event"]["context.priorVersionId"] == second
        content = (await hub.context()).json()["context"][-1]["resource"]
        assert [entry["resource"]["resourceType"] for entry in content["entry"]] == ["ImagingStudy", "DiagnosticReport"]

        assert (await hub.publish(spec("DiagnosticReport-close"))).status_code == 202
        assert await follower.names(1) == ["DiagnosticReport-close"]
        assert (await hub.context()).json()["context"] == []


@pytest.mark.req("CON-3")
@pytest.mark.parametrize("stale", [None, "", "0", "b9574cb0-e9e5-4be1-8957-5fcb51ef33c1"])
async def test_a_stale_version_is_a_conflict_that_says_the_current_one(stale: str | None) -> None:
    """409 in words, nothing broadcast; with the version it says, the update is taken."""
    async with running_hub() as hub, hub.follow(await hub.subscribe("DiagnosticReport-update")) as follower:
        await hub.publish(event("DiagnosticReport-open", "r1"))
        refused = await hub.publish(update(stale, put("o1")))
        assert refused.status_code == 409
        assert refused.headers["Content-Type"].startswith("application/json")
        current = await version(hub)
        assert f"current version {current}" in refused.text
        assert await follower.silent()
        assert await shared(hub) == []
        assert (await hub.publish(update(current, put("o1")))).status_code == 202
        assert (await follower.next())["event"]["context.priorVersionId"] == current


@pytest.mark.req("CON-19")
@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (put("o9") | {"request": {"method": "POST"}}, 400),
        (put("o9") | {"resource": None}, 400),
        (put("new"), 400),
        (delete("o9"), 400),
        ({"fullUrl": "DiagnosticReport/r1", "request": {"method": "DELETE"}}, 400),
        (None, 400),
    ],
)
async def test_a_bad_entry_refuses_all_and_is_named(bad: object, status: int) -> None:
    """With its index, in one line; nothing is applied or told."""
    async with running_hub() as hub, hub.follow(await hub.subscribe("DiagnosticReport-update")) as follower:
        await hub.publish(event("DiagnosticReport-open", "r1"))
        before = (await hub.context()).content
        refused = await hub.publish(update(await version(hub), put("new"), bad))
        assert refused.status_code == status
        assert "entry[1]" in refused.text
        assert refused.json()["message"].count("\n") == 0
        assert (await hub.context()).content == before
        assert await follower.silent()


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
        assert "entry[0]: expected fullUrl and request.url to name one resource" in refused.text
        if not stored:
            await withdraw(hub)
    if stored:
        async with running_hub(**settings) as again:
            await withdraw(again)


@pytest.mark.req("CON-17")
async def test_another_patient_needs_another_open() -> None:
    """400 that says so, and nobody is told."""
    async with running_hub() as hub, hub.follow(await hub.subscribe(EVENTS)) as follower:
        opened = event("Patient-open", "p1")
        opened["event"]["context"][0]["resource"]["identifier"] = [{"system": "urn:oid:1.2", "value": "1"}]
        await hub.publish(opened)
        posted = update(await version(hub))
        identifiers = [{"system": "urn:oid:1.2", "value": "2"}]
        patient = {"resourceType": "Patient", "id": "p1", "identifier": identifiers}
        posted["event"]["hub.event"] = "Patient-update"
        posted["event"]["context"][0] = {"key": "patient", "reference": {"reference": "Patient/p1"}}
        posted["event"]["context"][1]["resource"]["entry"] = [{"request": {"method": "PUT"}, "resource": patient}]
        refused = await hub.publish(posted)
        assert refused.status_code == 400
        assert "entry[0].resource.identifier" in refused.text
        assert "close the context and open the right one instead" in refused.text
        assert await follower.silent()


@pytest.mark.req("CON-11", "CON-14")
async def test_selects_are_in_the_current_context_and_updates_in_any_that_is_open() -> None:
    """As the hub declares; else 409."""
    async with running_hub() as hub, hub.follow(await hub.subscribe(EVENTS)) as follower:
        for posted in (update("0", put("o1")), select("o1")):
            refused = await hub.publish(posted)
            assert refused.status_code == 409
            assert "open" in refused.text
        await hub.publish(event("DiagnosticReport-open", "r1"))
        first = (await follower.next())["event"]["context.versionId"]
        assert (await hub.publish(select("o1"))).status_code == 202
        assert (await hub.publish(select())).status_code == 202
        assert [(await follower.next())["id"] for _ in range(2)] == ["select-1", "select-0"]
        await hub.publish(event("DiagnosticReport-open", "r2"))
        await follower.next()
        assert (await hub.publish(select("o1"))).status_code == 409
        assert (await hub.publish(update(first, put("o1")))).status_code == 202
        assert (await follower.next())["event"]["context.priorVersionId"] == first
        assert await shared(hub) == []
        declared = (await hub.client.get(f"{hub.url}/.well-known/fhircast-configuration")).json()
        assert declared["capabilities"]["supportsNonCurrentContextUpdates"] is True
        assert {"DiagnosticReport-update", "DiagnosticReport-select"} <= set(declared["eventsSupported"])


@pytest.mark.req("CON-15")
async def test_too_many_entries_are_too_large() -> None:
    """413 over MAX_BUNDLE_ENTRIES; exactly as many are taken."""
    async with running_hub(max_bundle_entries=2) as hub:
        await hub.publish(event("DiagnosticReport-open", "r1"))
        refused = await hub.publish(update(await version(hub), put("o1"), put("o2"), put("o3")))
        assert refused.status_code == 413
        assert "at most 2 entries, and this one has 3" in refused.text
        assert await shared(hub) == []
        assert (await hub.publish(update(await version(hub), put("o1"), put("o2")))).status_code == 202
        assert await shared(hub) == ["o1", "o2"]


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
@pytest.mark.req("EVT-17")
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


@pytest.mark.req("CON-4", "EVT-12", "GET-9")
async def test_content_is_read_by_those_who_may_read_updates() -> None:
    """Others see the open's context alone; no cache keeps either."""
    async with running_hub() as hub:
        await hub.publish(event("DiagnosticReport-open", "r1"))
        await hub.publish(update(await version(hub), put("o1")))
        both = hub.token(scope="fhircast/DiagnosticReport-open.read fhircast/DiagnosticReport-update.read")
        for token, keys in (
            (both, ["report", "patient", "content"]),
            (hub.token(scope="fhircast/*-open.read fhircast/DiagnosticReport-open.*"), ["report", "patient"]),
        ):
            answer = await hub.context(token)
            assert [item["key"] for item in answer.json()["context"]] == keys
            assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.req("AUT-5")
@pytest.mark.parametrize("verb", ["update", "select"])
async def test_each_needs_its_own_write_scope(verb: str) -> None:
    """403 that names it; with nothing but that scope it is accepted."""
    async with running_hub() as hub, hub.follow(await hub.subscribe(EVENTS)) as follower:
        await hub.publish(event("DiagnosticReport-open", "r1"))
        await follower.next()
        posted = update(await version(hub), put("o1")) if verb == "update" else select("o1")
        others = [
            f"fhircast/DiagnosticReport-{other}.write"
            for other in ("open", "close", "update", "select")
            if other != verb
        ]
        refused = await hub.publish(posted, hub.token(scope=" ".join(["fhircast/*.read", *others])))
        assert refused.status_code == 403
        challenge = f'Bearer error="insufficient_scope", scope="fhircast/DiagnosticReport-{verb}.write"'
        assert refused.headers["WWW-Authenticate"] == challenge
        assert (await hub.publish(posted, hub.token("user-2"))).status_code == 403
        assert await follower.silent()
        accepted = await hub.publish(posted, hub.token(scope=f"fhircast/DiagnosticReport-{verb}.write"))
        assert accepted.status_code == 202
        assert await follower.names(1) == [f"DiagnosticReport-{verb}"]


@pytest.mark.req("EVT-15", "CON-4")
async def test_a_shared_resource_comes_out_as_it_went_in() -> None:
    """On the socket and in GET, byte for byte."""
    raw = '{ "x":1.10,"id":"o1","resourceType":"Observation","n":12345678901234567890123,"s":"\\u00e9 é 𝄞","a":[ ] }'
    async with running_hub() as hub, hub.follow(await hub.subscribe("DiagnosticReport-update")) as follower:
        await hub.publish(event("DiagnosticReport-open", "r1"))
        posted = update(await version(hub), put("o1"))
        text = json.dumps(posted).replace(json.dumps(put("o1")["resource"]), raw)
        assert (await hub.publish(text.encode())).status_code == 202
        assert f'"entry":[{{"resource":{raw}}}]' in (await hub.context()).text
        frame = await asyncio.wait_for(follower.connection.recv(decode=False), 5)
        assert raw.encode() in frame


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


@pytest.mark.req("EVT-11")
async def test_content_does_not_cross_sessions() -> None:
    """A report of the same id in another topic is another report."""
    async with running_hub() as hub:
        await hub.publish(event("DiagnosticReport-open", "r1", topic="other"))
        await hub.publish(event("DiagnosticReport-open", "r1"))
        await hub.publish(update(await version(hub), put("o1")))
        assert await shared(hub) == ["o1"]
        other = (await hub.context(topic="other")).json()
        assert "entry" not in other["context"][-1]["resource"]
        assert TOPIC != "other"
