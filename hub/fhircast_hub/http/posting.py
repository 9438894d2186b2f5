"""An event that came in another way, answered as if it had been posted to hub.url."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fhircast_hub.http.request import Message, Receive, Scope, Send


async def post(
    app: Callable[[Scope, Receive, Send], Awaitable[None]], path: str, body: bytes, client: tuple[str, int]
) -> tuple[int, str]:
    """Post the JSON text `body`, without a token, to the ASGI application `app` at `path`, from the address `client`.

    The status, and what the answer's body says, on one line.
    """
    status, said = 0, b""

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        nonlocal status, said
        status = message.get("status", status)
        said += message.get("body", b"")

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"accept", b"text/plain")],
        "client": client,
    }
    await app(scope, receive, send)
    return status, said.decode(errors="replace").strip()
