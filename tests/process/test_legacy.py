"""AUT-18: `fhircast-hub dev --legacy` serves the public clients of 2018 and 2019 as they are, each with its messages and its rules.

HL7's React client (github.com/fhircast/reactclient.js), the WebSocket page of sandbox.js (github.com/fhircast/sandbox.js) and the
event validator (github.com/fletcheaston/FHIRcast-Event-Validator), beside a client of today.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode

from tests.process.hub_process import PATIENCE, HubProcess, command, hub_process
from tests.running import Follower, event

PATIENT = {"key": "patient", "resource": {"resourceType": "Patient", "id": "ewUbXT9RWEbSj5wPEdgRaBw3"}}
STUDY = {
    "key": "study",
    "resource": {"resourceType": "ImagingStudy", "id": "8i7tbu6fby5ftfbku6fniuf", "uid": "urn:oid:2.16"},
}
#: Both clients offer these, and both let the user edit this context.
NAMES = {
    "open-patient-chart": "Patient-open",
    "switch-patient-chart": "Patient-open",
    "close-patient-chart": "Patient-close",
    "open-imaging-study": "ImagingStudy-open",
    "switch-imaging-study": "ImagingStudy-open",
    "close-imaging-study": "ImagingStudy-close",
    "logout-user": "UserLogout",
    "hibernate-user": "UserHibernate",
}
CONTEXT = [PATIENT, STUDY]
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """`fhircast-hub dev --legacy`."""
    with hub_process(tmp_path_factory.mktemp("legacy"), "dev", "--legacy", public_url=None) as running:
        yield running


class Visit:
    """Who visits the hub: `http` without a token, and a topic of the test's own."""

    def __init__(self, hub: HubProcess, http: httpx.AsyncClient) -> None:
        self.hub, self.http, self.topic = hub, http, f"DrXRay-{uuid.uuid4()}"
        (token,) = re.findall(r"^export TOKEN=(.*)$", hub.stdout, re.MULTILINE)
        self.headers = {"Authorization": f"Bearer {token}"}
        self._seconds = 0

    def event(self, name: str, context: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
        """An event as both clients write it, each a second later than the one before."""
        self._seconds += 1
        stamp = f"2018-12-13T01:37:{self._seconds:02}.140Z"
        inner = {"hub.topic": self.topic, "hub.event": name, "context": CONTEXT if context is None else context}
        return {"timestamp": stamp, "id": str(uuid.uuid4()), **more, "event": inner}

    async def react(self, events: str, mode: str = "subscribe", *, endpoint: str, topic: str = "") -> httpx.Response:
        """What the React client asks: JSON, with a lease that is a number."""
        form = {"hub.events": events, "hub.secret": "secret", "hub.topic": topic or self.topic, "hub.lease": 999}
        form |= {"hub.channel.type": "websocket", "hub.callback": "http://localhost:3000/client", "hub.mode": mode}
        return await self.http.post("", json=form | {"hub.channel.endpoint": endpoint})

    @asynccontextmanager
    async def bound(self, endpoint: str) -> AsyncIterator[Old]:
        """A socket at an endpoint of the client's choosing."""
        async with connect(f"ws://127.0.0.1:{self.hub.port}/bind/{endpoint}", proxy=None) as connection:
            yield Old(connection)

    @asynccontextmanager
    async def old(self, events: str) -> AsyncIterator[Old]:
        """The React client, subscribed, connected and bound."""
        endpoint = str(uuid.uuid4())
        assert (await self.react(events, endpoint=endpoint)).is_success
        async with self.bound(endpoint) as old:
            assert (await old.other())["bound"] == endpoint
            yield old

    @asynccontextmanager
    async def modern(self, events: str) -> AsyncIterator[Follower]:
        """A client of today, with a token of the user who owns what clients without a token do."""
        form = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": self.topic, "hub.events": events}
        answer = await self.http.post("", data=form, headers=self.headers)
        async with connect(answer.json()["hub.channel.endpoint"], proxy=None) as connection:
            follower = Follower(connection)
            assert (await follower.next()).keys() == {"hub.mode", "hub.topic", "hub.events", "hub.lease_seconds"}
            yield follower


class Old(Follower):
    """A client of 2018: a message with the member `bound` says that it is connected, every other one is an event."""

    async def other(self) -> dict[str, Any]:
        """The next message, which is none of an event."""
        message = await self.next()
        assert message.get("bound"), f"the React client would take this for an event, and fail: {message}"
        return message

    async def told(self, count: int = 1) -> list[str]:
        """The names of the next events."""
        messages = [await self.next() for _ in range(count)]
        assert not any("bound" in message for message in messages)
        return [message["event"]["hub.event"] for message in messages]

    async def publish(self, event: dict[str, Any]) -> None:
        """Send an event on the socket."""
        await self.connection.send(json.dumps(event))


@pytest.fixture
async def visit(hub: HubProcess) -> AsyncIterator[Visit]:
    """A visit to the hub."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, base_url=f"{hub.origin}/api/hub") as http:
        yield Visit(hub, http)


@pytest.mark.req("AUT-18")
async def test_the_react_client_follows_publishes_and_leaves(visit: Visit) -> None:
    """As it does by itself: bound, told under its names what anybody opens and closes, heard by a client of today, and gone."""
    endpoint = str(uuid.uuid4())
    assert (await visit.react("open-patient-chart,close-patient-chart", endpoint=endpoint)).is_success
    async with visit.bound(endpoint) as old, visit.modern("Patient-open,Patient-close") as modern:
        confirmation = await old.other()
        assert (confirmation["bound"], confirmation["hub.mode"]) == (endpoint, "subscribe")
        assert confirmation["hub.events"] == "open-patient-chart,close-patient-chart"
        await old.publish(opened := visit.event("open-patient-chart"))
        echo = await old.next()
        assert (echo["id"], echo["event"]["hub.event"]) == (opened["id"], "open-patient-chart")
        assert echo["event"]["context"] == CONTEXT
        heard = await modern.next()
        assert (heard["id"], heard["event"]["hub.event"]) == (opened["id"], "Patient-open")
        closed = event("Patient-close", PATIENT["resource"]["id"], topic=visit.topic)  # type: ignore[index]
        assert (await visit.http.post("", json=closed)).is_success
        assert (await old.told(), await modern.names(1)) == (["close-patient-chart"], ["Patient-close"])
        assert (await visit.react("open-patient-chart", "unsubscribe", endpoint=endpoint)).is_success
        assert (await old.other())["hub.mode"] == "denied"
        assert await old.closed() == 1000


@pytest.mark.req("AUT-18")
async def test_the_page_of_sandbox_js_follows_and_publishes(visit: Visit) -> None:
    """Its form is not escaped, all its events have one id and a member of its own, and it renews with a new socket."""
    endpoint, id_ = "session-id-x7f3k2", "event-id-k2j4h5"
    for name, today in (("open-patient-chart", "Patient-open"), ("close-imaging-study", "ImagingStudy-close")):
        form = "hub.callback=http://localhost:3000/client&hub.mode=subscribe&hub.secret=secret&hub.lease=999"
        form += f"&hub.topic={visit.topic}&hub.events={name}&hub.channel.type=websocket&hub.channel.endpoint={endpoint}"
        assert (await visit.http.post("/", content=form, headers=FORM)).status_code == 202
        async with visit.bound(endpoint) as page, visit.modern(today) as modern:
            assert (await page.other())["bound"] == endpoint
            for _ in range(2):
                await page.publish(visit.event(name, id=id_) | {"cast-session": visit.topic})
                shown, heard = await page.next(), await modern.next()
                assert (shown["event"]["hub.event"], shown["cast-session"]) == (name, visit.topic)
                assert (heard["event"]["hub.event"], heard["cast-session"]) == (today, visit.topic)


@pytest.mark.req("AUT-18")
async def test_the_event_validator_listens(visit: Visit) -> None:
    """Without a token, at the hub's endpoint: a first message with hub.topic, then events with a UUID and a time in UTC."""
    form = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": visit.topic}
    form["hub.events"] = "Patient-open,ImagingStudy-open,DiagnosticReport-open,DiagnosticReport-opened"
    endpoint = (await visit.http.post("", content=urlencode(form), headers=FORM)).json()["hub.channel.endpoint"]
    async with connect(endpoint, proxy=None) as connection:
        listener = Follower(connection)
        assert (await listener.next()).keys() == {"hub.mode", "hub.topic", "hub.events", "hub.lease_seconds"}
        assert (await visit.http.post(f"/{visit.topic}", json=visit.event("Patient-open", [PATIENT]))).is_success
        told = await listener.next()
        assert (told["event"]["hub.event"], str(uuid.UUID(told["id"]))) == ("Patient-open", told["id"])


@pytest.mark.req("AUT-18", "AUT-37")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["socket", "post"])
async def test_each_name_of_2018_means_an_event_of_today(visit: Visit, name: str, way: str) -> None:
    """Sent on the socket or posted: it comes back as it was, and a client of today is told today's."""
    async with visit.old(name) as old, visit.modern(NAMES[name]) as modern:
        event = visit.event(name)
        if way == "socket":
            await old.publish(event)
        else:
            assert (await visit.http.post("", json=event)).status_code == 202
        assert (await old.told(), await modern.names(1)) == ([name], [NAMES[name]])


@pytest.mark.req("AUT-18", "AUT-38")
async def test_a_name_comes_back_as_it_was_sent_or_as_it_was_asked_for(visit: Visit) -> None:
    """Who knows two names for one event is told the sender's, and of a client of today the first; nobody is told another's."""
    async with visit.old("switch-patient-chart,open-patient-chart") as both, visit.old("open-patient-chart") as one:
        for name in ("open-patient-chart", "switch-patient-chart", "Patient-open"):
            assert (await visit.http.post("", json=visit.event(name))).status_code == 202
        assert await both.told(3) == ["open-patient-chart", "switch-patient-chart", "switch-patient-chart"]
        assert await one.told(3) == ["open-patient-chart"] * 3
    async with visit.old("switch-patient-chart,Patient-open") as late:
        assert await late.told() == ["Patient-open"], "what is open is told to whoever joins, too"


@pytest.mark.req("AUT-18")
async def test_names_in_any_case_and_of_two_times_are_one_subscription(visit: Visit) -> None:
    """They are confirmed as they were asked for, and an event comes once."""
    endpoint = str(uuid.uuid4())
    await visit.react("Open-Patient-Chart,patient-open,org.example.mine", endpoint=endpoint)
    async with visit.bound(endpoint) as old:
        assert (await old.other())["hub.events"].lower() == "open-patient-chart,patient-open,org.example.mine"
        await old.publish(visit.event("OPEN-patient-chart"))
        assert [name.lower() for name in await old.told()] == ["open-patient-chart"]
        await old.publish(visit.event("org.example.mine", []))
        assert await old.told() == ["org.example.mine"]


@pytest.mark.req("AUT-18", "AUT-36")
async def test_a_refusal_says_why_and_is_taken_for_no_event(visit: Visit) -> None:
    """The React client's context may be empty: nothing is opened, and its sender reads why."""
    async with visit.old("open-patient-chart") as old, visit.modern("Patient-open") as modern:
        await old.publish(refused := visit.event("open-patient-chart", []))
        answer = await old.other()
        assert (answer["id"], answer["status"]) == (refused["id"], 400)
        assert "patient" in answer["message"]
        await old.connection.send('{"event": "none", "id": {"a": 1}}')
        assert (await old.other())["status"] == 400
        assert await modern.silent()


@pytest.mark.req("AUT-18", "AUT-36")
async def test_events_of_a_socket_are_published_in_order(visit: Visit) -> None:
    """However fast they come."""
    async with visit.old("open-patient-chart,close-patient-chart") as old:
        for _ in range(5):
            await old.publish(visit.event("open-patient-chart"))
            await old.publish(visit.event("close-patient-chart"))
        assert await old.told(10) == ["open-patient-chart", "close-patient-chart"] * 5


@pytest.mark.req("AUT-18", "EVT-23", "GET-10")
async def test_a_bound_socket_may_be_reached_and_spoken_to_less_tidily(visit: Visit) -> None:
    """By a path with empty segments, and with a byte order mark before an event, which is not passed on."""
    endpoint = str(uuid.uuid4())
    assert (await visit.react("open-patient-chart", endpoint=endpoint)).is_success
    async with visit.bound(f"/{endpoint}//?x=y") as old:
        assert (await old.other())["bound"] == endpoint
        await old.connection.send("\ufeff" + json.dumps(visit.event("open-patient-chart")))
        frame = await old.connection.recv(decode=False)
        assert json.loads(frame)["event"]["hub.event"] == "open-patient-chart"
        assert frame[:1] == b"{"


@pytest.mark.req("AUT-18", "SUB-25")
async def test_a_chosen_endpoint_without_upgrade_says_what_is_missing(visit: Visit) -> None:
    """426, as under hub.url."""
    answer = await visit.http.get(f"{visit.hub.origin}/bind/{uuid.uuid4()}")
    assert (answer.status_code, answer.headers["Upgrade"]) == (426, "websocket")


@pytest.mark.req("AUT-18", "AUT-36")
async def test_a_flood_of_events_is_bounded(visit: Visit) -> None:
    """Of forty that come at once sixteen wait at most; of each that was not published the sender reads so."""
    async with visit.old("open-patient-chart") as old:
        events = [json.dumps(visit.event("open-patient-chart")).encode() for _ in range(40)]
        old.connection.transport.write(b"".join(Frame(Opcode.TEXT, one).serialize(mask=True) for one in events))
        messages = [await old.next() for _ in events]
        refused = [message for message in messages if "bound" in message]
        assert {message["status"] for message in refused} == {429}
        published = {message["id"] for message in messages if "bound" not in message}
        assert published | {message["id"] for message in refused} == {json.loads(one)["id"] for one in events}
        assert len(published) + len(refused) == len(events)


@pytest.mark.req("AUT-18")
async def test_acknowledgements_are_no_events(visit: Visit) -> None:
    """What has no event is heard as on every socket, and not answered."""
    async with visit.old("open-patient-chart") as old:
        await old.publish(opened := visit.event("open-patient-chart"))
        assert await old.told() == ["open-patient-chart"]
        await old.connection.send(json.dumps({"id": opened["id"], "status": 200}))
        await old.connection.send("bind:my-endpoint")
        assert await old.silent()


@pytest.mark.req("AUT-18")
async def test_a_renewal_that_is_refused_leaves_the_names(visit: Visit) -> None:
    """An endpoint is one topic's: elsewhere 404, and what comes still has the names that were asked for before."""
    endpoint = str(uuid.uuid4())
    await visit.react("open-patient-chart", endpoint=endpoint)
    async with visit.bound(endpoint) as old:
        await old.other()
        elsewhere = await visit.react("switch-patient-chart", endpoint=endpoint, topic=f"{visit.topic}-2")
        assert elsewhere.status_code == 404
        await old.publish(visit.event("switch-patient-chart"))
        assert await old.told() == ["open-patient-chart"]
        assert (await visit.react("switch-patient-chart", endpoint=endpoint)).is_success
        renewed = await old.other()
        assert (renewed["bound"], renewed["hub.events"]) == (endpoint, "switch-patient-chart")
        await old.publish(visit.event("open-patient-chart"))
        assert await old.told() == ["switch-patient-chart"]


@pytest.mark.req("AUT-18", "SUB-3", "SYN-15", "SYN-28")
async def test_a_socket_that_is_not_under_bind_is_as_everywhere(visit: Visit) -> None:
    """Four members in the confirmation, no names of 2018, and what is sent on it is published to nobody."""
    async with visit.modern("Patient-open,open-patient-chart") as modern:
        await modern.connection.send(json.dumps(visit.event("open-patient-chart")))
        assert await modern.silent()
        assert (await visit.http.post("", json=visit.event("open-patient-chart"))).is_success
        assert await modern.names(1) == ["Patient-open"]
        assert await modern.silent()


@pytest.mark.req("AUT-18", "AUT-36")
async def test_an_event_on_the_socket_is_checked_as_if_posted(visit: Visit) -> None:
    """A session of another user is not entered: the socket's own subscription, or none, changes nothing of that."""
    theirs = f"theirs-{uuid.uuid4()}"
    done = command(
        Path(visit.hub.environ["XDG_RUNTIME_DIR"]), "token", "--user", "clinician-2", environ=visit.hub.environ
    )
    headers = {"Authorization": f"Bearer {done.stdout.strip()}"}
    opened = event("Patient-open", "p1", topic=theirs)
    assert (await visit.http.post("", json=opened, headers=headers)).status_code == 202
    async with visit.old("open-patient-chart") as old:
        mine = visit.event("open-patient-chart")
        mine["event"]["hub.topic"] = theirs
        await old.publish(mine)
        assert (await old.other())["status"] == 403
