"""Paths under hub.url as clients and proxies put them together: with empty segments, or to a WebSocket's endpoint."""

from __future__ import annotations

import json

import pytest
from websockets.asyncio.client import connect

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.scopes import Scopes
from tests.http.wire import Reply, ask, request, wire
from tests.running import TOPIC, RunningHub, event, running_hub

AS_JSON = {"Content-Type": "application/json"}
#: Ends of a path, each before and behind what is asked for.
EMPTY = [("/", "/"), ("//", ""), ("//", "/"), ("/", "///"), ("////", "//")]
URL = "https://ehr.example/s"


async def posted(hub: RunningHub, path: str, topic: str, id_: str = "p1") -> Reply:
    """The answer to an open of this topic, posted at this path under hub.url."""
    body = json.dumps(event("Patient-open", id_, topic=topic)).encode()
    return await ask(hub, "POST", f"/api/hub{path}", hub.headers(**AS_JSON), body)


async def shown(hub: RunningHub, path: str) -> list[str]:
    """The patients that are current there."""
    answer = await ask(hub, "GET", f"/api/hub{path}", hub.headers())
    assert answer.status == 200, answer
    return [item["resource"]["id"] for item in json.loads(answer.body)["context"] if item["key"] == "patient"]


# --- empty segments ---


@pytest.mark.req("GET-10")
@pytest.mark.parametrize(("before", "behind"), EMPTY)
async def test_empty_segments_around_a_topic_are_no_part_of_it(before: str, behind: str) -> None:
    """What is open is read there, and an event posted there is of that topic and of no other."""
    async with running_hub() as hub:
        path = f"{before}{TOPIC}{behind}"
        assert (await posted(hub, path, TOPIC)).status == 202
        assert await shown(hub, path) == ["p1"]
        assert (await posted(hub, path, TOPIC + "x")).status == 400


@pytest.mark.req("GET-10", "CFG-1", "CFG-3")
@pytest.mark.parametrize(("before", "behind"), EMPTY)
async def test_empty_segments_around_a_document_are_no_part_of_its_name(before: str, behind: str) -> None:
    """Discovery and capability statement need no token there either."""
    async with running_hub() as hub:
        for name in (".well-known/fhircast-configuration", "metadata"):
            as_named = await ask(hub, "GET", f"/api/hub/{name}", {})
            found = await ask(hub, "GET", f"/api/hub{before}{name}{behind}", {})
            assert (found.status, found.body) == (200, as_named.body)


@pytest.mark.req("GET-10", "CFG-1")
@pytest.mark.parametrize(("name", "status"), [("//fhircast-configuration", 200), ("/another", 401), ("//", 401)])
async def test_below_well_known_there_is_one_document(name: str, status: int) -> None:
    """Another name is none, and no topic of which nothing is open; only who has a token is told so."""
    async with running_hub() as hub:
        assert (await ask(hub, "GET", f"/api/hub/.well-known{name}", {})).status == status
        if name == "/another":
            assert (await ask(hub, "GET", f"/api/hub/.well-known{name}", hub.headers())).status == 404


@pytest.mark.req("GET-10", "SUB-1")
@pytest.mark.parametrize("path", ["/", "//", "////"])
async def test_nothing_but_empty_segments_is_hub_url(path: str) -> None:
    """Subscribing and publishing work there; GET says where the context is."""
    form = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "Patient-open"}
    async with running_hub() as hub:
        assert (await hub.client.post(hub.url + path, data=form, headers=hub.headers())).status_code == 202
        assert (await posted(hub, path, TOPIC)).status == 202
        assert (await ask(hub, "GET", f"/api/hub{path}", hub.headers())).status == 405


@pytest.mark.req("GET-10", "EVT-3", "GET-12")
@pytest.mark.parametrize(
    ("path", "topic"),
    [
        (f"/{URL}", URL),
        (f"//{URL}//", URL),
        (f"/{URL}/", f"{URL}/"),
        (f"//{URL}/", f"{URL}/"),
        ("//a", "/a"),
        ("//a//b/", "a//b"),
        ("/%2Fa", "/a"),
        ("/a%2F", "a/"),
        ("//%2Fa%2F/", "/a/"),
        ("/ws%2Fx", "ws/x"),
    ],
)
async def test_slashes_of_the_topic_itself_stay(path: str, topic: str) -> None:
    """Those inside it, those that are escaped, and unescaped ones at its ends where no session is called otherwise."""
    async with running_hub() as hub:
        assert (await posted(hub, path, topic)).status == 202
        assert await shown(hub, path) == ["p1"]


@pytest.mark.req("GET-10", "EVT-3", "GET-12")
async def test_an_escaped_slash_is_no_empty_segment() -> None:
    """`%2Fa` is the topic `/a` and never `a`."""
    async with running_hub() as hub:
        await posted(hub, "", "a", "p1")
        for path in ("/%2Fa", "/a%2F", "//%2Fa"):
            assert (await posted(hub, path, "a")).status == 400
            assert await shown(hub, path) == []


@pytest.mark.req("GET-10", "GET-12")
async def test_the_topic_without_the_empty_segments_comes_first() -> None:
    """Where both sessions exist, the path with an empty segment is that of the topic without one."""
    async with running_hub() as hub:
        await posted(hub, "", "/a", "p2")
        assert await shown(hub, "//a") == ["p2"]
        await posted(hub, "", "a", "p1")
        assert await shown(hub, "//a") == ["p1"]
        assert await shown(hub, "/%2Fa") == ["p2"]


@pytest.mark.req("GET-10", "SUB-11")
async def test_empty_segments_in_the_path_of_a_websocket() -> None:
    """A proxy that puts hub.url and the rest together with one slash too many brings the client to its endpoint."""
    async with running_hub() as hub:
        token = (await hub.subscribe()).rpartition("/")[2]
        for path in (f"//ws/{token}", f"/ws//{token}/", f"///ws///{token}//"):
            async with connect(f"ws://127.0.0.1:{hub.port}/api/hub{path}", proxy=None) as connection:
                assert json.loads(await connection.recv())["hub.mode"] == "subscribe"


@pytest.mark.req("GET-10", "SES-3", "SES-4")
async def test_empty_segments_in_the_session_apis_paths() -> None:
    """Around the topic, before and behind the whole; escaped slashes stay the topic's own."""
    async with running_hub(own={"system_clients": ["ehr"]}) as hub:
        system = hub.headers(hub.token("ehr", "fhircast-hub/sessions.write", client_id="ehr"))

        async def status(method: str, path: str) -> int:
            return (await ask(hub, method, path, system)).status

        for topic, escaped in ((TOPIC, TOPIC), ("a/b", "a/b"), ("/a/", "%2Fa%2F")):
            await hub.subscribe(hub__topic=topic)
            for before, within, behind in (("/", "/", ""), ("//", "/", "/"), ("/", "//", "//"), ("//", "///", "")):
                path = f"{before}sessions{within}{escaped}{within}participants{behind}"
                answer = await ask(hub, "GET", path, system)
                assert answer.status == 200, path
                assert len(json.loads(answer.body)) == 1
            assert await status("DELETE", f"//sessions//{escaped}//") == 204
            assert await status("GET", f"/sessions/{escaped}/participants") == 404
        await hub.subscribe(hub__topic="a")
        for path in ("/sessions/%2Fa", "/sessions/a%2F", "/sessions/", "//sessions//%61%2F/", "/sessions%2Fx/a"):
            assert await status("DELETE", path) in (404, 405), path
        assert await status("GET", "/sessions/a%2Fparticipants") in (404, 405)
        assert await status("DELETE", "/sessions/a") == 204
        made = await hub.client.post(f"{hub.origin}//sessions//", json={"user": "user-1"}, headers=system)
        assert made.status_code == 201


@pytest.mark.req("GET-10")
@pytest.mark.parametrize("path", ["/api/hub", ""])
async def test_the_roots_own_paths_are_no_topics(path: str) -> None:
    """With empty segments around them neither, also where hub.url is the root: sessions work, the others are not there."""
    own_issuer = {"system_clients": ["ehr"]}
    async with running_hub(public_url=f"http://127.0.0.1{path}", own=own_issuer) as hub:
        headers = hub.headers()
        opened = json.dumps(event("Patient-open")).encode()
        assert (await ask(hub, "POST", f"{path}//{TOPIC}/", hub.headers(**AS_JSON), opened)).status == 202
        read = await ask(hub, "GET", f"{path}//{TOPIC}//", headers)
        assert json.loads(read.body)["context.type"] == "Patient"
        assert (await ask(hub, "GET", f"{path}//.well-known/fhircast-configuration/", {})).status == 200
        for own in ("health/live", "health/ready", "metrics", "openapi.json"):
            assert (await ask(hub, "GET", f"/{own}", {})).status == 200
            for odd in (f"//{own}", f"/{own}/", f"//{own}//"):
                assert (await ask(hub, "GET", odd, headers)).status == 404, odd
        system = hub.headers(hub.token("ehr", "fhircast-hub/sessions.write", client_id="ehr"), **AS_JSON)
        for sessions in ("/sessions", "//sessions/"):
            assert (await ask(hub, "POST", sessions, system, b'{"user": "user-1"}')).status == 201
        # who looks is no subscriber of that session
        assert (await ask(hub, "GET", f"//sessions/{TOPIC}//participants/", headers)).status == 403


# --- an endpoint without a WebSocket ---


@pytest.mark.req("SUB-25")
async def test_an_endpoint_that_is_asked_without_upgrade_says_what_is_missing() -> None:
    """426 with the protocol that is expected (RFC 9110, 15.5.22), for one that lives as for one that does not."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        lives = endpoint.partition(str(hub.port))[2]
        answers = []
        for path in (lives, f"{lives}/?x=y", lives.replace("/ws/", "//ws/"), "/api/hub/ws/made-up", "/api/hub/ws/a/b"):
            for headers in ({}, hub.headers(), {"Upgrade": "websocket"}, {"Upgrade": "h2c"}):
                answer = await ask(hub, "GET", path, headers)
                assert answer.status == 426, (path, headers)
                assert answer.headers["upgrade"] == "websocket"
                assert answer.headers["connection"] == "Upgrade"
                assert answer.headers["content-type"] == "text/plain; charset=utf-8"
                assert answer.headers["cache-control"] == "no-store"
                answers.append(answer.body)
            head = await ask(hub, "HEAD", path, {})
            assert (head.status, head.headers["upgrade"]) == (426, "websocket")
        assert len(set(answers)) == 1
        assert b"proxy" in answers[0]
        assert b"Upgrade and Connection" in answers[0]
        async with hub.follow(endpoint):
            pass


@pytest.mark.req("SUB-25", "SEC-1")
async def test_an_endpoint_that_is_asked_without_upgrade_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the status and the reason; the connection can be used again."""
    async with running_hub() as hub, wire(hub) as connection:
        endpoint = await hub.subscribe()
        token = endpoint.rpartition("/")[2]
        for _ in range(2):
            await connection.send(request("GET", f"/api/hub/ws/{token}", {}))
            assert (await connection.reply()).status == 426
    logged = capsys.readouterr().out
    assert logged.count("the request has no Upgrade: a proxy must pass on the headers Upgrade and Connection") == 2
    assert logged.count("route=socket") == 2
    assert token not in logged


@pytest.mark.req("SUB-25", "SUB-11")
async def test_other_methods_and_paths_are_as_ever() -> None:
    """A post there is of a topic, a delete 405; `ws` itself can be no topic."""
    async with running_hub() as hub:
        assert (await posted(hub, "/ws/x", "ws/x")).status == 202
        assert (await ask(hub, "DELETE", "/api/hub/ws/x", hub.headers())).status == 405
        for path in ("/ws", "/ws/", "//ws"):
            assert (await ask(hub, "GET", f"/api/hub{path}", hub.headers())).status == 400
        assert (await ask(hub, "GET", "/bind/x", {})).status == 404


@pytest.mark.req("SUB-25", "AUT-17")
async def test_a_legacy_clients_endpoint_says_the_same() -> None:
    """Under /bind/, which is beside hub.url."""
    nobody = Principal(
        "https://issuer.example", "user-1", "legacy", Scopes(frozenset("*"), frozenset("*")), float("inf")
    )
    async with running_hub(anonymous=nobody) as hub:
        for path in ("/bind/x", "//bind//x/"):
            answer = await ask(hub, "GET", path, {})
            assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
        assert (await ask(hub, "POST", "/bind/x", AS_JSON, b"{}")).status == 404
        assert (await ask(hub, "GET", "/bind/", {})).status == 404
