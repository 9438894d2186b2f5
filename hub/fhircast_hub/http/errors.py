"""The one map from an error to its HTTP answer (FHIRcast 3.0.0, 2.4; RFC 6750 section 3).

ws/socket.py answers a refused handshake, with the same status and text.
"""

from __future__ import annotations

import msgspec

from fhircast_hub.core.errors import (
    HubError,
    InsufficientScope,
    MethodNotAllowed,
    Unauthenticated,
    Unavailable,
    UpgradeRequired,
)
from fhircast_hub.http.exchange import Exchange
from fhircast_hub.http.request import Headers, Response, media_type

#: Seconds in Retry-After of a hub that stops.
_RETRY_AFTER = 5


def refuse(error: HubError, exchange: Exchange, request: Headers) -> Response:
    """The answer to a request, whose log line and audit entry tell the same reason.

    Status, headers and one line of reason: `{"message": ...}` or text/plain, by the request's headers (SUB-24).
    """
    exchange.refuse(error)
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
    if _is_json(request):
        return Response(error.status, msgspec.json.encode({"message": message}), b"application/json", headers)
    return Response(error.status, message.encode() + b"\n", b"text/plain; charset=utf-8", headers)


def stopping() -> HubError:
    """The refusal of a request that is under way when the hub must end. Whether its event was accepted is unknown."""
    return Unavailable("the hub stops; repeat the request", retry_after=_RETRY_AFTER)


def _challenge(error: HubError) -> str:
    if isinstance(error, Unauthenticated):
        # "If the request lacks any authentication information […] the resource server SHOULD NOT include an error code" (6750, 3.1)
        return 'Bearer error="invalid_token"' if error.has_token else "Bearer"
    if isinstance(error, InsufficientScope):
        return f'Bearer error="insufficient_scope", scope="{error.scope}"'
    return ""


def _is_json(request: Headers) -> bool:
    """Whether the reason is sent as JSON. A client that sends JSON gets JSON, unless its Accept prefers text."""
    json, text, other, json_first = _accepted(request.get(b"accept"))
    if not media_type(request).endswith(("/json", "+json")):
        return json > 0 and (json > text or (json == text and json_first))
    if json < 0:
        json = other  # Accept does not name JSON, and */* covers JSON
    if json == 0 and text != 0:
        return False  # "a quality value of 0 means not acceptable" (RFC 9110, 12.4.2)
    return text <= max(json, 0)


def _accepted(accept: str) -> tuple[float, float, float, bool]:
    """The qualities of JSON, text and wildcards that cover JSON, and whether Accept names JSON before text. -1: not named."""
    json = text = other = -1.0
    json_first = False
    for item in accept.lower().split(","):
        kind, _, parameters = item.strip().partition(";")
        kind, quality = kind.strip(), _quality(parameters)
        if kind in ("application/json", "application/fhir+json"):
            json_first = json_first or text < 0
            json = max(json, quality)
        elif kind in ("text/plain", "text/*"):
            text = max(text, quality)
        elif kind in ("application/*", "*/*"):
            other = max(other, quality)
    return json, text, other, json_first


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
