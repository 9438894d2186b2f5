"""The one map from an error to what goes over the wire (FHIRcast 3.0.0, 2.4; RFC 6750 section 3)."""

from __future__ import annotations

import msgspec

from fhircast_hub.api.http import Response
from fhircast_hub.core.errors import HubError, InsufficientScope, MethodNotAllowed, Unauthenticated, UpgradeRequired


def to_response(error: HubError, accept: str) -> Response:
    """Status, headers and one line of reason: `text/plain`, or `{"message": ...}` where `accept` prefers JSON."""
    message = str(error)
    headers: list[tuple[bytes, bytes]] = []
    if challenge := _challenge(error):
        headers.append((b"www-authenticate", challenge.encode("ascii", "replace")))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    if isinstance(error, UpgradeRequired):
        # "A sender of Upgrade MUST also send an "Upgrade" connection option in the Connection header field" (9110, 7.8)
        headers += [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if _prefers_json(accept):
        return Response(error.status, msgspec.json.encode({"message": message}), b"application/json", headers)
    return Response(error.status, message.encode() + b"\n", b"text/plain; charset=utf-8", headers)


def _challenge(error: HubError) -> str:
    if isinstance(error, Unauthenticated):
        # "If the request lacks any authentication information […] the resource server SHOULD NOT include an error code" (6750, 3.1)
        return 'Bearer error="invalid_token"' if error.presented else "Bearer"
    if isinstance(error, InsufficientScope):
        return f'Bearer error="insufficient_scope", scope="{error.scope}"'
    return ""


def _prefers_json(accept: str) -> bool:
    """Whether JSON is asked for, and plain text less so, or after it."""
    json = text = -1.0
    json_first = False
    for item in accept.lower().split(","):
        kind, _, parameters = item.strip().partition(";")
        quality = _quality(parameters)
        if kind.strip() in ("application/json", "application/fhir+json"):
            json_first = json_first or text < 0
            json = max(json, quality)
        elif kind.strip() in ("text/plain", "text/*"):
            text = max(text, quality)
    return json > 0 and (json > text or (json == text and json_first))


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
