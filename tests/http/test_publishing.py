"""An accepted event reaches its subscribers byte for byte."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from typing import Any

import httpx
import pytest

from tests.http.wire import ask
from tests.running import TOPIC, Follower, RunningHub, event, running_hub, spec


async def raw_frame(follower: Follower) -> bytes:
    """The next message as it came."""
    frame = await asyncio.wait_for(follower.connection.recv(decode=False), 5)
    assert isinstance(frame, bytes)
    return frame


async def status(hub: RunningHub, body: bytes) -> int:
    """What the hub answers to a body."""
    return (await hub.publish(body)).status_code


# --- what is read ---


@pytest.mark.req("EVT-23", "SUB-16")
@pytest.mark.parametrize("sent", ["application/json", "application/fhir+json"])
async def test_a_byte_order_mark_before_json_is_ignored(sent: str) -> None:
    """Before a subscription as before an event, which is told without the mark; the same without one is a repeat."""
    form = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "Patient-open"}
    async with running_hub() as hub:
        headers = hub.headers(**{"Content-Type": sent})

        async def post(message: dict[str, Any]) -> httpx.Response:
            content = b"\xef\xbb\xbf" + json.dumps(message).encode()
            return await hub.client.post(hub.url, content=content, headers=headers)

        subscribed = await post(form)
        assert subscribed.status_code == 202, subscribed.text
        async with hub.follow(subscribed.json()["hub.channel.endpoint"]) as follower:
            assert (await post(event("Patient-open"))).status_code == 202
            frame = await raw_frame(follower)
            assert frame.startswith(b"{")
            assert (await hub.publish(event("Patient-open"))).status_code == 202
            assert await raw_frame(follower) == frame


# --- who is told ---


@pytest.mark.req("EVT-1", "CON-1")
async def test_everybody_is_told_once_the_sender_too() -> None:
    """202; then each of three subscribers, the sender's own among them, gets the very same frame, and gets it once."""
    async with running_hub() as hub:
        endpoints = [await hub.subscribe(token=hub.token(client_id=client)) for client in ("ehr", "viewer", "report")]
        async with hub.follow(endpoints[0]) as one, hub.follow(endpoints[1]) as two, hub.follow(endpoints[2]) as three:
            sent = event("Patient-open", "p1", event_id="OHIF-x7f3k2", timestamp="2026-11-22T10:00:00.5+01:00")
            answer = await hub.publish(sent, hub.token(client_id="ehr"))
            assert answer.status_code == 202
            frames = [await raw_frame(follower) for follower in (one, two, three)]
            assert frames[0] == frames[1] == frames[2]
            told = json.loads(frames[0])
            version = told["event"].pop("context.versionId")
            assert told == sent
            assert str(uuid.UUID(version)) == version
            assert [await follower.silent() for follower in (one, two, three)] == [True] * 3


@pytest.mark.req("EVT-24")
async def test_a_publication_is_answered_with_an_empty_object() -> None:
    """202, `{}` in JSON: to an event that changes something, is passed on, is an update or a repeat; whatever Accept says."""
    async with running_hub() as hub:
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": []}
        await hub.publish(event("DiagnosticReport-open"))
        version = (await hub.context()).json()["context.versionId"]
        update = event("DiagnosticReport-update", also=[{"key": "updates", "resource": bundle}])
        update["event"]["context.versionId"] = version
        opened = event("Patient-open")
        for sent in (opened, opened, event("Patient-close"), event("org.example.x"), update, update):
            for headers in ({}, {"Accept": "text/plain"}):
                answer = await hub.client.post(hub.url, json=sent, headers=hub.headers(**headers))
                assert (answer.status_code, answer.content) == (202, b"{}"), sent
                assert answer.headers["Content-Type"] == "application/json"
                assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.req("EVT-2")
async def test_json_and_fhir_json_with_or_without_charset() -> None:
    """Both content types are taken, however they are spelled."""
    types = [
        *("application/json", "application/fhir+json", "application/json; charset=utf-8"),
        *("application/fhir+json;charset=UTF-8", "APPLICATION/JSON", 'application/fhir+json ; charset="utf-8"; a=b'),
    ]
    async with running_hub() as hub, hub.follow(await hub.subscribe("UserLogout")) as follower:
        for number, sent in enumerate(types):
            headers = hub.headers(**{"Content-Type": sent})
            body = json.dumps(event("UserLogout", event_id=str(number))).encode()
            answer = await hub.client.post(hub.url, content=body, headers=headers)
            assert answer.status_code == 202, sent
            assert (await follower.next())["id"] == str(number)


#: How a topic may stand in a path.
PATHS = [
    ("plain", "plain"),
    ("a/b/c", "a/b/c"),
    ("a%2Fb", "a/b"),
    ("a%252Fb", "a%2Fb"),
    ("a+b", "a+b"),
    ("a%2Bb%20c", "a+b c"),
    ("%C3%B8/%E2%9C%93%F0%9F%98%80", "ø/✓😀"),
    ("a/", "a/"),
    ("/a", "/a"),
    ("a//b", "a//b"),
    ("a/../b", "a/../b"),
    ("./..", "./.."),
    ("a%3Fb%23c", "a?b#c"),
    ("100%25", "100%"),
    ("a%", "a%"),
    ("metadata/x", "metadata/x"),
    ("https%3A%2F%2Fehr.example%2Fs%3Ft%3D1", "https://ehr.example/s?t=1"),
]


@pytest.mark.req("EVT-3", "GET-2")
async def test_the_topic_is_the_rest_of_the_raw_path_decoded_once() -> None:
    """An event posted there and the context read there are of that topic, and of no other; a query is no part of it."""
    async with running_hub() as hub:
        headers = hub.headers(**{"Content-Type": "application/json"})
        for number, (path, topic) in enumerate(PATHS):
            body = json.dumps(event("Patient-open", f"p{number}", topic=topic)).encode()
            answer = await ask(hub, "POST", f"/api/hub/{path}?topic=x", headers, body)
            assert answer.status == 202, (path, answer.body)
            other = json.dumps(event("Patient-open", topic=topic + "x")).encode()
            assert (await ask(hub, "POST", f"/api/hub/{path}", headers, other)).status == 400, path
            answer = await ask(hub, "GET", f"/api/hub/{path}?topic=x", headers)
            assert json.loads(answer.body)["context"][0]["resource"]["id"] == f"p{number}", path


@pytest.mark.req("EVT-3")
async def test_a_path_that_hides_the_hub_reaches_no_other_topic() -> None:
    """Where only decoding makes it begin with hub.url, it is that topic or unknown, never one cut out at another place."""
    async with running_hub() as hub:
        await hub.publish(event("Patient-open", "p1", topic="b/x"))
        await hub.publish(event("Patient-open", "p2", topic="x"))
        for path, topic in [("/%61pi/hub/b/x", "b/x"), ("/api%2Fhub/x", "x"), ("/api/hub%2Fb/x", "b/x")]:
            answer = await ask(hub, "GET", path, hub.headers())
            if answer.status != 404:
                assert json.loads(answer.body) == (await hub.context(topic=topic)).json(), path


@pytest.mark.req("EVT-3")
async def test_hub_url_with_a_slash_at_its_end_is_hub_url() -> None:
    """Answered in place: no redirect, which no client follows on POST."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        assert (await hub.publish(event("Patient-open"), path="/")).status_code == 202
        assert await follower.names(1) == ["Patient-open"]


@pytest.mark.req("EVT-4")
async def test_names_match_in_any_case_and_keep_the_senders_spelling() -> None:
    """Subscribed as Patient-open, published as patient-OPEN: received as patient-OPEN, and its scope is enough."""
    async with running_hub() as hub, hub.follow(await hub.subscribe("pAtIeNt-oPeN")) as follower:
        message = event("Patient-open")
        message["event"]["hub.event"] = "patient-OPEN"
        assert (await hub.publish(message, hub.token(scope="fhircast/Patient-open.write"))).status_code == 202
        assert await follower.names(1) == ["patient-OPEN"]


@pytest.mark.req("EVT-8", "EVT-9", "EVT-10")
async def test_every_kind_of_event_is_distributed() -> None:
    """Other resources, imagingstudy as key, infrastructure events in any case, reverse-domain names: all unchanged."""
    messages = [
        event("Observation-open", "o1"),
        event("Observation-close", "o1"),
        spec("UserLogout"),
        spec("UserHibernate"),
        spec("SyncError"),
        spec("Home-open"),
        event("USERLOGOUT"),
        event("com.example.researchstudy_transmogrify"),
    ]
    study = event("ImagingStudy-open", "s1")
    study["event"]["context"][0]["key"] = "imagingstudy"
    names = [message["event"]["hub.event"] for message in [*messages[:6], study, messages[7]]]
    async with running_hub() as hub, hub.follow(await hub.subscribe(",".join(names))) as follower:
        for message in [*messages, study]:
            message["event"]["hub.topic"] = TOPIC
            answer = await hub.publish(message)
            assert answer.status_code == 202, answer.text
            told = await follower.next()
            told["event"].pop("context.versionId", None)
            assert told == message


@pytest.mark.req("EVT-11", "EVT-12")
async def test_nobody_is_told_what_is_not_for_them() -> None:
    """Not another session's subscriber, nor who did not ask for the event, nor who asked and may not read it."""
    async with running_hub() as hub:
        both = "Patient-open,Encounter-open"
        elsewhere = await hub.subscribe(both, hub__topic="elsewhere")
        unasked = await hub.subscribe("Encounter-open")
        blind = await hub.subscribe(both, token=hub.token(scope="fhircast/Encounter-open.read"))
        async with hub.follow(elsewhere) as one, hub.follow(unasked) as two, hub.follow(blind) as three:
            await hub.publish(event("Patient-open"))
            assert [await follower.silent() for follower in (one, two, three)] == [True] * 3


@pytest.mark.req("EVT-13", "EVT-14")
async def test_all_see_one_order_whoever_sends_at_the_same_time() -> None:
    """Eight senders at once, each with ten events: every subscriber sees all eighty, each once, in the same order."""
    async with running_hub() as hub:
        endpoints = [await hub.subscribe("Patient-open") for _ in range(3)]
        async with hub.follow(endpoints[0]) as one, hub.follow(endpoints[1]) as two, hub.follow(endpoints[2]) as three:

            async def send(sender: int) -> None:
                for number in range(10):
                    answer = await hub.publish(event("Patient-open", f"p{number}", event_id=f"{sender}-{number}"))
                    assert answer.status_code == 202

            await asyncio.gather(*(send(sender) for sender in range(8)))
            seen = [[(await follower.next())["id"] for _ in range(80)] for follower in (one, two, three)]
            assert seen[0] == seen[1] == seen[2]
            assert len(set(seen[0])) == 80
            for sender in range(8):
                assert [id_ for id_ in seen[0] if id_.startswith(f"{sender}-")] == [f"{sender}-{n}" for n in range(10)]


# --- bytes ---


#: A context as no JSON library would write it: order, escapes, numbers, space, characters, unknown members.
ODD = (
    '[ {"key":"patient","resource":{"resourceType":"Patient","zzz":1.10,"id":"p1","a":-0.0,"big":'
    + "9" * 5000
    + ',"exp":1E+400,"e\\u0301\\/":"\\ud83d\\ude00 😀 \u2028 \\u0000 \\n ﷽","empty":{},"x":[ ],"null":null,"in":{"dup":1,"dup":2} }'
    + ',"unknown" : [true,false ]}\n,\t{"key":"extension","data":{"context.versionId":"theirs"}} ]'
).encode()


@pytest.mark.req("EVT-15")
async def test_a_context_comes_out_byte_by_byte_as_it_went_in() -> None:
    """In the broadcast, in the replay to who joins, and when it is read: the very bytes; the unknown of the envelope too."""
    body = b"".join(
        (
            b'{"unknown":{"b":1.50,"a":[1e5]},"timestamp":"2026-11-22T10:00:00Z","id":"1","event":{"priority":1.0,',
            b'"hub.topic":"%b","context":%b,"hub.event":"Patient-open","after":"\\u00f8"},"last":null}'
            % (TOPIC.encode(), ODD),
        )
    )
    async with running_hub() as hub:
        endpoint = await hub.subscribe("Patient-open")
        async with hub.follow(endpoint) as follower:
            assert await status(hub, body) == 202
            frame = await raw_frame(follower)
        async with hub.follow(endpoint) as follower:
            assert await raw_frame(follower) == frame
        assert frame.count(ODD) == 1
        for part in (b'"unknown":{"b":1.50,"a":[1e5]}', b'"priority":1.0', b'"after":"\\u00f8"', b'"last":null'):
            assert frame.count(part) == 1
        names = [frame.index(b'"%b"' % name) for name in (b"timestamp", b"id", b"event", b"last")]
        assert names == sorted(names)
        assert ODD[:-1].rstrip() + b",{" in (await hub.context()).content  # what was shared comes behind it


@pytest.mark.req("EVT-15", "EVT-30")
async def test_the_senders_versions_do_not_come_out() -> None:
    """Its context.versionId and priorVersionId are taken out of every broadcast; an open has the hub's, others none."""
    names = ("Patient-open", "Patient-close", "UserLogout")
    theirs = {"context.versionId": "theirs", "context.priorVersionId": "theirs"}
    async with running_hub() as hub, hub.follow(await hub.subscribe(",".join(names))) as follower:
        for name in names:
            assert (await hub.publish(event(name, **theirs) | theirs)).status_code == 202
            frame = await raw_frame(follower)
            assert b"theirs" not in frame
            assert b"priorVersionId" not in frame
            assert frame.count(b"context.versionId") == (1 if name == "Patient-open" else 0)


@pytest.mark.req("EVT-5")
async def test_timestamps_and_ids_come_out_as_they_went_in() -> None:
    """Without zone, with offset, with two or seven decimals; an id of 256 characters: taken and passed on as sent."""
    stamps = [
        *("2026-11-22T10:00:00", "2026-11-22T10:00:00.12", "2026-11-22T10:00:00.1234567Z", "2026-11-22T10:00Z"),
        *("2026-11-22T10:00:00+01:00", "2026-11-22T10:00:00.000-0500"),
    ]
    async with running_hub() as hub, hub.follow(await hub.subscribe("UserLogout")) as follower:
        for number, stamp in enumerate(stamps):
            id_ = str(number).rjust(256, "ø")
            answer = await hub.publish(event("UserLogout", event_id=id_, timestamp=stamp))
            assert answer.status_code == 202, stamp
            told = await follower.next()
            assert (told["timestamp"], told["id"]) == (stamp, id_)


# --- what changes nothing ---


@pytest.mark.req("EVT-16")
async def test_closing_what_is_not_open_is_passed_on_and_changes_nothing() -> None:
    """202 and broadcast; the current context and its version stay."""
    async with running_hub() as hub:
        await hub.publish(event("Patient-open", "p1"))
        before = (await hub.context()).json()
        async with hub.follow(await hub.subscribe("Patient-close")) as follower:
            assert (await hub.publish(event("Patient-close", "p2"))).status_code == 202
            assert (await follower.next())["id"] == "Patient-close-p2"
        assert (await hub.context()).json() == before


@pytest.mark.req("EVT-17", "EVT-31")
async def test_a_repeat_is_sent_again_only_while_it_is_the_newest() -> None:
    """The same frame, version and all, until something newer was accepted; then 202, nothing sent, nothing changed."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        first, second = event("Patient-open", "p1"), event("Patient-open", "p2")
        await hub.publish(first)
        frame = await raw_frame(follower)
        await hub.publish(first)
        assert await raw_frame(follower) == frame
        await hub.publish(second)
        await follower.next()
        before = (await hub.context()).json()
        assert (await hub.publish(first)).status_code == 202
        assert await follower.silent()
        assert (await hub.context()).json() == before


@pytest.mark.req("EVT-17")
async def test_the_same_id_with_another_body_is_no_repeat() -> None:
    """It opens a new version, and is sent."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        await hub.publish(event("Patient-open", "p1", event_id="x"))
        await hub.publish(event("Patient-open", "p2", event_id="x"))
        versions = [(await follower.next())["event"]["context.versionId"] for _ in range(2)]
        assert versions[0] != versions[1]
        assert (await hub.context()).json()["context.versionId"] == versions[1]


@pytest.mark.req("AUT-5")
async def test_an_event_that_is_refused_is_told_to_nobody() -> None:
    """Without its write scope: 403 with the scope that would have done, silence, and no session."""
    async with running_hub() as hub, hub.follow(await hub.subscribe(hub__topic="mine")) as follower:
        answer: httpx.Response | None = None
        for scope in ("fhircast/Patient-open.read", "fhircast/Patient-close.write fhircast/Encounter-open.*"):
            for topic in ("mine", "new"):
                answer = await hub.publish(event("patient-open", topic=topic), hub.token(scope=scope))
                assert answer.status_code == 403
                challenge = answer.headers["WWW-Authenticate"]
                assert re.fullmatch('Bearer error="insufficient_scope", scope="fhircast/Patient-open.write"', challenge)
        assert await follower.silent()
        assert (await hub.context(hub.token("user-2"), "new")).status_code == 200
