"""The hub reads a subscription request, and refuses a request that makes no sense."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.http.subscribing_world import post
from tests.running import TOPIC, Follower, running_hub

FORM = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "Patient-open"}
ENDPOINT = "hub__channel.endpoint"
AS_JSON = {"Content-Type": "application/json"}


@pytest.mark.req("SUB-1")
@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_endpoint_comes_from_the_public_url(slash: str) -> None:
    """202 with exactly one member of JSON: scheme, host and path are the setting's, whatever the headers say."""
    lies = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "http",
        "Forwarded": "host=evil.example;proto=http",
        "Origin": "https://evil.example",
    }
    async with running_hub(public_url="https://hub.example:8443/api/hub" + slash) as hub:
        answer = await hub.client.post(hub.url + slash, data=FORM, headers=hub.headers(**lies))
        assert (answer.status_code, answer.headers["Content-Type"]) == (202, "application/json")
        assert list(answer.json()) == ["hub.channel.endpoint"]
        assert answer.json()["hub.channel.endpoint"].startswith("wss://hub.example:8443/api/hub/ws/")


@pytest.mark.req("SUB-4")
async def test_a_missing_parameter_is_named() -> None:
    """400 names the one that is missing; when unsubscribing, hub.events is none of them."""
    async with running_hub() as hub:
        for mode in ("subscribe", "unsubscribe"):
            for name in FORM:
                if (mode, name) == ("unsubscribe", "hub.events"):
                    continue
                form = {key: value for key, value in (FORM | {"hub.mode": mode}).items() if key != name}
                answer = await post(hub, form)
                assert answer.status_code == 400, name
                assert name in answer.text
        endpoint = await hub.subscribe()
        assert (await hub.form(hub__mode="unsubscribe", **{ENDPOINT: endpoint})).status_code == 202


@pytest.mark.req("SUB-4")
async def test_a_callback_without_a_type_means_a_webhook() -> None:
    """It is read as a webhook, and not as a form without a type; beside websocket it is ignored."""
    async with running_hub() as hub:
        callback = {"hub.callback": "https://127.0.0.1/callback", "hub.secret": "s"}
        answer = await post(hub, {name: FORM[name] for name in FORM if name != "hub.channel.type"} | callback)
        assert answer.status_code == 400
        assert "hub.callback" in answer.text
        assert (await post(hub, FORM | callback)).status_code == 202
        assert (await post(hub, FORM | {"hub.callback": "", "hub.secret": ""})).status_code == 202


@pytest.mark.req("SUB-5")
async def test_a_form_that_makes_no_sense_is_refused_in_one_line() -> None:
    """400, as text of one line; where Accept prefers JSON, as a message in it. Nobody owns the topic afterwards."""
    wrong = [
        {"hub.mode": "publish"},
        {"hub.mode": "Subscribe"},
        {"hub.mode": ""},
        {"hub.channel.type": "carrier-pigeon"},
        {"hub.channel.type": "webhook"},
        {"hub.channel.type": "webhook", "hub.callback": "https://127.0.0.1/"},
        *({"hub.lease_seconds": value} for value in ("0", "-1", "1.5", "1e3", "soon", "", "٣", "+5", "0x10")),
        *({"hub.events": value} for value in ("", " , ,", "Patient open", "-open", "ø-open", "a" * 129, "a,b;c")),
        *({"hub.topic": value} for value in ("", "  ", "t" * 1025, ".well-known", "metadata", "ws", " ws ")),
        *({"hub.topic": f"a{control}b"} for control in "\0\t\n\r\x1f\x7f\x85\u2028"),
        {"subscriber.name": "a\nb"},
        {"subscriber.name": "n" * 257},
        {"hub.channel.endpoint": "wss://a\rb"},
    ]
    async with running_hub() as hub:
        for members in wrong:
            answer = await post(hub, FORM | members)
            assert answer.status_code == 400, members
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert answer.text.strip()
            assert len(answer.text.splitlines()) == 1
            answer = await post(hub, FORM | members, Accept="application/json")
            assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/json")
            assert list(answer.json()) == ["message"]
        assert (await hub.context(hub.token("user-2"))).status_code == 200
        assert hub.hub.service.usage.subscriptions == 0


@pytest.mark.req("SUB-5", "SUB-18", "SUB-13", "SUB-27")
async def test_the_edges_of_what_is_taken() -> None:
    """Longest names, unknown events, spaces, trailing commas, a leading zero: real clients send them, and they are granted."""
    fine = [
        {"hub.topic": "t" * 1024},
        {"hub.topic": "ws2"},
        {"hub.topic": "  padded  ", "hub.mode": " subscribe ", "hub.channel.type": "websocket\r\n"},
        {"hub.events": "open-patient-chart, DiagnosticReport-opened,"},
        {"hub.events": "a" * 128},
        {"hub.lease_seconds": "007"},
        {"hub.lease_seconds": "9" * 5000},
        {"subscriber.name": "n" * 256},
        {"hub.channel.endpoint": ""},
        {"hub.unknown": "x", "access_token": "y"},
    ]
    async with running_hub() as hub:
        for members in fine:
            answer = await post(hub, FORM | members)
            assert answer.status_code == 202, (members, answer.text)
        assert (await hub.context(hub.token("user-2"), "padded")).status_code == 403  # user-1's, without the spaces
        assert (await hub.context(hub.token("user-2"), "%20padded")).status_code == 200


@pytest.mark.req("SUB-6")
async def test_a_parameter_twice_is_refused() -> None:
    """Whether both say the same or not, in a form and in JSON."""
    plain = b"hub.channel.type=websocket&hub.mode=subscribe&hub.topic=t&hub.events=Patient-open"
    members = b'{"hub.channel.type":"websocket","hub.mode":"subscribe","hub.topic":"t","hub.events":"Patient-open"%b}'
    async with running_hub() as hub:
        assert (await post(hub, plain)).status_code == 202
        for extra in (b"hub.topic=t", b"hub.topic=u", b"%68ub.topic=t", b"hub.events=Patient-close", b"hub.mode="):
            assert (await post(hub, plain + b"&" + extra)).status_code == 400, extra
        assert (await post(hub, members % b"", **AS_JSON)).status_code == 202
        assert (await post(hub, members % b',"hub.topic":"t"', **AS_JSON)).status_code == 400


@pytest.mark.req("SUB-7")
async def test_another_content_type_is_refused() -> None:
    """415, also for none, and the text says what would have done."""
    async with running_hub() as hub:
        for sent in (None, "", "text/plain", "multipart/form-data; boundary=x", "text/json", "application/xml", "*/*"):
            headers = hub.headers() if sent is None else hub.headers(**{"Content-Type": sent})
            answer = await hub.client.post(hub.url, content=b"hub.mode=subscribe", headers=headers)
            assert answer.status_code == 415
            assert "application/x-www-form-urlencoded" in answer.text


@pytest.mark.req("SUB-7", "SUB-16")
@pytest.mark.parametrize(
    "sent", ["application/json", "application/fhir+json", "application/json;charset=utf-8", "Application/JSON ; x=y"]
)
async def test_a_json_object_with_a_mode_is_a_form(sent: str) -> None:
    """As JSON, with hub.events as an array, and numbers as numbers: what is granted is the same."""
    async with running_hub() as hub:
        form = FORM | {
            "hub.events": ["patient-open", " Patient-Close"],
            "hub.lease_seconds": 60,
            "subscriber.name": None,
        }
        answer = await hub.client.post(hub.url, json=form, headers=hub.headers(**{"Content-Type": sent}))
        async with connect(answer.json()["hub.channel.endpoint"], proxy=None) as connection:
            confirmation = await Follower(connection).next()
            assert confirmation["hub.events"] == "patient-open,Patient-Close"
            assert confirmation["hub.lease_seconds"] == 60


@pytest.mark.req("SUB-5", "SUB-16")
@pytest.mark.parametrize("name", ["hub.topic", "subscriber.name", "hub.channel.endpoint", "hub.events", "hub.mode"])
async def test_half_a_surrogate_is_no_text(name: str) -> None:
    """JSON can spell what UTF-8 cannot say; no such value is taken in, and nothing stands in the log of failures."""
    async with running_hub() as hub:
        half = json.dumps(FORM | {name: "a\ud800b"}).encode()
        assert (await post(hub, half, **AS_JSON)).status_code == 400


@pytest.mark.req("SUB-16")
async def test_no_form_stops_the_store(tmp_path: Path) -> None:
    """One client's odd topic does not keep all the others from being written for good."""
    async with running_hub(store=f"sqlite:///{tmp_path / 'hub.db'}") as hub:
        odd = asyncio.create_task(post(hub, json.dumps(FORM | {"hub.topic": "\ud800"}).encode(), **AS_JSON))
        await asyncio.wait([odd], timeout=1)
        assert (await hub.form(hub__events="Patient-open")).status_code == 202
        assert (await odd).status_code == 400
