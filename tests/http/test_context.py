"""The current context on the wire: what is read, the opens that are derived, and what the hub forgets."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.running import TOPIC, RunningHub, event, running_hub, spec


async def current(hub: RunningHub, token: str | None = None) -> tuple[str, list[str]]:
    """The current context in short: its type and the ids in it."""
    answer = (await hub.context(token)).json()
    return answer["context.type"], [item["resource"]["id"] for item in answer["context"] if item["key"] != "content"]


async def version(hub: RunningHub) -> str:
    """The current version."""
    read: str = (await hub.context()).json()["context.versionId"]
    return read


@pytest.mark.req("GET-1")
async def test_a_session_that_does_not_exist_is_empty_and_stays_nonexistent() -> None:
    """Exactly three members, version "0"; whoever reads first does not own it."""
    async with running_hub() as hub:
        for user in ("user-1", "user-2"):
            answer = await hub.context(hub.token(user))
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
            assert answer.json() == {"context.type": "", "context.versionId": "0", "context": []}
        assert hub.hub.service.usage.topics == 0


@pytest.mark.req("GET-2", "GET-3", "GET-6")
async def test_the_context_is_that_of_the_newest_open_until_it_is_closed() -> None:
    """Type, the version that was broadcast, the open's context array; after the close empty, with a new version."""
    message = spec("ImagingStudy-open")
    message["event"]["hub.topic"] = TOPIC
    async with running_hub() as hub, hub.follow(await hub.subscribe("ImagingStudy-open")) as follower:
        await hub.publish(message)
        told = (await follower.next())["event"]["context.versionId"]
        empty = {"resourceType": "Bundle", "id": told, "type": "collection"}
        assert (await hub.context()).json() == {
            "context.type": "ImagingStudy",
            "context.versionId": told,
            "context": [*message["event"]["context"], {"key": "content", "resource": empty}],
        }
        message["event"]["hub.event"], message["id"] = "ImagingStudy-close", "another"
        assert (await hub.publish(message)).status_code == 202
        closed = (await hub.context()).json()
        assert (closed["context.type"], closed["context"]) == ("", [])
        assert closed["context.versionId"] not in ("0", told)


@pytest.mark.req("GET-4", "GET-5", "GET-6", "GET-7")
async def test_closing_the_newest_leaves_none_current_and_closing_another_changes_nothing() -> None:
    """Nothing that was open before becomes current by itself; Home-open makes it empty; each change has its own version."""
    async with running_hub() as hub:
        versions = [await version(hub)]

        async def do(name: str, id_: str) -> tuple[str, list[str]]:
            assert (await hub.publish(event(name, id_, event_id=str(len(versions))))).status_code == 202
            versions.append(await version(hub))
            return await current(hub)

        assert await do("Patient-open", "p1") == ("Patient", ["p1"])
        assert await do("Encounter-open", "e1") == ("Encounter", ["e1", "p1"])
        assert await do("ImagingStudy-open", "s1") == ("ImagingStudy", ["s1"])
        assert len(set(versions)) == 4
        assert await do("Encounter-close", "e1") == ("ImagingStudy", ["s1"])
        assert versions[-1] == versions[-2]
        assert await do("ImagingStudy-close", "s1") == ("", [])
        assert await do("Patient-open", "p2") == ("Patient", ["p2"])
        assert await do("Home-open", "home") == ("", [])
        assert await do("Patient-open", "p2") == ("Patient", ["p2"])
        changed = [each for place, each in enumerate(versions) if place != 4]
        assert len(set(changed)) == len(changed)
        async with hub.follow(await hub.subscribe("Patient-open")) as follower:
            assert (await follower.next())["event"]["context"][0]["resource"]["id"] == "p2"


@pytest.mark.req("GET-8")
async def test_what_the_scopes_do_not_reach_is_not_read() -> None:
    """Who may not read the newest open reads the derived one that they may, else gets 403 with the scope that would do."""
    async with running_hub() as hub:
        encounter = {"key": "encounter", "resource": {"resourceType": "Encounter", "id": "e1"}}
        patient = {"key": "patient", "resource": {"resourceType": "Patient", "id": "p1"}}
        await hub.publish(event("ImagingStudy-open", "s1", also=[encounter, patient]))
        assert await current(hub, hub.token(scope="fhircast/ImagingStudy-open.read")) == (
            "ImagingStudy",
            ["s1", "e1", "p1"],
        )
        assert await current(hub, hub.token(scope="fhircast/patient-open.read")) == ("Patient", ["p1"])
        refused = await hub.context(hub.token(scope="fhircast/Patient-open.write fhircast/Patient-close.read"))
        assert refused.status_code == 403
        challenge = 'Bearer error="insufficient_scope", scope="fhircast/ImagingStudy-open.read"'
        assert refused.headers["WWW-Authenticate"] == challenge
        await hub.publish(event("ImagingStudy-close", "s1"))
        assert await current(hub, hub.token(scope="")) == ("", [])  # there is nothing to hide


@pytest.mark.req("GET-9")
async def test_no_cache_keeps_a_context() -> None:
    """`Cache-Control: no-store` on what is read and on what refuses to be read; no ETag, nothing to revalidate."""
    async with running_hub() as hub:
        await hub.publish(event("Patient-open"))
        answers = [
            await hub.context(),
            await hub.context(topic="empty"),
            await hub.context(hub.token(scope="")),
            await hub.context(hub.token("user-2")),
            await hub.client.get(f"{hub.url}/{TOPIC}"),
            await hub.client.head(f"{hub.url}/{TOPIC}", headers=hub.headers()),
            await hub.publish(event("Patient-open")),
            await hub.form(hub__events="Patient-open"),
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 403, 403, 401, 200, 202, 202]
        for answer in answers:
            assert answer.headers["Cache-Control"] == "no-store"
            assert "ETag" not in answer.headers
        again = hub.headers(**{"If-None-Match": "*", "If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"})
        assert (await hub.client.get(f"{hub.url}/{TOPIC}", headers=again)).status_code == 200


# --- derived opens ---


def item(key: str, type_: str, id_: str) -> dict[str, Any]:
    """An item of a context."""
    return {"key": key, "resource": {"resourceType": type_, "id": id_, "active": True}}


STUDY, OTHER_STUDY = item("study", "ImagingStudy", "s1"), item("study", "ImagingStudy", "s2")
ENCOUNTER, PATIENT = item("encounter", "Encounter", "e1"), item("patient", "Patient", "p1")
OPENS = "Patient-open,Encounter-open,ImagingStudy-open,DiagnosticReport-open"
THREE = "Patient-open,Encounter-open,ImagingStudy-open"


def report(id_: str = "r1", **more: Any) -> dict[str, Any]:
    """The open of a report on two studies, with encounter and patient."""
    return event("DiagnosticReport-open", id_, also=[PATIENT, STUDY, OTHER_STUDY, ENCOUNTER], **more)


@pytest.mark.req("DER-7")
async def test_the_opens_that_a_report_implies_are_told_to_who_does_not_know_reports() -> None:
    """Patient, Encounter, ImagingStudy: each with its context, an id of its own, the same timestamp, no version."""
    async with running_hub() as hub, hub.follow(await hub.subscribe(THREE)) as follower:
        source = report()
        await hub.publish(source)
        told = [await follower.next() for _ in range(3)]
        assert [message["event"]["hub.event"] for message in told] == THREE.split(",")
        assert [message["event"]["context"] for message in told] == [
            [PATIENT],
            [ENCOUNTER, PATIENT],
            [STUDY, ENCOUNTER, PATIENT],
        ]
        for message in told:
            assert message["timestamp"] == source["timestamp"]
            assert uuid.UUID(message["id"]).version == 5
            assert message["event"]["hub.topic"] == TOPIC
            assert "context.versionId" not in message["event"]
        assert len({message["id"] for message in told}) == 3
        assert await follower.silent()


@pytest.mark.req("DER-7", "DER-13")
async def test_a_viewer_is_not_thrown_out_of_the_study_that_it_opened() -> None:
    """Whoever is sent the study is sent no patient under an id that is not its own; nor is a peer's study preceded by one."""
    async with (
        running_hub() as hub,
        hub.follow(await hub.subscribe("Patient-open,ImagingStudy-open")) as viewer,
        hub.follow(await hub.subscribe("Patient-open")) as chart,
    ):
        posted = event("ImagingStudy-open", "s1", event_id="OHIF-x7f3k2", also=[PATIENT])
        await hub.publish(posted)
        assert (await viewer.next())["id"] == "OHIF-x7f3k2"
        assert await chart.names(1) == ["Patient-open"]
        assert await viewer.silent()
        async with hub.follow(await hub.subscribe("Patient-open,ImagingStudy-open")) as late:
            assert await late.names(1) == ["ImagingStudy-open"]
            assert await late.silent()


@pytest.mark.req("DER-9")
async def test_a_derived_open_is_taken_back() -> None:
    """At the report's close a chart goes back to the patient that is open; to none, where none is."""
    async with running_hub() as hub, hub.follow(await hub.subscribe("Patient-open,Patient-close")) as chart:
        opened, closed = (event(f"DiagnosticReport-{verb}", also=[PATIENT]) for verb in ("open", "close"))
        await hub.publish(event("Patient-open", "p0"))
        first = await chart.next()
        await hub.publish(opened)
        assert await chart.names(1) == ["Patient-open"]
        await hub.publish(closed)
        assert await chart.next() == first
        await hub.publish(event("Patient-close", "p0"))
        await hub.publish(opened | {"id": "again"})
        assert await chart.names(2) == ["Patient-close", "Patient-open"]
        await hub.publish(closed | {"id": "closed-again"})
        told = await chart.next()
        assert (told["event"]["hub.event"], told["event"]["context"]) == ("Patient-close", [PATIENT])
        assert uuid.UUID(told["id"]).version == 5


@pytest.mark.req("DER-9", "DER-24")
async def test_derived_closes_can_be_turned_off() -> None:
    """With DERIVE_CLOSES=false a derived open stays."""
    async with (
        running_hub(derive_closes=False) as hub,
        hub.follow(await hub.subscribe("Patient-open,Patient-close")) as chart,
    ):
        await hub.publish(event("DiagnosticReport-open", also=[PATIENT]))
        await hub.publish(event("DiagnosticReport-close"))
        assert await chart.names(1) == ["Patient-open"]
        assert await chart.silent()


@pytest.mark.req("DER-7", "DER-2", "DER-3")
async def test_nobody_is_told_twice_what_they_were_last_told() -> None:
    """Another open of the same patient, from any anchor, derives nothing new; a repeat of the source repeats all it implied."""
    async with running_hub() as hub, hub.follow(await hub.subscribe("Patient-open")) as follower:
        source = report()
        await hub.publish(source)
        first = await follower.next()
        await hub.publish(source)
        assert await follower.next() == first
        another = event("Observation-open", "o1", also=[PATIENT])
        await hub.publish(another)
        assert await follower.silent()
        await hub.publish(event("Observation-open", "o2", also=[item("patient", "Patient", "p2")]))
        second = await follower.next()
        assert second["event"]["context"][0]["resource"]["id"] == "p2"
        assert second["id"] != first["id"]
        await hub.publish(event("Patient-close", "p2"))
        await hub.publish(event("Observation-open", "o3", also=[item("patient", "Patient", "p2")]))
        assert (await follower.next())["event"]["context"][0]["resource"]["id"] == "p2"


@pytest.mark.req("DER-4")
async def test_no_open_is_derived_for_who_may_not_read_it() -> None:
    """A subscriber who asked for Patient-open without its scope is told the report alone."""
    async with running_hub() as hub:
        token = hub.token(scope="fhircast/DiagnosticReport-open.read")
        async with hub.follow(await hub.subscribe(OPENS, token)) as follower:
            await hub.publish(report())
            assert await follower.names(1) == ["DiagnosticReport-open"]
            assert await follower.silent()


@pytest.mark.req("DER-5", "CTX-1", "CTX-7", "CTX-8")
async def test_who_joins_is_told_the_derived_opens_too() -> None:
    """Of each type one: the derived where it is the newer, the stored one where both are the same resource."""
    async with running_hub() as hub:
        await hub.publish(event("Patient-open", "p1"))
        await hub.publish(event("Encounter-open", "e0"))
        await hub.publish(report())
        async with hub.follow(await hub.subscribe(THREE)) as follower:
            told = [await follower.next() for _ in range(3)]
            assert await follower.silent()
        assert told[0]["id"] == "Patient-open-p1"
        assert [message["event"]["hub.event"] for message in told[1:]] == THREE.split(",")[1:]
        assert told[1]["event"]["context"] == [ENCOUNTER, PATIENT]


@pytest.mark.req("DER-8")
async def test_derived_opens_can_be_turned_off() -> None:
    """With DERIVE_OPENS=false only what was sent is told: live, on joining, and to who reads."""
    async with running_hub(derive_opens=False) as hub:
        async with hub.follow(await hub.subscribe(OPENS)) as follower:
            await hub.publish(report())
            assert await follower.names(1) == ["DiagnosticReport-open"]
            assert await follower.silent()
        async with hub.follow(await hub.subscribe(OPENS)) as follower:
            assert await follower.names(1) == ["DiagnosticReport-open"]
            assert await follower.silent()
        assert (await hub.context(hub.token(scope="fhircast/Patient-open.read"))).status_code == 403


@pytest.mark.req("DER-8")
async def test_closes_are_never_derived() -> None:
    """Closing the report closes neither its patient nor its study for anyone."""
    async with running_hub() as hub:
        await hub.publish(report())
        async with hub.follow(await hub.subscribe("Patient-close,ImagingStudy-close")) as follower:
            closing = event("DiagnosticReport-close", "r1", also=[PATIENT, STUDY])
            assert (await hub.publish(closing)).status_code == 202
            assert await follower.silent()


# --- bounds ---


@pytest.mark.req("LIM-1")
async def test_one_user_may_have_so_many_topics() -> None:
    """Beyond: 429 with Retry-After for an event as for a subscription; the topics there are, and other users, go on."""
    async with running_hub(max_topics_per_user=2) as hub:
        await hub.subscribe(hub__topic="one")
        await hub.publish(event("Patient-open", topic="two"))
        publish = await hub.publish(event("Patient-open", topic="three"))
        subscribe = await hub.form(hub__events="Patient-open", hub__topic="three")
        for answer in (publish, subscribe):
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) > 0
        other = hub.token("user-2")
        assert (await hub.publish(event("Patient-open", topic="three"), other)).status_code == 202
        assert (await hub.publish(event("Patient-close", topic="two"))).status_code == 202
        assert (await hub.form(hub__events="Patient-open", hub__topic="two")).status_code == 202


@pytest.mark.req("LIM-1", "LIM-5")
async def test_a_session_that_nobody_needs_is_forgotten() -> None:
    """Without subscribers and open contexts it goes SESSION_TTL after its last use, and makes room for another topic."""
    async with running_hub(session_ttl=1000, max_topics_per_user=1) as hub:
        foreign = hub.token("user-2")
        await hub.publish(event("Patient-open", "p1"))
        await hub.publish(event("Patient-close", "p1"))
        hub.clock.now += 999
        await hub.publish(event("UserLogout"))  # used again
        hub.clock.now += 999
        await hub.hub.service.tick()
        assert (await hub.context(foreign)).status_code == 403
        hub.clock.now += 2
        await hub.hub.service.tick()
        answer = await hub.context(foreign)
        assert (answer.status_code, json.loads(answer.content)["context.versionId"]) == (200, "0")
        assert (await hub.publish(event("Patient-open", topic="another"))).status_code == 202


@pytest.mark.req("LIM-1", "LIM-5")
async def test_a_user_is_not_locked_out_by_sessions_that_nobody_uses() -> None:
    """At the limit, a topic whose contexts nobody closed and that nobody follows makes room once SESSION_TTL is over."""
    async with running_hub(session_ttl=1000, max_topics_per_user=1) as hub:
        await hub.publish(event("Patient-open", topic="of last week"))
        assert (await hub.publish(event("Patient-open", topic="new"))).status_code == 429
        hub.clock.now += 1001
        assert (await hub.publish(event("Patient-open", topic="new"))).status_code == 202
        assert hub.hub.service.usage.topics == 1


@pytest.mark.req("LIM-1")
async def test_a_session_with_an_open_context_or_a_subscriber_is_kept() -> None:
    """However long nobody says anything."""
    async with running_hub(session_ttl=100, max_lease=10_000) as hub:
        await hub.publish(event("Patient-open", "p1", topic="open"))
        async with hub.follow(await hub.subscribe(hub__topic="followed", hub__lease_seconds="5000")):
            for _ in range(4):
                hub.clock.now += 1000
                await hub.hub.service.tick()
            for topic in ("open", "followed"):
                assert (await hub.context(hub.token("user-2"), topic)).status_code == 403


@pytest.mark.req("LIM-1", "LIM-4")
async def test_the_sixty_fifth_context_closes_the_oldest() -> None:
    """The oldest that is neither current nor newest of its type goes, and its close is broadcast, with an id of the hub's."""
    async with running_hub() as hub, hub.follow(await hub.subscribe("Patient-close,Encounter-close")) as follower:
        await hub.publish(event("Encounter-open", "e1"))
        for number in range(64):
            await hub.publish(event("Patient-open", f"p{number}"))
        close = await follower.next()
        assert close["event"]["hub.event"] == "Patient-close"
        assert close["event"]["context"][0]["resource"]["id"] == "p0"
        assert str(uuid.UUID(close["id"])) == close["id"]
        assert await follower.silent()
        assert await current(hub) == ("Patient", ["p63"])
