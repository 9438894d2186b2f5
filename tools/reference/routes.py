"""docs/reference/openapi.md: the routes of the hub, from its OpenAPI description."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from structlog.testing import capture_logs

from fhircast_hub.app import Hub
from fhircast_hub.http.openapi import REFUSALS
from fhircast_hub.settings.reading import load
from tools.reference.markdown import code, head, table

#: Who may call routes with a token, by the start of the path. The others need no token.
_WHO = {
    "/sessions/{topic}/participants": "subscribers of the session, system clients",
    "/sessions": "system clients",
    "/api/hub": "applications",
}


def description() -> dict[str, Any]:
    """The description that a hub with default settings answers at /openapi.json."""
    return asyncio.run(_ask())


async def _ask() -> dict[str, Any]:
    hub = Hub(load(None, {"FHIRCAST_STORE": "memory:"}))
    transport = httpx.ASGITransport(app=hub)
    with capture_logs():
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        async with client:
            answer = await client.get("/openapi.json")
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def as_file() -> str:
    """The description as the text of a file."""
    return json.dumps(description(), indent=2, ensure_ascii=False) + "\n"


def rows(described: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Method, path, caller, purpose and answers of each route."""
    found = []
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            if method != "parameters":
                who = next((_WHO[start] for start in _WHO if path.startswith(start)), "")
                caller = who if operation.get("security") else "anybody"
                found.append((method.upper(), code(path), caller, f"{operation['summary']}.", _answers(operation)))
    return found


def _answers(operation: dict[str, Any]) -> str:
    """The statuses of an operation. Those that any request with a token may get are one word."""
    own = [status for status in operation["responses"] if not (operation.get("security") and int(status) in REFUSALS)]
    return ", ".join([*own, "[refusals](errors.md)"] if operation.get("security") else own)


def page() -> str:
    """The page."""
    return (
        head("HTTP routes and OpenAPI", "tools/reference/routes.py")
        + _INTRO
        + table(("method", "path", "who", "purpose", "answers"), rows(description()))
        + _END
    )


_INTRO = """
A running hub describes its HTTP routes at `/openapi.json`, in OpenAPI 3.1. No token is needed:

```sh title="Terminal 1"
curl -sS http://localhost:8080/openapi.json | python3 -c "import json, sys; print(json.load(sys.stdin)['openapi'])"
```

```text title="Terminal 1 shows"
3.1.0
```

The description of a hub with default settings is [openapi.json](openapi.json) beside this page.
With another path in `FHIRCAST_PUBLIC_URL` the paths below `/api/hub` change.
"""
_END = """`{topic}` is the topic, escaped once. [GET-10](../behaviour.md#get-10) and [GET-12](../behaviour.md#get-12) have the rules of slashes.
[Refusals](errors.md) has the texts of all statuses from 400 on. A handshake at an endpoint of a WebSocket is no route of OpenAPI:
[SUB-11](../behaviour.md#sub-11) and [SUB-25](../behaviour.md#sub-25) say how the hub answers.

The description is complete for requests: a test sends whatever the description allows, and compares the answers.
OpenAPI has no words for what comes on a WebSocket. [Behaviour](../behaviour.md#ctx-current-context-on-joining) and
[the wire](../from-ccow/wire.md) have the frames.
"""
