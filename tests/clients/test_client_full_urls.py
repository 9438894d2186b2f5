"""What was shared under a fullUrl: it is named by that, here as in every other application."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_client import FHIRcastClient
from fhircast_client.events import Event, make_event, parse_event
from fhircast_client.testing import FakeHub
from fhircast_client.update_bundle import Entries, changed, read_current, reference, update_context
from tests.clients.fakes import FAST, Heard, observation, patient, report, until
from tests.clients.test_client_engine import engine_with_report, shared_at

R1, O1, O2 = "DiagnosticReport/r1", "Observation/o1", "Observation/o2"
UUID = "urn:uuid:1"
#: Where update requests go, as in the specification's example: it names no resource.
NOWHERE = "http://example.org/hub/topic/fhir"


def put(full_url: str | None, id_: str = "o1", **members: Any) -> dict[str, Any]:
    """An entry that shares an Observation."""
    entry = {"request": {"method": "PUT", "url": NOWHERE}, "resource": observation(id_, **members)}
    return entry if full_url is None else {"fullUrl": full_url} | entry


def gone(full_url: object, url: object = NOWHERE) -> dict[str, Any]:
    """An entry that takes one back."""
    return {"fullUrl": full_url, "request": {"method": "DELETE", "url": url}}


def update(version: str, *entries: dict[str, Any]) -> Event:
    """An update as others make it."""
    context = update_context(R1, [])
    context[-1]["resource"]["entry"] = list(entries)
    return make_event("session", "DiagnosticReport-update", context, version=version)


def content_of(client: FHIRcastClient) -> list[str]:
    """What it knows to be shared."""
    return sorted(client.contexts[R1].content or ["unknown"])


def after(*entries: dict[str, Any]) -> Entries:
    """What is shared after one update for each."""
    content = Entries()
    for entry in entries:
        content = changed(content, update("v", entry))
    return content


async def shares(hub: FakeHub, client: FHIRcastClient, *entries: dict[str, Any]) -> None:
    """Another application makes an update, and the client follows it."""
    version = client.contexts[R1].version
    assert version
    await hub.publish(update(version, *entries))
    await until(lambda: client.contexts[R1].version != version)


def entries_of(event: Event) -> list[dict[str, Any]]:
    """What an update asks for, without the resources."""
    bundle = event.resource("updates")
    assert bundle
    return [{name: entry[name] for name in ("fullUrl", "request")} for entry in bundle["entry"]]


def asks(method: str, full_url: str, ref: str) -> dict[str, Any]:
    return {"fullUrl": full_url, "request": {"method": method, "url": ref}}


@pytest.mark.req("CLT-16")
@pytest.mark.parametrize("url", [NOWHERE, None, "", 7, "Observation/o1", "Observation/o1/_history/2"])
def test_what_was_shared_under_a_full_url_is_deleted_by_that(url: object) -> None:
    content = after(put(UUID), put(None, "o2"), gone(UUID, url))
    assert (list(content), content.urls) == ([O2], {})


@pytest.mark.req("CLT-16")
@pytest.mark.parametrize(
    "entry",
    [
        *(gone(O1), gone("https://ehr.example/fhir/Observation/o1"), gone("urn:Observation/o1"), gone(None, O1)),
        *(gone("Observation/o1/_history/2"), gone("urn:uuid:another", O1), gone("", "x/Observation/o1/_history/2")),
        gone(7, "https://ehr.example/Observation/o1"),
    ],
)
def test_what_ends_in_a_type_and_id_names_that(entry: dict[str, Any]) -> None:
    content = after(put(UUID), put(None, "o2"), entry)
    assert (list(content), content.urls) == ([O2], {})


@pytest.mark.req("CLT-16")
@pytest.mark.parametrize("entry", [gone("urn:uuid:2"), gone(""), gone(None), gone(None, UUID), gone(["x"], {})])
def test_what_names_nothing_deletes_nothing(entry: dict[str, Any]) -> None:
    content = after(put(UUID), entry)
    assert (list(content), content.urls) == ([O1], {O1: UUID})


@pytest.mark.req("CLT-16")
def test_a_full_url_names_what_has_it_now() -> None:
    replaced = after(put(UUID), put("urn:uuid:2"), put(UUID, "o2"))
    assert replaced.urls == {O1: "urn:uuid:2", O2: UUID}
    assert list(changed(replaced, update("v", gone(UUID)))) == [O1]
    assert after(put(UUID), put(None), put(""), gone(UUID)) == {}
    assert after(put(UUID), gone(O1), put(UUID, "o2"), gone(UUID)) == {}
    in_one = changed(after(put(UUID)), update("v", put("urn:uuid:2"), put(UUID, "o2"), gone("urn:uuid:3", O1)))
    assert (list(in_one), in_one.urls) == ([O2], {O2: UUID})


@pytest.mark.req("CLT-16")
def test_the_content_before_an_update_is_not_changed() -> None:
    before = after(put(UUID))
    assert changed(before, update("v", gone(UUID))) == {}
    assert changed(before, update("v", put("urn:uuid:2"))).urls == {O1: "urn:uuid:2"}
    assert (list(before), before.urls, before.owner(UUID)) == ([O1], {O1: UUID}, O1)


@pytest.mark.req("CLT-16")
def test_the_full_urls_of_the_answer_to_what_is_current_are_known() -> None:
    bundle = {"resourceType": "Bundle", "entry": [put(UUID), put(None, "o2"), put("", "o3"), {"fullUrl": "urn:uuid:4"}]}
    context = [{"key": "report", "resource": report("r1")}, {"key": "content", "resource": bundle}]
    answer = {"context.type": "DiagnosticReport", "context.versionId": "v7", "context": context}
    _, _, content = read_current(answer, "topic")
    assert content is not None
    assert content.urls == {O1: UUID}
    engine = engine_with_report(told=False)
    engine.content.fetched(R1, "v7", content, asked=engine.content.moment)
    told = update("v7", gone(UUID)).body
    told["event"] |= {"context.priorVersionId": "v7", "context.versionId": "v8"}
    engine.received(parse_event(told))
    assert shared_at(engine) == ("v8", ["Observation/o2", "Observation/o3"])


@pytest.mark.req("CLT-16", "CLT-7")
async def test_what_is_changed_keeps_its_full_url() -> None:
    """Replaced and deleted under the fullUrl that another application gave it, so that those who go by it do the same."""
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        for name in ("open", "update"):
            client.on(f"DiagnosticReport-{name}", Heard())
        async with client:
            await client.open(report("r1"), patient("p1"))
            await shares(hub, client, put(UUID), put(None, "o2"))
            made = await client.update([observation("o1", status="final"), observation("o2"), observation("o3")])
            assert entries_of(made) == [
                asks("PUT", UUID, O1),
                asks("PUT", O2, O2),
                asks("PUT", "Observation/o3", "Observation/o3"),
            ]
            made = await client.update(lambda content: [*content][:2])
            assert entries_of(made) == [asks("DELETE", UUID, O1), asks("DELETE", O2, O2)]
            assert content_of(client) == ["Observation/o3"]
            made = await client.update([observation("o1")])
            assert entries_of(made) == [asks("PUT", O1, O1)]


@pytest.mark.req("CLT-16")
async def test_who_joins_later_knows_the_full_urls_and_so_does_who_follows_no_updates() -> None:
    async with FakeHub() as hub:
        first, other = hub.client("viewer", timings=FAST), hub.client("ehr", timings=FAST)
        for client in (first, other):
            client.on("DiagnosticReport-open", Heard())
        first.on("DiagnosticReport-update", Heard())
        async with first:
            await first.open(report("r1"), patient("p1"))
            await shares(hub, first, put(UUID), put("urn:uuid:2", "o2"))
            async with other:
                await until(lambda: R1 in other.contexts)
                assert entries_of(await other.update([O1], R1)) == [asks("DELETE", UUID, O1)]
                await until(lambda: content_of(first) == [O2])
                assert entries_of(await other.update([observation("o2")], R1)) == [asks("PUT", "urn:uuid:2", O2)]


@pytest.mark.req("CLT-16")
async def test_full_urls_are_no_part_of_the_content_that_applications_see() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        for name in ("open", "update"):
            client.on(f"DiagnosticReport-{name}", Heard())
        async with client:
            await client.open(report("r1"), patient("p1"))
            await shares(hub, client, put(UUID))
            fetched = await client.fetch()
            assert fetched
            given: list[Any] = [client.contexts[R1].content, fetched.content]

            def keep(content: dict[str, Any]) -> list[Any]:
                given.append(content)
                return []

            await client.update(keep)
            assert [(type(content), content) for content in given] == [(dict, {O1: observation("o1")})] * 3


@pytest.mark.req("CLT-16")
def test_a_version_of_a_resource_names_the_resource() -> None:
    assert reference("https://ehr.example/fhir/Observation/o1/_history/7") == O1
