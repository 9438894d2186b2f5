"""The address of a service for its client, mounted in another application or alone."""

from __future__ import annotations

from starlette.requests import Request


def service_url(request: Request) -> str:
    """The URL under which the client reached this service, without a slash at its end.

    `request.base_url` is that of the outermost application.
    """
    return str(request.base_url.replace(path=request.scope.get("root_path", ""))).rstrip("/")
