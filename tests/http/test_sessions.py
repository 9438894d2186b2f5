"""The session API on the wire (SES): authorization servers get sessions for their users, see who takes part, end them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fhircast_hub.core.limits import MAX_FORM
from tests.auth.issuer_server import IssuerServer
from tests.http.wire import ask
from tests.running import Clock, Follower, RunningHub, event, issuer_setting, running_hub
from tests.tokens import Idp

SCOPE = "fhircast-hub/sessions.write"
FHIR = "https://fhir.example/r4"
INVALID, INSUFFICIENT = 'Bearer error="invalid_token"', f'Bearer error="insufficient_scope", scope="{SCOPE}"'


class Administered:
    """A hub with the system clients `ehr` and `pacs`."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        self.url = f"{hub.origin}/sessions"

    @property
    def ehr(self) -> str:
        """The EHR's authorization server's token."""
        return self.hub.token("ehr", f"{SCOPE} openid", client_id="ehr")

    @property
    def pacs(self) -> str:
        """Of a system client that may not administer."""
        return self.hub.token("pacs", client_id="pacs")

    async def post(self, body: Any, token: str | None = None) -> httpx.Response:
        """POST /sessions."""
        headers = self.hub.headers(token or self.ehr, **{"Content-Type": "application/json"})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.hub.client.post(self.url, content=content, headers=headers)

    async def begin(self, user: str = "user-1", **members: Any) -> str:
        """The topic of a session for this user."""
        answer = await self.post({"user": user, **members})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["hub.topic"])

    async def look(self, topic: str, token: str | None = None) -> httpx.Response:
        """GET /sessions/{topic}/participants."""
        url = f"{self.url}/{quote(topic, safe='')}/participants"
        return await self.hub.client.get(url, headers=self.hub.headers(token or self.pacs))

    async def end(self, topic: str, token: str | None = None) -> httpx.Response:
        """DELETE /sessions/{topic}."""
        url = f"{self.url}/{quote(topic, safe='')}"
        return await self.hub.client.delete(url, headers=self.hub.headers(token or self.ehr))

    async def may(self, topic: str, token: str | None = None) -> list[int]:
        """The statuses of subscribing, publishing and reading."""
        answers = [
            await self.hub.form(token, hub__events="Patient-open", hub__topic=topic),
            await self.hub.publish(event("Patient-open", topic=topic), token),
            await self.hub.context(token, topic),
        ]
        return [answer.status_code for answer in answers]

    @property
    def topics(self) -> int:
        """How many sessions there are."""
        return self.hub.hub.service.usage.topics

    async def later(self, seconds: float) -> None:
        """Time passes, and what was due is done."""
        self.hub.clock.now += seconds
        await self.hub.hub.service.tick()


@asynccontextmanager
async def administered(**options: Any) -> AsyncIterator[Administered]:
    """A hub whose issuer has two system clients."""
    own = {"system_clients": ["ehr", "pacs"], **options.pop("own", {})}
    async with running_hub(own=own, **options) as hub:
        yield Administered(hub)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and challenge of a refusal that says in one line why, in JSON to who sent JSON."""
    if "json" in answer.request.headers.get("Content-Type", ""):
        assert answer.headers["Content-Type"] == "application/json"
        assert re.fullmatch(r"[^\n]+", answer.json()["message"]), answer.text
    else:
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert re.fullmatch(r"[^\n]+\n", answer.text), answer.text
    return answer.status_code, answer.headers.get("WWW-Authenticate", "")


# POST /sessions


@pytest.mark.req("SES-1")
async def test_a_session_is_begun_for_a_user() -> None:
    """201 with what an app needs to join; it is that user's, and nobody else's, before anybody came."""
    async with administered() as api:
        answer = await api.post({"user": "user-1"})
        assert answer.status_code == 201
        assert set(answer.json()) == {"hub.url", "hub.topic"}
        assert answer.json()["hub.url"] == api.hub.url
        assert answer.headers["Cache-Control"] == "no-store"
        topic = answer.json()["hub.topic"]
        assert await api.may(topic, api.hub.token("user-2")) == [403, 403, 403]
        assert await api.may(topic, api.pacs) == [202, 202, 200]
        assert await api.may(topic) == [202, 202, 200]


@pytest.mark.req("SES-1")
async def test_topics_cannot_be_guessed() -> None:
    """At least 122 random bits, no two alike, nothing of the user in them."""
    async with administered() as api:
        topics = [await api.begin(new=True) for _ in range(20)]
        assert len(set(topics)) == 20
        for topic in topics:
            assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", topic)
        for place in range(8):  # not the same time or node in all of them
            assert len({topic[place] for topic in topics}) > 1


@pytest.mark.req("SES-2")
async def test_the_live_session_is_given_again() -> None:
    """To whichever issuer's client, until it is ended or a new one is asked for, and then that one."""
    async with administered() as api:
        first = await api.begin()
        assert await api.begin() == first == await api.begin(new=False)
        assert await api.begin("user-2") != first
        api.hub.clock.now += 1
        second = await api.begin(new=True)
        assert second != first
        assert await api.begin() == second
        await api.end(second)
        assert await api.begin() == first
        await api.end(first)
        assert await api.begin() not in (first, second)


@pytest.mark.req("SES-2")
async def test_a_session_that_the_user_made_is_not_given_away() -> None:
    """Its topic is an app's own, perhaps one that others know."""
    async with administered() as api:
        await api.hub.subscribe(hub__topic="my-topic")
        assert await api.begin() != "my-topic"


@pytest.mark.req("SES-1", "AUT-9")
async def test_a_user_is_named_as_in_tokens() -> None:
    """A relative fhirUser and an absolute one are one user; one that names nobody is 400."""
    async with administered(own={"user_claim": "fhirUser", "fhir_base": FHIR}) as api:
        topic = await api.begin("Practitioner/7")
        assert await api.begin(f"{FHIR}/Practitioner/7") == topic
        assert await api.begin("https://other.example/Practitioner/7") != topic
        assert await api.may(topic, api.hub.token("x", fhirUser="Practitioner/7")) == [202, 202, 200]
        assert await api.may(topic, api.hub.token("x", fhirUser="Practitioner/8")) == [403, 403, 403]
        for nobody in ("/", "///", "/_history/1"):
            assert refusal(await api.post({"user": nobody})) == (400, "")
    async with administered(own={"user_claim": "fhirUser"}) as api:
        answer = await api.post({"user": "Practitioner/7"})
        assert refusal(answer) == (400, "")
        assert answer.json()["message"].startswith("user must be ")
        assert "Practitioner" not in answer.text


@pytest.mark.req("SES-1", "AUT-1", "AUT-11")
async def test_who_may_not_begin_or_end_sessions() -> None:
    """No token, a bad one, a user's with the scope, a system client's without, or with one that looks alike."""
    async with administered() as api:
        hub = api.hub
        topic = await api.begin()

        async def tried(token: str) -> set[tuple[int, str]]:
            return {refusal(await api.post({"user": "user-1"}, token)), refusal(await api.end(topic, token))}

        assert await tried("x") == {(401, INVALID)}
        assert await tried(hub.token("ehr", SCOPE, client_id="ehr", exp=int(hub.clock.now) - 31)) == {(401, INVALID)}
        assert await tried(hub.token("user-1", SCOPE)) == {(403, "")}
        assert await tried(hub.token("user-1", SCOPE, client_id="ehr")) == {(403, "")}
        unlisted = hub.token("other", SCOPE, client_id="other", **{"hub.topic": topic})
        assert await tried(unlisted) == {(403, "")}
        limited = hub.token("ehr", SCOPE, client_id="ehr", **{"hub.topic": "another"})
        assert await tried(limited) == {(403, "")}
        for scope in ("fhircast/*.*", "fhircast-hub/*.write", "fhircast-hub/sessions.*", SCOPE.upper(), SCOPE + "s"):
            assert await tried(hub.token("ehr", scope, client_id="ehr")) == {(403, INSUFFICIENT)}
        for method, path in (("POST", "/sessions"), ("DELETE", f"/sessions/{topic}")):
            answer = await ask(hub, method, path, {"Content-Type": "application/json"}, b'{"user": "user-1"}')
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        elsewhere = await hub.client.post(f"{api.url}?access_token={api.ehr}", json={"user": "user-1"})
        assert elsewhere.status_code == 401
        assert await api.begin() == topic
        assert api.topics == 1


@pytest.mark.req("SES-1")
@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "the body"),
        (b"sesame", "the body"),
        (b'{"user": "sesame"', "the body"),
        (b'{"user": "sesame"} x', "the body"),
        (b"[" * 50_000, "the body"),
        (b'{"user": "\xff"}', "the body"),
        (b"null", "the body"),
        (b'"sesame"', "the body"),
        (b'[{"user": "sesame"}]', "the body"),
        (b"{}", "user"),
        (b'{"user": null}', "user"),
        (b'{"user": 7777}', "user"),
        (b'{"user": ["sesame"]}', "user"),
        (b'{"user": {"sesame": 1}}', "user"),
        (b'{"user": ""}', "user"),
        (b'{"user": "%s"}' % (b"sesame" * 500), "user"),
        (b'{"user": " "}', "user"),
        (b'{"user": "sesame\\n"}', "user"),
        (b'{"user": "sesame\\u0000"}', "user"),
        (b'{"user": "\\ud800"}', ""),
        (b'{"user": "sesame", "new": "true"}', "new"),
        (b'{"user": "sesame", "new": 1}', "new"),
        (b'{"user": "sesame", "new": null}', "new"),
        (b'{"user": "ann", "sesame\\nX: y": 1}', "the body"),
        (b'{"user": "ann", "realm": "sesame"}', "the body"),
    ],
)
async def test_a_bad_body_is_refused_with_a_reason(body: bytes, named: str) -> None:
    """400 with one line that names the place and shows nothing of what came; nothing is begun."""
    async with administered() as api:
        answer = await api.post(body)
        assert refusal(answer) == (400, "")
        assert answer.json()["message"].startswith(named)
        assert "sesame" not in answer.text
        assert "7777" not in answer.text
        assert len(answer.text) < 200
        assert api.topics == 0


@pytest.mark.req("SES-1", "EVT-23")
async def test_a_byte_order_mark_before_the_body_is_ignored() -> None:
    """.NET writes one."""
    async with administered() as api:
        answer = await api.post(b'\xef\xbb\xbf{"user": "user-1"}')
        assert answer.status_code == 201, answer.text
        assert answer.json()["hub.topic"] == await api.begin()


@pytest.mark.req("SES-1", "AUT-1", "EVT-7")
async def test_a_body_is_read_only_of_who_may_send_it() -> None:
    """Without a token it is 401, however bad; one that is too large is 413, and another media type 415."""
    async with administered() as api:
        answer = await ask(api.hub, "POST", "/sessions", {"Content-Type": "application/json"}, b"{")
        assert answer.status == 401
        assert (await api.post(b"{", api.hub.token())).status_code == 403
        answer2 = await api.post(b" " * (MAX_FORM + 1))
        assert refusal(answer2) == (413, "")
        headers = api.hub.headers(api.ehr)
        form = await api.hub.client.post(api.url, data={"user": "user-1"}, headers=headers)
        assert refusal(form) == (415, "")
        assert (await api.post(b'{"user": "user-1"}' + b" " * (MAX_FORM - 18))).status_code == 201


@pytest.mark.req("SES-1")
async def test_a_refusal_may_be_json() -> None:
    """For who asks for that: `{"message": ...}`."""
    async with administered() as api:
        headers = api.hub.headers(api.ehr, **{"Accept": "application/json", "Content-Type": "application/json"})
        answer = await api.hub.client.post(api.url, content=b"{}", headers=headers)
        assert answer.status_code == 400
        assert answer.json()["message"].startswith("user: ")


@pytest.mark.req("SES-1", "LIM-1")
async def test_a_user_may_have_so_many_sessions() -> None:
    """429 with Retry-After beyond that; the live one is given again nevertheless."""
    async with administered(max_topics_per_user=2) as api:
        await api.begin()
        topic = await api.begin(new=True)
        answer = await api.post({"user": "user-1", "new": True})
        assert refusal(answer) == (429, "")
        assert int(answer.headers["Retry-After"]) > 0
        assert api.topics == 2
        assert topic  # and not forgotten
        assert (await api.post({"user": "user-1"})).status_code == 201


# GET /sessions/{topic}/participants


class Watched:
    """A session with a participant, whose state is looked at."""

    def __init__(self, api: Administered, topic: str) -> None:
        self.api, self.hub, self.topic = api, api.hub, topic
        self._events = 0

    async def state(self, name: str) -> str:
        """That of the participant of this name."""
        found = [each for each in (await self.api.look(self.topic)).json() if each["name"] == name]
        assert len(found) == 1
        return str(found[0]["state"])

    async def comes_to(self, name: str, state: str) -> None:
        """Wait for a state that a participant comes to in its own time."""
        async with asyncio.timeout(5):
            while await self.state(name) != state:  # noqa: ASYNC110  # the hub has no event for it, and needs none
                await asyncio.sleep(0.005)

    async def subscribe(self, name: str, events: str = "Patient-open,Patient-close") -> str:
        return await self.hub.subscribe(events, hub__topic=self.topic, **{"subscriber.name": name})

    async def publish(self, name: str = "Patient-open") -> None:
        self._events += 1
        id_ = f"{self._events}"
        posted = event(name, "p1", topic=self.topic, event_id=id_)
        assert (await self.hub.publish(posted)).status_code == 202

    async def answer(self, follower: Follower, status: object) -> None:
        """Read the next message and acknowledge it."""
        message = await follower.next()
        await follower.connection.send(json.dumps({"id": message["id"], "status": status}))

    async def missed_ack(self) -> None:
        """The time for acknowledgements passes."""
        self.hub.clock.now += 11
        self.hub.hub.ack_timer.check()


@asynccontextmanager
async def watched(**options: Any) -> AsyncIterator[Watched]:
    async with administered(**options) as api:
        yield Watched(api, await api.begin())


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
        await session.comes_to("Chart", "lost")
        (chart,) = (await session.api.look(session.topic)).json()
        assert chart["lastAcknowledgement"] is None


@pytest.mark.req("SES-6", "SUB-5")
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


@pytest.mark.req("SES-3", "SYN-6")
async def test_who_is_not_there_and_who_never_answers() -> None:
    """`not connected yet`, then `does not acknowledge`, also after it was silent, for nobody misses it; then `lost`."""
    async with watched() as session:
        endpoint = await session.subscribe("Viewer")
        assert await session.state("Viewer") == "not connected yet"
        async with session.hub.follow(endpoint) as follower:
            assert await session.state("Viewer") == "does not acknowledge"
            await session.publish()
            assert await follower.names(1) == ["Patient-open"]
            await session.missed_ack()
            assert await session.state("Viewer") == "does not acknowledge"
        await session.comes_to("Viewer", "lost")
        async with session.hub.follow(endpoint):
            await session.comes_to("Viewer", "does not acknowledge")


@pytest.mark.req("SES-3", "SYN-1", "SYN-5")
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


@pytest.mark.req("SES-3", "SYN-7")
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
    """The topic, whose it is, what a participant refused, and that it was made here; sockets are lost."""
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
        await session.comes_to("Chart", "lost")
        await session.subscribe("Late")
        unused = await session.api.begin("user-2")
    async with administered(**options) as api:
        assert await api.begin() == topic
        assert await api.begin("user-2") == unused
        found = {each["name"]: each["state"] for each in (await api.look(topic)).json()}
        assert found == {"Chart": "lost", "Late": "not connected yet"}
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


@pytest.mark.req("SES-2")
async def test_two_who_ask_at_once_get_one_session() -> None:
    """An EHR that launches two apps together puts them into one session."""
    async with administered() as api:
        topics = await asyncio.gather(*(api.begin() for _ in range(8)))
        assert len(set(topics)) == 1


@pytest.mark.req("SES-1", "SEC-1")
async def test_nothing_stands_at_hub_url() -> None:
    """The session API is beside hub.url, not under it: there the path is a topic's, and a token needs a scope for events."""
    async with administered() as api:
        answer = await api.hub.client.post(
            f"{api.hub.url}/sessions", json={"user": "user-1"}, headers=api.hub.headers(api.ehr)
        )
        assert answer.status_code == 403
        assert api.topics == 0


@pytest.mark.req("AUT-11", "SES-3", "SES-4")
async def test_a_session_that_nobody_owns_is_not_administered() -> None:
    """A token of the topic alone began it: 409 for a system client, and it stays."""
    async with administered() as api:
        guest = api.hub.token(None, client_id="guest", **{"hub.topic": "unowned"})
        assert (await api.hub.publish(event("Patient-open", topic="unowned"), guest)).status_code == 202
        assert (await api.end("unowned")).status_code == 409
        system = api.hub.token("ehr", SCOPE, client_id="ehr")
        assert (await api.look("unowned", system)).status_code == 409
        assert (await api.hub.context(guest, "unowned")).json()["context"] != []
