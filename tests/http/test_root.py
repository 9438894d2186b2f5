"""The root of the server: which methods its paths have, and what is answered to others."""

from __future__ import annotations

import pytest

from tests.http.wire import request, wire
from tests.running import TOPIC, running_hub

ROUTES = {
    "/health/live": "GET, HEAD",
    "/health/ready": "GET, HEAD",
    "/metrics": "GET, HEAD",
    "/openapi.json": "GET, HEAD",
    "/sessions": "POST",
    f"/sessions/{TOPIC}": "DELETE",
    f"/sessions/{TOPIC}/participants": "GET, HEAD",
}


@pytest.mark.req("OPS-1")
@pytest.mark.parametrize("path", [path for path, methods in ROUTES.items() if "HEAD" in methods])
async def test_head_answers_as_get_does_without_the_body(path: str) -> None:
    """Nobody reads a session's participants without a token. A body would be taken for the next answer."""
    async with running_hub() as hub, wire(hub) as connection:
        await hub.subscribe()
        for headers in ({}, hub.headers()):
            get = await hub.client.get(hub.origin + path, headers=headers)
            for _ in range(2):
                await connection.send(request("HEAD", path, headers))
                head = await connection.reply(body=False)
                assert (head.status, head.headers["content-type"]) == (get.status_code, get.headers["Content-Type"])


@pytest.mark.parametrize(("path", "methods"), ROUTES.items())
async def test_another_method_is_refused_by_name_of_those_that_work(path: str, methods: str) -> None:
    async with running_hub() as hub:
        answer = await hub.client.request("PUT", hub.origin + path, headers=hub.headers())
        assert (answer.status_code, answer.headers["Allow"]) == (405, methods)
        assert answer.text == f"the method must be {methods}\n"


async def test_a_slash_at_the_end_is_no_redirect() -> None:
    """Clients do not follow redirects on POST."""
    async with running_hub() as hub:
        for path in ("/sessions", "/sessions/"):
            answer = await hub.client.post(f"{hub.origin}{path}", headers=hub.headers(), json={"user": "user-1"})
            assert answer.status_code == 403
            assert answer.json()["message"].startswith("only system clients may begin or end sessions")
