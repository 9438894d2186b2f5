"""A system client sees the participants of a session."""

from __future__ import annotations

from datetime import datetime

import pytest
from websockets.asyncio.client import connect

from tests.http.sessions_world import INVALID, administered, refusal, watched
from tests.http.wire import ask
from tests.running import Follower


@pytest.mark.req("SES-3")
async def test_what_is_told_of_participants() -> None:
    """Name, events, channel, since when, last acknowledgement and state; nothing that lets anybody act as them."""
    async with watched() as session:
        clock = session.hub.clock
        assert (await session.api.look(session.topic)).json() == []
        endpoint = await session.subscribe("Chart")
        clock.now += 60 - 7.5
        async with session.hub.follow(endpoint) as follower:
            await session.publish()
            clock.now += 5
            await session.answer(follower, 200)
            await session.comes_to("Chart", "in sync")
            answer = await session.api.look(session.topic)
            assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
            (chart,) = answer.json()
            since, heard = chart.pop("since"), chart.pop("lastAcknowledgement")
            assert chart == {
                "name": "Chart",
                "events": ["Patient-open", "Patient-close"],
                "neverMatch": [],
                "channel": "websocket",
                "state": "in sync",
            }
            assert datetime.fromisoformat(since).timestamp() == clock.now - 5
            assert datetime.fromisoformat(heard).timestamp() == clock.now
            assert endpoint.rpartition("/")[2] not in answer.text
            clock.now += 30
        await session.comes_to("Chart", "left")
        (chart,) = (await session.api.look(session.topic)).json()
        assert chart["lastAcknowledgement"] is None
        assert datetime.fromisoformat(chart["since"]).timestamp() == clock.now


@pytest.mark.req("SES-6", "SUB-5", "SUB-27")
async def test_names_that_no_event_can_have_are_told() -> None:
    """They are granted like all others, and stand beside the events of their subscriber; of the rest nothing is said."""
    async with watched() as session:
        never = ["ImagingStudy-zoom", "DiagnosticReport-opened", "open-patient-chart"]
        names = ["Patient-open", "heartbeat", "org.example.mine", *never]
        async with session.hub.follow(await session.subscribe("Chart", ",".join(names))):
            (chart,) = (await session.api.look(session.topic)).json()
            assert (chart["events"], chart["neverMatch"]) == (names, never)
            described = (await session.hub.client.get(f"{session.hub.origin}/openapi.json")).json()
            shown = described["components"]["schemas"]["ShownParticipant"]["properties"]["neverMatch"]
            assert "no event" in shown["description"]


@pytest.mark.req("SES-7", "SES-8", "SES-9")
async def test_each_state_is_described() -> None:
    """The OpenAPI description names all states, and what `since` means."""
    async with watched() as session:
        described = (await session.hub.client.get(f"{session.hub.origin}/openapi.json")).json()
        shown = described["components"]["schemas"]["ShownParticipant"]["properties"]
        states = {"not connected yet", "connected", "in sync", "does not acknowledge", "refused X", "silent", "left"}
        assert {part.strip().partition(" (")[0] for part in shown["state"]["description"].split(";")} >= states
        assert "or lost (" in shown["state"]["description"]
        assert "Of left and lost: when the socket ended." in shown["since"]["description"]


@pytest.mark.req("SES-3", "SYN-6", "SES-7", "SES-8", "SES-9")
async def test_who_is_not_there_and_who_never_answers() -> None:
    """`not connected yet`, `connected`, then `does not acknowledge`, also after it was silent, for nobody misses it; then `left`."""
    async with watched() as session:
        endpoint = await session.subscribe("Viewer")
        assert await session.state("Viewer") == "not connected yet"
        async with session.hub.follow(endpoint) as follower:
            assert await session.state("Viewer") == "connected"
            await session.publish()
            assert await follower.names(1) == ["Patient-open"]
            await session.missed_ack()
            assert await session.state("Viewer") == "does not acknowledge"
        await session.comes_to("Viewer", "left")
        async with session.hub.follow(endpoint):
            await session.comes_to("Viewer", "does not acknowledge")


@pytest.mark.req("SES-3", "SYN-1", "SYN-5", "SES-7")
async def test_who_follows_refuses_and_falls_silent() -> None:
    """`in sync`, `refused X` until it follows another event, `silent` until it answers again; others are not touched."""
    async with watched() as session:
        chart, viewer = await session.subscribe("Chart"), await session.subscribe("Viewer")
        async with session.hub.follow(chart) as follower, session.hub.follow(viewer) as other:
            await session.publish()
            await session.answer(follower, 200)
            await session.answer(other, "200 OK")
            await session.comes_to("Chart", "in sync")
            await session.comes_to("Viewer", "in sync")
            await session.publish()
            await session.answer(follower, 409)
            await session.comes_to("Chart", "refused Patient-open")
            await session.publish("Patient-close")
            await session.answer(follower, "202")
            await session.comes_to("Chart", "in sync")
            await session.publish()
            await session.answer(follower, "500")
            await session.comes_to("Chart", "refused Patient-open")
            await session.publish()
            await session.answer(follower, 200)
            await session.comes_to("Chart", "in sync")
            await session.publish()
            for _ in range(4):  # what it has not answered so far
                await session.answer(other, 200)
            await session.missed_ack()
            await session.comes_to("Chart", "silent")
            await follower.next()
            await session.publish()
            await session.answer(follower, 200)
            await session.comes_to("Chart", "in sync")
            await session.missed_ack()
            await session.comes_to("Viewer", "silent")
            assert await session.state("Chart") == "in sync"


@pytest.mark.req("SES-3", "SYN-7", "SES-7")
async def test_who_was_lost_and_came_back() -> None:
    """`lost` at once when the connection breaks, and with the state of before, but for its refusal, when it is back."""
    async with watched() as session:
        endpoint = await session.subscribe("Chart")
        async with connect(endpoint, compression=None, proxy=None) as connection:
            follower = Follower(connection)
            await follower.next()
            await session.publish()
            await session.answer(follower, 409)
            await session.comes_to("Chart", "refused Patient-open")
            connection.transport.abort()
            await session.comes_to("Chart", "lost")
        await session.api.later(10)
        assert await session.state("Chart") == "lost"
        async with session.hub.follow(endpoint):
            assert await session.state("Chart") == "in sync"


@pytest.mark.req("SES-3", "AUT-8", "AUT-11")
async def test_who_may_look_at_participants() -> None:
    """A subscriber of that topic, though only by another app, and system clients without any scope; with exact statuses."""
    async with administered() as api:
        hub, topic = api.hub, await api.begin()
        assert refusal(await api.look(topic, hub.token())) == (403, "")
        await hub.subscribe(hub__topic=topic)
        await hub.subscribe(hub__topic="another", token=hub.token("user-2"))
        for token in (hub.token(), hub.token(scope="openid"), hub.token(client_id="another"), api.pacs, api.ehr):
            assert (await api.look(topic, token)).status_code == 200
        assert refusal(await api.look(topic, hub.token("user-2"))) == (403, "")
        assert refusal(await api.look(topic, hub.token(**{"hub.topic": "another"}))) == (403, "")
        assert refusal(await api.look(topic, hub.token("ehr", client_id="ehr", **{"hub.topic": []}))) == (403, "")
        assert refusal(await api.look(topic, "x")) == (401, INVALID)
        answer = await ask(hub, "GET", f"/sessions/{topic}/participants", {})
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert refusal(await api.look("unknown")) == (404, "")
        assert refusal(await api.end("unknown")) == (404, "")
        assert refusal(await api.look("x" * 2000)) == (400, "")
        assert refusal(await api.look("a\tb")) == (400, "")
        assert refusal(await api.end("a\tb")) == (400, "")


@pytest.mark.req("SES-3", "SES-4", "SUB-5")
@pytest.mark.parametrize(
    "topic", ["https://ehr.example/session/7?x=y#z", "a b", "ä%2F", "participants", "a/participants"]
)
async def test_any_topic_can_be_looked_at_and_ended(topic: str) -> None:
    """Also one that is a URL, percent-encoded in the path."""
    async with administered() as api:
        await api.hub.subscribe(hub__topic=topic)
        assert len((await api.look(topic)).json()) == 1
        assert (await api.end(topic)).status_code == 204
        assert (await api.look(topic)).status_code == 404
