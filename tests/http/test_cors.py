"""Browsers: which pages may talk to the hub, and that each of them can read why it was refused."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from tests.running import TOPIC, RunningHub, event, running_hub

PAGE = "https://viewer.example"
#: What libraries and tracing add to a page's requests.
ADDED = "authorization,content-type,x-medplum,traceparent,tracestate,baggage,sentry-trace,x-made-up"
PRIVATE = {"Access-Control-Request-Private-Network": "true"}
PATHS = ["", "/", f"/{TOPIC}", "/ws/x", "/metadata", "/.well-known/fhircast-configuration", "/a/b%2Fc"]


async def preflight_at(hub: RunningHub, url: str, origin: str, method: str, **more: str) -> httpx.Response:
    """What a browser asks before it sends a token."""
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type"}
    return await hub.client.options(url, headers={"Origin": origin, **asked, **more})


async def preflight(
    hub: RunningHub, path: str, origin: str = PAGE, method: str = "POST", headers: str = "authorization"
) -> httpx.Response:
    """The same under hub.url, for a request with these headers."""
    return await preflight_at(hub, hub.url + path, origin, method, **{"Access-Control-Request-Headers": headers})


def listed(answer: httpx.Response, name: str) -> set[str]:
    """The items of a list header, in lower case."""
    return {item.strip().lower() for item in answer.headers.get(name, "").split(",")}


@pytest.mark.req("CFG-6", "CFG-7")
async def test_a_preflight_allows_any_header_from_anywhere() -> None:
    """On every path, without a token: any origin, both methods, each header that is asked for, no credentials."""
    async with running_hub() as hub:
        for path in PATHS:
            for method in ("GET", "POST"):
                answer = await preflight(hub, path, method=method, headers=ADDED)
                assert answer.is_success, path
                assert answer.headers["Access-Control-Allow-Origin"] == "*"
                assert {"get", "post"} <= listed(answer, "Access-Control-Allow-Methods")
                assert set(ADDED.split(",")) == listed(answer, "Access-Control-Allow-Headers")
                assert "Access-Control-Allow-Credentials" not in answer.headers
        assert (await preflight(hub, "", method="DELETE")).status_code == 400


@pytest.mark.req("CFG-6", "CFG-7")
@pytest.mark.parametrize("origins", [["*"], [PAGE, "https://ehr.example"]])
async def test_a_page_may_ask_a_hub_in_its_users_network(origins: list[str]) -> None:
    """The browser is told so for allowed origins only, under hub.url and where pages read who takes part."""
    async with running_hub(cors_origins=origins) as hub:
        for url in (hub.url, f"{hub.url}/{TOPIC}", f"{hub.origin}/sessions/{TOPIC}/participants"):
            for origin in (PAGE, "https://evil.example", "null"):
                allowed = origin == PAGE or "*" in origins
                answer = await preflight_at(hub, url, origin, "GET", **PRIVATE)
                assert answer.is_success is allowed, (url, origin)
                assert answer.headers.get("Access-Control-Allow-Private-Network") == ("true" if allowed else None)
                assert answer.headers.get("Access-Control-Allow-Origin") in ((origin, "*") if allowed else (None,))
                assert "access-control-request-private-network" in listed(answer, "Vary")
                assert "Access-Control-Allow-Credentials" not in answer.headers
            unasked = await preflight_at(hub, url, PAGE, "GET")
            assert unasked.is_success
            assert "Access-Control-Allow-Private-Network" not in unasked.headers


async def every_kind_of_answer(hub: RunningHub, origin: str) -> list[tuple[int, httpx.Response]]:
    """Requests of a page and the status that each must get, one for every status that the hub can be brought to say."""
    page = hub.headers(Origin=origin)
    foreign = hub.headers(hub.token("user-2"), Origin=origin)
    form = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "Patient-open"}
    update: dict[str, Any] = event("DiagnosticReport-select")
    post, get = hub.client.post, hub.client.get
    return [
        (202, await post(hub.url, data=form, headers=page)),
        (202, await post(hub.url, json=event("Patient-open"), headers=page)),
        (200, await get(f"{hub.url}/{TOPIC}", headers=page)),
        (200, await get(hub.url + "/metadata", headers={"Origin": origin})),
        (200, await get(hub.url + "/.well-known/fhircast-configuration", headers={"Origin": origin})),
        (400, await post(hub.url, json={}, headers=page)),
        (401, await post(hub.url, json={}, headers={"Origin": origin})),
        (401, await get(f"{hub.url}/{TOPIC}", headers={"Origin": origin})),
        (403, await get(f"{hub.url}/{TOPIC}", headers=foreign)),
        (404, await post(hub.url, data=form | {"hub.channel.endpoint": "wss://x/y"}, headers=page)),
        (426, await get(hub.url + "/ws/x", headers=page)),
        (405, await hub.client.put(hub.url, headers=page)),
        (413, await post(hub.url, json={"x": "x" * 2000}, headers=page)),
        (415, await post(hub.url, content=b"x", headers=page)),
        (429, await post(hub.url, json=event("Patient-open", topic="another"), headers=page)),
        (409, await post(hub.url, json=update, headers=page)),
    ]


@pytest.mark.req("CFG-6")
async def test_a_page_can_read_every_answer() -> None:
    """Each answer of each route, refusals too, may be read by a page of any origin, and never goes with credentials."""
    async with running_hub(max_body_bytes=1000, max_topics_per_user=1) as hub:
        for status, answer in await every_kind_of_answer(hub, PAGE):
            assert answer.status_code == status, answer.text
            assert answer.headers.get("Access-Control-Allow-Origin") == "*", status
            assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.req("CFG-6")
async def test_a_page_can_read_that_the_hub_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page sees a failure of the hub's own as what it is, not as a network error."""

    async def fail(*_: object) -> None:
        raise RuntimeError

    async with running_hub() as hub:
        monkeypatch.setattr(hub.hub.service._store, "load", fail)
        answer = await hub.client.get(f"{hub.url}/{TOPIC}", headers=hub.headers(Origin=PAGE))
        assert answer.status_code == 500
        assert answer.headers.get("Access-Control-Allow-Origin") == "*"


@pytest.mark.req("CFG-6")
async def test_only_configured_origins_may_read() -> None:
    """With origins configured: each of them may read every answer, another may read none, nor pass a preflight."""
    async with running_hub(cors_origins=[PAGE, "https://ehr.example:8443"], max_body_bytes=1000) as hub:
        for origin in (PAGE, "https://ehr.example:8443"):
            assert (await preflight(hub, "", origin)).headers["Access-Control-Allow-Origin"] == origin
            for _, answer in await every_kind_of_answer(hub, origin):
                assert answer.headers.get("Access-Control-Allow-Origin") == origin
                assert "origin" in listed(answer, "Vary"), "a cache must not hand one origin's answer to another"
                assert "Access-Control-Allow-Credentials" not in answer.headers
        for origin in ("https://evil.example", "null", PAGE + ".evil.example", PAGE + ":444", "http://viewer.example"):
            assert "Access-Control-Allow-Origin" not in (await preflight(hub, "", origin)).headers
            for _, answer in await every_kind_of_answer(hub, origin):
                assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.req("CFG-6")
async def test_a_cookie_changes_nothing() -> None:
    """Whoever sends cookies is still not told that credentials are welcome, and they are no token."""
    async with running_hub() as hub:
        cookie = {"Origin": PAGE, "Cookie": f"access_token={hub.token()}; Authorization=Bearer {hub.token()}"}
        answer = await hub.client.get(f"{hub.url}/{TOPIC}", headers=cookie)
        assert answer.status_code == 401
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.req("CFG-6")
async def test_a_page_can_read_what_to_do_about_a_refusal() -> None:
    """Retry-After and WWW-Authenticate are exposed to scripts."""
    async with running_hub() as hub:
        answer = await hub.client.get(f"{hub.url}/{TOPIC}", headers={"Origin": PAGE})
        assert {"retry-after", "www-authenticate"} <= listed(answer, "Access-Control-Expose-Headers")


async def test_options_without_an_origin_is_no_preflight() -> None:
    """A tool that asks what the hub does gets its methods, without a token."""
    async with running_hub() as hub:
        answer = await hub.client.options(hub.url)
        assert answer.is_success
        assert {"get", "post", "options"} <= listed(answer, "Allow")


@pytest.mark.req("CFG-6", "SES-3")
async def test_a_page_can_read_who_takes_part_and_begin_or_end_no_session() -> None:
    """The one route outside hub.url that pages need; what begins and ends sessions is for servers."""
    async with running_hub(cors_origins=[PAGE]) as hub:
        await hub.subscribe("Patient-open")
        participants = f"{hub.origin}/sessions/{TOPIC}/participants"
        answer = await hub.client.get(participants, headers=hub.headers(Origin=PAGE))
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        foreign = await hub.client.get(participants, headers=hub.headers(Origin="https://evil.example"))
        assert "Access-Control-Allow-Origin" not in foreign.headers
        for path, method, allowed in (
            (f"/{TOPIC}/participants", "GET", True),
            ("", "POST", False),
            (f"/{TOPIC}", "DELETE", False),
        ):
            added = {"Access-Control-Request-Headers": ADDED}
            preflighted = await preflight_at(hub, f"{hub.origin}/sessions{path}", PAGE, method, **added)
            assert preflighted.is_success is allowed, path


@pytest.mark.req("CFG-6", "OPS-17")
async def test_a_refused_preflight_tells_why_in_the_log_too() -> None:
    """Of the origin, or of the method. The page's own text is in neither."""
    async with running_hub(cors_origins=[PAGE]) as hub:
        for origin, method, reason in (
            ("https://evil.example", "POST", "the header Origin must be an origin of FHIRCAST_CORS_ORIGINS"),
            ("https://evil.example", "DELETE", "the header Origin must be an origin of FHIRCAST_CORS_ORIGINS"),
            (PAGE, "NORDMANN", "pages may send GET, POST, OPTIONS here, and no other method"),
        ):
            with capture_logs() as lines:
                answer = await preflight(hub, "", origin, method)
            assert (answer.status_code, answer.text) == (400, f"{reason}\n")
            assert "origin" in listed(answer, "Vary")
            (line,) = lines
            assert (line["status"], line["reason"]) == (400, reason)
            assert line["request_id"] == answer.headers["x-request-id"]
