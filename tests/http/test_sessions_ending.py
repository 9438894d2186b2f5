"""A session ends by request, by logout or unused, and survives a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.auth.issuer_server import IssuerServer
from tests.http.sessions_world import SCOPE, administered, refusal, watched
from tests.running import Clock, event, issuer_setting
from tests.tokens import Idp

# DELETE /sessions/{topic}


@pytest.mark.req("SES-4")
async def test_a_session_is_ended() -> None:
    """204; denials and a clean close to all, the endpoints are dead, contexts gone; its topic is free again."""
    async with administered() as api:
        hub, topic = api.hub, await api.begin()
        chart, late = [await hub.subscribe(hub__topic=topic) for _ in range(2)]
        pacs = await hub.subscribe(hub__topic=topic, token=api.pacs)
        await hub.publish(event("Patient-open", topic=topic))
        async with hub.follow(chart) as follower, hub.follow(pacs) as other:
            await follower.next(), await other.next()
            answer = await api.end(topic)
            assert (answer.status_code, answer.content) == (204, b"")
            for each in (follower, other):
                denied = await each.next()
                assert (denied["hub.mode"], denied["hub.topic"]) == ("denied", topic)
                assert denied["hub.reason"] == "the session was ended"
                assert await each.closed() == 1000
        with pytest.raises(InvalidStatus):
            await connect(late, proxy=None)
        assert api.topics == hub.hub.service.usage.subscriptions == 0
        assert refusal(await api.end(topic)) == (404, "")
        assert await api.may(topic, api.pacs) == [409, 409, 409]
        assert (await hub.context(hub.token("user-2"), topic)).json()["context"] == []


@pytest.mark.req("SES-4")
async def test_a_session_that_a_user_made_is_ended_as_well() -> None:
    """By the administrator of its realm; other sessions of the user stay."""
    async with administered() as api:
        await api.hub.publish(event("Patient-open", topic="mine"))
        kept = await api.begin()
        assert (await api.end("mine")).status_code == 204
        assert (await api.hub.context(topic="mine")).json()["context"] == []
        assert await api.begin() == kept
        limited = api.hub.token("ehr", SCOPE, client_id="ehr", **{"hub.topic": kept})
        assert (await api.end(kept, limited)).status_code == 204


@pytest.mark.req("SES-1", "SES-4", "AUT-15")
async def test_a_session_of_another_realm_is_out_of_reach() -> None:
    """For an administrator there the topic is unknown, and the same user's name is another user."""
    async with IssuerServer() as server:
        idp = Idp()
        south = issuer_setting(server, idp, realm="south", system_clients=["ehr"])
        async with administered(others=[south]) as api:
            topic = await api.begin()
            theirs = idp.token("ehr", SCOPE, client_id="ehr", now=api.hub.clock.now)
            assert refusal(await api.look(topic, theirs)) == (404, "")
            assert refusal(await api.end(topic, theirs)) == (404, "")
            answer = await api.post({"user": "user-1"}, theirs)
            assert answer.json()["hub.topic"] != topic
            assert await api.begin() == topic


# SES-5, LIM-1, restarts


@pytest.mark.req("SES-5")
@pytest.mark.parametrize("ends", [True, False])
async def test_a_logout_may_end_the_session(ends: bool) -> None:
    """Once everybody who asked for it was told of the UserLogout, or not at all."""
    async with administered(logout_ends_session=ends) as api:
        hub, topic = api.hub, await api.begin()
        chart = await hub.subscribe("UserLogout,Patient-open", hub__topic=topic)
        viewer = await hub.subscribe("Patient-open", hub__topic=topic)
        logout = event("UserLogout", topic=topic)
        logout["event"]["context"] = []
        async with hub.follow(chart) as follower, hub.follow(viewer) as other:
            assert (await hub.publish(logout, hub.token("user-2"))).status_code == 403
            assert (await hub.publish(logout)).status_code == 202
            assert await follower.names(1) == ["UserLogout"]
            for each in (follower, other):
                if ends:
                    assert (await each.next())["hub.reason"] == "the user has logged out"
                    assert await each.closed() == 1000
                else:
                    assert await each.silent()
        assert api.topics == (0 if ends else 1)
        assert (await api.begin() == topic) is not ends


@pytest.mark.req("SES-1", "LIM-1")
async def test_a_session_that_was_never_used_goes() -> None:
    """SESSION_TTL after it was begun; one that somebody subscribed to later stays its time from then."""
    async with administered(session_ttl=100) as api:
        unused, used = await api.begin(), await api.begin(new=True)
        await api.later(99)
        assert api.topics == 2
        async with api.hub.follow(await api.hub.subscribe(hub__topic=used)):
            await api.later(1)
            assert refusal(await api.look(unused)) == (404, "")
            assert (await api.look(used)).status_code == 200
            assert await api.may(unused, api.pacs) == [409, 409, 409]


@pytest.mark.req("SES-1", "SES-3")
async def test_sessions_survive_a_restart(tmp_path: Path) -> None:
    """The topic, whose it is, what a participant refused, and that it was made here, and who left."""
    clock, idp = Clock(), Idp()
    options: dict[str, Any] = {
        "clock": clock,
        "idp": idp,
        "store": f"sqlite:///{tmp_path}/hub.db",
        "own": {"realm": "hospital", "user_claim": "sub"},
    }
    async with watched(**options) as session:
        topic = session.topic
        async with session.hub.follow(await session.subscribe("Chart")) as follower:
            await session.publish()
            await session.answer(follower, 409)
            await session.comes_to("Chart", "refused Patient-open")
        await session.comes_to("Chart", "left")
        await session.subscribe("Late")
        unused = await session.api.begin("user-2")
    async with administered(**options) as api:
        assert await api.begin() == topic
        assert await api.begin("user-2") == unused
        found = {each["name"]: each["state"] for each in (await api.look(topic)).json()}
        assert found == {"Chart": "left", "Late": "not connected yet"}
        assert await api.may(unused, api.pacs) == [202, 202, 200]
        assert await api.may(unused) == [403, 403, 403]
        assert (await api.end(topic)).status_code == 204
    async with administered(**options) as api:
        assert (await api.look(topic)).status_code == 404
        assert await api.begin("user-2") == unused


@pytest.mark.req("SES-1", "LIM-1")
async def test_a_session_that_was_handed_out_again_is_alive() -> None:
    """It does not vanish between the answer and the app that joins by it."""
    async with administered(session_ttl=100) as api:
        topic = await api.begin()
        await api.later(99)
        assert await api.begin() == topic
        await api.later(2)
        assert (await api.look(topic)).status_code == 200
