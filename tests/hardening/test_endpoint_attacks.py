"""Endpoints, browsers and texts of others."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.http.wire import ask, request, wire
from tests.running import TOPIC, RunningHub, event, running_hub

INJECTED = "x\r\nX-Injected: 1\r\n\r\n<script>"


async def refused(url: str, **headers: str) -> int:
    """The status that a WebSocket's handshake is refused with."""
    with pytest.raises(InvalidStatus) as error:
        async with connect(url, proxy=None, additional_headers=headers):
            pass
    return error.value.response.status_code


@pytest.mark.req("SUB-2", "SUB-11")
async def test_endpoint_guessing() -> None:
    """Neighbours of one that lives, and other spellings of it, are not there; each guess is answered alike."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        base, _, ticket = endpoint.rpartition("/")
        guesses = [ticket[:-1], ticket + "A", ticket.swapcase(), ticket[::-1], "", "*", "%2e%2e/ws", TOPIC, "A" * 43]
        guesses += [ticket[:place] + ("A" if ticket[place] != "A" else "B") + ticket[place + 1 :] for place in (0, 20)]
        assert {await refused(f"{base}/{guess}") for guess in guesses} == {404}
        async with hub.follow(endpoint):
            pass


@pytest.mark.req("SUB-11", "UNS-6")
async def test_endpoint_reuse() -> None:
    """One that was ended lives no more, for its own user with a good token neither, not to connect and not to renew."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        named = {"hub__channel.endpoint": endpoint}
        assert (await hub.form(hub__mode="unsubscribe", **named)).status_code == 202
        assert await refused(endpoint, Authorization=f"Bearer {hub.token()}") == 404
        assert (await hub.form(hub__events="Patient-open", **named)).status_code == 404
        assert await hub.subscribe() != endpoint


@pytest.mark.req("SUB-21", "UNS-3")
async def test_endpoint_of_another_user() -> None:
    """Known or not, it is nobody else's to renew, to end or to move to a session of their own; its owner goes on."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        async with hub.follow(endpoint) as follower:
            foreign = hub.token("user-2")
            for mode in ("subscribe", "unsubscribe"):
                for topic in (TOPIC, "mine"):
                    parameters = {"hub__channel.endpoint": endpoint, "hub__mode": mode, "hub__topic": topic}
                    answer = await hub.form(foreign, hub__events="Patient-open", **parameters)
                    assert answer.status_code in (403, 404)
                    assert endpoint not in answer.text
            await hub.publish(event("Patient-open"))
            assert await follower.names(1) == ["Patient-open"]


@pytest.mark.req("SUB-11", "CFG-6")
async def test_cross_site_websocket_hijacking() -> None:
    """What a browser adds by itself (cookies, Origin) opens nothing, and the hub gives it nothing to add."""
    async with running_hub() as hub:
        good = await hub.client.post(
            hub.url,
            data={"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "x.y"},
            headers=hub.headers(Origin="https://evil.example"),
        )
        assert good.status_code == 202
        assert "set-cookie" not in good.headers
        assert good.headers.get("access-control-allow-credentials") is None
        cookie = f"token={hub.token()}; Authorization=Bearer {hub.token()}"
        for path in ("", f"/{TOPIC}", "/ws", "/ws/", f"/ws/{TOPIC}"):
            url = f"ws://127.0.0.1:{hub.port}/api/hub{path}"
            assert await refused(url, Cookie=cookie, Origin="https://evil.example") == 404


async def parts(hub: RunningHub) -> list[bytes]:
    """What the hub answers, head and body as they come, to requests that have a header in every text."""
    form = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "Patient-open"}
    texts = [json.dumps(form | {name: INJECTED}) for name in (*form, "subscriber.name", "hub.channel.endpoint")]
    texts += [
        json.dumps(event("Patient-open", topic=INJECTED)),
        json.dumps(event("Patient-open", INJECTED)),
        json.dumps(event("Patient-open", event_id=INJECTED)),
        json.dumps(event(f"Patient-open{INJECTED}")),
    ]
    as_json = hub.headers(**{"Content-Type": "application/json"})
    sent = [request("POST", "/api/hub", as_json, text.encode()) for text in texts]
    sent += [
        request("GET", f"/api/hub/{quote(INJECTED)}", hub.headers()),
        request("GET", f"/api/hub/ws/{quote(INJECTED)}", hub.headers()),
        request("GET", f"/sessions/{quote(INJECTED)}/participants", hub.headers()),
        request("GET", f"/api/hub/{TOPIC}", hub.headers(hub.token(scope=INJECTED))),
        request("POST", "/api/hub", hub.headers(**{"Content-Type": "text/x\tX-Injected: 1"}), b""),
        request("GET", f"/api/hub/{TOPIC}", hub.headers(Accept="x\tX-Injected: 1", Origin="https://a\tX-Injected: 1")),
    ]
    answers = []
    for each in sent:
        async with wire(hub) as connection:
            await connection.send(each)
            reply = await connection.reply()
            answers.append(json.dumps(reply.headers).encode() + reply.body)
    return answers


@pytest.mark.req("SUB-5", "SEC-1")
async def test_header_injection() -> None:
    """No topic, name, id, scope or type gets a line into an answer's head, or a tag into its body."""
    async with running_hub() as hub:
        answers = await parts(hub)
        assert len(answers) == 16
        for answer in answers:
            assert b"injected" not in answer.lower()
            assert b"<script>" not in answer


@pytest.mark.req("SUB-5")
async def test_reason_injection() -> None:
    """The scope that would have done is quoted in a header, and an event's name cannot leave its quotes."""
    async with running_hub() as hub:
        for name in ('org.x.", realm="evil', "org.x.\r\nX-Injected: 1", "org.x.ø"):
            sent = json.dumps(event(name)).encode()
            headers = hub.headers(hub.token(scope=""), **{"Content-Type": "application/json"})
            answer = await ask(hub, "POST", "/api/hub", headers, sent)
            assert answer.status in (400, 403)
            assert "evil" not in answer.headers.get("www-authenticate", "")
            assert "x-injected" not in answer.headers
