"""Clients share content from open to close. The hub refuses updates that are stale, wrong or not allowed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.http.content_world import delete, put, shared, update, version
from tests.running import TOPIC, event, running_hub, spec

EVENTS = "DiagnosticReport-open,DiagnosticReport-update,DiagnosticReport-select,DiagnosticReport-close"


def select(*ids: str) -> dict[str, Any]:
    """A select of Observations in the report r1."""
    posted = event("DiagnosticReport-select", event_id=f"select-{len(ids)}")
    posted["event"]["context"] = [
        {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}},
        *({"key": "select", "reference": {"reference": f"Observation/{id_}"}} for id_ in ids),
    ]
    return posted


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
        assert "at most 2 entries, got 3" in refused.text
        assert await shared(hub) == []
        assert (await hub.publish(update(await version(hub), put("o1"), put("o2")))).status_code == 202
        assert await shared(hub) == ["o1", "o2"]


@pytest.mark.req("CON-4", "EVT-12", "GET-9", "CON-22")
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
