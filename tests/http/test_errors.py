"""A refusal is one line of text or a JSON object, and reveals nothing of the request."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from fhircast_hub.budgets.table import BODY_SECONDS
from fhircast_hub.core.errors import Unavailable
from fhircast_hub.http import request as reading
from tests.http.wire import Reply, ask, request, wire
from tests.running import TOPIC, RunningHub, event, running_hub

FORM = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "Patient-open"}
AS_JSON = {"Content-Type": "application/json"}
MEGABYTE = 1 << 20

# --- words ---


TEXT, JSON = "text/plain; charset=utf-8", "application/json"
#: What Accept asks for, and the form of a refusal then: of a request in JSON, and of a form or a GET.
ACCEPT = [
    (None, JSON, TEXT),
    ("*/*", JSON, TEXT),
    ("", JSON, TEXT),
    (";;,q=,", JSON, TEXT),
    ("text/html,*/*;q=0.8", JSON, TEXT),
    ("text/html", JSON, TEXT),
    ("application/jsonp", JSON, TEXT),
    ("text/plain, application/json", JSON, TEXT),
    ("text/plain, */*", JSON, TEXT),
    ("text/plain;q=0", JSON, TEXT),
    ("text/plain;q=0, application/json;q=0", JSON, TEXT),
    ("application/*, text/plain;q=0.5", JSON, TEXT),
    ("application/json;q=0.5, */*", JSON, JSON),
    ("application/json", JSON, JSON),
    ("application/fhir+json", JSON, JSON),
    ("Application/JSON; charset=utf-8", JSON, JSON),
    ("application/json, text/plain, */*", JSON, JSON),
    ("text/plain;q=0.2, application/json;q=0.9", JSON, JSON),
    ("text/plain", TEXT, TEXT),
    ("text/*", TEXT, TEXT),
    ("Text/Plain ; charset=utf-8", TEXT, TEXT),
    ("text/plain, */*; q=0.01", TEXT, TEXT),
    ("application/json;q=0.5, text/plain", TEXT, TEXT),
    ("application/json;q=0", TEXT, TEXT),
    ("application/json;q=0, */*", TEXT, TEXT),
]
AS_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def said(answer: Reply, form: str) -> str:
    """The one line of a refusal in this form."""
    assert answer.headers["content-type"] == form, answer
    if form == JSON:
        whole = json.loads(answer.body)
        assert whole.keys() == {"message"}
        line = str(whole["message"])
    else:
        line = answer.body.decode().removesuffix("\n")
    assert line
    assert len(line.splitlines()) == 1
    return line


@pytest.mark.req("SUB-24", "SUB-28")
@pytest.mark.parametrize(("accept", "of_json", "of_others"), ACCEPT)
async def test_who_sends_json_is_refused_in_json_unless_text_is_preferred(
    accept: str | None, of_json: str, of_others: str
) -> None:
    """To others text goes out, unless Accept prefers JSON. The line is the same."""
    preferred = {} if accept is None else {"Accept": accept}
    async with running_hub() as hub:
        for token in (None, hub.token()):
            headers = preferred | ({"Authorization": f"Bearer {token}"} if token else {})
            lines = set()
            for sent in ("application/json", "application/fhir+json", "Application/JSON ; charset=utf-8"):
                answer = await ask(hub, "POST", "/api/hub", headers | {"Content-Type": sent}, b"[]")
                assert answer.status == (400 if token else 401)
                lines.add(said(answer, of_json))
            assert len(lines) == 1
            said(await ask(hub, "POST", "/api/hub", headers | AS_FORM, b"hub.mode=x"), of_others)
            said(await ask(hub, "GET", "/api/hub/%ff", headers), of_others)


@pytest.mark.req("SUB-24")
async def test_every_refusal_of_a_request_in_json_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is refused for, before or after its body is read, under hub.url and by the session API; as text if asked."""
    limits: dict[str, Any] = {"max_body_bytes": 1000, "max_topics_per_user": 1, "rate_limit_token": 50}
    async with running_hub(**limits) as hub:
        assert (await hub.publish(event("Patient-open"))).status_code == 202
        one, foreign, blind = hub.token(), hub.token("user-2"), hub.token(scope="openid")
        opened, selected = event("Patient-open"), event("DiagnosticReport-select")

        async def refuses(status: int, method: str, path: str, token: str, body: Any, **more: str) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            for accept, form in (({}, JSON), ({"Accept": "text/plain"}, TEXT)):
                headers = {"Authorization": f"Bearer {token}"} | AS_JSON | more | accept
                answer = await ask(hub, method, path, headers, content)
                assert answer.status == status
                said(answer, form)

        await refuses(400, "POST", "/api/hub", one, b"{")
        await refuses(401, "POST", "/api/hub", "x", opened)
        await refuses(403, "POST", "/api/hub", foreign, opened)
        await refuses(403, "POST", "/api/hub", blind, opened)
        await refuses(404, "POST", "/api/hub", one, FORM | {"hub.channel.endpoint": "wss://x/y"})
        await refuses(405, "PUT", "/api/hub", one, opened)
        await refuses(409, "POST", "/api/hub", one, selected)
        await refuses(413, "POST", "/api/hub", one, b" " * 1001)
        await refuses(415, "POST", "/api/hub", one, opened, **{"Content-Type": "application/merge-patch+json"})
        await refuses(429, "POST", "/api/hub", one, event("Patient-open", topic="another"))
        await refuses(401, "POST", "/sessions", "x", {})
        await refuses(403, "POST", "/sessions", one, {})
        await refuses(404, "POST", "/nowhere", one, {})
        await refuses(405, "PUT", "/sessions", one, {})
        limited = hub.token(jti="limited")
        for _ in range(50):
            await hub.context(limited)
        await refuses(429, "POST", "/api/hub", limited, opened)
        await refuses(429, "POST", "/sessions", limited, {})

        async def fail(*_: object) -> None:
            raise RuntimeError("Zebulon")

        monkeypatch.setattr(hub.hub.service._store, "load", fail)
        await refuses(500, "POST", "/api/hub", one, opened)

        async def away(*_: object) -> None:
            raise Unavailable("the store does not answer", retry_after=1)

        monkeypatch.setattr(hub.hub.service._store, "load", away)
        await refuses(503, "POST", "/api/hub", one, opened)


@pytest.mark.req("SUB-24", "SUB-29")
@pytest.mark.parametrize(
    ("public_url", "method", "path", "expected"),
    [
        ("https://hub.example/api/hub", "GET", "/API/hub/?hub.topic=Nordmann", "(/api/hub)"),
        ("https://hub.example/api/hub", "POST", "/nordmann/%C3%A5se", "(/api/hub)"),
        ("https://hub.example", "OPTIONS", "*", "(/)"),
    ],
)
async def test_a_path_that_is_not_served_is_told_where_the_hub_is(
    public_url: str, method: str, path: str, expected: str
) -> None:
    """What came is not repeated, for a path may hold a topic."""
    async with running_hub(public_url=public_url) as hub:
        answer = await ask(hub, method, path, {})
    length = len(path.partition("?")[0])
    said = f"the path must be that of hub.url {expected}, or one of those in /openapi.json, not another one of length {length}"
    assert (answer.status, answer.body.decode().strip()) == (404, said)


@pytest.mark.req("SUB-24", "SES-1")
async def test_refusals_of_the_session_api_are_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's body that is wrong, one too large, and a failure of the hub's own."""
    async with running_hub(own={"system_clients": ["ehr"]}) as hub:
        headers = hub.headers(hub.token("ehr", "fhircast-hub/sessions.write", client_id="ehr"), **AS_JSON)
        for status, body in ((400, b"{}"), (413, b" " * MEGABYTE)):
            answer = await ask(hub, "POST", "/sessions", headers, body)
            assert answer.status == status
            said(answer, JSON)
            said(await ask(hub, "POST", "/sessions", headers | {"Accept": "text/plain"}, body), TEXT)

        async def fail(*_: object, **__: object) -> None:
            raise RuntimeError("Zebulon")

        monkeypatch.setattr(hub.hub.service, "session_for", fail)
        answer = await ask(hub, "POST", "/sessions", headers, b'{"user": "user-1"}')
        assert answer.status == 500
        assert "Zebulon" not in said(answer, JSON)


@pytest.mark.req("SUB-24", "EVT-7")
async def test_a_body_that_does_not_end_is_refused_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """408 to who said that JSON would come."""
    monkeypatch.setattr(reading, "BODY_SECONDS", BODY_SECONDS._replace(most=0.01))
    async with running_hub() as hub, wire(hub) as connection:
        await connection.send(request("POST", "/api/hub", hub.headers(**AS_JSON) | {"Content-Length": "9"}))
        answer = await connection.reply()
        assert answer.status == 408
        said(answer, JSON)


SECRET = "Zebulon-4711"


def telling(hub: RunningHub) -> list[tuple[dict[str, str], str, bytes]]:
    """Requests that are refused, each with the secret somewhere in a value: headers, path, body."""

    def changed(*path: str | int, to: Any = SECRET, **more: Any) -> bytes:
        message: Any = event("Patient-open", **more)
        inner = message
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = to
        return json.dumps(message).encode()

    bodies = [
        SECRET.encode(),
        json.dumps(SECRET).encode(),
        json.dumps({SECRET: SECRET}).encode(),
        f'{{"id": {SECRET}}}'.encode(),
        changed("timestamp"),
        changed("id", to=[SECRET]),
        changed("id", to=SECRET * 30),
        changed("event"),
        changed("event", "context"),
        changed("event", "context", 0),
        changed("event", "context", 0, "key"),
        changed("event", "context", 0, "resource"),
        changed("event", "context", 0, "resource", "resourceType"),
        changed("event", "context", 0, "resource", "id", to={SECRET: SECRET}),
        changed("event", "hub.topic", to=SECRET * 100),
        changed("event", "hub.topic", to=f"{SECRET}\n"),
        changed("event", "hub.event", to=f"{SECRET} {SECRET}"),
        b'{"Zebulon-4711":1,"Zebulon-4711":2}',
    ]
    forms: list[dict[str, str]] = [
        {name: SECRET + "\nx"} for name in ("hub.topic", "subscriber.name", "hub.events", "hub.channel.endpoint")
    ]
    forms += [
        {"hub.topic": SECRET * 100},
        {"subscriber.name": SECRET * 30},
        {"hub.events": f"{SECRET}!"},
        {"hub.lease_seconds": SECRET},
        {"hub.lease": SECRET},
        {"hub.channel.endpoint": f"wss://{SECRET}/{SECRET}"},
        {"hub.mode": SECRET + " of more than thirty-two characters"},
        {"hub.channel.type": SECRET + " of more than thirty-two characters"},
        {"hub.mode": "unsubscribe", "subscriber.name": SECRET},
    ]
    fine = json.dumps(event("Patient-open")).encode()
    as_json, as_form = hub.headers(**AS_JSON), hub.headers(**{"Content-Type": "application/x-www-form-urlencoded"})
    requests = [(as_json, "", body) for body in bodies]
    requests += [(as_form, "", str(httpx.QueryParams(FORM | form)).encode()) for form in forms]
    requests += [(as_form, "", f"{SECRET}=1&{SECRET}=2".encode()), (as_form, "", b"hub.topic=%ff" + SECRET.encode())]
    requests += [
        (as_json, f"/{SECRET}", fine),
        (hub.headers(**{"Content-Type": f"text/{SECRET}"}), "", b""),
        (AS_JSON | {"Authorization": f"Bearer {SECRET}"}, "", b""),
        (AS_JSON | {"Authorization": f"{SECRET} {SECRET}"}, "", b""),
        (AS_JSON | {"Authorization": f"Bearer {hub.token(iss=SECRET)}"}, "", b""),
        (AS_JSON | {"Authorization": f"Bearer {hub.token(aud=SECRET)}"}, "", b""),
        (AS_JSON | {"Authorization": f"Bearer {hub.token(headers={'kid': SECRET})}"}, "", b""),
        (hub.headers(hub.token(scope=f"fhircast/{SECRET}.read"), **AS_JSON), "", fine),
        (hub.headers(hub.token(**{"hub.topic": SECRET}), **AS_JSON), "", fine),
        (hub.headers(hub.token(SECRET), **AS_JSON), "", fine),
    ]
    return requests


@pytest.mark.req("SEC-1")
async def test_a_refusal_tells_nothing_that_the_request_said() -> None:
    """No value comes back, in body or headers, but modes, channel types and event names: it may end in somebody's log."""
    async with running_hub() as hub:
        await hub.subscribe(token=hub.token("somebody-else"))
        for headers, path, body in telling(hub):
            for accept in ("text/plain", "application/json"):
                sent = headers | {"Accept": accept}
                answer = await ask(hub, "POST", f"/api/hub{path}", sent, body)
                assert answer.status in (400, 401, 403, 404, 415), (path, body)
                assert SECRET not in repr(answer), (path, body)
                assert answer.headers["cache-control"] == "no-store"


# --- methods and paths ---


async def test_other_methods_are_refused_by_name_of_those_that_work() -> None:
    """405 with Allow, on every path under hub.url; GET has nothing to say at hub.url itself."""
    async with running_hub() as hub:
        for method in ("PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"):
            for path in ("", f"/{TOPIC}", "/metadata", "/ws/x"):
                answer = await ask(hub, method, f"/api/hub{path}", hub.headers())
                assert answer.status == 405
                assert {"GET", "POST"} <= {item.strip() for item in answer.headers["allow"].split(",")}
        for path in ("", "/"):
            answer = await ask(hub, "GET", f"/api/hub{path}", hub.headers())
            assert answer.status == 405
            assert "POST" in answer.headers["allow"]


@pytest.mark.req("SUB-5")
@pytest.mark.parametrize("path", ["/metadata", "/ws", "/.well-known", "/" + "t" * 1025, "/%00", "/%ff", "/%C3"])
async def test_a_path_that_can_be_no_topic_is_refused(path: str) -> None:
    """400 to who posts there, and to who reads there but for the documents."""
    async with running_hub() as hub:
        post = await ask(
            hub, "POST", f"/api/hub{path}", hub.headers(**AS_JSON), json.dumps(event("Patient-open")).encode()
        )
        assert post.status == 400
        get = await ask(hub, "GET", f"/api/hub{path}", hub.headers())
        assert get.status == (200 if path == "/metadata" else 400)
