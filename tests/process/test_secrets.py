"""SEC-1: a story full of names that are found nowhere else, and nowhere afterwards."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from tests.collector import Collector, collector
from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, Visitor, hub_process
from tests.process.workers_world import wait
from tests.running import event

#: What a patient, a place, a session or somebody's secret is called here. Each is one word, whatever it is wrapped in.
FAMILY, GIVEN, NUMBER = "Quastenflosser", "Nepomuk", "mrn7712000193"
TOPIC, PLACE, USER = "kestreltopic4411", "Ibisworkstation", "ptarmiganuser"
GUESS, KEY = "wobblegongguess", "axolotlsecret"
WORDS = (FAMILY, GIVEN, NUMBER, TOPIC, PLACE, USER, GUESS, KEY)
#: What every parameter of a form is given in turn, wrong and right.
PARAMETERS = (
    *("hub.channel.type", "hub.mode", "hub.topic", "hub.events", "hub.lease_seconds", "hub.channel.endpoint"),
    *("subscriber.name", "hub.callback", "hub.secret", "hub.lease", "endpoint", f"hub.{KEY}"),
)
#: A refusal may say these by value (behaviour.md, first page): modes, channel types and event names.
QUOTED = {"hub.channel.type", "hub.mode", "hub.events", "hub.event", f"hub.{KEY}"}
#: Members of an event's envelope, in which something else than expected is put.
MEMBERS = ("timestamp", "id", "event", "hub.topic", "hub.event", "context")


class Story(NamedTuple):
    """What was left of it."""

    stdout: str
    stderr: str
    metrics: str
    #: the answers to requests that were refused
    refusals: list[str]
    #: tokens and endpoints
    tickets: list[str]
    store: bytes
    files: dict[str, int]
    #: What a collector of OpenTelemetry was sent, byte for byte.
    traces: str
    #: Names of the exported spans.
    spans: set[str]


@pytest.fixture(scope="module", params=["json", "console"])
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, issuer: IssuerThread
) -> Iterator[Story]:
    """The story at the loudest log level, in each of the formats."""
    folder = tmp_path_factory.mktemp("story")
    settings = {"issuers": issuer.settings, "log_level": "debug", "log_format": request.param}
    with collector() as traces, hub_process(folder, environ=asked(traces), **settings) as hub:
        refusals, tickets, metrics = asyncio.run(_tell(hub, issuer))
        files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob("fhircast-hub.db*")}
        store = b"".join(path.read_bytes() for path in sorted(folder.glob("fhircast-hub.db*")))
        wait(lambda: {span.name for span in traces.spans()} >= SPANS)
        assert hub.stop() == 0
        store += (folder / "fhircast-hub.db").read_bytes()
        exported = b"".join(traces.bodies).decode("latin-1")
        spans = {span.name for span in traces.spans()}
        yield Story(hub.stdout, hub.stderr, metrics, refusals, tickets, store, files, exported, spans)


def asked(traces: Collector) -> dict[str, str]:
    """The variables of all that may export something."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}


#: The names of the spans of a story.
SPANS = {"publish", "subscribe", "context", "socket", "decide", "commit", "write", "other"}

#: What a page's tracing may write.
TRACING = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": f"vendor={FAMILY}",
    "baggage": f"patient={NUMBER},user={USER}",
}


def patient(**more: str) -> dict[str, object]:
    """An open of a patient with a name."""
    resource = {"resourceType": "Patient", "id": NUMBER, "name": [{"family": FAMILY, "given": [GIVEN]}]}
    opened = event("Patient-open", topic=TOPIC, event_id=f"{NUMBER}-open")
    opened["event"]["context"] = [{"key": "patient", "resource": resource}]
    return opened | more


async def _tell(hub: HubProcess, issuer: IssuerThread) -> tuple[list[str], list[str], str]:
    async with Visitor(hub, issuer.idp) as visitor:
        token = visitor.token(USER)
        endpoint = await visitor.subscribe("Patient-open", token, hub__topic=TOPIC, subscriber__name=PLACE)
        async with visitor.follow(f"{endpoint}?access_token={KEY}") as follower:
            assert (await visitor.publish(patient(), token)).status_code == 202
            assert FAMILY in json.dumps(await follower.next())
            await _speak(follower.connection.send)
            await follower.closed()
        assert (await visitor.context(token, TOPIC)).status_code == 200
        refusals = [*await _wrong_forms(visitor, token), *await _wrong_events(visitor, token)]
        refusals += [*await _wrong_paths(visitor, token), *await _wrong_tokens(visitor)]
        await _knock(visitor)
        metrics = (await visitor.client.get(f"{visitor.origin}/metrics")).text
        return refusals, [token, endpoint], metrics


async def _speak(send: object) -> None:
    """Frames that mean nothing: the last is too large, and closes the socket."""
    assert callable(send)
    for frame in (FAMILY, FAMILY.encode(), json.dumps({"id": NUMBER, "status": GIVEN}), "x" * 70_000 + KEY):
        await send(frame)


async def _wrong_forms(visitor: Visitor, token: str) -> list[str]:
    good = {
        **{"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC},
        **{"hub.events": "Patient-open", "subscriber.name": PLACE},
    }
    headers = visitor.headers(token)
    answers = []
    for name in PARAMETERS:
        for value in (f"{KEY} {FAMILY}\n", KEY * 100, f"{KEY}\ud800"):
            body = json.dumps(good | {name: value})
            url = visitor.url if name == "hub.topic" else f"{visitor.url}/{TOPIC}"
            answer = await _post(visitor, url, body, headers | {"Content-Type": "application/json"})
            answers.append("" if name in QUOTED else answer)
    twice = [*good.items(), ("hub.topic", KEY)]
    body = "&".join(f"{name}={quote(value)}" for name, value in twice)
    return [
        *answers,
        await _post(visitor, visitor.url, body, headers | {"Content-Type": "application/x-www-form-urlencoded"}),
    ]


async def _wrong_events(visitor: Visitor, token: str) -> list[str]:
    headers = visitor.headers(token, **{"Content-Type": "application/json"})
    answers = []
    for member in MEMBERS:
        for value in (
            KEY,
            f"{FAMILY}\n",
            {KEY: FAMILY},
            [{"key": KEY, "resource": {"resourceType": GIVEN}}],
            7712000193,
        ):
            wrong = json.loads(json.dumps(patient()))
            (wrong if member in wrong else wrong["event"])[member] = value
            answer = await _post(visitor, visitor.url, json.dumps(wrong), headers)
            answers.append("" if member in QUOTED else answer)
    whole = json.dumps(patient())
    broken = (
        whole[:-9],
        whole + KEY,
        f'{{"{FAMILY}": {KEY}',
        f'["{FAMILY}"]',
        f'"{KEY}"',
        whole.replace('"id"', f'"{KEY}'),
    )
    answers += [await _post(visitor, visitor.url, body, headers) for body in broken]
    answers.append(await _post(visitor, visitor.url, "x" * 2_000_000 + KEY, headers))
    answers.append(await _post(visitor, visitor.url, whole, headers | {"Content-Type": f"text/{KEY}"}))
    return answers


async def _wrong_paths(visitor: Visitor, token: str) -> list[str]:
    answers = []
    for path in (
        f"/{KEY}",
        f"/health/{KEY}",
        f"/api/hub/ws/{GUESS}",
        f"/api/hub/%FF{KEY}",
        f"/api/hub/{TOPIC}/%0A{FAMILY}",
    ):
        for method in ("GET", "POST", "DELETE"):
            url = f"{visitor.origin}{path}?patient={FAMILY}&access_token={KEY}"
            headers = visitor.headers(
                token, Cookie=KEY, Referer=f"https://ehr.example/{NUMBER}", Origin=f"https://{KEY}.example", **TRACING
            )
            answers.append((await visitor.client.request(method, url, headers=headers)).text)
    return answers


async def _wrong_tokens(visitor: Visitor) -> list[str]:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    tokens = [
        KEY,
        f"{KEY}.{KEY}.{KEY}",
        f"{part({'alg': 'none', 'kid': KEY})}.{part({'iss': KEY, 'sub': USER})}.{KEY}",
        f"{part({'alg': KEY})}.{part({'iss': f'https://{KEY}.example'})}.",
        visitor.idp.token(USER, headers={"kid": KEY}),
        visitor.idp.token(USER, aud=KEY),
        visitor.idp.token(USER, exp=1),
        visitor.idp.token(USER, scope=f"patient/{NUMBER}.read {KEY}"),
        visitor.token(USER, **{"hub.topic": KEY}),
    ]
    answers = []
    for token in tokens:
        for scheme in ("Bearer", KEY):
            headers = {"Authorization": f"{scheme} {token}"}
            answers.append((await visitor.client.get(f"{visitor.url}/{TOPIC}", headers=headers)).text)
    return answers


async def _knock(visitor: Visitor) -> None:
    """WebSocket handshakes at endpoints that somebody made up, and what is no HTTP."""
    for path in (
        f"/api/hub/ws/{GUESS}",
        f"/api/hub/ws/{GUESS}?token={KEY}",
        f"/bind/{GUESS}",
        f"/{GUESS}",
        f"/api/hub/{TOPIC}",
    ):
        with pytest.raises(InvalidHandshake):
            async with connect(
                f"ws://127.0.0.1:{visitor.port}{path}",
                proxy=None,
                additional_headers={"Authorization": f"Bearer {KEY}"},
            ):
                pass
    for raw in (
        f"{KEY} / HTTP/1.1\r\n\r\n",
        f"GET /{KEY} HTTP/9\r\n\r\n",
        f"GET /{KEY} HTTP/1.1\r\n{KEY}\r\n\r\n",
        f"GET /api/hub/ws/{GUESS} HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
        f"GET /api/hub/ws/{GUESS} HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: {KEY}\r\nHost: {KEY}\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", visitor.port)
        writer.write(raw.encode())
        writer.write_eof()
        await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()


async def _post(visitor: Visitor, url: str, body: str, headers: dict[str, str]) -> str:
    """The text of the answer; "" if it was no refusal, or none at all."""
    try:
        answer = await visitor.client.post(url, content=body, headers=headers, timeout=2)
    except httpx.TransportError:
        return ""
    return answer.text if answer.status_code >= 400 else ""


def found(text: str, *, beyond: tuple[str, ...] = ()) -> set[str]:
    """Which of WORDS, and of what else is to be looked for, is in the text."""
    return {word for word in (*WORDS, *beyond) if word.lower() in text.lower()}


@pytest.mark.req("SEC-1")
def test_nothing_is_logged_that_is_somebodys(story: Story) -> None:
    """No token, endpoint, topic, name or patient in any line, not even where the hub itself was at fault."""
    assert len(story.stdout.splitlines()) > 100
    tickets = tuple(part for ticket in story.tickets for part in re.split(r"[./]", ticket) if len(part) > 30)
    assert len(tickets) == 4
    assert found(story.stdout + story.stderr, beyond=tickets) == set()
    assert story.stderr == ""


@pytest.mark.req("SEC-1")
def test_nothing_is_counted_that_is_somebodys(story: Story) -> None:
    """Nor in the metrics, whose labels are few."""
    assert 'fhircast_requests_total{route="publish",status="202"}' in story.metrics
    assert found(story.metrics) == set()
    assert len(re.findall("^fhircast_requests_total", story.metrics, re.MULTILINE)) < 40


@pytest.mark.req("SEC-1")
def test_nothing_is_traced_that_is_somebodys(story: Story) -> None:
    """Nor in any byte that goes to a collector, also where a client writes into the headers of its trace."""
    assert story.spans >= SPANS
    tickets = tuple(part for ticket in story.tickets for part in re.split(r"[./]", ticket) if len(part) > 30)
    assert found(story.traces, beyond=tickets) == set()


@pytest.mark.req("SEC-1", "SUB-5", "EVT-5")
def test_no_refusal_says_what_came(story: Story) -> None:
    """Errors name what came by type and length."""
    assert sum(bool(text) for text in story.refusals) > 60
    for text in story.refusals:
        assert found(text) == set(), text


@pytest.mark.req("SEC-1")
def test_the_store_holds_no_ticket(story: Story) -> None:
    """Topics and patients are in the file, of course; no endpoint and no token is, nor in its log."""
    assert {TOPIC, FAMILY, PLACE} <= found(story.store.decode("latin-1"))
    tickets = [part for ticket in story.tickets for part in re.split(r"[./]", ticket) if len(part) > 20]
    assert len(tickets) == 4
    for ticket in tickets:
        assert ticket.encode() not in story.store
    assert GUESS.encode() not in story.store


@pytest.mark.req("SEC-1")
def test_only_the_hub_reads_the_store(story: Story) -> None:
    """The file, its log and its lock have mode 0600."""
    assert {"fhircast-hub.db", "fhircast-hub.db-wal"} <= story.files.keys()
    assert set(story.files.values()) == {0o600}
