"""Publishes an event that did not come over HTTP, as if it had been posted to hub.url."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fhircast_hub.http.request import Message, Receive, Scope, Send


async def post(
    app: Callable[[Scope, Receive, Send], Awaitable[None]], path: str, body: bytes, client: tuple[str, int]
) -> tuple[int, str]:
    """Post JSON without a token to the ASGI application `app`. `client` is the address and port of the sender.

    Returns the answer's status and its body on one line.
    """
    status, text = 0, b""

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        nonlocal status, text
        status = message.get("status", status)
        text += message.get("body", b"")

    await app(_scope(path, client), receive, send)
    return status, text.decode(errors="replace").strip()


def _scope(path: str, client: tuple[str, int]) -> Scope:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"accept", b"text/plain")],
        "client": client,
    }
