"""SEC-2: what answers to somebody without a token, and that nothing else does."""

from __future__ import annotations

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, Visitor
from tests.running import TOPIC, event

#: The only doors that are open: CFG-1, CFG-6, CFG-3, OPS-1.
OPEN = {
    ("GET", "/api/hub/.well-known/fhircast-configuration"),
    ("GET", "/api/hub/metadata"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
}
#: Paths under hub.url, and paths that hubs, frameworks and other versions of this one have.
UNDER_HUB = (
    "",
    "/",
    f"/{TOPIC}",
    "/ws",
    "/.well-known/x",
    "/metadata/x",
    "/health/live",
    "/metrics",
    "/%2e%2e",
)
ELSEWHERE = (
    *(
        "/",
        "/docs",
        "/redoc",
        "/openapi.json/x",
        "/api",
        "/api/hubs",
        "/api/hu%62x",
        "/dev/jwks",
        "/bind/x",
    ),
    *("/console", "/console/state", "/console/stream", "/console/sessions/end"),
    *("/admin", "/debug", "/health", "/metrics/x", "/api/hub/../../metrics/x"),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@pytest.mark.req("SEC-2", "OPS-1", "CFG-1", "CFG-3")
async def test_the_documented_doors_are_open(hub: HubProcess) -> None:
    """Discovery, the CapabilityStatement, health and metrics answer without a token, and only to GET and HEAD."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, base_url=hub.origin) as client:
        for method, path in OPEN:
            assert (path, (await client.request(method, path)).status_code) == (path, 200)
            for other in ("POST", "PUT", "DELETE"):
                assert (await client.request(other, path)).status_code in (401, 405)


@pytest.mark.req("SEC-2", "AUT-1")
@pytest.mark.parametrize("method", METHODS)
async def test_every_path_under_hub_url_asks_for_a_token(hub: HubProcess, method: str) -> None:
    """401 comes before everything else, on every verb and for a body of any kind."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, base_url=hub.origin) as client:
        for path in UNDER_HUB:
            answer = await client.request(method, f"/api/hub{path}", json=event("Patient-open"))
            assert (path, answer.status_code, answer.headers.get("WWW-Authenticate")) == (path, 401, "Bearer")
            forged = await client.request(method, f"/api/hub{path}", headers={"Authorization": "Bearer x"})
            assert (path, forged.status_code) == (path, 401)


@pytest.mark.req("SEC-2", "AUT-1", "SES-1")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/sessions"),
        ("GET", f"/sessions/{TOPIC}/participants"),
        ("HEAD", f"/sessions/{TOPIC}/participants"),
        ("DELETE", f"/sessions/{TOPIC}"),
    ],
)
async def test_the_session_api_asks_for_a_token(hub: HubProcess, method: str, path: str) -> None:
    """Before it looks at anything else."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, base_url=hub.origin) as client:
        answer = await client.request(method, path, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == (401, "Bearer")


@pytest.mark.req("SEC-2")
async def test_there_are_no_other_doors(hub: HubProcess) -> None:
    """Not those of the framework, of `dev`, of `dev --legacy`, nor any that redirect."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, base_url=hub.origin) as client:
        for path in ELSEWHERE:
            for method in METHODS:
                answer = await client.request(method, path)
                assert (method, path, answer.status_code) == (method, path, 404)


@pytest.mark.req("SEC-2")
async def test_nothing_redirects_to_where_a_header_says(hub: HubProcess) -> None:
    """A slash at the end of a path at the root does not lead to another host."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, base_url=hub.origin) as client:
        for path in ("/health/live/", "/health/ready/", "/metrics/"):
            assert "Location" not in (await client.get(path, headers={"Host": "evil.example"})).headers


@pytest.mark.req("SEC-2", "AUT-2")
async def test_a_token_elsewhere_than_in_its_header_opens_nothing(hub: HubProcess, issuer: IssuerThread) -> None:
    """A good token in the query, a cookie or the form is no token."""
    async with Visitor(hub, issuer.idp) as visitor:
        token = visitor.token()
        for parameters, cookie in (({"access_token": token}, ""), ({}, f"access_token={token}")):
            answer = await visitor.client.get(f"{visitor.url}/{TOPIC}", params=parameters, headers={"Cookie": cookie})
            assert answer.status_code == 401
        assert (await visitor.client.post(visitor.url, data={"access_token": token})).status_code == 401


@pytest.mark.req("SEC-2", "SUB-11")
async def test_a_token_is_no_endpoint(hub: HubProcess, issuer: IssuerThread) -> None:
    """A WebSocket to the topic or to anything but an endpoint is refused, with a good token too."""
    async with Visitor(hub, issuer.idp) as visitor:
        endpoint = await visitor.subscribe()
        for path in (
            "/api/hub",
            f"/api/hub/{TOPIC}",
            "/api/hub/ws/",
            f"/bind/{endpoint.rpartition('/')[2]}",
            "/metrics",
        ):
            with pytest.raises(InvalidStatus) as refusal:
                async with connect(
                    f"ws://127.0.0.1:{hub.port}{path}", proxy=None, additional_headers=visitor.headers()
                ):
                    pass
            assert refusal.value.response.status_code == 404
