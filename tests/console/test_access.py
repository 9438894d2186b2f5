"""Who may see the console, and which part of it."""

from __future__ import annotations

import json

import pytest

from fhircast_hub.core.access.scopes import Scopes
from tests.auth.issuer_server import IssuerServer
from tests.console.console_world import READ, WRITE, operated
from tests.http.wire import ask
from tests.running import TOPIC, issuer_setting, running_hub
from tests.tokens import Idp

PATHS = ("", "/config", "/state", "/stream", "/console.js", "/sessions/end")


@pytest.mark.req("CSL-1")
@pytest.mark.parametrize("public_path", ["/api/hub", ""])
async def test_without_the_setting_there_is_no_console(public_path: str) -> None:
    """404 for each path, whatever the token; where hub.url is the root, the paths are topics as any."""
    async with running_hub(public_url=f"http://localhost{public_path}") as hub:
        assert hub.hub._console is None
        assert hub.hub.service.observe is None
        headers = hub.headers(hub.token(scope=f"fhircast/*.* {WRITE}"))
        for path in PATHS:
            answer = await hub.client.get(f"{hub.origin}/console{path}", headers=headers)
            assert answer.status_code == (404 if public_path else 200)
            assert "content-security-policy" not in answer.headers


@pytest.mark.req("CSL-1")
async def test_state_and_stream_need_a_token_with_the_scope() -> None:
    """401 and 403 with the challenge of RFC 6750, as elsewhere."""
    async with operated() as console:
        for path in ("/state", "/stream"):
            answer = await console.get(path, "")
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            for scope in ("fhircast/*.*", "fhircast-hub/sessions.write", "fhircast-hub/*.*", "fhircast-hub/console.*"):
                answer = await console.get(path, console.hub.token(scope=scope))
                assert answer.status_code == 403
                challenge = f'Bearer error="insufficient_scope", scope="{READ}"'
                assert answer.headers["WWW-Authenticate"] == challenge
        expired = console.hub.token(scope=READ, exp=int(console.hub.clock.now) - 3600)
        assert (await console.get("/state", expired)).status_code == 401
        for token, may_end in ((console.reader, False), (console.operator, True)):
            assert (await console.state(token))["time"]["mayEnd"] is may_end


@pytest.mark.req("CSL-1")
def test_no_wildcard_stands_for_an_operator() -> None:
    """Only the two names, letter by letter. Writing includes reading."""
    for scope in ("fhircast/*.*", "fhircast-hub/*.*", "fhircast-hub/console.*", "FHIRcast-hub/console.read"):
        scopes = Scopes.parse([scope])
        assert not scopes.console
        assert not scopes.console_write
    assert Scopes.parse([READ]) == Scopes(console=True)
    assert Scopes.parse([WRITE]) == Scopes(console=True, console_write=True)


@pytest.mark.req("CSL-1", "AUT-21")
async def test_the_scope_reaches_no_session_elsewhere() -> None:
    """An operator's token is no application's."""
    async with operated() as console:
        await console.open()
        assert (await console.hub.context(console.operator)).status_code == 403
        assert (await console.hub.form(console.operator, hub__events="Patient-open")).status_code == 403


@pytest.mark.req("CSL-2", "AUT-15")
async def test_an_operator_reaches_the_sessions_of_the_tokens_realm() -> None:
    """In the other realm the topic is unknown; facts of the hub are for every operator."""
    async with IssuerServer() as server:
        idp = Idp()
        south = issuer_setting(server, idp, realm="south")
        async with operated(others=[south]) as console:
            await console.open()
            theirs = idp.token("operator", WRITE, now=console.hub.clock.now)
            parts = await console.state(theirs, session=console.hash())
            assert (parts["sessions"]["total"], parts["sessions"]["rows"]) == (0, [])
            assert parts["session"] == {"hash": console.hash(), "gone": True}
            assert (parts["hub"]["sessions"], len(parts["issuers"]["issuers"])) == (1, 2)
            assert (await console.end({"topic": TOPIC, "reason": "x"}, theirs)).status_code == 404
            assert (await console.session())["topic"] == TOPIC
            # What one operator has found is not found by another.
            assert (await console.state(theirs, session=console.hash()))["session"]["gone"]


@pytest.mark.req("CSL-2", "AUT-8")
async def test_a_topic_claim_limits_an_operator() -> None:
    async with operated() as console:
        for topic in (TOPIC, "other"):
            await console.open(topic=topic)
        limited = console.hub.token("operator", WRITE, **{"hub.topic": "other"})
        parts = await console.state(limited, session=console.hash())
        assert [row["topic"] for row in parts["sessions"]["rows"]] == ["other"]
        assert parts["session"]["gone"]
        assert (await console.session())["topic"] == TOPIC
        assert (await console.state(limited, session=console.hash()))["session"]["gone"]
        assert (await console.end({"topic": TOPIC, "reason": "x"}, limited)).status_code == 403
        assert (await console.end({"topic": "other", "reason": "x"}, limited)).status_code == 204


@pytest.mark.req("CSL-1", "RAT-1")
async def test_the_rate_limits_hold() -> None:
    async with operated(rate_limit_token=2) as console:
        assert [(await console.get("/state")).status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.req("CSL-11")
async def test_no_page_of_another_origin_may_read_it() -> None:
    """No header of CORS is on an answer, and a preflight is refused."""
    async with operated(cors_origins=["*"]) as console:
        for path in ("", "/config", "/state"):
            headers = console.hub.headers(console.reader, Origin="https://evil.example")
            answer = await console.hub.client.get(console.url + path, headers=headers)
            assert answer.status_code == 200
            assert not [name for name in answer.headers if name.startswith("access-control")]
        asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
        answer = await console.hub.client.options(console.url + "/state", headers=asked)
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.req("CSL-11")
async def test_page_and_files_need_no_token_and_load_nothing_from_elsewhere() -> None:
    """A strict policy is on all answers. The page names its own files only."""
    async with operated() as console:
        page = await console.get("", "")
        policy = dict(each.split(" ", 1) for each in page.headers["content-security-policy"].split("; "))
        assert policy == {
            **dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'"),
            **dict.fromkeys(("script-src", "style-src", "connect-src"), "'self'"),
            "img-src": "'self' data:",
        }
        for path in ("", "/console.js", "/console.css", "/config"):
            answer = await console.get(path, "")
            assert answer.status_code == 200, path
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "://" not in page.text.replace("http://www.w3.org/2000/svg", "").replace("://localhost", "")
        assert "<style" not in page.text
        assert " style=" not in page.text
        assert " on" not in page.text.replace(" on the", "")
        for path in ("/../app.py", "/%2e%2e/app.py", "/index.html/x", "/x.js", "/.css"):
            assert (await ask(console.hub, "GET", f"/console{path}", {})).status == 404, path


@pytest.mark.req("CSL-10", "CSL-11")
@pytest.mark.parametrize("public_path", ["/api/hub", ""])
async def test_the_page_has_one_address(public_path: str) -> None:
    """Others lead there: the authorization server knows one redirect URI."""
    async with operated(public_url=f"http://localhost{public_path}") as console:
        for path in ("/", "/index.html", "/index.html/"):
            answer = await console.get(path, "", code="a b")
            assert (answer.status_code, answer.headers["location"]) == (308, "/console?code=a+b"), path
            assert (await console.get(path, "")).headers["location"] == "/console"
            assert (await console.hub.client.post(console.url + path)).status_code == 405


@pytest.mark.req("CSL-11")
async def test_wrong_methods_and_queries_are_refused() -> None:
    async with operated() as console:
        for method, path in (("POST", ""), ("POST", "/state"), ("DELETE", "/stream"), ("GET", "/sessions/end")):
            answer = await console.hub.client.request(method, console.url + path, headers=console.hub.headers())
            assert answer.status_code == 405
        assert (await console.get("/state", session="../../etc")).status_code == 400
        assert (await console.get("/state", search="x" * 10_000)).status_code == 400
        many = "&".join(f"x{number}=1" for number in range(20))
        answer = await console.hub.client.get(
            f"{console.url}/state?{many}", headers=console.hub.headers(console.reader)
        )
        assert answer.status_code == 400
        assert (await console.hub.client.head(console.url)).status_code == 200


@pytest.mark.req("CSL-11", "GET-10")
async def test_the_console_stands_beside_a_hub_at_the_root() -> None:
    """Its paths are no topics there."""
    async with operated(public_url="http://localhost/") as console:
        assert (await console.get("", "")).headers["content-type"].startswith("text/html")
        assert (await console.get("/state", "")).status_code == 401
        assert json.loads((await console.get("/config", "")).text)["hasLogin"] is False
